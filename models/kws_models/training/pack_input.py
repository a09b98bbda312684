"""From the maps of a pack (data/mel_pack.py) to what a module takes, on a device."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from kws_models.data.augmentation import LOG_FLOOR
from kws_models.data.features import behind_bands, mel_step, patch_maker
from kws_models.data.mel_pack import MelPack, mel_part
from kws_models.training.pack_mix import Bands
from kws_models.training.torch_module import as_input
from kws_models.zoo.architectures import Architecture
from kws_models.zoo.labels import UNKNOWN
from kws_serve.messages import KwsError


class PatchInput:
    """Log-mel maps -> the patches of an architecture's front end -> what its module takes, on `device`."""

    def __init__(self, architecture: Architecture, pack: MelPack, device: str) -> None:
        """Raises KwsError: the pack is of another front end."""
        spec = patch_maker(architecture).spec
        if mel_part(architecture.front_end) != mel_part(pack.front_end) or spec.mel is None:
            raise KwsError(f"--pack: found features of another front end, wanted one made for {architecture.name}")
        self.device = device
        self.hop_s = spec.hop_samples / spec.rate_hz
        self.bands = Bands(spec.mel.n, mel_step(spec.mel))
        self._axes = architecture.graph.axes
        self._behind = self.tensor(behind_bands(spec))
        self._floor = math.log(spec.log.floor)

    def tensor(self, values: Any) -> Any:
        """An array on the device."""
        return torch.from_numpy(np.ascontiguousarray(values)).to(self.device)

    def patches(self, maps: Any) -> Any:
        """Maps (n, n_frames, n_mels) -> (n, n_frames, n_coeffs)."""
        return maps.clamp(min=self._floor) @ self._behind

    def of_module(self, patches: Any) -> Any:
        """(n, n_frames, n_coeffs) -> (n, 1, height, width)."""
        return as_input(patches, self._axes).contiguous()


def held_out(architecture: Architecture, pack: MelPack, fold: int, device: str) -> tuple[Any, Any]:
    """What the module takes of `fold`'s recorded clips, each in the middle of a patch between digital silence, and
    their classes. Raises KwsError: the pack is of another front end.
    """
    front, labels, n_frames = PatchInput(architecture, pack, device), architecture.labels, architecture.n_frames
    names = np.array(pack.folders)[pack.folder]
    classes = np.array([labels.index(x) if x in labels else labels.index(UNKNOWN) for x in names])
    kept = np.flatnonzero((pack.fold == fold) & ~pack.published)
    maps = front.tensor(pack.words[kept])
    before = (n_frames - maps.shape[1]) // 2
    after = n_frames - maps.shape[1] - before
    whole = functional.pad(maps, (0, 0, before, after), value=float(LOG_FLOOR))
    return front.of_module(front.patches(whole)), front.tensor(classes[kept])
