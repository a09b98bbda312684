"""What may be asked for as a source."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kws_serve.messages import SourceError, check_name
from kws_serve.sources.spec import SourceSpec, parse_source, parse_sources, stream_name


@pytest.mark.parametrize(("text", "name", "kind", "target"), [
    ("mic", "mic", "mic", ""),
    ("mic:USB Audio", "mic", "mic", "USB Audio"),
    ("mic:HDA Intel: ALC257 (hw:0,0):1", "mic", "mic", "HDA Intel: ALC257 (hw:0,0):1"),
    ("door=mic:2:1", "door", "mic", "2:1"),
    ("-", "stdin", "stdin", ""),
    ("radio=-", "radio", "stdin", ""),
    ("/tmp/Some File.wav", "some-file", "file", "/tmp/Some File.wav"),
    ("tape=/tmp/a=b.wav", "tape", "file", "/tmp/a=b.wav"),
    ("/tmp/a=b.wav", "a-b", "file", "/tmp/a=b.wav"),
    ("./---.wav", "file", "file", "./---.wav"),
])  # fmt: skip
def test_a_source_is_named_and_its_kind_found(text: str, name: str, kind: str, target: str) -> None:
    assert parse_source(text) == SourceSpec(name, kind, target, text)  # type: ignore[arg-type]


def test_an_existing_file_may_have_an_equals_sign(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("x=1.wav").write_bytes(b"")
    assert parse_source("x=1.wav").target == "x=1.wav"
    assert parse_source("x=2.wav") == SourceSpec("x", "file", "2.wav", "x=2.wav")


@pytest.mark.parametrize(("texts", "says"), [
    (["http://x/y"], "not in this version"),
    (["a=rtsp://x/y?b=c"], "not in this version"),
    (["rtsp://x/y?b=c"], "not in this version"),
    ([""], "wanted mic"),
    (["a="], "wanted mic"),
    (["Front Door=mic"], "source name"),
    (["=mic"], "source name"),
    (["mic", "mic:USB"], "both be named 'mic'"),
    (["one/a.wav", "two/a.wav"], "both be named 'a'"),
    (["-", "b=-"], "twice"),
    (["none", "mic"], "none alone"),
])  # fmt: skip
def test_what_cannot_be_is_refused_in_one_line(texts: list[str], says: str) -> None:
    with pytest.raises(SourceError, match=says) as refused:
        parse_sources(texts)
    assert "\n" not in str(refused.value)


def test_the_advice_for_two_of_one_name_works() -> None:
    with pytest.raises(SourceError) as refused:
        parse_sources(["mic:A", "mic:B"])
    advice = str(refused.value).rpartition("--source ")[2]
    assert [spec.name for spec in parse_sources(["mic:A", advice])] == ["mic", "mic-2"]


def test_none_is_no_source() -> None:
    assert parse_sources(["none"]) == []


@given(st.text(max_size=40))
def test_any_text_is_a_named_source_or_refused(text: str) -> None:
    try:
        spec = parse_source(text)
    except SourceError:
        return
    if spec.kind != "none":
        check_name("stream", spec.name)
    assert spec.text == text


@given(st.text(max_size=300))
def test_any_file_name_gives_a_stream_name(text: str) -> None:
    check_name("stream", stream_name(Path(text)))
