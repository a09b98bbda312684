"""`model.json`: everything the service knows about a model, as typed data (DESIGN 4).

Each field says its type, its range and its default here and nowhere else: `tables` makes the checks of a manifest's
keys from these classes, `consistency` adds what must hold between keys. pydantic, which the API uses, is not used for
it: a manifest's author gets every fault in one report as "field: found, wanted", true is no integer and "1" no number,
and `core` and `kws_models` use these classes as plain frozen data. Its messages and coercions would all be overridden.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

MAX_WINDOW_SAMPLES = 16384
"""A window, at the front end's rate: 1 s at 16 kHz, and some; the models of the field use 20 to 128 ms."""


@dataclass(frozen=True, slots=True)
class Within:
    """The range of a number: finite, from `low` (above it, with `above`) to `high`."""

    low: float
    high: float
    above: bool = False


@dataclass(frozen=True, slots=True)
class Printable:
    """Printable text of 1 to `max_length` characters."""

    max_length: int


@dataclass(frozen=True, slots=True)
class Name:
    """A name as the API takes it."""


@dataclass(frozen=True, slots=True)
class Digest:
    """A SHA-256 in lower-case hexadecimal."""


Axes = Literal["NTF", "NTFC", "NCTF", "NCFT", "NCT"]
Output = Literal["softmax", "sigmoid", "logits"]


@dataclass(frozen=True, slots=True)
class MelSpec:
    """Mel filter bank."""

    n: Annotated[int, Within(1, 512)]
    f_min_hz: Annotated[float, Within(0, 8000)]
    f_max_hz: Annotated[float, Within(0, 8000, above=True)]
    formula: Literal["htk", "slaney"] = "htk"  # htk: 1127 ln(1 + f/700), also Kaldi's and TensorFlow's
    triangles: Literal["mel", "hz", "bin", "tf"] = "mel"  # weights linear in mel (Kaldi), in Hz (librosa), over
    # integer FFT bins (python_speech_features), or linear in mel with TensorFlow's start and end bin rounding
    norm: Literal["none", "slaney"] = "none"


@dataclass(frozen=True, slots=True)
class LogSpec:
    """log(max(x, floor) + offset)."""

    floor: Annotated[float, Within(0, 1e12)] = 1e-12
    offset: Annotated[float, Within(0, 1e12)] = 0.0


@dataclass(frozen=True, slots=True)
class DctSpec:
    """DCT-II over the log mel bands. norm tf: every row scaled by sqrt(2/n_mels); ortho: row 0 by sqrt(1/n_mels);
    none: not scaled. Lifter L: row k times 1 + L/2 sin(pi k / L); 0: none."""

    n: Annotated[int, Within(1, 512)]
    norm: Literal["tf", "ortho", "none"] = "tf"
    lifter: Annotated[int, Within(0, 1000)] = 0


@dataclass(frozen=True, slots=True)
class FrontEndSpec:
    """A feature front end, wholly described. `raw` uses kind, rate_hz, sample_scale and the per-patch operations."""

    kind: Literal["mfcc", "fbank", "raw"]
    rate_hz: Literal[8000, 16000]
    window_samples: Annotated[int, Within(2, MAX_WINDOW_SAMPLES)] = 1
    hop_samples: Annotated[int, Within(1, MAX_WINDOW_SAMPLES)] = 1
    window_function: Literal["hann", "hamming", "povey", "blackman", "rectangular"] = "hann"
    window_periodic: bool = True
    fft_size: Annotated[int, Within(2, 4 * MAX_WINDOW_SAMPLES)] = 0
    preemphasis: Annotated[float, Within(0, 1)] = 0.0
    preemphasis_scope: Literal["frame", "signal"] = "frame"  # the sample before a window's first: itself (Kaldi), or
    # the signal's (python_speech_features; zero before the stream began)
    remove_dc: bool = False
    spectrum: Literal["magnitude", "power"] = "magnitude"
    spectrum_scale: Annotated[float, Within(0, 1e9, above=True)] = 1.0
    mel: MelSpec | None = None
    log: LogSpec = field(default_factory=LogSpec)
    dct: DctSpec | None = None
    c0: Literal["dct", "energy", "raw_energy", "none"] = "dct"  # coefficient 0 of an MFCC: the DCT's; the log of the
    # spectrum's sum over all bins (python_speech_features); the log of the squared samples' sum after remove_dc and
    # before preemphasis (Kaldi); left out
    sample_scale: Annotated[float, Within(0, 1e9, above=True)] = (
        1.0  # samples in [-1, 1) are multiplied by it: 32768 for int16 scale
    )
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
    sha256: Annotated[str, Digest()]
    axes: Axes
    output: Output


@dataclass(frozen=True, slots=True)
class IsolationSpec:
    """A word counts only if nobody talked just before it and, with `after_ms`, just after it. Somebody talked where the
    mean power is less than `margin_db` below the word's loudest 60 ms and the model's own score of speech (1 minus that
    of its silence label; 1 without such a label) is at least `speech`. Both times 0: off.
    """

    before_ms: Annotated[float, Within(0, 2000)] = 500.0
    after_ms: Annotated[float, Within(0, 2000)] = 0.0  # it delays each detection by as much
    margin_db: Annotated[float, Within(0, 60)] = 9.0
    speech: Annotated[float, Within(0, 1)] = 0.9


@dataclass(frozen=True, slots=True)
class ArmingSpec:
    """A label counts only where another one was decided on the same stream at most `within_s` before its start."""

    model: Annotated[str, Name()] = ""
    label: Annotated[str, Printable(64)] = ""
    within_s: Annotated[float, Within(0, 60, above=True)] = 5.0


@dataclass(frozen=True, slots=True)
class DetectionSpec:
    """Detector settings of one label; times in audio time."""

    threshold: Annotated[float, Within(0, 1)] = 0.8
    off_threshold: Annotated[float, Within(0, 1)] = 0.5
    smoothing_ms: Annotated[float, Within(0, 10_000)] = 100.0
    k: Annotated[int, Within(1, 100)] = 2
    n: Annotated[int, Within(1, 100)] = 3
    refractory_s: Annotated[float, Within(0, 3600)] = 1.0
    onset_offset_ms: Annotated[float, Within(0, 60_000)] = 0.0
    isolation: IsolationSpec | None = None
    armed_by: ArmingSpec | None = None


@dataclass(frozen=True, slots=True)
class VerifySpec:
    """A second model looks at what this one proposes: a detection is told only if a patch of the second that ends at
    most `window_ms` before or after the deciding one's end gives the same label at least `threshold`.
    """

    model: Annotated[str, Name()]
    threshold: Annotated[float, Within(0, 1)] = 0.5
    window_ms: Annotated[float, Within(0, 2000)] = 300.0  # by so much at most a detection comes later


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """A model's manifest, checked."""

    name: str
    version: Annotated[str, Printable(64)]
    task: Literal["keyword", "event"]
    labels: tuple[str, ...]
    rest_labels: frozenset[str]
    front_end: FrontEndSpec
    n_frames: Annotated[int, Within(1, 1_000_000)]
    patch_hop_ms: Annotated[float, Within(0, 60_000, above=True)]  # a multiple of the frame hop
    files: dict[str, FileSpec]  # by kind; which file a backend reads: backends.BACKENDS
    detection: dict[str, DetectionSpec]  # one entry per label that can fire, "*" already merged in
    folder: Path
    verify: VerifySpec | None = None
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
