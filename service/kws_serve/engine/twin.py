"""A second backend of a model: it computes the first's patches, too, and is compared with it."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from kws_serve.backends.contract import LoadedModel
from kws_serve.messages import Float32Array


class Compared(NamedTuple):
    """How a second backend compares with the first, in patches."""

    differing: int  # another top label
    of: int  # compared


class Twin:
    """See the module. One owner thread; any reads `counts`."""

    def __init__(self, loaded: LoadedModel) -> None:
        self.loaded = loaded
        self.counts = Compared(0, 0)

    def offer(self, patches: Float32Array, scores: Float32Array) -> None:
        """Compare with the first's `scores` (k, p, n_classes) of these patches (k, p, n_frames, n_coeffs).

        Raises BackendError.
        """
        found = self.loaded.backend.infer(patches.reshape(-1, *patches.shape[2:])).reshape(scores.shape)
        differing = int(np.count_nonzero(found.argmax(-1) != scores.argmax(-1)))
        k, p, _ = scores.shape
        self.counts = Compared(self.counts.differing + differing, self.counts.of + int(k * p))

    def close(self) -> None:
        """Close the backend."""
        self.loaded.backend.close()
