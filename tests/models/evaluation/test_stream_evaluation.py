"""`kws-models evaluate --stream`: label files, answers, rates; the same detections as kws-detect's."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st

from kws_models.cli import main
from kws_models.data.label_files import find_labelled, read_labels
from kws_models.data.recordings import DataError
from kws_models.evaluation.scenes import detections, detections_of, with_settings
from kws_serve.cli import detect as kws_detect
from kws_serve.manifest.folder import find_model, shipped_models_dir

DEMO = Path(__file__).parents[3] / "service" / "kws_serve" / "demo"


@pytest.fixture
def demo(tmp_path: Path) -> Path:
    """The demo audio as wav, its words as a label track."""
    samples, rate_hz = soundfile.read(DEMO / "demo.opus", dtype="int16")
    soundfile.write(tmp_path / "demo.wav", samples, rate_hz)
    rows = [f"{e['start_s']}\t{e['end_s']}\t{e['label']}" for e in json.loads((DEMO / "labels.json").read_text())]
    (tmp_path / "demo.txt").write_text("\n".join(rows) + "\n")
    return tmp_path


def test_the_report_counts_what_kws_detect_says(demo: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["evaluate", "dscnn-s", "--data", str(demo), "--stream", "--json", "--plot", str(demo / "det.png")])
    report = json.loads(capsys.readouterr().out)
    with pytest.raises(SystemExit):
        kws_detect([str(demo / "demo.wav"), "--model", "dscnn-s", "--json"])
    said = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    whole = report["overall"]
    assert whole["hits"] + whole["false_accepts"] == len(said) > 0
    assert {d["label"] for d in said} >= {x for x, row in report["per_label"].items() if row["hits"]}
    assert report["hours"] == pytest.approx(soundfile.info(demo / "demo.wav").duration / 3600)
    assert report["labels_of_no_detection"] == ["(talk)", "babycry", "glassbreak", "gunshot", "three", "zero"]
    low, high = whole["false_accepts_per_hour_ci"]
    assert low <= whole["false_accepts_per_hour"] <= high
    assert report["latency"]["from_onset_s"]["n"] == whole["hits"]
    assert report["event_f1"]["collar_s"] == 0.2 and report["event_f1"]["library"].startswith("sed_eval ")
    missed = [point["miss_rate"] for point in report["det"]]
    assert missed[0] < missed[-1] == 1.0 and (demo / "det.png").read_bytes().startswith(b"\x89PNG")


def test_it_reads_well(demo: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["evaluate", "dscnn-s", "--data", str(demo), "--stream", "--backend", "tflite"])
    out = capsys.readouterr().out
    assert "1 recordings" in out and "\nall " in out and "decided from the onset: p50" in out


def test_silence_without_events_has_rates_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    soundfile.write(tmp_path / "quiet.wav", np.zeros(80_000, np.int16), 16_000)
    (tmp_path / "quiet.tsv").write_text("onset\toffset\tevent_label\n")
    main(["evaluate", "resnetse", "--data", str(tmp_path), "--stream", "--json"])
    whole = json.loads(capsys.readouterr().out)["overall"]
    assert whole["n"] == 0 and whole["miss_rate"] is None and whole["false_accepts"] == 0


def test_columns_by_name(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("filename,event_label,onset,offset\na.wav,yes,1.5,2\na.wav,no,0.25,0.5\n")
    assert [(e.label, e.onset_s, e.offset_s) for e in read_labels(tmp_path / "a.csv")] == [
        ("no", 0.25, 0.5),
        ("yes", 1.5, 2.0),
    ]


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("a.txt", "1.0 2.0 yes", "line 1: found '1.0 2.0 yes', wanted onset, offset, label"),
        ("a.txt", "0\t1\tyes\n2\t1\tno", "line 2: found 2.0 to 1.0, wanted 0 <= onset <= offset"),
        ("a.txt", "nan\t1\tyes", "wanted 0 <= onset"),
        ("a.csv", "start,end,label\n0,1,yes", "found a header without onset"),
        ("a.tsv", "onset\toffset\tevent_label\n0\t1", "wanted 0 <= onset <= offset, and a label"),
    ],
)
def test_a_bad_label_is_named(name: str, text: str, said: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(DataError) as refused:
        read_labels(tmp_path / name)
    assert said in str(refused.value) and name in str(refused.value)


@given(st.text(max_size=80))
def test_any_text_is_read_or_refused(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    for suffix in (".txt", ".csv"):
        path = tmp_path_factory.getbasetemp() / f"any{suffix}"
        path.write_text(text, encoding="utf-8", errors="replace")
        try:
            read_labels(path)
        except DataError as error:
            assert str(path) in str(error)


def test_nothing_labelled(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", np.zeros(100, np.int16), 16_000)
    with pytest.raises(DataError, match="found no labelled recording"):
        find_labelled(tmp_path)


def test_streams_side_by_side_fire_as_each_alone() -> None:
    spec = find_model("dscnn-s-stream", [shipped_models_dir()])
    rng = np.random.default_rng(0)
    streams = [np.repeat(rng.random((n, len(spec.labels))), 30, axis=0).astype(np.float32) for n in (1, 9, 30, 17)]
    streams[1][-3:, spec.labels.index("yes")] = 1.0  # cut off in the middle of a word
    settings = with_settings(spec, threshold=0.6, off_threshold=0.3)
    alone = [detections(spec, scores, settings) for scores in streams]
    together = detections_of(spec, streams, settings)
    assert sum(map(len, alone)) > 20
    assert [[replace(f, row=0) for f in mine] for mine in together] == alone
