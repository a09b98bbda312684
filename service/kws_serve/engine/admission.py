"""How busy the engine is, and whether it can take one more stream: refusing one is better than spoiling all."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Hashable, Sequence
from functools import partial

import numpy as np

from kws_serve.backends.contract import DeviceBackend, LoadedModel, StepBackend, new_states
from kws_serve.messages import BackendError

MAX_LOAD = 0.9
"""No further client's stream is taken where the engine would be busier than this: the rest is for ticks that take
longer."""

MEAN_S = 3.0
"""The time constant of the mean; a stream that joined shows in the load little by little."""

_FORGOTTEN_S = 5 * MEAN_S
"""After so long a stream that joined is in the mean but for e^-5 of it, 0.7 %."""

_DOUBT = 2.0
"""So many times its estimate a stream is reckoned with while it does not show: rather too few come at once."""

_SETTLED = 8
"""From so many streams on, what each is measured to take is believed; of fewer it says little of a crowd that shares
batches."""

_SOME_LOAD = 0.3
"""Share of time below which what few streams take is mostly the tick itself, and the estimate is believed instead."""

_PROBE_PATCHES = 16
"""Patches in a timed batch: the size of which most batches of a crowd are."""

_PROBE_S = 0.05
"""So long each model is timed at start, five batches at most."""


class Load:
    """The share of time in which the engine computes, now and with one more stream."""

    def __init__(self) -> None:
        self.share = 0.0  # a mean over the last MEAN_S
        self.of_one = 0.0  # an estimate of what one stream takes among many, for as long as few are open
        self._joined_s: dict[Hashable, float] = {}  # of those that are open, in the order in which they came
        self._gone = 0.0  # those that have left, each less e^(-s / MEAN_S): what they did is in the mean still
        self._gone_s = 0.0  # when that was so

    def note(self, busy_s: float, elapsed_s: float) -> None:
        """A tick took `busy_s` of the `elapsed_s` since the last one ended."""
        share = min(1.0, busy_s / elapsed_s) if elapsed_s > 0 else 1.0
        self.share += (1 - math.exp(-elapsed_s / MEAN_S)) * (share - self.share)

    def joined(self, stream: Hashable) -> None:
        """A stream has joined."""
        self._joined_s[stream] = time.monotonic()

    def left(self, stream: Hashable) -> None:
        """It has ended."""
        self._joined_s.pop(stream, None)
        now_s = time.monotonic()
        self._gone, self._gone_s = self._gone_at(now_s) + 1, now_s

    def _gone_at(self, now_s: float) -> float:
        return self._gone * math.exp((self._gone_s - now_s) / MEAN_S)

    def expected(self, streams: int) -> float:
        """The share with one more than `streams`, those reckoned in that joined too lately to show."""
        # A stream that joined s seconds ago is in the mean by 1 - e^(-s / MEAN_S); `unseen` sums what is missing:
        #   share   = measured of `seen` = streams - unseen
        #   expected = share + (_DOUBT * unseen + 1) * of_one
        now_s = time.monotonic()
        while self._joined_s and now_s - self._joined_s[first := next(iter(self._joined_s))] > _FORGOTTEN_S:
            del self._joined_s[first]
        unseen = sum(math.exp((s - now_s) / MEAN_S) for s in self._joined_s.values())  # what the mean does not show
        seen = streams - unseen
        known = seen - self._gone_at(now_s)  # of how many the mean tells more than of those that have left
        measured = self.share / seen if known > 0.5 else 0.0
        few = known < _SETTLED  # and so the estimate, though of the best case, unless more was measured
        of_one = max(self.of_one, measured if self.share > _SOME_LOAD else 0.0) if few else measured
        return self.share + of_one * (_DOUBT * unseen + 1)


def share_of_one(models: Sequence[LoadedModel]) -> float:
    """About what one stream among many takes of a core, from a timed batch of each model, or of a device's time."""
    share = 0.0
    for model in models:
        if isinstance(model.backend, DeviceBackend):
            share += model.backend.device.share_of(model.spec.name)
            continue
        spec = model.spec
        patches = np.zeros((_PROBE_PATCHES, spec.n_frames, spec.n_coeffs), np.float32)
        run: Callable[[], object] = partial(model.backend.infer, patches)
        if isinstance(model.backend, StepBackend):
            frames = patches[:, : spec.frames_per_patch_hop]
            states = new_states(model.backend.state_shapes, _PROBE_PATCHES)
            run = partial(model.backend.step, frames, states, np.arange(_PROBE_PATCHES))
        took_s: list[float] = []
        try:
            while len(took_s) < 5 and sum(took_s) < _PROBE_S:  # the best of some: others may have the core meanwhile
                began_s = time.monotonic()
                run()
                took_s.append(time.monotonic() - began_s)
        except BackendError:
            continue
        share += min(took_s) / _PROBE_PATCHES * 1000 / spec.patch_hop_ms
    return share
