"""Batches made on the device out of a pack (data/mel_pack.py), hard negatives mined there every thousand steps.

A batch is a function of the seed, the step and the places mined so far.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from kws_models.data.augmentation import LOG_FLOOR, AugmentSpec
from kws_models.data.keyword_batches import LATE_MS, NOTHING_SHARE, SILENCE_GAIN_DB
from kws_models.data.mel_pack import KINDS, Kind, MelPack
from kws_models.training.pack_input import PatchInput
from kws_models.training.pack_mix import (
    Draw,
    added,
    coloured,
    faint,
    in_rooms,
    level,
    masked,
    placed,
    roughened,
    warped,
    with_noise,
)
from kws_models.training.torch_module import GraphModule
from kws_models.zoo.architectures import Architecture
from kws_models.zoo.labels import SILENCE, UNKNOWN
from kws_serve.messages import Float32Array, Int64Array, KwsError

_MINE_EVERY = 1000  # steps: some seconds, for a tenth of a second of listening
_MINE_HOP_FRAMES, _MINE_SCORES = 4, 3  # a patch each 80 ms, means over 240 ms
_LEAST_SCORE = 0.05  # of a command, where nobody said one: below it a place teaches little
_KEPT = 0.7  # of a place's weight at the next listening, so that what was hard is not forgotten at once
_LISTEN_AT_ONCE = 4096  # patches
_JITTER_FRAMES = 5  # around a mined place: 100 ms
_OTHER_S = (0.55, 0.9)  # from the patch's middle to that of another word in it
_APART_S = 0.8  # between the middles of two words
_OTHER_DB = (-6.0, 6.0)
_BABBLE_LEAST_DB = 5.0  # a word over other talk stands out at least so much: else which one counts?


@dataclass(frozen=True)
class PackMix:
    """What a batch is made of: shares of its `n` rows, unless they say otherwise. The rest are commands."""

    n: int = 512
    silence_share: float = 0.10
    unknown_share: float = 0.12
    real_share: float = 0.20
    synthesised_share: float = 0.06
    mined_share: float = 0.5  # of the negatives of each kind: where a command was heard
    other_share: float = 0.25  # of the words: with another one at the patch's edge
    babble_share: float = 0.25  # of the words: over talk instead of noise
    augment: AugmentSpec = field(default_factory=AugmentSpec)


class PackBatches:
    """Patches (n, n_frames, n_coeffs) and classes (n,), both tensors on `device`."""

    def __init__(
        self, architecture: Architecture, pack: MelPack, fold: int | None, mix: PackMix, seed: int, device: str
    ) -> None:
        self._front = PatchInput(architecture, pack, device)
        self.labels, self.mix, self.seed, self.device = architecture.labels, mix, seed, device
        self.n_frames = architecture.n_frames
        self._load_words(pack, fold)
        self._load_long(pack, fold)
        self._commands = self._front.tensor(
            np.array([i for i, x in enumerate(self.labels) if x not in (UNKNOWN, SILENCE)])
        )
        self._hard: set[str] = set()  # kinds of which some place weighs anything
        self._generator = torch.Generator(device=device)

    def _load_words(self, pack: MelPack, fold: int | None) -> None:
        kept = np.flatnonzero((pack.fold != fold) if fold is not None else np.ones(len(pack.fold), bool))
        self._words = self._front.tensor(pack.words[kept].astype(np.float16))
        self._faint = faint(self._words)
        edges, clips = [], []
        known = set(self.labels) - {UNKNOWN, SILENCE}
        names = np.array(pack.folders)[pack.folder[kept]]
        counts = dict(zip(*np.unique(names, return_counts=True), strict=True))
        # One row of numbers for all classes: clips of class c lie in c ... c + 1, each as wide as its weight, so that
        # c + a number from [0, 1) falls into one of them.     |0  a | b |  c  |1 d | e ...
        for c, label in enumerate(self.labels):
            mine = ~np.isin(names, list(known)) if label == UNKNOWN else names == label
            found = np.flatnonzero(mine)
            if label != SILENCE and not len(found):
                raise KwsError(f"--pack: found no clip of {label}, wanted some")
            weights = np.array([counts[names[i]] ** -0.5 for i in found])
            edges.append(c + np.cumsum(weights) / max(weights.sum(), 1e-9))
            clips.append(found)
        self._edges = self._front.tensor(np.concatenate(edges))
        self._clips = self._front.tensor(np.concatenate(clips))
        self._unknown = self._front.tensor(clips[self.labels.index(UNKNOWN)])
        self._unknown_weights = torch.zeros(len(self._unknown), device=self.device)

    def _load_long(self, pack: MelPack, fold: int | None) -> None:
        """Of each kind its frames end to end: first what may be mined, then the rest."""
        self._long: dict[Kind, Any] = {}
        self._weights: dict[Kind, Any] = {}  # of the patches _MINE_HOP_FRAMES apart, in what may be mined
        for kind in KINDS:
            certain, all_rows = pack.of_kind(kind, fold, certain=True), pack.of_kind(kind, fold)
            frames = np.concatenate([certain, all_rows]) if len(all_rows) > len(certain) else certain
            if len(certain) < 2 * self._span:
                raise KwsError(f"--pack: found {len(certain)} frames of {kind} to learn from, wanted {2 * self._span}")
            self._long[kind] = self._front.tensor(frames.astype(np.float16))
            n = (len(certain) - self.n_frames) // _MINE_HOP_FRAMES + 1
            self._weights[kind] = torch.zeros(n, device=self.device)

    @property
    def _span(self) -> int:
        """Frames to read so that the fastest still fill a patch."""
        return math.ceil(self.n_frames * max(1.0, self.mix.augment.speed[1])) + 2

    def batches(self, module: GraphModule, first_step: int, n_steps: int) -> Iterator[tuple[Any, Any, None]]:
        """Maps as `module` takes them and classes, of steps `first_step` ... `n_steps` - 1; it is listened with."""
        for step in range(first_step, n_steps):
            if step % _MINE_EVERY == 0 or step == first_step:
                self.listen(module)
            patches, classes = self.tensors(step)
            yield self._front.of_module(patches), classes, None

    def batch(self, step: int) -> tuple[Float32Array, Int64Array]:
        """As arrays: what calibration takes."""
        patches, classes = self.tensors(step)
        return patches.cpu().numpy(), classes.cpu().numpy()

    def tensors(self, step: int) -> tuple[Any, Any]:
        """Patches (n, n_frames, n_coeffs) and classes (n,)."""
        # 32 bits out of both: a CPU's generator takes no more of a seed
        self._generator.manual_seed(int(np.random.SeedSequence([self.seed, step]).generate_state(1)[0]))
        draw, mix = Draw(self._generator, self.device), self.mix
        n_silence, n_unknown, n_real, n_made = (
            round(mix.n * s) for s in (mix.silence_share, mix.unknown_share, mix.real_share, mix.synthesised_share)
        )
        n_commands = mix.n - n_silence - n_unknown - n_real - n_made
        words, classes = self._said(draw, n_commands, n_unknown)
        cuts = [self._cuts(draw, "real", n_real), self._cuts(draw, "synthesised", n_made)]
        spoken = roughened(draw, coloured(draw, torch.cat([words, *cuts])))
        spoken = in_rooms(draw, spoken, self._front.hop_s, mix.augment.room_share)
        spoken = self._in_noise(draw, spoken, len(words))
        spoken = spoken + draw.db(mix.augment.gain_db, len(spoken))[:, None, None]
        silence = self._silence(draw, n_silence)
        patches = self._front.patches(torch.cat([spoken, silence]))
        unknown = torch.full((n_real + n_made,), self.labels.index(UNKNOWN), device=self.device)
        nothing = torch.full((n_silence,), self.labels.index(SILENCE), device=self.device)
        most = max(1, round(mix.augment.mask_ms / 1000 / self._front.hop_s))
        return masked(draw, patches, mix.augment.mask_share, most), torch.cat([classes, unknown, nothing])

    def _drawn(self, draw: Draw, classes: Any) -> Any:
        at = classes + draw.uniform(0, 1, len(classes)).double() * (1 - 1e-9)
        return self._clips[torch.searchsorted(self._edges, at, right=True).clamp(max=len(self._clips) - 1)]

    def _said(self, draw: Draw, n_commands: int, n_unknown: int) -> tuple[Any, Any]:
        """Words in patches, and their classes; some with another word beside them."""
        n, mix = n_commands + n_unknown, self.mix
        classes = self._commands[draw.whole(len(self._commands), n)]
        classes[n_commands:] = self.labels.index(UNKNOWN)
        clips = self._drawn(draw, classes)
        n_hard = round(n_unknown * mix.mined_share)
        if n_hard and UNKNOWN in self._hard:
            clips[-n_hard:] = self._unknown[draw.by_weight(self._unknown_weights, n_hard)]
        shift = draw.uniform(*self._shift, n)
        words = self._placed(draw, clips, draw.uniform(*mix.augment.speed, n), shift)
        # The other word's middle stands `far` frames from the patch's, before or after it, and only where it is
        # _APART_S from this word's middle, which `shift` says
        side = torch.where(draw.uniform(0, 1, n) < 0.5, -1.0, 1.0)
        far = side * draw.uniform(*_OTHER_S, n) / self._front.hop_s
        others = self._drawn(draw, self._commands[draw.whole(len(self._commands), n)])
        louder = level(self._words[clips].float()) - level(self._words[others].float()) + draw.db(_OTHER_DB, n)
        beside = self._placed(draw, others, torch.ones_like(far), far) + louder[:, None, None]
        both = (draw.uniform(0, 1, n) < mix.other_share) & ((far - shift).abs() > _APART_S / self._front.hop_s)
        return torch.where(both[:, None, None], added(draw, words, beside), words), classes

    def _placed(self, draw: Draw, clips: Any, speed: Any, shift: Any) -> Any:
        return placed(draw, self._words[clips], self._faint[clips], speed, shift, self.n_frames, self._front.bands)

    @property
    def _shift(self) -> tuple[float, float]:
        """Frames that a clip stands before the patch's middle: anywhere, and where it has just been said."""
        room_ms = max(0.0, (self.n_frames - self._words.shape[1]) / 2 * self._front.hop_s * 1000)
        most = self.mix.augment.shift_ms + room_ms
        late = LATE_MS if room_ms > 0 else 0.0
        return (-(most + late) / 1000 / self._front.hop_s, most / 1000 / self._front.hop_s)

    def _rows(self, kind: Kind, first: Any, n: int) -> Any:
        """Frames (len(first), n, n_mels) from rows `first` on."""
        return self._long[kind][first[:, None] + torch.arange(n, device=self.device)]

    def _firsts(self, draw: Draw, kind: Kind, n: int, n_hard: int) -> Any:
        """First rows (n,) of cuts of _span frames: anywhere, `n_hard` of them around mined places."""
        rows, span = len(self._long[kind]), self._span
        first = (draw.uniform(0, 1, n) * (rows - span)).long()
        if n_hard and kind in self._hard:
            place = draw.by_weight(self._weights[kind], n_hard) * _MINE_HOP_FRAMES
            moved = draw.uniform(-_JITTER_FRAMES, _JITTER_FRAMES + 1, n_hard).floor().long()
            first[:n_hard] = (place + moved - (span - self.n_frames) // 2).clamp(0, rows - span)
        return first

    def _cuts(self, draw: Draw, kind: Kind, n: int) -> Any:
        """Patches out of long pieces, the middle of each cut at a speed of its own."""
        speed = draw.uniform(*self.mix.augment.speed, n)
        maps = self._rows(kind, self._firsts(draw, kind, n, round(n * self.mix.mined_share)), self._span)
        t = torch.arange(self.n_frames, device=self.device) - (self.n_frames - 1) / 2
        return warped(maps, t * speed[:, None] + (self._span - 1) / 2, self._front.bands.read_at(speed))

    def _in_noise(self, draw: Draw, spoken: Any, n_words: int) -> Any:
        """Noise under everything; under some of the words people talking."""
        n, mix = len(spoken), self.mix
        noise = self._rows("noise", self._firsts(draw, "noise", n, 0), self.n_frames).float()
        low = torch.full((n,), mix.augment.snr_db[0], device=self.device)
        n_babble = round(n_words * mix.babble_share)
        rows = draw.rows(n_words, n_babble)
        noise[rows] = self._rows("real", self._firsts(draw, "real", n_babble, 0), self.n_frames).float()
        low[rows] = max(_BABBLE_LEAST_DB, mix.augment.snr_db[0])
        return with_noise(draw, spoken, noise, (low, mix.augment.snr_db[1]), mix.augment.noise_share)

    def _silence(self, draw: Draw, n: int) -> Any:
        maps = self._rows(
            "noise", self._firsts(draw, "noise", n, round(n * self.mix.mined_share)), self.n_frames
        ).float()
        maps = coloured(draw, maps) + draw.db(SILENCE_GAIN_DB, n)[:, None, None]
        nothing = draw.uniform(0, 1, n) < NOTHING_SHARE
        return torch.where(nothing[:, None, None], torch.full_like(maps, float(LOG_FLOOR)), maps)

    def listen(self, module: GraphModule) -> None:
        """Weigh every place where nobody says a command by how sure `module` is of one."""
        was = module.training
        module.eval()
        with torch.no_grad():
            for kind, weights in self._weights.items():
                first = torch.arange(len(weights), device=self.device) * _MINE_HOP_FRAMES
                heard = [
                    self._scores(module, self._rows(kind, some, self.n_frames).float())
                    for some in first.split(_LISTEN_AT_ONCE)
                ]
                means = functional.avg_pool1d(torch.cat(heard).T[None], _MINE_SCORES, 1, _MINE_SCORES // 2)[0].amax(0)
                self._weights[kind] = torch.maximum(_weight(means), _KEPT * weights)
            heard = [self._in_the_middle(module, some).amax(1) for some in self._unknown.split(_LISTEN_AT_ONCE)]
            self._unknown_weights = torch.maximum(_weight(torch.cat(heard)), _KEPT * self._unknown_weights)
        module.train(was)
        self._hard = {kind for kind, n in self.mined().items() if n}

    def _in_the_middle(self, module: GraphModule, clips: Any) -> Any:
        """Scores of the commands (n, n_commands), each clip alone in the middle of a patch."""
        draw, shift = Draw(self._generator, self.device), torch.zeros(len(clips), device=self.device)
        return self._scores(module, self._placed(draw, clips, shift + 1.0, shift))

    def _scores(self, module: GraphModule, maps: Any) -> Any:
        logits = module(self._front.of_module(self._front.patches(maps)))
        return torch.softmax(logits.float(), 1)[:, self._commands]

    def mined(self) -> dict[str, int]:
        """How many places of each kind weigh anything, and how many clips of other words."""
        found: dict[str, int] = {kind: int((weights > 0).sum()) for kind, weights in self._weights.items()}
        return found | {UNKNOWN: int((self._unknown_weights > 0).sum())}


def _weight(scores: Any) -> Any:
    return torch.where(scores >= _LEAST_SCORE, scores**2, torch.zeros_like(scores))
