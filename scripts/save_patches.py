"""Writes the patches that scripts/check_converter.py compares on: `save_patches.py MODEL_DIR DATA FOLD OUT.npz`."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from kws_models.data.audio_cache import at_rate, default_cache, read_pcm
from kws_models.data.event_batches import EventBatches
from kws_models.data.features import PatchMaker
from kws_models.data.keyword_batches import KeywordBatches
from kws_models.evaluation.clips import find_cases
from kws_models.export.quantiser import calibration_patches
from kws_models.zoo.architectures import find_architecture
from kws_serve.manifest.folder import load_model


def main(folder: Path, data: Path, fold: int, out: Path) -> None:
    spec = load_model(folder)
    architecture = find_architecture(spec.name)
    make = KeywordBatches if spec.task == "keyword" else EventBatches
    maker = PatchMaker(spec.front_end, spec.n_frames)
    samples, classes = [], []
    for case in find_cases(spec, data, fold=fold):
        pcm, rate_hz = read_pcm(case.recording.path)
        clip = at_rate(pcm, rate_hz, spec.front_end.rate_hz)[: maker.patch_samples]
        side = maker.patch_samples - len(clip)
        samples.append(np.pad(clip, (side // 2, side - side // 2)))
        classes.append(spec.labels.index(case.label))
    np.savez(
        out,
        calibration=calibration_patches(make(architecture, data, fold, default_cache(), 1_000_003)),
        test=maker.patches(np.stack(samples)),
        classes=np.array(classes),
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4]))
