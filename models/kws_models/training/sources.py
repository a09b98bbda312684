"""Where a training's batches come from: recordings on disk, or a pack of features on the device."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Protocol

import numpy as np
import torch

from kws_models.data.augmentation import LEVELS
from kws_models.data.batches import Batches
from kws_models.data.event_batches import EventBatches
from kws_models.data.event_mix import MIXES
from kws_models.data.keyword_batches import KeywordBatches
from kws_models.data.keyword_mix import KeywordMix
from kws_models.data.mel_pack import MelPack, read_pack
from kws_models.data.preflight import check_recordings, check_room, wanted_recordings
from kws_models.export.weights_file import Checkpoint
from kws_models.training.loop import Validate, to_input
from kws_models.training.mining import mined
from kws_models.training.pack_batches import PackBatches, PackMix
from kws_models.training.pack_input import held_out
from kws_models.training.recipes import Phase, Recipe
from kws_models.training.torch_module import GraphModule, load_weights
from kws_models.training.train_options import TrainOptions
from kws_models.training.validation import keyword_validation
from kws_models.zoo.architectures import Architecture
from kws_models.zoo.labels import UNKNOWN
from kws_serve.messages import Float32Array, KwsError

_VALIDATED_AT_ONCE = 4096  # clips on the device


class Source(Protocol):
    """What `train_model` asks of either."""

    told: str

    def validation(self) -> Validate | None:
        """Accuracy on the held-out fold; None where none is."""

    def batches(self, phase: Phase, seed: int, folder: Path, found: Checkpoint | None) -> Batches | PackBatches:
        """At the phase's strength of augmentation; `found`: the weights that the phase goes on from."""


def open_source(architecture: Architecture, options: TrainOptions, recipe: Recipe, folder: Path, device: str) -> Source:
    """As the options say. Raises KwsError for what does not fit the architecture."""
    words = architecture.task == "keyword" and UNKNOWN in architecture.labels
    if (options.mine or options.pack) and not words:
        option = "--mine" if options.mine else "--pack"
        raise KwsError(f"{option}: found {architecture.name}, wanted a model of words with {UNKNOWN} among its labels")
    if options.pack:
        return Packed(architecture, options, device)
    return Recorded(architecture, options, recipe, folder)


class Recorded:
    """Recordings, read and checked before anything else."""

    def __init__(self, architecture: Architecture, options: TrainOptions, recipe: Recipe, folder: Path) -> None:
        if options.data is None:
            raise KwsError("train: found neither --data nor --pack, wanted one of them")
        self._architecture, self._options, self._recipe, self._data = architecture, options, recipe, options.data
        seconds = check_recordings(wanted_recordings(architecture, options.data))
        check_room(folder, options.cache, seconds)
        self.told = f"decoding recordings once into {options.cache}"

    def validation(self) -> Validate | None:
        """Of words only."""
        keyword = self._architecture.task == "keyword"
        return keyword_validation(self._architecture, self._data, self._options.fold) if keyword else None

    def batches(self, phase: Phase, seed: int, folder: Path, found: Checkpoint | None) -> Batches:
        """The task's; with `--mine` also the places where `found` hears commands that nobody said."""
        options, recipe = self._options, self._recipe
        if self._architecture.task == "event":
            mix = replace(MIXES[phase.augment], n=recipe.batch)
            return EventBatches(self._architecture, self._data, options.fold, options.cache, seed, mix)
        half = recipe.batch // 2
        shares = (recipe.silence_share, recipe.unknown_share)
        keyword = KeywordMix(recipe.batch - half, half, *shares, augment=LEVELS[phase.augment])
        batches = KeywordBatches(self._architecture, self._data, options.fold, options.cache, seed, keyword)
        if options.mine and found is not None:
            _mine(batches, folder, self._architecture, found)
        return batches


def _mine(batches: KeywordBatches, folder: Path, architecture: Architecture, found: Checkpoint) -> None:
    module = GraphModule(architecture.graph)
    load_weights(module, found.arrays)
    module.eval()

    def infer(patches: Float32Array) -> Float32Array:
        with torch.no_grad():
            logits = module(to_input(patches, architecture.graph.axes))
        return np.asarray(torch.softmax(logits, 1).numpy(), np.float32)

    batches.speech.places = mined(folder, batches, found.arrays, infer)


class Packed:
    """A file of features, whole on the device."""

    def __init__(self, architecture: Architecture, options: TrainOptions, device: str) -> None:
        assert options.pack is not None
        self._architecture, self._options, self._device = architecture, options, device
        self._pack: MelPack = read_pack(options.pack)
        self.told = f"{len(self._pack.words)} clips of {options.pack}"

    def _mixed(self, mix: PackMix, seed: int) -> PackBatches:
        return PackBatches(self._architecture, self._pack, self._options.fold, mix, seed, self._device)

    def validation(self) -> Validate | None:
        """On recorded clips of the fold as the pack has them."""
        fold = self._options.fold
        if fold is None:
            return None
        maps, classes = held_out(self._architecture, self._pack, fold, self._device)

        def accuracy(module: GraphModule) -> float:
            with torch.no_grad():
                told = torch.cat([module(some).argmax(1) for some in maps.split(_VALIDATED_AT_ONCE)])
            return float((told == classes).float().mean())

        return accuracy

    def batches(self, phase: Phase, seed: int, folder: Path, found: Checkpoint | None) -> PackBatches:
        """What is hard is found while it trains."""
        mix = PackMix(augment=LEVELS[phase.augment])
        return self._mixed(replace(mix, n=self._options.batch) if self._options.batch else mix, seed)
