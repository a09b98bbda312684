"""What was around a word: the power and the model's score of speech of the last patch hops of each stream."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil, log10

import numpy as np

from kws_serve.core.label_state import keep_last
from kws_serve.core.rows import grown
from kws_serve.manifest.spec import DetectionSpec, IsolationSpec
from kws_serve.messages import Float32Array, Int64Array

GUARD_MS = 60.0
"""So long before the estimated onset nothing is judged: the estimate is no better, and the word itself begins there."""

LOUDEST_MS = 60.0
"""A word is as loud as its loudest stretch of this length: a vowel, and no click."""

FAINTEST = 1e-12
"""Power that counts as none, of samples in [-1, 1): -120 dB."""


@dataclass(frozen=True, slots=True)
class Judgement:
    """Whether a word stands alone, and what that rests on."""

    alone: bool
    power: float  # of the word
    margin_db: float  # how far below the word what was before it lies
    speech: float  # the mean score of speech there


@dataclass(frozen=True, slots=True)
class Rule:
    """An IsolationSpec in patch hops."""

    before: int
    after: int
    factor: float  # powers above the word's times this are loud
    speech: float
    onset: int  # a label's onset before the first patch above

    def is_talk(self, power: float, speech: float, word: float) -> bool:
        """Whether somebody talked where this mean power and score of speech were, beside a word of power `word`."""
        return power > word * self.factor and speech >= self.speech


@dataclass(frozen=True, slots=True)
class Rules:
    """What one stream's settings say."""

    by_class: dict[int, Rule]  # of the labels that must stand alone
    hops: int  # how far back they look


class Surroundings:
    """Rings over all streams, newest last: (n_streams, hops), and each one's rules for labels that must stand alone."""

    def __init__(self, labels: Sequence[str], settings: Mapping[str, DetectionSpec], patch_hop_ms: float) -> None:
        """Labels without settings never fire; the first of these with "silence" in its name tells that nobody talks.
        No label must stand alone until `configure` says so.
        """
        self.labels = tuple(labels)
        self.patch_hop_ms = patch_hop_ms
        self._silence = next((i for i, x in enumerate(labels) if "silence" in x and x not in settings), None)
        self.guard, self._loudest = round(GUARD_MS / patch_hop_ms), max(1, round(LOUDEST_MS / patch_hop_ms))
        self._power = self._speech = np.zeros((0, 0), np.float32)
        self._new = Rules({}, 0)
        self._of: list[Rules] = []

    @property
    def listens(self) -> bool:
        """Whether any label of any stream must stand alone."""
        return self._power.shape[1] > 0

    def configure(self, settings: Mapping[str, DetectionSpec], slot: int | None = None) -> dict[int, Rule]:
        """Take new settings, for stream `slot` or, with None, for all and those to come; history is kept as far as they
        reach. The rules that they make.
        """
        new = self._rules(settings)
        if slot is None:
            self._new, self._of = new, [new] * len(self._of)
        else:
            self._of[slot] = new
        hops = max(rules.hops for rules in (self._new, *self._of))
        self._power, self._speech = (keep_last(ring, hops) for ring in (self._power, self._speech))
        return new.by_class

    def inherit(self, slot: int) -> None:
        """Stream `slot` has the settings for all."""
        self._of[slot] = self._new

    def _rules(self, settings: Mapping[str, DetectionSpec]) -> Rules:
        rules = {
            self.labels.index(label): self._rule(spec.isolation, spec.onset_offset_ms)
            for label, spec in settings.items()
            if spec.isolation is not None and spec.isolation.before_ms + spec.isolation.after_ms > 0
        }
        n = max((spec.n for spec in settings.values()), default=1)
        reach = max((r.onset + r.before for r in rules.values()), default=0)
        return Rules(rules, max(n + reach + self.guard, *(r.after for r in rules.values())) if rules else 0)

    def _rule(self, spec: IsolationSpec, onset_offset_ms: float) -> Rule:
        before, after, onset = (x / self.patch_hop_ms for x in (spec.before_ms, spec.after_ms, onset_offset_ms))
        return Rule(ceil(before), ceil(after), 10 ** (-spec.margin_db / 10), spec.speech, round(onset))

    def ensure(self, n_streams: int) -> None:
        """Make room for slots 0..n_streams-1."""
        self._power, self._speech = grown(self._power, n_streams), grown(self._speech, n_streams)
        self._of += [self._new] * (n_streams - len(self._of))

    def reset(self, slot: int) -> None:
        """Forget stream `slot`: digital silence was before it."""
        self._power[slot] = self._speech[slot] = 0

    def push(self, slots: Int64Array, scores: Float32Array, powers: Float32Array) -> Around:
        """Take `p` patch hops of `k` streams: scores (k, p, n_classes) of the patches that end with them, and the mean
        squares (k, p) of their samples. The result looks back from each of them.
        """
        speech = np.ones_like(powers) if self._silence is None else 1 - scores[:, :, self._silence]
        power = np.concatenate([self._power[slots], powers], axis=1)
        speech = np.concatenate([self._speech[slots], speech], axis=1)
        hops = self._power.shape[1]
        self._power[slots], self._speech[slots] = power[:, power.shape[1] - hops :], speech[:, speech.shape[1] - hops :]
        return Around(self, [self._of[slot].by_class for slot in slots.tolist()], power, speech)

    def loudest(self, power: Float32Array) -> float:
        """The highest mean of a stretch of LOUDEST_MS of a word's patch hops (t,)."""
        width = min(self._loudest, len(power))
        return float(np.convolve(power, np.full(width, 1 / width), "valid").max())


@dataclass(frozen=True, slots=True)
class Around:
    """The history of one call's streams: (k, hops + p), patch j of the call is column hops + j."""

    rings: Surroundings
    rules: list[dict[int, Rule]]  # of each row
    power: Float32Array
    speech: Float32Array

    def before(self, row: int, c: int, back: int, age: int) -> Judgement | None:
        """Of label `c`, whose first patch above its threshold lies `age` patches before the deciding one, which lies
        `back` patches before the last; None where it need not stand alone.
        """
        # Columns, D the deciding patch; `last`, `onset` and `end` are the first columns behind a part:
        #   [ before ]last[ guard ]onset[ word ... D ]end ... `back` more
        #                          onset = end - age - rule.onset
        rule = self.rules[row].get(c)
        if rule is None:
            return None
        end = self.power.shape[1] - back
        onset = max(0, end - age - rule.onset)
        word = self.rings.loudest(self.power[row, min(onset, end - 1) : end])  # at least D's own patch hop
        last = max(0, onset - self.rings.guard)
        power = _mean(self.power[row, max(0, last - rule.before) : last])
        speech = _mean(self.speech[row, max(0, onset - rule.before) : onset])
        margin_db = 10 * log10(max(word, FAINTEST) / max(power, FAINTEST))
        return Judgement(not rule.is_talk(power, speech, word), word, margin_db, speech)

    def talk_after(self, row: int, c: int, back: int, word: float) -> bool:
        """Whether somebody talked in the `after` patch hops up to the one that lies `back` before the last."""
        rule = self.rules[row].get(c)
        if rule is None:  # no more, since its settings have changed
            return False
        end = self.power.shape[1] - back
        span = slice(max(0, end - rule.after), end)
        return rule.is_talk(_mean(self.power[row, span]), _mean(self.speech[row, span]), word)


def _mean(values: Float32Array) -> float:
    return float(values.mean(dtype=np.float64)) if len(values) else 0.0
