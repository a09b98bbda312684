"""Detections that wait: a model with `verify` proposes, another one looks again, and only what it agrees to is told.

The rule, in audio time. The verifier's patches lie where they would if it listened all along. Those count that end at
most `window_ms` before or after D, the end of the deciding patch, up to the segment's end:

    verifier's patches     |    |    |    |    |    |    |
                      [ - window - D - - window - ]
    the first at the threshold     at or before D: told, decided at D        (a clear one does not wait)
                                   after D: told, decided at that patch's end
                                   none: not told

So how the audio came and how long the verifier took change nothing. When a look is made does not matter either: each
tick asks for the patches that are there, as far as the proposing model has come, so that detections of one model are
told in the order of `decided_s`. A verifier that fails, or takes BEHIND_S, vetoes nothing: `verified` is null then.

A label that is armed by one that waits (`armed_by`) waits with it: it is told only if that one is, and not before.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum

import numpy as np

from kws_serve.backends.contract import LoadedModel
from kws_serve.core import resampler as half
from kws_serve.core.arming import Arm
from kws_serve.core.detector import Firing
from kws_serve.core.resampler import ENGINE_RATE_HZ
from kws_serve.core.ring import SampleRing
from kws_serve.engine.evidence import Evidence, UntoldReason
from kws_serve.engine.lane_model import LaneModel
from kws_serve.engine.past_patches import PastPatches
from kws_serve.engine.stream import Stream
from kws_serve.engine.verifier import Look, Verifier
from kws_serve.manifest.consistency import check_verifier
from kws_serve.manifest.spec import ModelSpec, VerifySpec
from kws_serve.messages import Detection, Float32Array, Int64Array

_log = logging.getLogger(__name__)

BEHIND_S = 2.0
"""A live stream's detection waits no longer for an answer: it is told, not verified. As long as audio may wait."""

HANGS_S = 30.0
"""Of a stream that is computed as fast as it goes, which waits for each answer: only one that hangs takes as long."""


class State(Enum):
    """What became of a proposal."""

    WAITS = "waits"
    TOLD = "told"
    REJECTED = "rejected"


@dataclass(slots=True)
class Counts:
    """Of one proposing model."""

    verified: int = 0
    rejected: int = 0
    unverified: int = 0  # told without: the verifier failed or fell behind
    waited: int = 0  # of the verified: those decided after their deciding patch
    not_armed: int = 0  # not told: the label that was to arm it was not decided, or not told, shortly before


@dataclass(slots=True, eq=False)
class _Asked:
    """One look that is under way, or will be."""

    ends_16k: list[int]
    samples: list[int]  # where they end, at the source's rate
    arrived_s: list[float | None]
    look: Look | None = None
    at_s: float = 0.0  # when it was asked for


@dataclass(slots=True, eq=False)
class Proposal:
    """One detection that waits. `_16k`: of its segment."""

    stream: Stream
    model: LaneModel
    spec: VerifySpec | None
    verifier: Verifier | None  # None: it waits only for what arms it
    detection: Detection
    decided_16k: int
    first_segment: bool  # whether the stream had begun with the segment
    evidence: Evidence | None
    arms: tuple[Arm, ...] | None  # what may arm it; None: it needs none
    arm: Arm | None  # where it arms others
    looked_16k: int  # patches that end up to here have been asked for
    until_16k: int
    done: bool = False  # nothing more will be asked for
    asked: deque[_Asked] = field(default_factory=deque)  # oldest first
    best: float = 0.0  # the verifier's highest score of those that count
    verdict: State = State.WAITS  # the verifier's alone
    state: State = State.WAITS
    reason: UntoldReason = "rejected"  # where it is
    end: Detection | None = None  # of an event that ended meanwhile
    proposed_s: float = 0.0  # `decided_s` of the proposal itself

    def __post_init__(self) -> None:
        self.proposed_s = self.detection.decided_s

    def may_be_before(self, other: Proposal, decided_s: float) -> bool:
        """Whether an answer that is under way may tell this one before `other` of the same model: in the order of time
        a log knows after a crash what it was told.
        """
        if not self.asked or self is other or self.stream is not other.stream or self.model.name != other.model.name:
            return False
        return max(self.proposed_s, self.asked[0].samples[0] / self.stream.rate_hz) <= decided_s


class Proposals:
    """All that wait, and who looks at them. One owner thread, the engine's; verifiers answer from theirs."""

    def __init__(self, verifiers: Sequence[LoadedModel]) -> None:
        self.verifiers = {loaded.spec.name: Verifier(loaded) for loaded in verifiers}
        self.counts: dict[str, Counts] = {}  # of each proposing model
        self.on_answer: Callable[[int], None] = lambda slot: None  # a verifier's thread has something about a stream
        self.most_16k = 0  # samples before a tick's that the ring has for a second look: given by the tick
        self._waiting: list[Proposal] = []
        self._open: dict[tuple[int, str, str], Proposal] = {}  # (slot, model, label) -> start of an event that is on
        self._answers: deque[tuple[Proposal, _Asked, Float32Array | None]] = deque()
        self._answered = threading.Event()

    def check(self, spec: ModelSpec, verifier: ModelSpec | None = None) -> None:
        """A model, as it is to be loaded, has a second one (`verifier`: as it is to be) that knows its labels. Raises
        ValueError.
        """
        if spec.verify is None:
            return
        known = self.verifiers.get(spec.verify.model)
        if known is None:
            names = ", ".join(self.verifiers) or "none"
            found = f"found {spec.verify.model!r}, wanted a model that is loaded to look again ({names})"
            raise ValueError(f"model {spec.name}: verify.model: {found}; a restart loads any")
        check_verifier(spec, verifier or known.loaded.spec)
        reach_16k = self.reach_16k(spec, verifier)
        if self.most_16k and reach_16k > self.most_16k:
            found = f"found {reach_16k / ENGINE_RATE_HZ:.2f} s of audio to look back, wanted at most"
            most_s = self.most_16k / ENGINE_RATE_HZ
            raise ValueError(f"model {spec.name}: verify.window_ms: {found} {most_s:.2f} s (a restart takes any)")

    def reach_16k(self, spec: ModelSpec, verifier: ModelSpec | None = None) -> int:
        """How far back samples are needed for what this model proposes, at a tick's beginning."""
        if spec.verify is None:
            return 0
        past = PastPatches(verifier) if verifier else self.verifiers[spec.verify.model].past
        behind = round(spec.patch_hop_ms * ENGINE_RATE_HZ / 1000) + half.LAG  # of the model itself
        return window_16k(spec.verify) + past.patch_hop_16k + past.reach_16k(1) + past.lag_16k + behind

    def swap(self, loaded: LoadedModel) -> None:
        """Put a newly loaded model in the place of the one of its name; what was asked is answered by that one."""
        old = self.verifiers[loaded.spec.name]
        self.verifiers[loaded.spec.name] = Verifier(loaded)
        old.close()

    def close(self, timeout_s: float) -> None:
        """End the verifiers' threads; wait for each at most this long."""
        for verifier in self.verifiers.values():
            verifier.close()
        for verifier in self.verifiers.values():
            verifier.join(timeout_s)

    @property
    def asking(self) -> bool:
        """Whether a verifier has still to answer."""
        return any(proposal.asked for proposal in self._waiting)

    def wait(self, timeout_s: float) -> None:
        """Until a verifier answers, at most this long."""
        self._answered.wait(timeout_s)

    def owes(self, slot: int) -> bool:
        """Whether an answer about this stream is under way."""
        return any(p.asked and p.stream.slot == slot for p in self._waiting)

    def propose(
        self,
        stream: Stream,
        model: LaneModel,
        firing: Firing,
        d: Detection,
        first_segment: bool,
        evidence: Evidence | None,
    ) -> None:
        """Let a detection wait, what `firing` is told as. `first_segment`: the stream began with it."""
        spec, decided_16k = model.loaded.spec.verify, firing.decided_16k
        window = window_16k(spec) if spec else 0
        if firing.arm is not None:
            firing.arm.told = None
        proposal = Proposal(
            stream,
            model,
            spec,
            self.verifiers[spec.model] if spec else None,
            d,
            decided_16k,
            first_segment,
            evidence,
            firing.arms,
            firing.arm,
            looked_16k=decided_16k - window - 1,
            until_16k=decided_16k + window,
            done=spec is None,
            verdict=State.WAITS if spec else State.TOLD,
        )
        self._waiting.append(proposal)
        if d.phase == "start":
            self._open[stream.slot, d.model, d.label] = proposal

    def ended(self, slot: int, end: Detection) -> Detection | None:
        """The end of an event, as it is told: not where its start was not, and later where its start still waits."""
        start = self._open.pop((slot, end.model, end.label), None)
        if start is None or start.state is State.TOLD:
            return replace(end, verified=start.detection.verified) if start else end
        if start.state is State.WAITS:
            start.end = end
        return None

    def look(self, ring: SampleRing, now_s: float) -> None:
        """Ask for the patches that are there now."""
        for proposal in self._waiting:
            if not proposal.done:
                self._look(proposal, ring, now_s)

    def cut(self, stream: Stream, ring: SampleRing, now_s: float) -> None:
        """The stream's segment ends: what waits is decided by what is there."""
        for proposal in self._waiting:
            if proposal.stream is stream and not proposal.done:
                self._look(proposal, ring, now_s)
                proposal.done = True

    def _look(self, proposal: Proposal, ring: SampleRing, now_s: float) -> None:
        stream, verifier = proposal.stream, proposal.verifier
        assert verifier is not None  # else it is done
        past = verifier.past
        there_16k = int(ring.written[stream.slot]) - past.lag_16k
        come_16k = max(proposal.decided_16k, proposal.model.framing.ended_16k(stream.slot))
        upto_16k = min(proposal.until_16k, there_16k, come_16k)
        ends_16k = past.ends(proposal.looked_16k, upto_16k)
        proposal.looked_16k = max(proposal.looked_16k, upto_16k)
        proposal.done = upto_16k >= proposal.until_16k
        if not len(ends_16k):
            return
        for some in (ends_16k[ends_16k <= proposal.decided_16k], ends_16k[ends_16k > proposal.decided_16k]):
            if len(some):
                self._ask(proposal, verifier, some, ring, now_s)

    def _ask(
        self, proposal: Proposal, verifier: Verifier, ends_16k: Int64Array, ring: SampleRing, now_s: float
    ) -> None:
        """Keep what the patches rest on that end at `ends_16k` (m,). The verifier gets it once it has answered what
        came before, and needs not where it agreed: a clear one costs the patches up to the deciding one, no more.
        """
        stream = proposal.stream
        samples = [stream.sample_at(int(end)) for end in ends_16k]
        arrived_s = [stream.arrived_s(sample) if stream.live else None for sample in samples]
        asked = _Asked(ends_16k.tolist(), samples, arrived_s)

        def answer(scores: Float32Array | None) -> None:
            self._answers.append((proposal, asked, scores))
            self._answered.set()
            self.on_answer(stream.slot)

        try:
            found = verifier.past.samples(ring, stream.slot, ends_16k)
            asked.look = Look(found, ends_16k, proposal.detection.label, answer)
        except ValueError:  # no longer kept: a fault of ours
            _log.exception("stream %s: what is to be looked at again is gone", stream.name)
        proposal.asked.append(asked)
        if len(proposal.asked) == 1:
            self._submit(proposal, now_s)

    def _submit(self, proposal: Proposal, now_s: float) -> None:
        """Have the verifier look at the next part of what is kept for it."""
        asked, verifier = proposal.asked[0], proposal.verifier
        asked.at_s = now_s
        if asked.look is None or verifier is None:
            self._agreed(proposal, verified=False)
        else:
            verifier.ask(asked.look)

    def decided(self, now_s: float) -> list[Proposal]:
        """Those that were decided since the last call, in the order of time; `detection` as it is to be told."""
        self._answered.clear()
        while self._answers:
            proposal, asked, scores = self._answers.popleft()
            if asked in proposal.asked:
                proposal.asked.remove(asked)
                self._take(proposal, asked, scores)
                if proposal.asked:
                    self._submit(proposal, now_s)
        for proposal in self._waiting:
            longest_s = BEHIND_S if proposal.stream.live else HANGS_S
            if proposal.asked and now_s - proposal.asked[0].at_s > longest_s:
                self._agreed(proposal, verified=False)
            elif proposal.verdict is State.WAITS and proposal.done and not proposal.asked:
                proposal.verdict = State.REJECTED
            self._conclude(proposal)
        decided = [p for p in self._waiting if p.state is not State.WAITS]
        if decided:
            self._waiting = [p for p in self._waiting if p.state is State.WAITS]
        return sorted(decided, key=lambda p: p.detection.decided_s)

    def leave(self, slot: int) -> None:
        """A stream is no more."""
        for key in [key for key in self._open if key[0] == slot]:
            del self._open[key]

    def _take(self, proposal: Proposal, asked: _Asked, scores: Float32Array | None) -> None:
        """An answer: the first patch at the threshold decides."""
        if scores is None:
            self._agreed(proposal, verified=False)
            return
        assert proposal.spec is not None
        before = np.array(asked.ends_16k) <= proposal.decided_16k
        if before.any():
            proposal.best = max(proposal.best, float(scores[before].max()))
        if proposal.best >= proposal.spec.threshold:
            self._agreed(proposal, verified=True)
            return
        for i in np.flatnonzero(~before).tolist():
            proposal.best = max(proposal.best, float(scores[i]))
            if proposal.best >= proposal.spec.threshold:
                decided_s = asked.samples[i] / proposal.stream.rate_hz
                proposal.detection = replace(proposal.detection, decided_s=decided_s, arrived_s=asked.arrived_s[i])
                self._agreed(proposal, verified=True)
                return

    def _agreed(self, proposal: Proposal, *, verified: bool) -> None:
        """The verifier has no veto."""
        proposal.verdict = State.TOLD
        proposal.asked.clear()
        proposal.done = True
        proposal.detection = replace(proposal.detection, verified=verified)

    def _conclude(self, proposal: Proposal) -> None:
        """Tell the proposal, or not, where all that it waits for is known."""
        counts = self.counts_of(proposal.detection.model)
        if proposal.verdict is State.REJECTED:
            self._reject(proposal)
            counts.rejected += 1
            return
        armed_s = armed_at_s(proposal.arms, proposal.proposed_s)
        if armed_s is None and not any(arm.told is None for arm in proposal.arms or ()):
            self._reject(proposal)
            proposal.reason = "not_armed"
            counts.not_armed += 1
            return
        if armed_s is None or proposal.verdict is State.WAITS:
            return
        d, stream = proposal.detection, proposal.stream
        if any(other.may_be_before(proposal, max(armed_s, d.decided_s)) for other in self._waiting):
            return
        if armed_s > d.decided_s:
            arrived_s = stream.arrived_s(round(armed_s * stream.rate_hz)) if stream.live else None
            d = proposal.detection = replace(d, decided_s=armed_s, arrived_s=arrived_s)
        proposal.state = State.TOLD
        if proposal.arm is not None:
            proposal.arm.told, proposal.arm.told_s = True, d.decided_s
        if d.verified is not None:
            counts.verified += d.verified
            counts.unverified += not d.verified
            counts.waited += d.verified and d.decided_s > proposal.proposed_s

    def _reject(self, proposal: Proposal) -> None:
        proposal.state = State.REJECTED
        proposal.asked.clear()
        proposal.done = True
        if proposal.arm is not None:
            proposal.arm.told = False

    def counts_of(self, model: str) -> Counts:
        """To count on."""
        return self.counts.setdefault(model, Counts())


def armed_at_s(arms: tuple[Arm, ...] | None, decided_s: float) -> float | None:
    """When, at the earliest, a detection decided at `decided_s` counts, as what may arm it is told: then, or when the
    first of these is. None: that is not known yet, or none is.
    """
    if arms is None:
        return decided_s
    told_s = [arm.told_s for arm in arms if arm.told]
    if told_s and min(told_s) <= decided_s:
        return decided_s
    if not told_s or any(arm.told is None for arm in arms):
        return None
    return min(told_s)


def told(proposal: Proposal) -> Iterator[Detection]:
    """What a proposal that is told becomes: an event that has ended meanwhile ends, at the earliest as it begins."""
    yield proposal.detection
    if proposal.end is not None:
        decided_s = max(proposal.end.decided_s, proposal.detection.decided_s)
        yield replace(proposal.end, decided_s=decided_s, verified=proposal.detection.verified)


def window_16k(spec: VerifySpec) -> int:
    """How far before and after the deciding patch's end the verifier's patches may end."""
    return round(spec.window_ms * ENGINE_RATE_HZ / 1000)
