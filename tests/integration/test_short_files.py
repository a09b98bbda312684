"""Sounds at a stream's very beginning are found, and a stream that begins in the midst of a sound fires nothing."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from kws_models.data.audio_cache import decode
from kws_serve.backends.contract import LoadedModel
from kws_serve.engine.engine import Engine
from kws_serve.manifest.folder import shipped_models_dir
from kws_serve.messages import Detection, Int16Array
from tests.campaigns.proof import FULL
from tests.engine.test_engine import feed, loaded

pytestmark = pytest.mark.recordings
RATE_HZ = 16_000
PATCH_S = 2.2  # the longest patch and a hop of it: what is decided later rests on no zeros
WORDS = ("yes", "no", "up", "down", "left", "right", "on", "off", "stop", "go")


def alone(name: str) -> LoadedModel:
    """A shipped model, without the one that looks again."""
    model = loaded(shipped_models_dir() / name)
    return replace(model, spec=replace(model.spec, verify=None))


def labels(engine: Engine, samples: Int16Array, after_s: float = 0.0, before_s: float = 1e9) -> set[str]:
    """What fires between these times on a stream of these samples (n,), fed in tenths of a second."""
    stream = engine.open_stream("s", RATE_HZ, live=False)
    events = feed(engine, stream, samples, [RATE_HZ // 10] * (len(samples) * 10 // RATE_HZ))
    found = [e for e in events if isinstance(e, Detection) and e.phase != "end"]
    return {d.label for d in found if after_s <= d.decided_s < before_s}


def some(folder: Path, n: int) -> list[Path]:
    """`n` files, evenly out of all."""
    files = sorted(p for p in folder.iterdir() if p.suffix in (".flac", ".opus"))
    return files[:: max(1, len(files) // n)][:n]


@pytest.mark.parametrize(
    ("model", "folder", "classes", "n"),
    [
        ("resnetse", "events", ("gunshot", "glassbreak", "babycry"), 10),
        ("dscnn-s", "speech_commands", WORDS, 4),
        ("dscnn-s-stream", "speech_commands", WORDS, 4),
    ],
)
def test_a_short_file_is_found_as_it_is_after_silence(recordings, model, folder, classes, n):
    engine = Engine([alone(model)])
    as_it_is, after_silence, files = 0, 0, 0
    for label in classes:
        for path in some(recordings / folder / label, n):
            samples = decode(path, RATE_HZ)
            files += 1
            as_it_is += label in labels(engine, samples)
            after_silence += label in labels(engine, np.concatenate([np.zeros(2 * RATE_HZ, np.int16), samples]))
    assert after_silence >= 0.8 * files
    assert as_it_is >= after_silence - 0.05 * files


def test_a_stream_that_begins_at_full_level_fires_nothing_for_it(recordings):
    """Backgrounds and tones, cut in their midst: what fires at the start fires in the running stream, too.

    One in a hundred is let through: a noise that resembles a word does so in one cut and not in the next.
    """
    rng = np.random.default_rng(1)
    beds = [decode(p, RATE_HZ) for p in some(recordings / "events" / "backgroundnoise", 400 if FULL else 100)]
    sounds = [bed[len(bed) // 3 :].astype(np.float64) for bed in beds if len(bed) > 3 * RATE_HZ]
    sounds = [sound for sound in sounds if np.abs(sound[: 3 * RATE_HZ]).max() > 100]  # of 32768
    t = np.arange(4 * RATE_HZ) / RATE_HZ
    sounds += [sum(np.sin(2 * np.pi * hz * k * t) / k for k in range(1, 6)) for hz in (82.4, 110.0, 261.6, 440.0)]
    sounds += [rng.normal(0, 1, 4 * RATE_HZ), np.cumsum(rng.normal(0, 1, 4 * RATE_HZ)) % 40 - 20]
    engine = Engine([alone(name) for name in ("dscnn-s", "dscnn-s-stream", "resnetse")])
    fired = []
    for sound in sounds:
        loud = (sound[: 3 * RATE_HZ] * (0.9 * 32767 / np.abs(sound[: 3 * RATE_HZ]).max())).astype(np.int16)
        found = labels(engine, loud, before_s=PATCH_S)
        if found:  # is it the sound itself? The same twice more, in its own midst
            fired += sorted(found - labels(engine, np.concatenate([loud] * 3), after_s=3.0))
    assert len(fired) <= max(1, 0.01 * len(sounds)), fired
