"""Patches of a model in what a stream has just heard, where they would lie had the model listened all along.

A model that listens has patches that end at multiples of its patch hop since the segment began (framing). One that is
asked afterwards gets the same ones, to the bit, from the samples at 16 kHz that they rest on:

    16 kHz   [ LEAD | lead | window . hop . hop ...      end ]-LAG-|     LEAD and LAG: where the lane has 8 kHz
    frames                 [ f0 ]
                             [ f1 ] ...           [ f(n - 1) ]           n = n_frames + (m - 1) * patch hop
    patches  m of them, a patch hop apart; the last ends at `end`
"""

from __future__ import annotations

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from kws_serve.core import resampler as half
from kws_serve.core.ring import UNIT, SampleRing
from kws_serve.engine.framing import Framing
from kws_serve.manifest.spec import ModelSpec
from kws_serve.messages import Float32Array, Int16Array, Int64Array


class PastPatches:
    """Of one model. `_16k`: samples at 16 kHz since the segment began."""

    def __init__(self, spec: ModelSpec) -> None:
        self.spec = spec
        self._framing = Framing(spec)
        self.patch_hop_16k = self._framing.patch_hop_16k
        self.lag_16k = half.LAG if self._framing.factor == 2 else 0
        """So many samples after its end a patch needs to be there."""

    def ends(self, after_16k: int, upto_16k: int) -> Int64Array:
        """Where patches end, (m,) in (after_16k, upto_16k]."""
        early_16k, hop_16k = self._framing.early * self._framing.factor, self.patch_hop_16k
        first = max(1, (after_16k + early_16k) // hop_16k + 1)
        last = (upto_16k + early_16k) // hop_16k
        return np.arange(first, last + 1) * hop_16k - early_16k

    def reach_16k(self, m: int) -> int:
        """How far before the end of the last of m patches the samples begin that they rest on."""
        framing = self._framing
        reach = framing.window + (self._n_frames(m) - 1) * framing.hop_samples + framing.front_end.lead_samples
        return reach * framing.factor + (half.LEAD if framing.factor == 2 else 0)

    def samples(self, ring: SampleRing, slot: int, ends_16k: Int64Array) -> Int16Array:
        """The samples (n,) that the patches rest on that end at `ends_16k` (m,), m >= 1, consecutive. Raises ValueError
        where some are no longer kept.
        """
        last, reach = int(ends_16k[-1]), self.reach_16k(len(ends_16k))
        return np.asarray(ring.span(np.array([slot]), np.array([last - reach]), reach + self.lag_16k)[0])

    def patches(self, samples_16k: Int16Array, ends_16k: Int64Array) -> Float32Array:
        """Those patches (m, n_frames, n_coeffs), of `samples`."""
        framing, m = self._framing, len(ends_16k)
        n_frames, hop = self._n_frames(m), framing.hop_samples
        samples = samples_16k
        if framing.factor == 2:
            samples = half.half_rate(samples_16k[None])[0]
            before = len(samples) - int(ends_16k[-1]) // 2  # samples of a lane begin with the segment, zeros before it
            samples[: max(0, before)] = 0
        width = framing.front_end.lead_samples + framing.window
        windows = sliding_window_view(samples * UNIT, width)[::hop][:n_frames]
        frames = framing.front_end.frames(np.ascontiguousarray(windows))
        first = range(0, m * framing.patch_hop_frames, framing.patch_hop_frames)
        stacked = np.stack([frames[i : i + self.spec.n_frames] for i in first])
        return np.asarray(framing.front_end.patches(stacked), np.float32)

    def _n_frames(self, m: int) -> int:
        return self.spec.n_frames + (m - 1) * self._framing.patch_hop_frames
