"""What training and quantisation take their patches from."""

from __future__ import annotations

from typing import Protocol

from kws_serve.messages import Float32Array, Int64Array


class Batches(Protocol):
    """`batch(step)`: patches (n, n_frames, n_coeffs) and class indexes (n,), a function of the step."""

    def batch(self, step: int) -> tuple[Float32Array, Int64Array]: ...
