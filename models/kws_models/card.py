"""The facts of a model card that come from the recordings: counts, licences, credits, share of claimed provenance."""

from __future__ import annotations

from collections import Counter

from kws_models.recordings import Recording

FEATURES_CREDIT = "Speech Commands v0.02 (features computed from it) | CC BY 4.0"
_FAMILIES = ("CC BY-SA", "CC BY", "ODbL", "CC0", "Public domain")


def licences_of(recordings: list[Recording]) -> set[str]:
    """Families of the recordings' licences, e.g. {"CC BY", "ODbL"}."""
    return {licence_family(r.licence) for r in recordings}


def licence_family(licence: str) -> str:
    """The family a licence text begins with; the text itself if none."""
    text = licence.replace("CC-BY", "CC BY")
    return next((family for family in _FAMILIES if text.startswith(family)), text or "not stated")


def credits_table(recordings: list[Recording]) -> str:
    """Markdown table: source, licence, recordings; sorted."""
    counts = Counter((r.repository or "your own recordings", r.licence or "not stated") for r in recordings)
    rows = [f"| {source} | {licence} | {n} |" for (source, licence), n in sorted(counts.items())]
    return "\n".join(["| source | licence | recordings |", "|---|---|---|", *rows])


def counts_table(recordings: list[Recording], folders: tuple[str, ...]) -> str:
    """Markdown table of the `folders`: recordings, and speakers or independent recordings."""
    rows = []
    for folder in folders:
        mine = [r for r in recordings if r.folder == folder]
        if mine:
            rows.append(f"| `{folder}` | {len(mine)} | {len({r.source for r in mine})} |")
    return "\n".join(["| folder | recordings | speakers or independent recordings |", "|---|---|---|", *rows])


def claimed_share(recordings: list[Recording]) -> float:
    """Share of recordings whose licence is stated second-hand."""
    return sum(r.provenance == "claimed" for r in recordings) / max(1, len(recordings))
