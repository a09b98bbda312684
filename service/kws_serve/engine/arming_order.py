"""Who arms whom, over all models: what each rule names is there, and nobody waits for himself."""

from __future__ import annotations

from collections.abc import Mapping

from kws_serve.core.arming import Key
from kws_serve.manifest.spec import ArmingSpec, DetectionSpec, ModelSpec


def order(specs: Mapping[str, ModelSpec], settings: Mapping[str, Mapping[str, DetectionSpec]]) -> dict[str, int]:
    """The rank of each model: after those that arm its labels. `settings`: model -> label -> those in force.

    Raises ValueError: what an `armed_by` names is not there, or in a circle of labels, or of models, each waits for the
    next.
    """
    rules: dict[Key, ArmingSpec] = {}
    for name, of in settings.items():
        for label, spec in of.items():
            if (rule := spec.armed_by) is not None:
                _check_named(specs, f"model {name}: detection.{label}.armed_by", rule)
                rules[name, label] = rule
    for first in rules:
        way = [first]
        while (rule_of := rules.get(way[-1])) is not None:
            way.append((rule_of.model, rule_of.label))
            if way[-1] == first:
                raise ValueError(f"armed_by: found the circle {_shown(way)}, wanted none")
            if len(way) > len(rules) + 1:
                break  # a circle further on: found from there
    waits_for: dict[str, set[str]] = {name: set() for name in settings}
    for (name, _), rule in rules.items():
        waits_for[name] |= {rule.model} - {name}
    ranks: dict[str, int] = {}
    while len(ranks) < len(waits_for):
        free = [name for name, others in waits_for.items() if name not in ranks and others <= set(ranks)]
        if not free:
            found = " and ".join(sorted(set(waits_for) - set(ranks)))
            raise ValueError(f"armed_by: found models that wait for each other, {found}; wanted one before the other")
        ranks |= dict.fromkeys(free, len(ranks))
    return ranks


def _check_named(specs: Mapping[str, ModelSpec], where: str, rule: ArmingSpec) -> None:
    if rule.model not in specs:
        raise ValueError(f"{where}.model: found {rule.model!r}, wanted one of {', '.join(specs)}")
    labels = specs[rule.model].detection
    if rule.label not in labels:
        raise ValueError(f"{where}.label: found {rule.label!r}, wanted one of {', '.join(labels)}")


def _shown(way: list[Key]) -> str:
    return " -> ".join(f"{model}/{label}" for model, label in way)
