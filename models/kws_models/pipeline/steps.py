"""Steps of a build that are skipped where nothing has changed that they depend on."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import kws_models
import kws_serve
from kws_models.whole_file import replace_file

RECORD = "build.json"
_READ_BYTES = 1 << 20  # at once, of a file


class Steps:
    """What was done in a folder: for each step the digest of what went in, and of the files that came out."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / RECORD
        folder.mkdir(parents=True, exist_ok=True)
        self._done: dict[str, dict[str, dict[str, str]]] = (
            json.loads(self._path.read_text(encoding="utf-8")) if self._path.is_file() else {}
        )

    def run(self, name: str, inputs: Mapping[str, str], outputs: Sequence[Path], do: Callable[[], None]) -> None:
        """Do it, or say that nothing has changed; a step that fails is done again next time."""
        known = self._done.get(name, {"inputs": {}, "outputs": {}})
        changed = [key for key, value in inputs.items() if known["inputs"].get(key) != value]
        changed += [path.name for path in outputs if known["outputs"].get(path.name) != digest(path)]
        if not changed:
            print(f"{name}: nothing has changed")
            return
        why = f"changed: {', '.join(changed)}" if name in self._done else "new"
        print(f"{name}: {why}", flush=True)
        do()
        self._done[name] = {"inputs": dict(inputs), "outputs": {path.name: digest(path) for path in outputs}}
        replace_file(self._path, json.dumps(self._done, indent=1).encode())


def digest(path: Path) -> str:
    """SHA-256 of a file; of a folder of what is in it, names included; empty where there is nothing."""
    if path.is_file():
        found = hashlib.sha256()
        with path.open("rb") as content:
            while part := content.read(_READ_BYTES):
                found.update(part)
        return found.hexdigest()
    if not path.is_dir():
        return ""
    files = (
        p for p in path.rglob("*") if p.is_file() and not any(x.startswith(".") for x in p.relative_to(path).parts)
    )
    return of_texts(f"{p.relative_to(path).as_posix()} {digest(p)}" for p in sorted(files))


def of_texts(texts: Iterable[str]) -> str:
    """SHA-256 of lines."""
    return hashlib.sha256("\n".join(texts).encode()).hexdigest()


def code(*packages: str) -> str:
    """Digest of the sources of these packages, `kws_models.data` for example."""
    roots = {module.__name__: Path(str(module.__file__)).parent for module in (kws_models, kws_serve)}
    lines = []
    for package in packages:
        top, _, below = package.partition(".")
        folder = roots[top] / below.replace(".", "/")
        lines += [f"{p.relative_to(roots[top])} {digest(p)}" for p in sorted(folder.rglob("*.py"))]
    return of_texts(lines)
