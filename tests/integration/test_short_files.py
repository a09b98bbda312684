"""Sounds at a stream's very beginning are found, and a stream that begins in the midst of a sound fires nothing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from kws_models.data.audio_cache import decode
from kws_serve.engine.engine import Engine
from kws_serve.manifest.folder import shipped_models_dir
from kws_serve.messages import Detection, Int16Array
from tests.engine.test_engine import feed, loaded

pytestmark = pytest.mark.recordings
RATE_HZ = 16_000
WORDS = ("yes", "no", "up", "down", "left", "right", "on", "off", "stop", "go")


def labels(engine: Engine, samples: Int16Array) -> set[str]:
    """What fires on a stream of these samples (n,), fed in tenths of a second."""
    stream = engine.open_stream("s", RATE_HZ, live=False)
    events = feed(engine, stream, samples, [RATE_HZ // 10] * (len(samples) * 10 // RATE_HZ))
    return {e.label for e in events if isinstance(e, Detection) and e.phase != "end"}


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
    engine = Engine([loaded(shipped_models_dir() / model)])
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
    """Backgrounds, louder sounds and tones, cut in their midst: nothing fires that does not in the running stream."""
    rng = np.random.default_rng(1)
    beds = [decode(p, RATE_HZ) for p in some(recordings / "events" / "backgroundnoise", 60)]
    sounds = [bed[len(bed) // 3 :].astype(np.float64) for bed in beds if len(bed) > 3 * RATE_HZ]
    t = np.arange(4 * RATE_HZ) / RATE_HZ
    sounds += [sum(np.sin(2 * np.pi * hz * k * t) / k for k in range(1, 6)) for hz in (82.4, 110.0, 261.6, 440.0)]
    sounds += [rng.normal(0, 1, 4 * RATE_HZ), np.cumsum(rng.normal(0, 1, 4 * RATE_HZ)) % 40 - 20]
    engine = Engine([loaded(shipped_models_dir() / name) for name in ("dscnn-s", "dscnn-s-stream", "resnetse")])
    fired = []
    for sound in sounds:
        loud = (sound[: 3 * RATE_HZ] * (0.9 * 32767 / np.abs(sound[: 3 * RATE_HZ]).max())).astype(np.int16)
        running = np.concatenate([loud, loud])  # the step again, in the midst of itself
        fired += sorted(labels(engine, loud) - labels(engine, running))
    assert fired == []
