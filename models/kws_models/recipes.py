"""Training recipes by name: how long, how fast, how regular."""

from __future__ import annotations

from dataclasses import dataclass

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


RECIPES: dict[str, dict[str, Recipe]] = {
    "keyword": {"standard": Recipe(steps=12_000), "short": Recipe(steps=1_500)},
    "event": {"standard": Recipe(steps=4_000, dropout=0.2), "short": Recipe(steps=600)},
}


def find_recipe(task: str, name: str) -> Recipe:
    """The task's recipe called `name`; KwsError listing what there is."""
    if name not in RECIPES[task]:
        raise KwsError(f"recipe: found {name!r}, wanted one of {', '.join(RECIPES[task])}")
    return RECIPES[task][name]
