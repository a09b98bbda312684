"""From scores to detections: smoothing, two thresholds, k-of-n and a refractory time, all in audio time.

One `Detector` serves one model on every stream: its state and its settings are arrays whose first axis is the stream,
so a thousand streams, each with settings of its own, cost a few NumPy calls. Time is a count of samples at 16 kHz since
the stream's segment began: names end in `_16k`.

A label fires when its smoothed score (mean over `smoothing_ms`; patches before the stream count as 0) reaches
`threshold` now and in at least `k` of the last `n` patches, is not firing already and is not in its refractory
time. It stops firing below `off_threshold`. A keyword fires once; an event has a start and an end. Labels do not
block each other.

A segment begins as if zeros had gone before, and audio that begins at full level is a step, which sounds like a bang
or a crash until it goes on. So the start of an event within a segment's first patch is held until the last patch in
which the segment's first sample lies, and is told if the label is still on then.

A label with `isolation` must stand alone (`surroundings`): where somebody talked just before it, it comes on without
being told. With `after_ms` its start is told so much later, unless somebody talked meanwhile while the label itself was
off: said again and again, it is one of its own.

A label with `armed_by` counts only shortly after another one (`arming`): else it comes on without being told, too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from kws_serve.core.arming import Arm, Arming
from kws_serve.core.detector_rules import Rules, means
from kws_serve.core.label_state import BoolArray, LabelState, keep_last
from kws_serve.core.resampler import ENGINE_RATE_HZ
from kws_serve.core.rows import grown
from kws_serve.core.surroundings import Around, Judgement, Surroundings
from kws_serve.manifest.spec import DetectionSpec
from kws_serve.messages import Float32Array, Int64Array, Phase


@dataclass(frozen=True, slots=True)
class Firing:
    """What a detector saw, at which sample of the segment at 16 kHz; the engine dresses it as a Detection."""

    row: int  # index into the `slots` of the call
    label: str
    phase: Phase
    score: float
    start_16k: int
    decided_16k: int
    end_16k: int | None = None  # phase "end"
    surroundings: Judgement | None = None  # of a label that must stand alone, as it comes on
    arms: tuple[Arm, ...] | None = None  # what arms it; empty: nothing, and so it is not told; None: it needs nothing
    arm: Arm | None = None  # where it arms others


@dataclass(frozen=True, slots=True)
class _Patch:
    """One patch of the streams of a call."""

    state: LabelState  # their rows (r, n_classes)
    rules: Rules  # likewise
    at_16k: Int64Array  # (r,) where it ends
    rows: Int64Array  # (r,) their indices in the call
    slots: Int64Array  # (r,)
    around: Around | None
    back: int  # patches of the call that come after it


class Detector:
    """Detections of one model over all streams."""

    def __init__(
        self,
        labels: Sequence[str],
        settings: Mapping[str, DetectionSpec],
        *,
        sustained: bool,
        patch_hop_16k: int,
        patch_16k: int,
        name: str = "",
        arming: Arming | None = None,
    ) -> None:
        """`settings` has an entry for each label that may fire; labels without one (rest labels) never do. `name`: the
        model's. Without `arming` no label has to be armed.
        """
        self.name = name
        self._arming = arming
        self._arms: dict[tuple[int, int], tuple[Arm, ...]] = {}  # (slot, label) -> what armed it when it last came on
        self.labels = tuple(labels)
        self.sustained = sustained
        self.patch_hop_16k = patch_hop_16k
        self.patch_16k = patch_16k
        c = len(self.labels)
        self._scores = np.zeros((0, 0, c), np.float32)  # raw scores of the last w-1 patches
        self._above = np.zeros((0, 0, c), bool)  # smoothed score >= on, last n-1 patches
        self._state = LabelState.fresh(0, c)
        self._settled_16k = patch_16k - patch_hop_16k if sustained else 0  # from here on nothing is held
        self._around = Surroundings(labels, settings, patch_hop_16k * 1000 / ENGINE_RATE_HZ)
        self._rules = Rules.of([None] * c, patch_hop_16k, {}).rows(np.zeros(0, np.int64))
        self.configure(settings)

    def configure(self, settings: Mapping[str, DetectionSpec], slot: int | None = None) -> None:
        """Take new settings, for stream `slot` or, with None, for all and those to come. What is firing keeps firing,
        and history is kept as far as the new windows reach. What arms a label is one thing for all streams.
        """
        waits = self._around.configure(settings, slot)
        after_16k = {c: rule.after * self.patch_hop_16k for c, rule in waits.items()}
        row = Rules.of([settings.get(label) for label in self.labels], self.patch_hop_16k, after_16k)
        if slot is None:
            armed = {i: settings[x].armed_by for i, x in enumerate(self.labels) if x in settings}
            self._armed = {i: spec for i, spec in armed.items() if spec is not None and self._arming is not None}
            self._rank = [self._depth(i) for i in range(len(self.labels))]
            self._new = row
            self._rules = row.rows(np.zeros(len(self._rules.on), np.int64))
        else:
            self._rules.put(slot, row)
        self._width, self._n = (
            max(int(new.max()), int(all_.max(initial=1)))
            for new, all_ in ((self._new.width, self._rules.width), (self._new.n, self._rules.n))
        )
        self._scores = keep_last(self._scores, self._width - 1)
        self._above = keep_last(self._above, self._n - 1)

    def inherit(self, slot: int) -> None:
        """Stream `slot` has the settings for all."""
        self._around.inherit(slot)
        self._rules.put(slot, self._new)

    def _depth(self, c: int) -> int:
        """After how many others of this model label `c` is judged where all come on in one patch."""
        depth = 0
        while (spec := self._armed.get(c)) is not None and spec.model == self.name and depth < len(self.labels):
            c, depth = self.labels.index(spec.label), depth + 1
        return depth

    @property
    def armed_by_others(self) -> bool:
        """Whether a label waits for one of another model: then that model is to be updated first."""
        return any(spec.model != self.name for spec in self._armed.values())

    def ensure(self, n_streams: int) -> None:
        """Make room for slots 0..n_streams-1."""
        self._around.ensure(n_streams)
        self._rules = self._rules.grown(n_streams, self._new)
        self._state = self._state.grown(n_streams)
        self._scores, self._above = grown(self._scores, n_streams), grown(self._above, n_streams)

    def reset(self, slot: int, at_16k: int) -> list[Firing]:
        """Forget stream `slot`; an event that is on ends at its last patch, told whole where its start was held, and
        what waited for silence after it is told. `at_16k`: where the stream stopped.
        """
        state, rules = self._state.rows(np.array([slot])), self._rules.rows(np.array([slot]))
        ends = [self._start(state, 0, c, 0, at_16k, slot) for c in np.flatnonzero(state.due_16k[0]).tolist()]
        state.held[state.due_16k > 0] = False
        for c in np.flatnonzero(state.active[0]).tolist() if self.sustained else ():
            if state.muted[0, c]:
                continue
            if state.held[0, c]:
                ends.append(self._start(state, 0, c, 0, at_16k, slot))
            ends.append(self._end(state, rules, 0, c, 0, at_16k))
        self._scores[slot], self._above[slot] = 0, False
        self._state.put(np.array([slot]), LabelState.fresh(1, len(self.labels)))
        self._around.reset(slot)
        self._arms = {key: arms for key, arms in self._arms.items() if key[0] != slot}
        return ends

    @property
    def listens_around(self) -> bool:
        """Whether a label must stand alone: then `update` needs powers."""
        return self._around.listens

    def update(
        self, slots: Int64Array, scores: Float32Array, decided_16k: Int64Array, powers: Float32Array | None = None
    ) -> list[Firing]:
        """Take `p` patches of `k` streams: scores (k, p, n_classes), where their last patches end (k,), and the mean
        squares (k, p) of the patch hops they end with; without these every label stands alone.
        """
        # What was kept of earlier patches lets each window reach back. w and n are the longest of any stream and label.
        # For w = 3, p = 2 new patches:
        #   history (k, w - 1 + p, c)   [ s-2  s-1 | s0  s1 ]   smooth[:, 0] is of s-2 .. s0, smooth[:, 1] of s-1 .. s1
        #   above   (k, n - 1 + p, c)   likewise: new patch j is column j + n - 1, its last n are columns j .. j + n - 1
        rules = self._rules
        p = scores.shape[1]
        history = np.concatenate([self._scores[slots], scores], axis=1)
        smooth = means(history, rules.width[slots], self._width)
        above = np.concatenate([self._above[slots], smooth >= rules.on[slots][:, None]], axis=1)
        self._scores[slots] = history[:, p:]
        self._above[slots] = above[:, p:]
        around = None
        if self._around.listens and powers is not None:
            around = self._around.push(slots, scores, powers)
        state = self._state
        busy = above[:, -p:].any(axis=(1, 2)) | (state.active[slots] | (state.due_16k[slots] > 0)).any(axis=1)
        rows = np.flatnonzero(busy)
        if not len(rows):
            return []
        ends_16k = decided_16k[rows, None] - self.patch_hop_16k * np.arange(p - 1, -1, -1)
        return self._steps(rows, slots[rows], smooth[rows], above[rows], ends_16k, around)

    def _steps(
        self,
        rows: Int64Array,
        slots: Int64Array,
        smooth: Float32Array,
        above: BoolArray,
        ends_16k: Int64Array,
        around: Around | None,
    ) -> list[Firing]:
        """The patches of streams in which something is on or may go on, `ends_16k` (r, p) their ends: one after
        another, all streams at once.
        """
        n, state, rules = self._n, self._state.rows(slots), self._rules.rows(slots)
        counted = rules.counted(n)
        firings: list[Firing] = []
        for j in range(smooth.shape[1]):
            now, at = smooth[:, j], ends_16k[:, j, None]  # (r, c), (r, 1)
            still = now >= rules.off
            np.copyto(state.last_on_16k, at, where=still)
            np.maximum(state.peak, now, out=state.peak)
            recent = above[:, j : j + n] & counted  # (r, n, c)
            enough = recent.sum(axis=1) >= rules.k
            waits, back = state.due_16k > 0, smooth.shape[1] - 1 - j
            ready = above[:, j + n - 1] & enough & ~state.active & ~waits & (at >= state.quiet_until_16k)
            ended = state.active & ~still
            told = state.held & state.active & still & ~state.muted & ~waits & (at >= self._settled_16k)
            due = waits & (at >= state.due_16k)
            if not (ready.any() or ended.any() or told.any() or due.any()):
                continue
            one = _Patch(state, rules, at[:, 0], rows, slots, around, back)
            for i, c in zip(*np.nonzero(due), strict=True):
                firings += self._judged(one, i, c)
            for i, c in zip(*np.nonzero(told), strict=True):
                state.held[i, c] = False
                firings.append(self._start(state, i, c, rows[i], at[i, 0], slots[i]))
            for i, c in zip(*np.nonzero(ended), strict=True):
                firings += self._goes_off(one, i, c)
            for i, c in sorted(zip(*np.nonzero(ready), strict=True), key=lambda ic: self._rank[ic[1]]):
                age = n - 1 - int(np.argmax(recent[i, :, c]))  # patches since the first above, of the last n
                firings += self._comes_on(one, i, c, float(now[i, c]), age)
        self._state.put(slots, state)
        firings.sort(key=lambda firing: firing.row)  # each stream's in order
        return firings

    def _comes_on(self, one: _Patch, i: int, c: int, score: float, age: int) -> list[Firing]:
        """Label `c` of row `i` is at its threshold, and was so first `age` patches ago; what is told of it now."""
        state, rules, at_16k = one.state, one.rules, one.at_16k[i]
        state.begin(i, c, score, at_16k - age * self.patch_hop_16k - rules.onset_16k[i, c])
        found = one.around.before(one.rows[i], c, one.back, age) if one.around else None
        state.muted[i, c] = found is not None and not found.alone
        unarmed = not state.muted[i, c] and not self._is_armed(one, i, c)
        state.muted[i, c] |= unarmed
        state.held[i, c] = state.muted[i, c] or at_16k < self._settled_16k
        if unarmed:
            return [self._start(state, i, c, one.rows[i], at_16k)]
        if state.held[i, c]:
            return []
        state.quiet_until_16k[i, c] = at_16k + rules.refractory_16k[i, c]
        if found and rules.after_16k[i, c]:
            state.held[i, c], state.power[i, c] = True, found.power
            state.due_16k[i, c] = at_16k + rules.after_16k[i, c]
            return []
        return [self._start(state, i, c, one.rows[i], at_16k, one.slots[i], found)]

    def _is_armed(self, one: _Patch, i: int, c: int) -> bool:
        """Whether label `c` of row `i`, which has just begun, needs no other one before it, or had it."""
        spec = self._armed.get(c)
        if spec is None or self._arming is None:
            return True
        slot = int(one.slots[i])
        arms = self._arms[slot, c] = self._arming.arms(slot, spec, int(one.state.start_16k[i, c]))
        return bool(arms)

    def _judged(self, one: _Patch, i: int, c: int) -> list[Firing]:
        """What label `c` of row `i` tells, now that what is after it is known: nothing where somebody talked."""
        state, around = one.state, one.around
        state.due_16k[i, c], state.held[i, c] = 0, False
        off = not state.active[i, c]
        if around and off and around.talk_after(one.rows[i], c, one.back, float(state.power[i, c])):
            return []
        return [self._start(state, i, c, one.rows[i], one.at_16k[i], one.slots[i])]

    def _goes_off(self, one: _Patch, i: int, c: int) -> list[Firing]:
        """Label `c` of row `i` is below its off threshold; the end of an event that has been told."""
        state = one.state
        state.active[i, c] = False
        if state.held[i, c]:  # it was the step, or talk, and has not been told; what waits goes on waiting
            state.held[i, c] = bool(state.due_16k[i, c])
            return []
        if not self.sustained:
            return []
        state.quiet_until_16k[i, c] = one.at_16k[i] + one.rules.refractory_16k[i, c]
        return [self._end(state, one.rules, i, c, one.rows[i], one.at_16k[i])]

    def _start(
        self,
        state: LabelState,
        i: int,
        c: int,
        row: int,
        at_16k: int,
        slot: int | None = None,
        surroundings: Judgement | None = None,
    ) -> Firing:
        """What label `c` of row `i` of `state` tells as it comes on; its score is the highest since then. `slot`: its
        stream; None: it is not armed, and so not to be told.
        """
        phase: Phase = "start" if self.sustained else "once"
        times = int(state.start_16k[i, c]), int(at_16k)
        arm: Arm | None = None
        arms: tuple[Arm, ...] | None = () if slot is None else None
        if slot is not None and self._arming is not None:
            arm = self._arming.note(int(slot), (self.name, self.labels[c]), int(at_16k))
            arms = self._arms.get((int(slot), int(c))) if c in self._armed else None
        score = float(state.peak[i, c])
        return Firing(int(row), self.labels[c], phase, score, *times, surroundings=surroundings, arms=arms, arm=arm)

    def _end(self, state: LabelState, rules: Rules, i: int, c: int, row: int, at_16k: int) -> Firing:
        """The end of an event: as far before the last patch's end as its start lies after a patch's beginning."""
        start_16k, last_on_16k = int(state.start_16k[i, c]), int(state.last_on_16k[i, c])
        end_16k = last_on_16k - (self.patch_16k - int(rules.onset_16k[i, c]))
        peak = float(state.peak[i, c])
        return Firing(int(row), self.labels[c], "end", peak, start_16k, int(at_16k), max(start_16k, end_16k))


def smoothed(scores: Float32Array, width: int) -> Float32Array:
    """The means that the detector compares with its thresholds: scores (t,) of one label, those before them 0."""
    history = np.concatenate([np.zeros(width - 1, np.float32), scores])
    return np.asarray(sliding_window_view(history, width).mean(axis=1), np.float32)
