"""Tables and label files as spreadsheets and hands leave them."""

from __future__ import annotations

import codecs
from pathlib import Path

import pytest

from kws_models.data.csv_table import read_table
from kws_models.data.errors import DataError
from kws_models.data.label_files import read_labels
from kws_models.data.recordings import read_manifest

BOM = codecs.BOM_UTF8


@pytest.mark.parametrize("content", [
    b"path,speaker_or_recording\nyes/a.wav,sp\n", BOM + b"path,speaker_or_recording\r\nyes/a.wav,sp\r\n",
    b"speaker_or_recording, path,more\nsp,yes/a.wav,\n", b'path,speaker_or_recording\n"yes/a.wav",sp\n\n',
])  # fmt: skip
def test_a_manifest_is_read_with_a_byte_order_mark_and_other_columns(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "MANIFEST.csv").write_bytes(content)
    (row,) = read_manifest(tmp_path).items()
    assert row[0] == tmp_path.resolve() / "yes/a.wav" and row[1]["speaker_or_recording"] == "sp"


@pytest.mark.parametrize(("content", "says"), [
    (b"file,speaker\na.wav,s\n", "found columns file, speaker, wanted path"),
    (b"path;speaker\na.wav;s\n", "found columns path;speaker, wanted path"),
    (b"", "found columns none, wanted path"),
    (b"path,speaker\na.wav,s\n,t\n", "line 3: found no path, wanted one"),
    (b'path,speaker\na.wav,"s\nb.wav,t\n', "line 2: found a quote amiss"),
    (b'path,speaker\n"a.wav"x,s\n', "line 2: found a quote amiss"),
    ("path\nä.wav\n".encode("utf-16"), "found no text in UTF-8"),
])  # fmt: skip
def test_what_is_no_such_table_is_one_line(tmp_path: Path, content: bytes, says: str) -> None:
    (tmp_path / "MANIFEST.csv").write_bytes(content)
    with pytest.raises(DataError) as refused:
        read_manifest(tmp_path)
    line = str(refused.value)
    assert says in line and str(tmp_path / "MANIFEST.csv") in line and "\n" not in line


def test_absent_cells_are_empty(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("a,b,c\n1\n1,2,3,4\n")
    assert read_table(tmp_path / "t.csv", ("a",)) == [{"a": "1", "b": "", "c": ""}, {"a": "1", "b": "2", "c": "3"}]


@pytest.mark.parametrize("content", [
    'onset,offset,event_label\n0.8,1.5,"stop\n3,4,left\n', 'onset,offset,event_label\n0.8,1.5,"stop"x\n3,4,left\n',
    'onset\toffset\tevent_label\n0.8\t1.5\t"stop\n3\t4\tleft\n',
])  # fmt: skip
def test_an_unbalanced_quote_in_labels_is_told_with_its_line(tmp_path: Path, content: str) -> None:
    (tmp_path / "a.csv").write_text(content)
    with pytest.raises(DataError, match="line 2: found a quote amiss") as refused:
        read_labels(tmp_path / "a.csv")
    assert "\n" not in str(refused.value)


def test_the_lines_of_labels_are_those_of_the_file(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(BOM + b'onset,offset,event_label\n\n\\a comment\n0.8,1.5,"a ""b"""\n3,2,left\n')
    with pytest.raises(DataError, match=r"line 5: found 3\.0 to 2\.0"):
        read_labels(tmp_path / "a.csv")
