"""The words of a card, from figures alone."""

from __future__ import annotations

from typing import Any

from kws_serve.manifest.spec import ModelSpec

_WEAKEST = 5


def card_text(spec: ModelSpec, facts: dict[str, Any], pictures: dict[str, str]) -> str:
    """Markdown, up to the part that comes from the recordings."""
    parts = [
        _head(spec, facts),
        _clips(spec, facts),
        _confusion(facts),
        _streams(spec, facts, pictures),
        _costs(facts),
        _filters(pictures),
        _training(facts),
        _licence(spec),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _head(spec: ModelSpec, facts: dict[str, Any]) -> str:
    said = ", ".join(label for label in spec.labels if label not in spec.rest_labels)
    rest = ", ".join(f"`{label}`" for label in spec.labels if label in spec.rest_labels)
    rate_hz = spec.front_end.rate_hz
    kind = "words" if spec.task == "keyword" else "sound events"
    costs = facts["costs"]
    lines = [
        f"# {spec.name}",
        "",
        f"{len(spec.detection)} {kind} ({said}){f', and {rest} for everything else,' if rest else ''} from "
        f"{spec.patch_samples / rate_hz:.2f} s of {rate_hz // 1000} kHz audio. {costs['params_folded']:,} parameters, "
        f"{costs['ops']:,} operations a patch.",
        "This is not a safety, medical or security device: it misses and mistakes, as measured below.",
        "This card was written by `kws-models build`; card.json has its figures.",
    ]
    few, sources = spec.provenance.get("experimental_labels", []), spec.provenance.get("independent_recordings", {})
    lines += [
        f"`{label}` is experimental: it is learnt from {sources.get(label)} recordings or speakers." for label in few
    ]
    return "\n".join(lines)


def _clips(spec: ModelSpec, facts: dict[str, Any]) -> str:
    fold = facts["fold"]
    whose = (
        "These weights learnt from all recordings, so nothing is left to measure them on. The figures are of a twin: "
        f"the same recipe without one speaker or recording in five (fold {fold})."
        if facts["twin"]
        else f"One speaker or recording in five (fold {fold}) was held out from beginning to end."
    )
    rows = [
        f"| `{spec.files[kind].path.name}`, {name} | {_percent(facts[name]['accuracy'])} | "
        f"{_percents(facts[name]['accuracy_ci'])} | {facts[name]['n']:,} |"
        for name, kind in (("float32", "onnx"), ("int8", "tflite"))
    ]
    difference = facts["int8_less_float"]
    low, high = difference["interval"]
    recalls = sorted(
        (r["recall"], x) for x, r in facts["float32"]["per_class"].items() if r["n"] and x in spec.detection
    )
    weakest = ", ".join(f"{label} {_percent(recall)}" for recall, label in recalls[:_WEAKEST])
    return "\n".join(
        [
            "## Clips",
            "",
            f"{whose} `kws-models evaluate --fold {fold}`, 95 % intervals by Wilson.",
            "",
            "| file | accuracy | 95 % interval | clips |",
            "|---|---|---|---|",
            *rows,
            "",
            f"Int8 less float on the same clips: {difference['points']:+.2f} points ({low:+.2f} to {high:+.2f}). "
            f"Weakest (float32 recall): {weakest}. One fold and one seed: no spread over seeds is known.",
        ]
    )


def _confusion(facts: dict[str, Any]) -> str:
    report = facts["float32"]
    labels = report["labels"]
    rows = [
        f"| `{x}` | {' | '.join(str(n or '') for n in row)} |"
        for x, row in zip(labels, report["confusion"], strict=True)
    ]
    worst = [f"{'/'.join(r['pair'])} {r['mixed_up']} of {r['of']}" for r in facts["worst_pairs"]]
    return "\n".join(
        [
            "### Taken for each other",
            "",
            "Float32 file, rows true, columns answered.",
            "",
            f"| | {' | '.join(labels)} |",
            "|---" * (len(labels) + 1) + "|",
            *rows,
            "",
            f"Worst pairs, either way round: {'; '.join(worst) or 'none'}.",
        ]
    )


def _streams(spec: ModelSpec, facts: dict[str, Any], pictures: dict[str, str]) -> str:
    stream = facts["stream"]
    first = next(iter(spec.detection.values()))
    alone = "; a word must stand alone (`isolation`)" if first.isolation else ""
    lines = [
        "## Streams",
        "",
        f"Float32 file, the settings in `model.json` (smoothing {first.smoothing_ms:g} ms, {first.k} of {first.n} "
        f"patches{alone}). Poisson and Wilson 95 % intervals.",
        "",
        "| heard | hours | false accepts | an hour | 95 % interval |",
        "|---|---|---|---|---|",
    ]
    talk = stream.get("real_running_speech")
    for name, row in (talk or {}).get("by_source", {}).items():
        lines.append(_rate(f"real people, {name} ({row['speakers']} speakers)", row))
    if talk and len(talk["by_source"]) > 1:
        lines.append(_rate("real people, all", talk))
    lines.append(_rate("synthetic running speech over noise at 0 to 20 dB", stream["running_speech"]))
    quiet = stream["backgrounds_and_hard_negatives"]
    lines.append(
        f"| backgrounds and hard negatives ({quiet['n']} recordings) | {quiet['hours']:.2f} | {quiet['accepts']} | | |"
    )
    scenes = stream["scenes"]
    found = sorted(scenes["recall"].items(), key=lambda item: item[1])
    lines += [
        "",
        f"Found: {_percent(scenes['found_share'])} ({_percents(scenes['found_ci'])}) of {scenes['n']:,} clips laid "
        f"over backgrounds at 8 to 30 dB, a synthetic mixture ({scenes['hours']:.2f} h); by label "
        f"{', '.join(f'{label} {_percent(share)}' for label, share in found)}.",
    ]
    if talk is None:
        lines.append("No real people talking were at hand: synthetic speech alone flatters.")
    else:
        hours = talk["hours"]
        lines.append(f"{hours:.2f} h of real talk resolve little: one event more or less is {1 / hours:.1f} an hour.")
    lines.append(f"{stream['note'].capitalize()}.")
    return "\n".join([*lines, "", *_det(stream, pictures)])


def _rate(name: str, row: dict[str, Any]) -> str:
    low, high = row["per_hour_ci"]
    return f"| {name} | {row['hours']:.2f} | {row['false_accepts']} | {row['per_hour']:.2f} | {low:.2f} - {high:.2f} |"


def _det(stream: dict[str, Any], pictures: dict[str, str]) -> list[str]:
    rows = stream["trade_off"]
    real = "real_per_hour" in rows[0]
    lines = ["One threshold for all labels:", "", "| threshold | found | real talk, an hour | synthetic | sounds |"]
    lines.append("|---|---|---|---|---|")
    for row in rows:
        talk = f"{row['real_per_hour']:.2f}" if real else ""
        found = _percent(row["found_share"])
        lines.append(f"| {row['threshold']:g} | {found} | {talk} | {row['per_hour']:.2f} | {row['accepts']} |")
    picture = next((name for name in pictures if name.endswith(".svg")), None)
    heard = "of real talk" if real else "of synthetic speech"
    return [*lines, "", f"![{pictures[picture]}, {heard}]({picture})"] if picture else lines


def _costs(facts: dict[str, Any]) -> str:
    costs = facts["costs"]
    reference = costs["reference"]
    lines = ["## Layers", ""]
    lines.append(
        f"{costs['params_folded']:,} parameters, {costs['macs']:,} multiplications, {costs['ops']:,} operations."
    )
    if reference:
        lines.append(f"The reference document: {', '.join(f'{k} {v:,.0f}' for k, v in _plain(reference))}.")
    if costs["reference_accuracy"]:
        said = ", ".join(f"{what} {_percent(share)}" for what, share in costs["reference_accuracy"].items())
        lines.append(f"Its accuracy, on other clips: {said}.")
    if "not_on_the_board" in costs:
        lines += [
            f"No modelled cycles: {costs['not_on_the_board']}",
            "",
            "| layer | kind | multiplications |",
            "|---|---|---|",
        ]
        rows = [x for x in costs["layers"] if x["ops"]]
        return "\n".join([*lines, *(f"| {x['name']} | {x['kind']} | {x['macs']:,} |" for x in rows)])
    lines.append(
        f"On GAP8's eight cores {costs['cycles']:,} cycles, {costs['ms']:g} ms at 175 MHz: {costs['cycles_are']}"
        + (f"; the reference's table says {costs['reference_cycles']:,}." if costs["reference_cycles"] else ".")
    )
    lines += ["", "| layer | kind | operations | modelled cycles | reference's cycles |", "|---|---|---|---|---|"]
    for row in costs["layers"]:
        beside = f"{row['reference_cycles']:,}" if row["reference_cycles"] else ""
        lines.append(f"| {row['name']} | {row['kind']} | {row['operations']:,} | {row['cycles']:,} | {beside} |")
    return "\n".join(lines)


def _plain(reference: dict[str, float]) -> list[tuple[str, float]]:
    return [(name, value) for name, value in reference.items() if name != "accuracy"]


def _filters(pictures: dict[str, str]) -> str:
    name = next((name for name in pictures if name.endswith(".png")), None)
    if name is None:
        return ""
    said = f"The first layer's {pictures[name]}; red adds, blue takes away, each on its own scale."
    return f"## Filters\n\n{said}\n\n![filters]({name})"


def _training(facts: dict[str, Any]) -> str:
    trained = facts["training"]
    if trained["weights_given"]:
        said = f"Weights were given: SHA-256 `{trained['weights_sha256'][:16]}`."
    else:
        said = f"Seed {trained['seed']}, held-out fold {trained['fold']}, recipe:\n\n```text\n{trained['recipe']}\n```"
        for key in ("start", "teacher", "pack"):
            said += f"\n\n{key.capitalize()}: {trained[key]}." if trained.get(key) else ""
    return f"## Training\n\n{said}"


def _licence(spec: ModelSpec) -> str:
    licence = spec.provenance.get("weights_licence", "not stated")
    return f"## Licence of the weights\n\n{licence}."


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def _percents(interval: list[float]) -> str:
    low, high = interval
    return f"{100 * low:.1f} - {100 * high:.1f} %"
