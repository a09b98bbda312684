"""What other libraries need for the same audio: run by the Python that has them, one at a time.

    PYTHON tests/campaigns/bench/peers.py NAME AUDIO.npy

AUDIO.npy: int16 (n_streams, n_samples) at 16 kHz, which each gets in chunks of 100 ms as it comes. Prints one line of
JSON: version, CPU ms per audio second, memory; or why it did not run. Nothing of ours is imported.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import resource
import sys
import time
from collections.abc import Callable

os.environ |= {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}

import numpy as np

RATE_HZ, CHUNK = 16_000, 1_600

Feed = Callable[[np.ndarray], None]  # one chunk (CHUNK,) int16 of one stream


def pymicro_wakeword() -> Callable[[], Feed]:
    """One of its own wake words, features included."""
    import pymicro_wakeword as peer

    def stream() -> Feed:
        features, model = peer.MicroWakeWordFeatures(), peer.MicroWakeWord.from_builtin(peer.Model.OKAY_NABU)

        def feed(chunk: np.ndarray) -> None:
            for row in features.process_streaming(chunk.tobytes()):
                model.process_streaming(row)

        return feed

    return stream


def openwakeword() -> Callable[[], Feed]:
    """One of its own wake words."""
    from openwakeword.model import Model

    def stream() -> Feed:
        model = Model(wakeword_models=["alexa"], inference_framework="onnx")
        return lambda chunk: model.predict(chunk)

    return stream


def python_speech_features() -> Callable[[], Feed]:
    """The MFCC of the last second again at each patch hop of 20 ms: it knows no streams. No model."""
    import python_speech_features as peer

    def stream() -> Feed:
        past = np.zeros(RATE_HZ + CHUNK, np.int16)

        def feed(chunk: np.ndarray) -> None:
            past[:-CHUNK] = past[CHUNK:]
            past[-CHUNK:] = chunk
            for end in range(RATE_HZ + 320, RATE_HZ + CHUNK + 1, 320):
                peer.mfcc(past[end - RATE_HZ : end], RATE_HZ, 0.04, 0.02, 10, 40, 1024, 20, 4000)

        return feed

    return stream


PEERS: dict[str, tuple[str, Callable[[], Callable[[], Feed]], float]] = {  # distribution, maker, seconds of audio
    "pymicro-wakeword": ("pymicro-wakeword", pymicro_wakeword, 10.0),
    "openwakeword": ("openwakeword", openwakeword, 10.0),
    "python_speech_features": ("python_speech_features", python_speech_features, 2.0),
}


def main() -> None:
    """See the module."""
    name, path = sys.argv[1:3]
    distribution, make, seconds = PEERS[name]
    audio = np.load(path)[:4]
    result: dict[str, object] = {"name": name}
    try:
        result["version"] = importlib.metadata.version(distribution)
        stream = make()
        feeds = [stream() for _ in audio]
        chunks = range(0, min(audio.shape[1], round(seconds * RATE_HZ)) - CHUNK + 1, CHUNK)
        for feed, samples in zip(feeds, audio, strict=True):
            feed(samples[:CHUNK])
        began_s = time.process_time()
        for at in chunks:
            for feed, samples in zip(feeds, audio, strict=True):
                feed(samples[at : at + CHUNK])
        used_s = time.process_time() - began_s
        result["cpu_ms_per_audio_s"] = 1000 * used_s / (len(audio) * len(chunks) * CHUNK / RATE_HZ)
        result["rss_mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000
    except Exception as e:  # whatever a library says
        result["not_run"] = f"{type(e).__name__}: {e}".splitlines()[0][:100]
    print(json.dumps(result))


if __name__ == "__main__":
    main()
