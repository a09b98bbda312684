"""Which clip is heard next: no folder and no speaker may drown the others."""

from __future__ import annotations

import numpy as np
from numpy.random import Generator

from kws_models.data.recordings import DataError, Recording
from kws_models.zoo.labels import SILENCE, UNKNOWN
from kws_serve.core.mel import Float64Array
from kws_serve.messages import Int64Array


class ClassSampler:
    """Draws clips for wanted classes: a class's clips weigh 1 / sqrt(clips of their folder)."""

    def __init__(self, folders: list[str], labels: tuple[str, ...]) -> None:
        # Of each label: its clips' indexes (m,), and `edges` (m,): the share of the weight up to and with each clip.
        # A number drawn from [0, 1) falls between two edges: the right one's clip is drawn.
        #
        #     weights     |   a   | b |   b   |  c  |
        #     edges      (0)     .3  .4      .8     1      drawn 0.35 -> clip 1
        #
        folder_of = np.array(folders)
        counts = {name: int((folder_of == name).sum()) for name in set(folders)}
        self._clips: list[Int64Array] = []
        self._edges: list[Float64Array] = []
        for label in labels:
            known = set(labels) - {UNKNOWN, SILENCE}
            mine = folder_of == label
            if label == UNKNOWN:
                mine |= np.array([name not in known and not name.startswith("_") for name in folders], bool)
            clips = np.flatnonzero(mine)
            if label != SILENCE and not len(clips):
                what = "words that are no command" if label == UNKNOWN else label
                raise DataError(f"data: found no recording of {what} to train on, wanted some")
            weights = np.array([counts[folders[i]] ** -0.5 for i in clips])
            self._clips.append(clips)
            self._edges.append(np.asarray(np.cumsum(weights) / weights.sum() if len(clips) else weights, np.float64))

    def draw(self, rng: Generator, classes: Int64Array) -> Int64Array:
        """One clip for each class index (n,)."""
        return np.array(
            [self._clips[c][np.searchsorted(self._edges[c], rng.random(), side="right")] for c in classes], np.int64
        )


class SourceSampler:
    """Draws clips evenly over sources: ten shots of one gun weigh as much as one of another."""

    def __init__(self, indexes: list[int], recordings: list[Recording]) -> None:
        sources: dict[str, list[int]] = {}
        for i in indexes:
            sources.setdefault(recordings[i].source, []).append(i)
        self._groups = [np.array(group) for _, group in sorted(sources.items())]

    def draw(self, rng: Generator, n: int) -> Int64Array:
        """`n` clip indexes."""
        groups = [self._groups[i] for i in rng.integers(0, len(self._groups), n)]
        return np.array([group[rng.integers(0, len(group))] for group in groups], np.int64)
