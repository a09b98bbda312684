"""A model that is loaded into a running service is tried before by a process of its own, with limits: one that never
returns, takes all memory or crashes its runtime costs that process and an answer.

The child starts Python and the runtime anew, which takes 1 to 2 s and 80 MiB; the service itself loads its models at
start without it, where whoever starts it sees what happens.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import resource
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

from kws_serve.backends import BACKENDS, open_backend
from kws_serve.config import Settings
from kws_serve.host.secrecy import forbid_dumps
from kws_serve.manifest.folder import find_model, shipped_models_dir
from kws_serve.messages import KwsError

TRIAL_S = 30.0
"""How long a trial may take in all, and of CPU time: Python and a runtime start in 5 s on a Raspberry Pi."""

TRIAL_BYTES = 2 << 30
"""Of address space: resnetse and ONNX Runtime take 232 MB, and a model has 64 MiB at most."""

THREAD_BYTES = 136 << 20
"""The same of each thread: its stack of 8 MiB and the C library's arena."""

_PR_SET_PDEATHSIG = 1  # linux/prctl.h


def model_folders(settings: Settings) -> list[Path]:
    """Where models are looked for, in order."""
    return [*([settings.model_dir] if settings.model_dir else []), shipped_models_dir()]


def tried(name: str, settings: Settings) -> dict[str, str]:
    """Kind -> SHA-256 of the files of a model that a child has loaded and self-tested on every backend but a device.
    Raises KwsError.
    """
    asked = {
        "name": name,
        "folders": [str(folder) for folder in model_folders(settings)],
        "backends": [kind for kind in settings.backend if not BACKENDS[kind].device],
        "threads": settings.threads,
        "trial_s": TRIAL_S,
    }
    command = [sys.executable, "-P", "-c", "from kws_serve.commands.trial import main; main()"]
    try:
        done = subprocess.run(
            command,
            input=json.dumps(asked).encode(),
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=TRIAL_S,
        )
    except subprocess.TimeoutExpired:
        raise KwsError(f"model {name}: found it not loaded within {TRIAL_S:.0f} s, wanted one that is") from None
    except OSError as e:
        raise KwsError(f"model {name}: cannot start a process to try it ({e.strerror})") from None
    try:
        answer: dict[str, Any] = json.loads(done.stdout)
    except ValueError:
        how = signal.Signals(-done.returncode).name if done.returncode < 0 else f"exit status {done.returncode}"
        raise KwsError(f"model {name}: found that loading it ends its process ({how}), wanted one that loads") from None
    if "error" in answer:
        raise KwsError(str(answer["error"]))
    files: dict[str, str] = answer["files"]
    return files


def main() -> None:
    """The child: what is asked on stdin, the answer on stdout."""
    asked = json.load(sys.stdin)
    most = TRIAL_BYTES + asked["threads"] * THREAD_BYTES
    _limit(asked["trial_s"], most)
    try:
        spec = find_model(asked["name"], [Path(folder) for folder in asked["folders"]])
        for kind in asked["backends"]:
            open_backend(kind, spec, threads=asked["threads"]).close()
        answer: dict[str, Any] = {"files": {kind: file.sha256 for kind, file in spec.files.items()}}
    except KwsError as e:
        answer = {"error": str(e)}
    except MemoryError:
        answer = {"error": f"model {asked['name']}: found it to take more than {most >> 20} MiB to load"}
    print(json.dumps(answer))


def _limit(trial_s: float, most_bytes: int) -> None:
    """Time, memory and files, and an end with the parent's; the first to go where memory runs out."""
    forbid_dumps()
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")
    for what, most in ((resource.RLIMIT_CPU, int(trial_s)), (resource.RLIMIT_AS, most_bytes)):
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(what, (most, most))
