"""Training recipes: how long, how fast, how regular. A recipe is a row of phases, each going on from the one before."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from kws_serve.messages import KwsError


@dataclass(frozen=True)
class Phase:
    """One optimiser, one schedule, one strength of augmentation; the weights kept are a moving average.

    `cosine` warms up linearly and falls to 1 % of the rate; `constant` stays. `integer`: batch normalisation is
    absorbed and every map and weight rounded as the int8 file will round it (quantisation-aware training).
    `teacher_share`: of the loss, where the command was given a teacher.
    """

    steps: int
    learning_rate: float
    augment: str = "strong"  # a name in augmentation.LEVELS or event_batches.MIXES
    optimiser: Literal["adamw", "adam", "sgd", "rmsprop"] = "adamw"
    schedule: Literal["cosine", "constant"] = "cosine"
    weight_decay: float = 1e-2
    warm_up_steps: int = 300
    average_decay: float = 0.999
    label_smoothing: float = 0.05
    dropout: float = 0.0
    bfloat16: bool = False  # forward and backward in bfloat16, weights in float32
    integer: bool = False
    teacher_share: float = 0.7


@dataclass(frozen=True)
class Recipe:
    """What a training does, from first to last."""

    phases: tuple[Phase, ...]
    batch: int = 128
    silence_share: float = 0.10
    unknown_share: float = 0.16

    @property
    def steps(self) -> int:
        """Of all phases."""
        return sum(phase.steps for phase in self.phases)

    def scaled(self, steps: int) -> Recipe:
        """The same recipe in about `steps` steps, each phase by its share, at least one step each."""
        share = steps / self.steps
        return replace(self, phases=tuple(replace(p, steps=max(1, round(p.steps * share))) for p in self.phases))


_STRONG = Phase(20_000, 2e-3)
_MILD = Phase(8_000, 1e-3, augment="mild", warm_up_steps=100)
_MILD_AGAIN = replace(_MILD, steps=5_000, learning_rate=5e-4)
_INTEGER = Phase(3_000, 2e-4, augment="mild", warm_up_steps=100, weight_decay=0.0, average_decay=0.998, integer=True)
_EVENT = Phase(8_000, 2e-3, warm_up_steps=200, average_decay=0.998, label_smoothing=0.02, dropout=0.2, bfloat16=True)
_EVENT_MILD = replace(_EVENT, steps=4_000, learning_rate=7e-4, augment="mild", warm_up_steps=100)
_EVENT_INTEGER = replace(
    _EVENT_MILD, steps=1_500, learning_rate=1e-4, weight_decay=0.0, bfloat16=False, integer=True, dropout=0.0
)
_RAW = Phase(12_000, 2e-3, bfloat16=True, dropout=0.25)
_RAW_MILD = replace(_RAW, steps=4_000, learning_rate=5e-4, augment="mild", warm_up_steps=100)

_KEYWORD = {
    "standard": Recipe((_STRONG, _MILD, _INTEGER)),
    "short": Recipe((replace(_STRONG, steps=6_000), replace(_MILD, steps=2_000))),
    "mined": Recipe((_STRONG, _MILD, _MILD_AGAIN, _INTEGER)),  # made for train --mine: once more mined, on lower rates
    "finish": Recipe((_MILD, _INTEGER)),  # goes on from --start: the same again on other recordings, say
}
_LARGE = {  # maps of 69 MB a batch: memory is what its training takes
    name: replace(r, batch=64, phases=tuple(replace(p, bfloat16=not p.integer) for p in r.phases))
    for name, r in _KEYWORD.items()
}
_EVENTS = {
    "standard": Recipe((_EVENT, _EVENT_MILD, _EVENT_INTEGER), batch=64),
    "short": Recipe((replace(_EVENT, steps=1_500),), batch=64),
    "finish": Recipe((_EVENT_MILD, _EVENT_INTEGER), batch=64),
}
_WORDS = {  # raw waveforms: no silence and no unknown among the labels
    "standard": Recipe((_RAW, _RAW_MILD), batch=64, silence_share=0.0, unknown_share=0.0),
    "short": Recipe((replace(_RAW, steps=2_000),), batch=64, silence_share=0.0, unknown_share=0.0),
    "finish": Recipe((_RAW_MILD,), batch=64, silence_share=0.0, unknown_share=0.0),
}


def _constant(rates: tuple[float, ...], steps: tuple[int, ...], **changed: object) -> Recipe:
    """The references' way: a learning rate for a number of steps, then the next; batch 100, unknown 10 %."""
    base = Phase(1, 1.0, "reference", "adam", "constant", 0.0, 1, 0.0, 0.0)
    phases = tuple(replace(base, learning_rate=r, steps=n, **changed) for r, n in zip(rates, steps, strict=True))  # type: ignore[arg-type]
    return Recipe(phases, batch=100, unknown_share=0.10)


# MODEL_ZOO 2, 3 and 4, as far as the reference documents tell; where they contradict themselves, the row's own figures
_REFERENCE: dict[str, Recipe] = {
    "dscnn-s": _constant((5e-4, 2e-4, 1e-4), (2000, 1000, 1000)),
    "dscnn-m": _constant((5e-4, 1e-4, 2e-5), (10_000, 10_000, 10_000)),
    "dscnn-l": _constant((5e-4,), (3000,)),
    "m1": _constant((1e-2, 1e-3), (15_000, 3000), optimiser="sgd"),
    "m2": _constant((1e-2, 2e-3, 1e-4), (8000, 5000, 3000), optimiser="rmsprop"),
    "cnn-trad-fpool3": _constant((1e-3, 1e-4), (15_000, 3000), optimiser="sgd"),
}


def recipes_of(name: str, task: str, raw: bool) -> dict[str, Recipe]:
    """The recipes that architecture `name` can be trained by."""
    keyword = _LARGE if name == "dscnn-l" else _KEYWORD
    ours = _WORDS if raw else {"keyword": keyword, "event": _EVENTS}[task]
    return ours | ({"reference": _REFERENCE[name]} if name in _REFERENCE else {})


def find_recipe(name: str, task: str, raw: bool, recipe: str) -> Recipe:
    """The architecture's recipe called `recipe`; KwsError listing what there is."""
    known = recipes_of(name, task, raw)
    if recipe not in known:
        raise KwsError(f"--recipe: found {recipe!r}, wanted one of {', '.join(known)} for {name}")
    return known[recipe]
