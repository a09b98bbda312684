"""Makes the golden front-end vectors beside this file: `golden.npz` (signals and features) and `golden.json` (digest).

Imports nothing of kws-serve, so that what it says is independent of it. Run in an environment of its own:

    pip install tensorflow-cpu==2.21.0 python_speech_features==0.6 kaldi-native-fbank==1.22.5 scipy
    apt-get install espeak-ng flite
    python generate.py

Signals are int16: speech by espeak-ng and by flite, noise and a chirp, all dithered; and the degenerate tone, dc and
silence, not dithered. Each features array (n_frames, n_coeffs) is float32, keyed `CONFIGURATION/SIGNAL`.
"""

from __future__ import annotations

import hashlib
import io
import json
import subprocess
import wave
from importlib.metadata import version
from math import gcd
from pathlib import Path

import kaldi_native_fbank as knf
import numpy as np
import python_speech_features as psf
import tensorflow as tf
from scipy.signal import chirp, resample_poly
from tensorflow.python.ops import gen_audio_ops

HERE = Path(__file__).parent
LIBRARIES = ("tensorflow-cpu", "python_speech_features", "kaldi-native-fbank", "numpy", "scipy")
SPEECH_S = 0.9


def synthesised(command: list[str], rate_hz: int) -> np.ndarray:
    """What `command` says on stdout as a wav, resampled, float in int16 scale."""
    with wave.open(io.BytesIO(subprocess.run(command, check=True, capture_output=True).stdout)) as wav:
        rate = wav.getframerate()
        samples = np.frombuffer(wav.readframes(wav.getnframes()), np.int16).astype(np.float64)
    # a streamed wav's header may claim more samples than there are: only what came is read
    common = gcd(rate, rate_hz)
    return resample_poly(samples, rate_hz // common, rate // common)


def signals(rate_hz: int) -> dict[str, np.ndarray]:
    """The test signals at `rate_hz`, int16."""
    rng = np.random.default_rng(20_240_501)
    n = int(0.45 * rate_hz)
    time_s = np.arange(n) / rate_hz
    espeak = synthesised(["espeak-ng", "--stdout", "-v", "en-us", "-s", "260", "yes, stop"], rate_hz)
    flite = synthesised(["flite", "-voice", "slt", "-t", "left, go on", "-o", "/dev/stdout"], rate_hz)
    dithered = {
        "espeak": 0.8 * espeak[: int(SPEECH_S * rate_hz)],
        "flite": 0.8 * flite[: int(SPEECH_S * rate_hz)],
        "noise": 2000.0 * rng.standard_normal(n),
        # 52 dB above its dither: farther above, the float32 FFTs of Kaldi and tf.signal err in the empty bands
        "chirp": 6000.0 * chirp(time_s, 60.0, time_s[-1], 0.47 * rate_hz, method="logarithmic")
        + 15.0 * rng.standard_normal(n),
    }
    out = {name: x + rng.uniform(-1, 1, len(x)) for name, x in dithered.items()}
    out["tone"] = 16_000.0 * np.sin(2 * np.pi * 1000.0 * time_s)
    out["dc"] = np.full(n, 5000.0)
    out["silence"] = np.zeros(n)
    return {name: np.clip(np.rint(x), -32768, 32767).astype(np.int16) for name, x in out.items()}


def tensorflow_mfcc(x: np.ndarray, window: int, stride: int, n: int) -> np.ndarray:
    """AudioSpectrogram(magnitude_squared) and Mfcc, as the speech_commands example of TensorFlow 1 calls them."""
    spectrogram = gen_audio_ops.audio_spectrogram(
        (x / 32768).astype(np.float32)[:, None], window_size=window, stride=stride, magnitude_squared=True
    )
    mfcc = gen_audio_ops.mfcc(
        spectrogram,
        16_000,
        upper_frequency_limit=4000.0,
        lower_frequency_limit=20.0,
        filterbank_channel_count=40,
        dct_coefficient_count=n,
    )
    return mfcc.numpy()[0]


def mlperf_tiny(x: np.ndarray) -> np.ndarray:
    """The keyword front end of MLPerf Tiny (its tf.signal calls), the peak taken of the absolute samples."""
    samples = x.astype(np.float32) / max(1.0, np.abs(x.astype(np.float32)).max())
    spectrum = tf.abs(tf.signal.stft(samples, 480, 320, fft_length=512))
    mel = tf.matmul(spectrum, tf.signal.linear_to_mel_weight_matrix(40, 257, 16_000, 20.0, 4000.0))
    return tf.signal.mfccs_from_log_mel_spectrograms(tf.math.log(mel + 1e-6)).numpy()[:, :10]


def kaldi(x: np.ndarray, kind: str, rate_hz: int, frame: dict, mel: dict, **options: object) -> np.ndarray:
    """kaldi-native-fbank over the whole signal in int16 scale, without dither."""
    opts = knf.MfccOptions() if kind == "mfcc" else knf.FbankOptions()
    opts.frame_opts.samp_freq = rate_hz
    opts.frame_opts.dither = 0.0
    for group, values in ((opts.frame_opts, frame), (opts.mel_opts, mel), (opts, options)):
        for name, value in values.items():
            setattr(group, name, value)
    computer = knf.OnlineMfcc(opts) if kind == "mfcc" else knf.OnlineFbank(opts)
    computer.accept_waveform(rate_hz, x.astype(np.float32).tolist())
    computer.input_finished()
    return np.stack([computer.get_frame(i) for i in range(computer.num_frames_ready)])


def resnetse(x: np.ndarray) -> np.ndarray:
    """Kaldi FBANK of the sound-event model, each band's mean over time subtracted."""
    bands = {"num_bins": 24, "low_freq": 20.0, "high_freq": 4000.0}
    features = kaldi(x, "fbank", 8000, {}, bands).astype(np.float64)
    return features - features.mean(axis=0)


def psf_frames(x: np.ndarray, window: int, hop: int, features: np.ndarray) -> np.ndarray:
    """Without the frames that python_speech_features completes with zeros."""
    return features[: 1 + (len(x) - window) // hop]


def psf_mfcc(x: np.ndarray, winfunc: object, **options: object) -> np.ndarray:
    """mfcc() with its defaults, but for the options given."""
    return psf_frames(x, 400, 160, psf.mfcc(x, winfunc=winfunc, **options))


WINDOWS = {
    "kaldi-hann": "hanning",
    "kaldi-hamming": "hamming",
    "kaldi-blackman": "blackman",
    "kaldi-rect": "rectangular",
}
CONFIGURATIONS_16K = {
    "dscnn-s": lambda x: tensorflow_mfcc(x, 640, 320, 10),
    "dscnn-l": lambda x: tensorflow_mfcc(x, 480, 160, 40),
    "m1": lambda x: tensorflow_mfcc(x, 480, 240, 40),
    "mlperf-tiny": mlperf_tiny,
    "psf-defaults": lambda x: psf_mfcc(x, lambda n: np.ones((n,))),
    "psf-hamming": lambda x: psf_mfcc(x, np.hamming, appendEnergy=False, ceplifter=0, lowfreq=100, highfreq=6000),
    "psf-logfbank": lambda x: psf_frames(x, 640, 320, psf.logfbank(x, winlen=0.04, winstep=0.02, nfft=1024)),
    "kaldi-mfcc": lambda x: kaldi(x, "mfcc", 16_000, {}, {}, use_energy=False),
    "kaldi-mfcc-energy": lambda x: kaldi(x, "mfcc", 16_000, {}, {"num_bins": 40}, use_energy=True, num_ceps=20),
    "kaldi-magnitude": lambda x: kaldi(
        x, "fbank", 16_000, {"preemph_coeff": 0.0, "remove_dc_offset": False}, {"num_bins": 40}, use_power=False
    ),
    "kaldi-librosa": lambda x: kaldi(  # librosa's mel filters: Slaney's formula and norm, triangles in Hz
        x / 32768,
        "fbank",
        16_000,
        {"preemph_coeff": 0.0, "remove_dc_offset": False, "window_type": "hann"},
        {"num_bins": 40, "is_librosa": True, "low_freq": 0.0},
    ),
    **{
        name: lambda x, window=window: kaldi(x, "fbank", 16_000, {"window_type": window}, {"num_bins": 40})
        for name, window in WINDOWS.items()
    },
}
CONFIGURATIONS_8K = {"resnetse": resnetse}
TWO_SIGNALS = ("kaldi-", "psf-hamming", "psf-logfbank")  # flite and noise are enough for these


def main() -> None:
    arrays: dict[str, np.ndarray] = {}
    for rate_hz, configurations in ((16_000, CONFIGURATIONS_16K), (8000, CONFIGURATIONS_8K)):
        for signal, x in signals(rate_hz).items():
            arrays[f"signal/{rate_hz}/{signal}"] = x
            for name, compute in configurations.items():
                if signal in ("flite", "noise") or not name.startswith(TWO_SIGNALS) or name == "kaldi-mfcc-energy":
                    arrays[f"{name}/{signal}"] = np.asarray(compute(x), np.float32)
    np.savez_compressed(HERE / "golden.npz", **arrays)
    data = (HERE / "golden.npz").read_bytes()
    described = {
        "generator": Path(__file__).name,
        "libraries": {name: version(name) for name in LIBRARIES},
        "sha256": hashlib.sha256(data).hexdigest(),
    }
    (HERE / "golden.json").write_text(json.dumps(described, indent=1) + "\n")
    print(len(data), "bytes", len(arrays), "arrays")


if __name__ == "__main__":
    main()
