"""Batches made ahead by processes, handed over in step order: the order and the bits do not depend on how many."""

from __future__ import annotations

import multiprocessing as mp
import traceback
from collections.abc import Iterator
from typing import Any

from kws_models.data.batches import Batches
from kws_serve.messages import Float32Array, Int64Array, KwsError


def batches_in_order(
    batches: Batches, first_step: int, n_steps: int, n_workers: int
) -> Iterator[tuple[Float32Array, Int64Array]]:
    """The batches of steps `first_step` ... `n_steps` - 1. Without workers they are made here."""
    if n_workers < 1:
        yield from (batches.batch(step) for step in range(first_step, n_steps))
        return
    context = mp.get_context("fork")  # the workers share the decoded audio's pages
    queues = [context.Queue(maxsize=4) for _ in range(n_workers)]
    workers = [
        context.Process(target=_work, args=(batches, range(first_step + i, n_steps, n_workers), queue), daemon=True)
        for i, queue in enumerate(queues)
    ]
    for worker in workers:
        worker.start()
    try:
        for step in range(first_step, n_steps):
            made = queues[(step - first_step) % n_workers].get()
            if isinstance(made, str):
                raise KwsError(f"batch {step}: {made}")
            yield made
    finally:
        for worker in workers:
            worker.terminate()


def _work(batches: Batches, steps: range, queue: Any) -> None:
    try:
        for step in steps:
            queue.put(batches.batch(step))
    except Exception:
        queue.put(traceback.format_exc())
