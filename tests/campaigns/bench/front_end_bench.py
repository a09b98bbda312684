"""CPU of the front ends per audio second, beside python_speech_features and kaldi-native-fbank in the same run.

    python tests/campaigns/bench/front_end_bench.py

Ours is fed as the engine feeds it: 100 ms of each stream from the ring, in one call for all streams. The others get
each stream's 10 s whole, which is their best case. One thread; the median of the rounds.
"""

from __future__ import annotations

import os
import statistics
import sys
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import kaldi_native_fbank as knf
import numpy as np
import python_speech_features as psf

sys.path.insert(0, str(Path(__file__).parents[3]))
from kws_serve.core.front_end import FrontEnd
from kws_serve.core.resampler import LAG, LEAD, StreamResampler, half_rate
from kws_serve.core.ring import SampleRing
from kws_serve.manifest.spec import FrontEndSpec
from tests.support.front_end_specs import GOLDEN

ROUNDS = 5
AUDIO_S = 2.0  # each round's audio per stream
NAMES = ("dscnn-s", "dscnn-l", "m1", "mlperf-tiny", "psf-defaults", "kaldi-mfcc", "resnetse")


def cost_ms(work: Callable[[], float]) -> float:
    """CPU ms per audio second; `work` returns the audio seconds it did."""
    costs = []
    for _ in range(ROUNDS):
        began = time.process_time()
        audio_s = work()
        costs.append(1000 * (time.process_time() - began) / audio_s)
    return statistics.median(costs)


def ours(spec: FrontEndSpec, n_streams: int) -> Callable[[], float]:
    front_end = FrontEnd(spec)
    ring = SampleRing(spec.rate_hz)
    ring.ensure(n_streams)
    rng = np.random.default_rng(0)
    for slot in range(n_streams):
        ring.write(slot, (1000 * rng.standard_normal(spec.rate_hz)).astype(np.int16))
    slots = np.arange(n_streams)
    m = round(0.1 * spec.rate_hz / spec.hop_samples)
    first = rng.integers(1, spec.rate_hz - spec.window_samples - m * spec.hop_samples, n_streams)

    def work() -> float:
        ticks = max(1, round(10 * AUDIO_S * min(1.0, 16 / n_streams)))
        for _ in range(ticks):
            windows = ring.windows(slots, first, m, spec.window_samples, spec.hop_samples, front_end.lead_samples)
            front_end.frames(windows.reshape(n_streams * m, -1))
        return ticks * m * n_streams * spec.hop_samples / spec.rate_hz

    return work


def theirs(compute: Callable[[np.ndarray], object], rate_hz: int) -> Callable[[], float]:
    samples = (1000 * np.random.default_rng(0).standard_normal(10 * rate_hz)).astype(np.int16)

    def work() -> float:
        compute(samples)
        return 10.0

    return work


def kaldi_mfcc(samples: np.ndarray) -> None:
    options = knf.MfccOptions()
    options.frame_opts.dither = 0.0
    options.use_energy = False
    computer = knf.OnlineMfcc(options)
    computer.accept_waveform(16000, samples.astype(np.float32))
    np.stack([computer.get_frame(i) for i in range(computer.num_frames_ready)])


def kaldi_resnetse(samples: np.ndarray) -> None:
    options = knf.FbankOptions()
    options.frame_opts.samp_freq = 8000
    options.frame_opts.dither = 0.0
    options.mel_opts.num_bins = 24
    computer = knf.OnlineFbank(options)
    computer.accept_waveform(8000, samples.astype(np.float32))
    np.stack([computer.get_frame(i) for i in range(computer.num_frames_ready)])


def resampling(rate_hz: int) -> Callable[[], float]:
    samples = (1000 * np.random.default_rng(0).standard_normal(rate_hz // 10)).astype(np.int16)

    def work() -> float:
        resampler = StreamResampler(rate_hz)
        for _ in range(100):
            resampler.push(samples)
        return 10.0

    return work


def halving(n_streams: int) -> Callable[[], float]:
    samples = (1000 * np.random.default_rng(0).standard_normal((n_streams, LEAD + 1600 + LAG))).astype(np.int16)

    def work() -> float:
        for _ in range(20):
            half_rate(samples)
        return 2.0 * n_streams

    return work


def main() -> None:
    packages = ("numpy", "soxr", "python_speech_features", "kaldi-native-fbank")
    print(", ".join(f"{name} {version(name)}" for name in packages))
    print("CPU ms per audio second, streams:        1       16      300")
    for name in NAMES:
        row = [cost_ms(ours(GOLDEN[name], n)) for n in (1, 16, 300)]
        print(f"ours, {name:28s}" + "".join(f"{cost:9.3f}" for cost in row))
    row = [cost_ms(halving(n)) for n in (1, 16, 300)]
    print(f"{'ours, 16 -> 8 kHz':34s}" + "".join(f"{cost:9.3f}" for cost in row))
    for rate_hz in (44100, 48000):
        print(f"ours, {f'{rate_hz} -> 16000 Hz (soxr)':28s}{cost_ms(resampling(rate_hz)):9.3f}")
    psf_mfcc = theirs(lambda x: psf.mfcc(x, winlen=0.04, winstep=0.02, nfilt=40, numcep=10, nfft=1024), 16000)
    print(f"{'python_speech_features, as dscnn-s':34s}{cost_ms(psf_mfcc):9.3f}")
    psf_defaults = theirs(psf.mfcc, 16000)
    print(f"{'python_speech_features, defaults':34s}{cost_ms(psf_defaults):9.3f}")
    print(f"{'kaldi-native-fbank, kaldi-mfcc':34s}{cost_ms(theirs(kaldi_mfcc, 16000)):9.3f}")
    print(f"{'kaldi-native-fbank, resnetse':34s}{cost_ms(theirs(kaldi_resnetse, 8000)):9.3f}")


if __name__ == "__main__":
    main()
