"""Augmentation of log-mel maps on a device: what data/augmentation.py does to a batch, for thousands of rows a step.

Maps are (n, n_frames, n_mels) of log magnitude in nepers; powers add, and a power is exp(2 * value). All randomness
comes from the generator given.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch

from kws_models.data.augmentation import (
    BREAK_HZ,
    FAINT_PERCENT,
    FIRST_HZ,
    LOG_FLOOR,
    MASKS,
    MELS,
    NO_NOISE,
    TILT_NEPERS,
)
from kws_models.data.rooms import DECAY, RATIO_DB, RT60_S

_NEPERS_A_DB = math.log(10.0) / 20.0
_RIPPLE_NEPERS = 0.15  # standard deviation of each of a spectrum's ripples
_RIPPLES = 3  # cosines over the bands, of 1 ... _RIPPLES half-waves: microphones and small speakers
_TAIL_FRAMES = 24  # of a room's reverberation: half a second at a hop of 20 ms
_CROSS = 0.3  # standard deviation of the cosine between two sounds' spectra, as a band of some bins averages it
_ROUGH_NEPERS = 0.25  # standard deviation, at most: the pack's step is 0.6, what is below half of it is lost


@dataclass
class Draw:
    """Random numbers of one step, on the device of the maps."""

    generator: Any
    device: Any

    def uniform(self, low: float, high: float, *shape: int) -> Any:
        """Uniform in [low, high)."""
        return torch.rand(*shape, generator=self.generator, device=self.device) * (high - low) + low

    def normal(self, *shape: int) -> Any:
        """Standard normal."""
        return torch.randn(*shape, generator=self.generator, device=self.device)

    def rows(self, n: int, k: int) -> Any:
        """`k` of `n` rows."""
        return torch.randperm(n, generator=self.generator, device=self.device)[:k]

    def whole(self, n: int, k: int) -> Any:
        """`k` numbers out of 0 ... n - 1."""
        return torch.randint(n, (k,), generator=self.generator, device=self.device)

    def by_weight(self, weights: Any, k: int) -> Any:
        """`k` indexes of `weights`, each as likely as it weighs."""
        return torch.multinomial(weights, k, True, generator=self.generator)

    def db(self, bounds: tuple[float, float], n: int) -> Any:
        """Decibels as nepers (n,)."""
        return self.uniform(*bounds, n) * _NEPERS_A_DB


@dataclass(frozen=True)
class Bands:
    """Where the mel bands stand: band b at the mel of 20 Hz plus (b + 1) * `step`."""

    n: int
    step: float

    def read_at(self, speed: Any) -> Any:
        """For speeds (n,) the bands (n, self.n) to read: faster by r is higher by r."""
        first = MELS * math.log1p(FIRST_HZ / BREAK_HZ)
        hz = BREAK_HZ * torch.expm1((first + self.step * torch.arange(1, self.n + 1, device=speed.device)) / MELS)
        band = (MELS * torch.log1p(hz / speed[:, None] / BREAK_HZ) - first) / self.step - 1.0
        return band.clamp(0, self.n - 1)


def warped(maps: Any, frame: Any, band: Any) -> Any:
    """Maps (n, rows, n_mels) read at the nearest of `frame` (n, n_frames) and `band` (n, n_mels), the edges held.

    Not between them: the mean of two frames is smoother than any that a microphone gives, and a model that learns from
    such hears real ones badly.
    """
    _, rows, n_mels = maps.shape
    row = frame.round().long().clamp(0, rows - 1)[:, :, None].expand(-1, -1, n_mels)
    column = band.round().long().clamp(0, n_mels - 1)[:, None, :].expand(-1, frame.shape[1], -1)
    return maps.gather(1, row).gather(2, column).float()


def roughened(draw: Draw, maps: Any) -> Any:
    """What the rounding of the pack's coefficients has taken away: a little noise, another amount for each row."""
    return maps + draw.normal(*maps.shape) * draw.uniform(0.0, _ROUGH_NEPERS, len(maps))[:, None, None]


def faint(maps: Any) -> Any:
    """What stands for each clip's surroundings (n,): below it are FAINT_PERCENT of the clip's values."""
    return maps.flatten(1).float().kthvalue(max(1, round(FAINT_PERCENT / 100 * maps[0].numel())), dim=1).values


def placed(draw: Draw, maps: Any, outside: Any, speed: Any, shift: Any, n_frames: int, bands: Bands) -> Any:
    """Clips (n, rows, n_mels) in patches of `n_frames`, `shift` (n,) frames before the middle.

    Around them half of the rows have digital silence, the others `outside` (n,).
    """
    # patch frame t reads the clip's frame (t - middle of the patch) * speed + middle of the clip + shift
    n, rows, _ = maps.shape
    t = torch.arange(n_frames, device=maps.device) - (n_frames - 1) / 2
    frame = t * speed[:, None] + (rows - 1) / 2 + shift[:, None]
    out = warped(maps, frame, bands.read_at(speed))
    floor = torch.where(draw.uniform(0, 1, n) < 0.5, torch.full_like(outside, float(LOG_FLOOR)), outside)
    beyond = (frame < -0.5) | (frame > rows - 0.5)
    return torch.where(beyond[:, :, None], floor[:, None, None], out)


def coloured(draw: Draw, maps: Any) -> Any:
    """A microphone's tilt and ripples added to each row's spectrum."""
    n, _, n_mels = maps.shape
    place = torch.linspace(0, 1, n_mels, device=maps.device)
    curve = draw.normal(n, 1) * TILT_NEPERS * (2.0 * place - 1.0)
    for k in range(1, _RIPPLES + 1):
        curve = curve + draw.normal(n, 1) * _RIPPLE_NEPERS * torch.cos(math.pi * k * place)
    return maps + curve[:, None, :]


def in_rooms(draw: Draw, maps: Any, hop_s: float, share: float) -> Any:
    """In `share` of the rows a decaying tail of power behind every frame; the direct sound keeps its level."""
    rows = draw.rows(len(maps), round(share * len(maps)))
    rt60_s = torch.exp(draw.uniform(math.log(RT60_S[0]), math.log(RT60_S[1]), len(rows)))
    decay = torch.exp(-2.0 * DECAY * hop_s / rt60_s)  # of power, from frame to frame
    # tail weights w * decay ** k for k = 1 ... _TAIL_FRAMES, their sum the reverberant share
    k = torch.arange(1, _TAIL_FRAMES + 1, device=maps.device)
    weights = decay[:, None] ** k
    weights = weights / weights.sum(1, keepdim=True) * torch.exp(-2.0 * draw.db(RATIO_DB, len(rows)))[:, None]
    power = torch.exp(2.0 * maps[rows])
    padded = torch.nn.functional.pad(power, (0, 0, _TAIL_FRAMES, 0))
    windows = padded.unfold(1, _TAIL_FRAMES, 1)[:, :-1]  # (n, n_frames, n_mels, tail): frames t - tail ... t - 1
    tail = torch.einsum("ntmk,nk->ntm", windows, weights.flip(1))
    out = maps.clone()
    out[rows] = 0.5 * torch.log(power + tail + 1e-38)
    return out


def added(draw: Draw, first: Any, second: Any) -> Any:
    """The sum of two sounds: their powers, and what their phases make of it."""
    cosine = (draw.normal(*first.shape) * _CROSS).clamp(-0.9, 0.9)
    total = torch.logaddexp(2.0 * first, 2.0 * second)
    cross = 2.0 * cosine * torch.exp(first + second - total)  # between -0.9 and 0.9: 2 a b <= a^2 + b^2
    return 0.5 * (total + torch.log1p(cross.clamp(min=-0.95)))


def level(maps: Any) -> Any:
    """Mean power of each row (n,), as nepers of magnitude."""
    return 0.5 * (torch.logsumexp(2.0 * maps.flatten(1), 1) - math.log(maps[0].numel()))


def with_noise(draw: Draw, clean: Any, noise: Any, snr_db: tuple[Any, Any], share: float) -> Any:
    """`clean` with `noise` at a ratio drawn from snr_db, each bound a number or one a row, in `share` of the rows."""
    n = len(clean)
    low, high = snr_db
    snr = (draw.uniform(0, 1, n) * (high - low) + low) * _NEPERS_A_DB
    by = torch.where(draw.uniform(0, 1, n) < share, level(clean) - level(noise) - snr, torch.full_like(snr, NO_NOISE))
    return added(draw, clean, noise + by[:, None, None])


def masked(draw: Draw, patches: Any, share: float, most_frames: int) -> Any:
    """Up to MASKS runs of frames replaced by the patch's mean frame, in `share` of the patches (SpecAugment)."""
    n, n_frames, _ = patches.shape
    place = torch.arange(n_frames, device=patches.device)
    out = patches
    for _ in range(MASKS):
        width = torch.floor(draw.uniform(1, most_frames + 1, n))
        first = torch.floor(draw.uniform(0, 1, n) * (n_frames - width + 1))
        hidden = (place >= first[:, None]) & (place < (first + width)[:, None]) & (draw.uniform(0, 1, n, 1) < share)
        out = torch.where(hidden[:, :, None], patches.mean(1, keepdim=True), out)
    return out
