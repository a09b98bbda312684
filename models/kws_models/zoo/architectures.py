"""Every architecture by name: its graph, front end, labels and what the service needs to run it."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from kws_models.zoo import cnn1d, dscnn, mnets, resnetse, tcs
from kws_models.zoo.graph import Graph
from kws_models.zoo.labels import BACKGROUND, SILENCE, UNKNOWN


@dataclass(frozen=True)
class Architecture:
    """A model before training: what `model.json` says of it, and its graph."""

    name: str
    task: Literal["keyword", "event"]
    labels: tuple[str, ...]
    rest_labels: tuple[str, ...]
    front_end: dict[str, Any]  # `front_end` of model.json
    n_frames: int
    patch_hop_ms: int
    build: Callable[[int], Graph]  # number of labels -> graph
    params_absorbed: bool = False  # whether `params` is counted without batch normalisation, as the reference does

    @property
    def raw(self) -> bool:
        """Whether it takes samples as they are."""
        return bool(self.front_end["kind"] == "raw")

    @property
    def graph(self) -> Graph:
        """The graph for the architecture's own labels."""
        return self.build(len(self.labels))


def _mfcc(window_samples: int, hop_samples: int, fft_size: int, n_coeffs: int) -> dict[str, Any]:
    """The reference's MFCC = TensorFlow's op: mel over magnitude, DCT-II scaled sqrt(2/40), c0 included."""
    # at FFT 512 TensorFlow's rounding of the first band's edge drops bin 1; at 1024 both are the same
    triangles = "mel" if fft_size > 512 else "tf"
    mel = {"n": 40, "f_min_hz": 20, "f_max_hz": 4000, "formula": "htk", "triangles": triangles, "norm": "none"}
    return {
        "kind": "mfcc",
        "rate_hz": 16000,
        "window_samples": window_samples,
        "hop_samples": hop_samples,
        "window_function": "hann",
        "window_periodic": True,
        "fft_size": fft_size,
        "preemphasis": 0.0,
        "preemphasis_scope": "frame",
        "remove_dc": False,
        "spectrum": "magnitude",
        "spectrum_scale": 1.0,
        "mel": mel,
        "log": {"floor": 1e-12, "offset": 0.0},
        "dct": {"n": n_coeffs, "norm": "tf", "lifter": 0},
        "c0": "dct",
        "sample_scale": 1.0,
        "peak_normalise": False,
        "mean_subtract": False,
        "pad": "none",
    }


# Kaldi's log FBANK at 8 kHz, int16 scale; the log's floor is Kaldi's float epsilon.
_FBANK = {
    "kind": "fbank",
    "rate_hz": 8000,
    "window_samples": 200,
    "hop_samples": 80,
    "window_function": "povey",
    "window_periodic": False,
    "fft_size": 256,
    "preemphasis": 0.97,
    "preemphasis_scope": "frame",
    "remove_dc": True,
    "spectrum": "power",
    "spectrum_scale": 1.0,
    "mel": {"n": 24, "f_min_hz": 20, "f_max_hz": 4000, "formula": "htk", "triangles": "mel", "norm": "none"},
    "log": {"floor": 1.1920929e-07, "offset": 0.0},
    "c0": "none",
    "sample_scale": 32768.0,
    "peak_normalise": False,
    "mean_subtract": True,
    "pad": "none",
}


def _dscnn(
    name: str, window_samples: int, hop_samples: int, fft_size: int, n_coeffs: int, stream_frames: int = 0
) -> Architecture:
    """`stream_frames`: of a variant without padding in time, `NAME-stream`; else the frames of a second."""
    n_frames = stream_frames or 1 + (16000 - window_samples) // hop_samples
    sizes = dscnn.MODEL_SIZE_INFO[name.removesuffix("-stream")]
    return Architecture(
        name=name,
        task="keyword",
        labels=dscnn.LABELS,
        rest_labels=(SILENCE, UNKNOWN),
        front_end=_mfcc(window_samples, hop_samples, fft_size, n_coeffs),
        n_frames=n_frames,
        patch_hop_ms=20,
        build=lambda n: dscnn.dscnn_graph(name, n_frames, n_coeffs, sizes, n, streams=stream_frames > 0),
        params_absorbed=True,
    )


def _tcs(name: str, n_frames: int) -> Architecture:
    """Log-mel of dscnn-s's windows; below the floor lies what rounding to 16 bits adds."""
    front_end = _mfcc(640, 320, 1024, 40) | {"kind": "fbank", "log": {"floor": 1e-3, "offset": 0.0}, "c0": "none"}
    del front_end["dct"]
    return Architecture(
        name=name,
        task="keyword",
        labels=dscnn.LABELS,
        rest_labels=(SILENCE, UNKNOWN),
        front_end=front_end,
        n_frames=n_frames,
        patch_hop_ms=20,
        build=lambda n: tcs.tcs_graph(name, tcs.SIZES[name], n_frames, 40, n),
        params_absorbed=True,
    )


def _mnet(name: str, build: Callable[[str, int, int, int], Graph]) -> Architecture:
    return Architecture(
        name=name,
        task="keyword",
        labels=dscnn.LABELS,
        rest_labels=(SILENCE, UNKNOWN),
        front_end=_mfcc(480, 240, 512, 40),
        n_frames=65,
        patch_hop_ms=30,
        build=lambda n: build(name, 65, 40, n),
        params_absorbed=True,
    )


def _cnn1d(row: str, batch_norm: bool | None = None) -> Architecture:
    """`batch_norm`: instead of what the table's row has; the name then says so."""
    family, depth, hidden = cnn1d.rows()[row]
    other = batch_norm is not None and batch_norm != family.batch_norm
    name = f"{row}{'-bn' if batch_norm else '-nobn'}" if other else row
    return Architecture(
        name=name,
        task="keyword",
        labels=cnn1d.LABELS,
        rest_labels=(),
        front_end={"kind": "raw", "rate_hz": 16000},
        n_frames=cnn1d.N_SAMPLES,
        patch_hop_ms=250,
        build=lambda n: cnn1d.cnn1d_graph(name, family, depth, hidden, n, batch_norm),
    )


ARCHITECTURES: dict[str, Architecture] = {
    "resnetse": Architecture(
        name="resnetse",
        task="event",
        labels=resnetse.LABELS,
        rest_labels=(BACKGROUND,),
        front_end=_FBANK,
        n_frames=192,
        patch_hop_ms=240,
        build=lambda n: resnetse.resnetse_graph("resnetse", 24, 192, n),
    ),
    "dscnn-s": _dscnn("dscnn-s", 640, 320, 1024, 10),
    "dscnn-m": _dscnn("dscnn-m", 640, 320, 1024, 10),
    "dscnn-l": _dscnn("dscnn-l", 480, 160, 512, 40),
    "dscnn-s-stream": _dscnn("dscnn-s-stream", 640, 320, 1024, 10, stream_frames=64),  # 20 columns in the mean
    "dscnn-m-stream": _dscnn("dscnn-m-stream", 640, 320, 1024, 10, stream_frames=66),  # 8 of 80 ms
    "tcs-s-stream": _tcs("tcs-s-stream", 64),  # 24 columns in the mean
    "tcs-m-stream": _tcs("tcs-m-stream", 64),
    "m1": _mnet("m1", lambda *a: mnets.m_graph(a[0], mnets.M1, *a[1:])),
    "m2": _mnet("m2", lambda *a: mnets.m_graph(a[0], mnets.M2, *a[1:])),
    "cnn-trad-fpool3": _mnet("cnn-trad-fpool3", mnets.cnn_trad_graph),
    **{name: _cnn1d(name) for name in cnn1d.rows()},
}


def find_architecture(name: str, batch_norm: bool | None = None) -> Architecture:
    """The architecture called `name`; of the 1D-CNN family also `NAME-bn` or `NAME-nobn` where the table has the other.

    `batch_norm` says the same in another way. Raises ValueError naming what is near.
    """
    row = row_of(name)
    if row != name:
        name, batch_norm = row, name.endswith("-bn")
    if name not in ARCHITECTURES:
        near = difflib.get_close_matches(name, ARCHITECTURES, 5, 0.5)
        meant = f"; did you mean {', '.join(near)}?" if near else ""
        raise ValueError(
            f"model: found {name[:80]!r}, wanted one of the {len(ARCHITECTURES)} that `kws-models list` shows{meant}"
        )
    if batch_norm is None:
        return ARCHITECTURES[name]
    if name not in cnn1d.rows():
        raise ValueError(f"--batch-norm: found {name}, wanted a model of the 1D-CNN family")
    return _cnn1d(name, batch_norm)


def row_of(name: str) -> str:
    """The table row of a variant: NAME of `NAME-bn` and `NAME-nobn`, any other name itself."""
    row, _, ending = name.rpartition("-")
    return row if row in cnn1d.rows() and ending in ("bn", "nobn") else name
