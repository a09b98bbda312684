"""model.json: the contract's example is read; everything else is refused by field, found and wanted."""

from __future__ import annotations

import copy
import json
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kws_serve.manifest.folder import find_model, list_models, load_model, parse_model
from kws_serve.manifest.spec import (
    ArmingSpec,
    DctSpec,
    DetectionSpec,
    FileSpec,
    FrontEndSpec,
    IsolationSpec,
    LogSpec,
    MelSpec,
    ModelSpec,
    VerifySpec,
)
from kws_serve.manifest.tables import ARMING, DCT, DETECTION, FILE, FRONT_END, ISOLATION, LOG, MEL, MODEL, VERIFY
from kws_serve.messages import ManifestError

ROOT = Path(__file__).resolve().parents[2]
EXAMPLE_TEXT = (ROOT / "tests/golden/model_json_example.json").read_text()  # the contract's, with digests filled in
EXAMPLE: dict[str, Any] = json.loads(EXAMPLE_TEXT)
DOCS = (ROOT / "docs/manifest.md").read_text()
RAW = {"kind": "raw", "rate_hz": 16000}


def parse(manifest: Any, folder: Path = Path("/models/x")) -> ModelSpec:
    return parse_model(json.dumps(manifest).encode(), folder)


def changed(path: str, value: Any) -> dict[str, Any]:
    """The example with `value` at dotted `path`; MISSING deletes."""
    manifest = copy.deepcopy(EXAMPLE)
    *way, last = path.split(".")
    at = manifest
    for key in way:
        at = at[key]
    if value is MISSING:
        del at[last]
    else:
        at[last] = value
    return manifest


def refusal(manifest: Any) -> str:
    with pytest.raises(ManifestError) as refused:
        parse(manifest)
    line = str(refused.value)
    assert line.isprintable()
    assert len(line) < 600
    return line


def test_the_example() -> None:
    spec = parse_model(EXAMPLE_TEXT.encode(), Path("/models/dscnn-s"))
    assert (spec.name, spec.version, spec.task, spec.n_frames, spec.n_coeffs) == ("dscnn-s", "1.0.0", "keyword", 49, 10)
    assert spec.labels == (
        "_silence_",
        "_unknown_",
        *["yes", "no", "up", "down", "left", "right", "on", "off", "stop", "go"],
    )
    assert spec.rest_labels == {"_silence_", "_unknown_"}
    assert spec.front_end == FrontEndSpec(
        "mfcc", 16000, 640, 320, fft_size=1024, mel=MelSpec(40, 20, 4000), log=LogSpec(1e-12, 0), dct=DctSpec(10)
    )
    assert (spec.patch_hop_ms, spec.frames_per_patch_hop, spec.patch_samples) == (20, 1, 16000)
    digests = {kind: EXAMPLE["files"][kind]["sha256"] for kind in ("onnx", "tflite")}
    assert spec.files == {
        "onnx": FileSpec(Path("/models/dscnn-s/model.onnx"), digests["onnx"], "NCTF", "softmax"),
        "tflite": FileSpec(Path("/models/dscnn-s/model.int8.tflite"), digests["tflite"], "NTFC", "softmax"),
    }
    assert spec.detection == dict.fromkeys(spec.labels[2:], DetectionSpec(onset_offset_ms=600))


@pytest.mark.parametrize(
    ("path", "value", "says"),
    [
        ("front_end.mel.n", "forty", 'front_end.mel.n: found "forty", wanted an integer from 1 to 512'),
        ("front_end.mel.n", True, "found true, wanted an integer"),
        ("front_end.mel.n", 40.0, "found 40.0, wanted an integer"),
        ("front_end.mel.n", 9, "front_end.dct.n: found 10, wanted at most mel.n, 9"),
        ("front_end.mel.f_max_hz", 8001, "front_end.mel.f_max_hz: found 8001"),
        ("front_end.mel.f_min_hz", 4000, "wanted less than f_max_hz, 4000"),
        ("front_end.mel.q", 1, "front_end.mel.q: found 1, wanted no such key, one of n, f_min_hz"),
        ("front_end.mel", None, "front_end.mel: found null, wanted an object"),
        ("front_end.mel", MISSING, "front_end.mel: found no such key, wanted it (required)"),
        ("front_end.rate_hz", 44100, "wanted one of 8000, 16000"),
        ("front_end.rate_hz", 16000.0, "wanted one of 8000, 16000"),
        ("front_end.rate_hz", True, "wanted one of 8000, 16000"),
        ("front_end.kind", "plp", 'front_end.kind: found "plp", wanted one of "mfcc", "fbank", "raw"'),
        ("front_end.kind", MISSING, "front_end.kind: found null"),
        ("front_end.kind", "fbank", "front_end.dct"),
        ("front_end.kind", "raw", "wanted no such key"),
        ("front_end", [], "front_end: found [], wanted an object"),
        ("front_end.fft_size", 512, "front_end.fft_size: found 512, wanted at least window_samples, 640"),
        ("front_end.hop_samples", 641, "front_end.hop_samples: found 641, wanted at most window_samples, 640"),
        ("front_end.hop_samples", 0, "wanted an integer from 1"),
        ("front_end.window_samples", 10**9, "wanted an integer from 2 to 16384"),
        ("front_end.remove_dc", 0, "front_end.remove_dc: found 0, wanted one of false, true"),
        ("front_end.preemphasis", -0.1, "found -0.1, wanted a number from 0 to 1"),
        ("front_end.sample_scale", 0, "wanted a number above 0"),
        ("front_end.log", {"floor": 0}, "wanted floor + offset above 0"),
        ("front_end.dct", None, "front_end.dct: found none, wanted an object where kind is mfcc"),
        ("n_frames", 0, "n_frames: found 0, wanted an integer from 1"),
        ("n_frames", 2000, "n_frames: found 2000, wanted a patch of at most 30 s"),
        ("patch_hop_ms", 30, "patch_hop_ms: found 30.0, wanted a multiple of the frame hop, 20 ms"),
        ("patch_hop_ms", 0, "patch_hop_ms: found 0"),
        ("patch_hop_ms", 10, "wanted a multiple"),
        ("labels", ["yes", "no", "yes"], 'labels[2]: found "yes", wanted distinct labels'),
        ("labels", ["yes", "n\u0007o"], "labels[1]"),
        ("labels", ["yes", "\ud800"], "labels[1]"),
        ("labels", ["yes", "*"], "labels[1]"),
        ("labels", [], 'rest_labels: found "_silence_", wanted labels that `labels` has'),
        ("labels", "yes", "labels: found"),
        ("labels", ["yes", 3], "labels[1]: found 3, wanted printable text"),
        ("rest_labels", ["silence"], 'rest_labels: found "silence", wanted labels that `labels` has'),
        ("rest_labels", EXAMPLE["labels"], "at least one label that is no rest label"),
        ("name", "../x", "name: found '../x', wanted a name matching"),
        ("name", 7, "name: found 7, wanted text"),
        ("version", "1\n2", "version"),
        ("task", "speech", 'task: found "speech"'),
        ("colour", "red", 'colour: found "red", wanted no such key'),
        ("files", {}, "files: found {}, wanted an object with at least one file"),
        ("files.pt", {}, "files.pt.path: found no such key"),
        ("files.P\nT", {}, 'files."P\\nT": found {}, wanted a kind of'),
        ("files.onnx.axes", "NFT", "files.onnx.axes"),
        ("files.onnx.output", "argmax", "files.onnx.output"),
        ("files.onnx.sha256", "AB" * 32, "files.onnx.sha256"),
        ("files.onnx.sha256", "0" * 64 + "\n", "files.onnx.sha256"),
        ("files.onnx.path", "/etc/passwd", "wanted a relative path that stays in the model's folder"),
        ("files.onnx.path", "../x/model.onnx", "wanted a relative path"),
        ("files.onnx.path", "a/../../m.onnx", "wanted a relative path"),
        ("files.onnx.path", "..\\m.onnx", "wanted a relative path"),
        ("files.onnx.path", "C:m.onnx", "wanted a relative path"),
        ("files.onnx.path", ".", "wanted a relative path"),
        ("files.onnx.path", "", "wanted printable text"),
        ("files.onnx.path", "a\0b", "wanted printable text"),
        ("detection.*.threshold", 1.01, "detection.*.threshold: found 1.01, wanted a number from 0 to 1"),
        ("detection.*.off_threshold", 0.9, "detection.*.off_threshold: found 0.9, wanted at most threshold, 0.8"),
        ("detection.*.k", 4, "detection.*.k: found 4, wanted at most n, 3"),
        ("detection.yes", {"threshold": 0.4}, "detection.yes.off_threshold: found 0.5, wanted at most threshold, 0.4"),
        ("detection._silence_", {}, 'detection._silence_: found {}, wanted "*" or a label that is no rest label'),
        ("detection.maybe", {}, "detection.maybe"),
        ("detection.yes", 0.8, "detection.yes: found 0.8, wanted an object"),
        ("provenance", [], "provenance: found [], wanted an object"),
    ],
)
def test_what_is_wrong_is_named(path: str, value: Any, says: str) -> None:
    assert says in refusal(changed(path, value))


@pytest.mark.parametrize("key", ["name", "version", "task", "labels", "front_end", "n_frames", "files"])
def test_required_keys(key: str) -> None:
    assert refusal(changed(key, MISSING)) == f"model.json: {key}: found no such key, wanted it (required)"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (b"", "found no JSON"),
        (b"\xff\xfe", "found no JSON"),
        (b"{", "found no JSON"),
        (b"[]", "(top level): found [], wanted an object"),
        (b'{"n_frames": NaN}', "found NaN, wanted finite numbers"),
        (b'{"n_frames": -Infinity}', "found -Infinity"),
        (b'{"accuracy": {"x": 1e999}}', "found an infinite number"),
        (b'{"name": "a", "name": "b"}', "name: found the key twice"),
        (b'{"accuracy": ' + b"[" * 30 + b"]" * 30 + b"}", "nested deeper than 16"),
        (b'{"accuracy": ' + b"[" * 200_000, "nested deeper than 16"),
        (b'{"n_frames": 1' + b"0" * 5000 + b"}", "found no JSON"),
    ],
)
def test_text_that_is_no_manifest(text: bytes, says: str) -> None:
    with pytest.raises(ManifestError) as refused:
        parse_model(text, Path("/models/x"))
    assert says in str(refused.value)


def test_detection_merges_label_over_star_over_defaults() -> None:
    manifest = changed("detection", {"*": {"k": 1, "threshold": 0.7}, "yes": {"threshold": 0.9}})
    spec = parse(manifest)
    assert spec.detection["yes"] == DetectionSpec(threshold=0.9, k=1)
    assert spec.detection["no"] == DetectionSpec(threshold=0.7, k=1)
    assert "_silence_" not in spec.detection


@pytest.mark.parametrize(
    ("name", "task", "front_end", "hop_ms"),
    [
        ("dscnn-l", "keyword", {**EXAMPLE["front_end"], "window_samples": 480, "hop_samples": 160}, 20),
        ("m2", "keyword", {**EXAMPLE["front_end"], "window_samples": 480, "hop_samples": 240}, 30),
        ("resnetse", "event", {**EXAMPLE["front_end"], "window_samples": 400, "hop_samples": 160}, 240),
        ("cnn1d-custom32-8", "keyword", RAW, 250),
        ("own", "keyword", {**EXAMPLE["front_end"], "hop_samples": 512}, 32),
    ],
)
def test_default_patch_hop(name: str, task: str, front_end: dict[str, Any], hop_ms: float) -> None:
    manifest = changed("patch_hop_ms", MISSING) | {"name": name, "task": task, "front_end": front_end}
    spec = parse(manifest)
    assert spec.patch_hop_ms == hop_ms
    assert spec.frames_per_patch_hop >= 1


def test_a_folder_is_found_by_name_and_its_links_refused(tmp_path: Path) -> None:
    first, second = tmp_path / "a", tmp_path / "b"
    for folder, name in (
        (first / "dscnn-s", "dscnn-s"),
        (second / "dscnn-s", "dscnn-s"),
        (second / "other", "dscnn-s"),
    ):
        folder.mkdir(parents=True)
        (folder / "model.json").write_text(json.dumps(changed("name", name)))
    dirs = [tmp_path / "absent", first, second]
    assert list_models(dirs) == ["dscnn-s", "other"]
    assert find_model("dscnn-s", dirs).folder == first / "dscnn-s"
    with pytest.raises(ManifestError, match='name: found "dscnn-s", wanted the name of its folder, other'):
        find_model("other", dirs)
    with pytest.raises(ManifestError, match="model: found no third, wanted one of: dscnn-s, other"):
        find_model("third", dirs)
    with pytest.raises(ManifestError, match="wanted a name matching"):
        find_model("../b/other", dirs)
    (tmp_path / "secret").write_text("x")
    (first / "dscnn-s" / "model.onnx").symlink_to(tmp_path / "secret")
    with pytest.raises(ManifestError, match="wanted a file reached without symbolic links"):
        load_model(first / "dscnn-s")


def test_unreadable_and_oversize_manifests(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match=r"found no readable file \(No such file or directory\)"):
        load_model(tmp_path)
    (tmp_path / "model.json").write_bytes(b" " * (1 << 20) + EXAMPLE_TEXT.encode())
    with pytest.raises(ManifestError, match="found more than 1048576 bytes"):
        load_model(tmp_path)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.just("*"),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner, max_size=4),
    max_leaves=8,
)


def places(value: Any, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Paths of everything in a JSON value."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [at, *(place for key, item in inner for place in places(item, (*at, key)))]


@settings(max_examples=400, deadline=None)
@given(st.data())
def test_mutated_manifests_raise_nothing_else(data: st.DataObject) -> None:
    manifest: Any = copy.deepcopy(EXAMPLE)
    for _ in range(data.draw(st.integers(1, 3))):
        *way, last = data.draw(st.sampled_from(places(manifest)[1:] or [("name",)]))
        at = manifest
        for key in way:
            at = at[key]
        if data.draw(st.booleans()) or not isinstance(at, dict):
            at[last] = data.draw(json_values)
        else:
            at[data.draw(st.text(max_size=5))] = at.pop(last)
    try:
        spec = parse(manifest)
    except ManifestError as error:
        assert str(error).isprintable()
    else:
        assert spec.frames_per_patch_hop >= 1
        assert spec.n_coeffs >= 1


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=60), st.integers(0, len(EXAMPLE_TEXT)))
def test_spliced_bytes_raise_nothing_else(splice: bytes, at: int) -> None:
    text = EXAMPLE_TEXT.encode()
    for spoilt in (text[:at] + splice + text[at:], text[:at] + splice, text[:at] + splice + text[at + len(splice) :]):
        try:
            parse_model(spoilt, Path("/models/x"))
        except ManifestError as error:
            assert "\n" not in str(error)


def documented() -> dict[str, str]:
    """Key -> default of every table row in docs/manifest.md."""
    rows = [line.strip("| ").split(" | ") for line in DOCS.splitlines() if line.startswith("| `")]
    return {row[0].strip("`"): row[-1] for row in rows}


def test_docs_name_every_key_and_its_default() -> None:
    tables: dict[str, tuple[Any, Any]] = {
        "": (MODEL, ModelSpec),
        "front_end.": (FRONT_END, FrontEndSpec),
        "front_end.mel.": (MEL, MelSpec),
        "front_end.log.": (LOG, LogSpec),
        "front_end.dct.": (DCT, DctSpec),
        "files.*.": (FILE, FileSpec),
        "detection.*.": (DETECTION, DetectionSpec),
        "detection.*.isolation.": (ISOLATION, IsolationSpec),
        "detection.*.armed_by.": (ARMING, ArmingSpec),
        "verify.": (VERIFY, VerifySpec),
    }
    found = documented()
    assert set(found) == {prefix + key for prefix, (table, _) in tables.items() for key in table}
    for prefix, (table, spec) in tables.items():
        defaults = {f.name: f.default for f in fields(spec)}
        assert set(table) <= set(defaults)
        for key, entry in table.items():
            default = found[prefix + key]
            assert default.startswith("required") or not entry.required, prefix + key
            if default.startswith("`"):
                assert json.loads(default.strip("`")) == defaults[key], prefix + key


def test_docs_examples() -> None:
    text = DOCS.split("```json")[1].split("```")[0]
    spec = parse_model(text.encode(), Path("/models/doorbell"))
    assert spec.patch_samples / 16 == 975
    shown = DOCS.split("```text")[1].split("```")[0].strip()
    assert refusal(changed("front_end.mel.n", "forty")) == shown
