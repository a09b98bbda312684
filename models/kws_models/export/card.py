"""The part of a model card that comes from the recordings: counts, licences, credits, share of claimed provenance.

It stands in README.md between two marks; what people write around them stays.
"""

from __future__ import annotations

from collections import Counter

from kws_models.data.recordings import Recording

BEGIN, END = "<!-- from the recordings: begin -->", "<!-- from the recordings: end -->"
_FAMILIES = ("CC BY-SA", "CC BY", "ODbL", "CC0", "Public domain")  # CC BY-SA first: it begins like CC BY


def licences_of(recordings: list[Recording]) -> set[str]:
    """Families of the recordings' licences, e.g. {"CC BY", "ODbL"}."""
    return {licence_family(r.licence) for r in recordings}


def licence_family(licence: str) -> str:
    """The family a licence text begins with; the text itself if none."""
    text = licence.replace("CC-BY", "CC BY")
    return next((f for f in _FAMILIES if text.lower().startswith(f.lower())), text or "not stated")


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


def data_section(recordings: list[Recording], folders: tuple[str, ...], n_features: int) -> str:
    """What the model learnt from, and whom to thank."""
    features = f", and published features of {n_features} further clips (Speech Commands v0.02, CC BY 4.0)"
    n_sources = len({r.source for r in recordings})
    lines = [
        "## Data",
        "",
        f"{len(recordings)} recordings of {n_sources} speakers or sources{features if n_features else ''}.",
        f"Licence stated second-hand by a game or sound pack: {100 * claimed_share(recordings):.1f} %.",
        "Digests of all of them are in the files that training_recordings.txt names.",
        "",
        counts_table(recordings, folders),
        "",
        "## Credits",
        "",
        credits_table(recordings),
    ]
    return "\n".join(lines)


def with_data_section(card: str, section: str) -> str:
    """The card with its generated part replaced, or added at the end."""
    before, _, rest = card.partition(BEGIN)
    after = rest.partition(END)[2]
    return f"{before.rstrip()}\n\n{BEGIN}\n{section}\n{END}\n{after.lstrip()}"
