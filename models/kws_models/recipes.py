"""Training recipes by name: how long, how fast, how regular."""

from __future__ import annotations

from dataclasses import dataclass, replace

from kws_serve.messages import KwsError


@dataclass(frozen=True)
class Recipe:
    """AdamW with a linear warm-up and a cosine to 1 % of the rate; the weights kept are a moving average."""

    steps: int
    learning_rate: float = 2e-3
    weight_decay: float = 1e-2
    warm_up_steps: int = 300
    average_decay: float = 0.999
    label_smoothing: float = 0.05
    dropout: float = 0.0
    bfloat16: bool = False  # forward and backward in bfloat16, weights in float32


_EVENT = Recipe(steps=5_000, warm_up_steps=200, average_decay=0.998, label_smoothing=0.02, dropout=0.2, bfloat16=True)

RECIPES: dict[str, dict[str, Recipe]] = {
    "keyword": {"standard": Recipe(steps=24_000), "short": Recipe(steps=8_000)},
    "event": {"standard": _EVENT, "short": replace(_EVENT, steps=1_500)},
}


def find_recipe(task: str, name: str) -> Recipe:
    """The task's recipe called `name`; KwsError listing what there is."""
    if name not in RECIPES[task]:
        raise KwsError(f"recipe: found {name!r}, wanted one of {', '.join(RECIPES[task])}")
    return RECIPES[task][name]
