"""Accuracy on the held-out fold while a training goes on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from kws_models.data.audio_cache import decode
from kws_models.data.features import first_second, patch_maker
from kws_models.data.recordings import find_recordings, keyword_root, only_fold
from kws_models.evaluation.clips import UNKNOWN_SHARE, sample_unknown
from kws_models.training.loop import Validate, to_input
from kws_models.training.torch_module import GraphModule
from kws_models.zoo.architectures import Architecture
from kws_models.zoo.labels import UNKNOWN

_BATCH = 256  # patches at once: some tens of MB of maps


def keyword_validation(architecture: Architecture, data: Path, fold: int | None) -> Validate | None:
    """Accuracy on the held-out fold's clips, as `evaluate` counts it but for `_silence_`; None without a fold."""
    if fold is None:
        return None
    labels = architecture.labels
    found = {name: only_fold(recordings, fold) for name, recordings in find_recordings(keyword_root(data)).items()}
    cases = [(r, i) for i, label in enumerate(labels) if not label.startswith("_") for r in found.get(label, [])]
    if UNKNOWN in labels:
        others = {n: rs for n, rs in found.items() if n not in labels and not n.startswith("_")}
        cases += [(r, labels.index(UNKNOWN)) for r in sample_unknown(others, round(UNKNOWN_SHARE * len(cases)))]
    maker = patch_maker(architecture)
    rate_hz = maker.spec.rate_hz
    samples = np.stack([first_second(decode(r.path, rate_hz), rate_hz, maker.patch_samples) for r, _ in cases])
    maps = to_input(maker.patches(samples), architecture.graph.axes)
    classes = torch.tensor([c for _, c in cases])

    def accuracy(module: GraphModule) -> float:
        device = next(module.parameters()).device
        with torch.no_grad():
            right = [
                (module(part.to(device)).argmax(1).cpu() == wanted).sum()
                for part, wanted in zip(maps.split(_BATCH), classes.split(_BATCH), strict=True)
            ]
        return float(sum(right)) / len(classes)

    return accuracy
