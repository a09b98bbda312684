"""Tables in CSV as people write them, with a byte order mark or without; what is none is refused in one line."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path

from kws_models.data.errors import DataError


def read_table(path: Path, wanted: Sequence[str]) -> list[dict[str, str]]:
    """The rows of a table with at least the columns `wanted`; other columns are kept, an absent cell is empty.

    Raises DataError: not readable, no text in UTF-8, a column missing, a quote that is not closed.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise DataError(f"{path}: cannot read it ({error.strerror})") from error
    except ValueError as error:
        raise DataError(f"{path}: found no text in UTF-8 ({error}), wanted a table in CSV") from error
    rows = csv_rows(path, text.splitlines(keepends=True), ",")
    columns = [name.strip() for name in next(rows, (0, []))[1]]
    missing = [name for name in wanted if name not in columns]
    if missing:
        found = ", ".join(columns)[:80] or "none"
        raise DataError(f"{path}: found columns {found}, wanted {', '.join(wanted)} (in CSV, with commas)")
    table = []
    for number, cells in rows:
        row = dict.fromkeys(columns, "") | dict(zip(columns, cells, strict=False))
        for name in wanted:
            if not row[name]:
                raise DataError(f"{path}: line {number}: found no {name}, wanted one")
        table.append(row)
    return table


def csv_rows(path: Path, lines: Sequence[str], delimiter: str) -> Iterator[tuple[int, list[str]]]:
    """The rows that are not empty, with the number, from 1, of the line where each begins. Raises DataError."""
    reader = csv.reader(lines, delimiter=delimiter, strict=True)
    first = 1
    while True:
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            raise DataError(
                f"{path}: line {first}: found a quote amiss ({error}), wanted quotes that open and close a cell"
            ) from error
        if cells:
            yield first, cells
        first = reader.line_num + 1
