"""`model.json`: everything the service knows about a model, as typed data (DESIGN 4)."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

Axes = Literal["NTF", "NTFC", "NCTF", "NCFT", "NCT"]
Output = Literal["softmax", "sigmoid", "logits"]


@dataclass(frozen=True, slots=True)
class MelSpec:
    """Mel filter bank."""

    n: int
    f_min_hz: float
    f_max_hz: float
    formula: Literal["htk", "slaney"] = "htk"  # htk: 1127 ln(1 + f/700), also Kaldi's and TensorFlow's
    triangles: Literal["mel", "hz", "bin", "tf"] = "mel"  # weights linear in mel (Kaldi), in Hz (librosa), over
    # integer FFT bins (python_speech_features), or linear in mel with TensorFlow's start and end bin rounding
    norm: Literal["none", "slaney"] = "none"


@dataclass(frozen=True, slots=True)
class LogSpec:
    """log(max(x, floor) + offset)."""

    floor: float = 1e-12
    offset: float = 0.0


@dataclass(frozen=True, slots=True)
class DctSpec:
    """DCT-II over the log mel bands. norm tf: every row scaled by sqrt(2/n_mels); ortho: row 0 by sqrt(1/n_mels);
    none: not scaled. Lifter L: row k times 1 + L/2 sin(pi k / L); 0: none."""

    n: int
    norm: Literal["tf", "ortho", "none"] = "tf"
    lifter: int = 0


@dataclass(frozen=True, slots=True)
class FrontEndSpec:
    """A feature front end, wholly described. `raw` uses kind, rate_hz, sample_scale and the per-patch operations."""

    kind: Literal["mfcc", "fbank", "raw"]
    rate_hz: Literal[8000, 16000]
    window_samples: int = 1
    hop_samples: int = 1
    window_function: Literal["hann", "hamming", "povey", "blackman", "rectangular"] = "hann"
    window_periodic: bool = True
    fft_size: int = 0
    preemphasis: float = 0.0
    preemphasis_scope: Literal["frame", "signal"] = "frame"  # the sample before a window's first: itself (Kaldi), or
    # the signal's (python_speech_features; zero before the stream began)
    remove_dc: bool = False
    spectrum: Literal["magnitude", "power"] = "magnitude"
    spectrum_scale: float = 1.0
    mel: MelSpec | None = None
    log: LogSpec = field(default_factory=LogSpec)
    dct: DctSpec | None = None
    c0: Literal["dct", "energy", "raw_energy", "none"] = "dct"  # coefficient 0 of an MFCC: the DCT's; the log of the
    # spectrum's sum over all bins (python_speech_features); the log of the squared samples' sum after remove_dc and
    # before preemphasis (Kaldi); left out
    sample_scale: float = 1.0  # samples in [-1, 1) are multiplied by it: 32768 for int16 scale
    peak_normalise: bool = False  # per patch: samples divided by the patch's peak
    mean_subtract: bool = False  # per patch: each coefficient's mean over time is subtracted
    pad: Literal["none", "centre"] = "none"  # centre: window t is centred on sample t * hop (zeros before the start)

    @property
    def n_coeffs(self) -> int:
        """Length of a frame."""
        if self.kind == "raw":
            return 1
        if self.kind == "fbank" or self.dct is None:
            return self.mel.n if self.mel else 0
        return self.dct.n - (self.c0 == "none")


@dataclass(frozen=True, slots=True)
class FileSpec:
    """One exported file of the model."""

    path: Path  # absolute, inside the model's folder
    sha256: str
    axes: Axes
    output: Output


@dataclass(frozen=True, slots=True)
class DetectionSpec:
    """Detector settings of one label; times in audio time."""

    threshold: float = 0.8
    off_threshold: float = 0.5
    smoothing_ms: float = 100.0
    k: int = 2
    n: int = 3
    refractory_s: float = 1.0
    onset_offset_ms: float = 0.0


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """A model's manifest, checked."""

    name: str
    version: str
    task: Literal["keyword", "event"]
    labels: tuple[str, ...]
    rest_labels: frozenset[str]
    front_end: FrontEndSpec
    n_frames: int
    patch_hop_ms: float  # a multiple of the frame hop
    files: dict[str, FileSpec]  # by kind; which file a backend reads: backends.BACKENDS
    detection: dict[str, DetectionSpec]  # one entry per label that can fire, "*" already merged in
    folder: Path
    provenance: dict[str, Any] = field(default_factory=dict)
    accuracy: dict[str, Any] = field(default_factory=dict)

    @property
    def n_coeffs(self) -> int:
        """Coefficients of a frame."""
        return self.front_end.n_coeffs

    @property
    def frames_per_patch_hop(self) -> int:
        """New frames from one patch to the next."""
        return round(self.patch_hop_ms * self.front_end.rate_hz / 1000 / self.front_end.hop_samples)

    @property
    def patch_samples(self) -> int:
        """Samples at the front end's rate that one patch covers."""
        return self.front_end.window_samples + (self.n_frames - 1) * self.front_end.hop_samples
