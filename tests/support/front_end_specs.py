"""The front ends of the golden vectors, as the manifests of models would state them."""

from __future__ import annotations

from dataclasses import replace

from kws_serve.manifest.spec import DctSpec, FrontEndSpec, LogSpec, MelSpec

_FLOAT32_EPSILON = 1.1920929e-07  # Kaldi's floor
_FLOAT64_EPSILON = 2.220446e-16  # python_speech_features' in place of zero

DSCNN_S = FrontEndSpec(
    "mfcc", 16000, 640, 320, fft_size=1024, mel=MelSpec(40, 20, 4000, triangles="mel"), dct=DctSpec(10)
)
DSCNN_L = FrontEndSpec(
    "mfcc", 16000, 480, 160, fft_size=512, mel=MelSpec(40, 20, 4000, triangles="tf"), dct=DctSpec(40)
)
KALDI = FrontEndSpec(
    "fbank",
    16000,
    400,
    160,
    window_function="povey",
    window_periodic=False,
    fft_size=512,
    preemphasis=0.97,
    remove_dc=True,
    spectrum="power",
    mel=MelSpec(40, 20, 8000),
    log=LogSpec(_FLOAT32_EPSILON),
    sample_scale=32768.0,
)
RESNETSE = replace(
    KALDI,
    rate_hz=8000,
    window_samples=200,
    hop_samples=80,
    fft_size=256,
    mel=MelSpec(24, 20, 4000),
    mean_subtract=True,
)
PSF = FrontEndSpec(
    "mfcc",
    16000,
    400,
    160,
    window_function="rectangular",
    fft_size=512,
    preemphasis=0.97,
    preemphasis_scope="signal",
    spectrum="power",
    spectrum_scale=1 / 512,
    mel=MelSpec(26, 0, 8000, triangles="bin"),
    log=LogSpec(_FLOAT64_EPSILON),
    dct=DctSpec(13, "ortho", 22),
    c0="energy",
    sample_scale=32768.0,
)

GOLDEN = {
    "dscnn-s": DSCNN_S,
    "dscnn-l": DSCNN_L,
    "m1": replace(DSCNN_L, hop_samples=240),
    "mlperf-tiny": FrontEndSpec(
        "mfcc",
        16000,
        480,
        320,
        fft_size=512,
        mel=MelSpec(40, 20, 4000),
        log=LogSpec(0.0, 1e-6),
        dct=DctSpec(10),
        peak_normalise=True,
    ),
    "psf-defaults": PSF,
    "psf-hamming": replace(
        PSF,
        window_function="hamming",
        window_periodic=False,
        mel=MelSpec(26, 100, 6000, triangles="bin"),
        dct=DctSpec(13, "ortho"),
        c0="dct",
    ),
    "psf-logfbank": replace(
        PSF,
        kind="fbank",
        window_samples=640,
        hop_samples=320,
        fft_size=1024,
        spectrum_scale=1 / 1024,
        dct=None,
        c0="dct",
    ),
    "kaldi-mfcc": replace(KALDI, kind="mfcc", mel=MelSpec(23, 20, 8000), dct=DctSpec(13, "ortho", 22)),
    "kaldi-mfcc-energy": replace(KALDI, kind="mfcc", dct=DctSpec(20, "ortho", 22), c0="raw_energy"),
    "kaldi-magnitude": replace(KALDI, preemphasis=0.0, remove_dc=False, spectrum="magnitude"),
    "kaldi-librosa": replace(
        KALDI,
        window_function="hann",
        window_periodic=True,
        preemphasis=0.0,
        remove_dc=False,
        mel=MelSpec(40, 0, 8000, "slaney", "hz", "slaney"),
        sample_scale=1.0,
    ),
    "kaldi-hann": replace(KALDI, window_function="hann"),
    "kaldi-hamming": replace(KALDI, window_function="hamming"),
    "kaldi-blackman": replace(KALDI, window_function="blackman"),
    "kaldi-rect": replace(KALDI, window_function="rectangular"),
    "resnetse": RESNETSE,
}
