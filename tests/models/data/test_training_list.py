"""The list of what a model learnt from: keys that are found again, lines and files that are refused."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
import soundfile

from kws_models.data.key_file import KEY_BITS, key_of
from kws_models.data.recordings import Recording, described, find_recordings, flatten, fold_of
from kws_models.data.training_list import (
    FILE,
    SHARED,
    TrainingList,
    keys_folder,
    pcm_digest,
    read_training_list,
    training_list,
)
from kws_serve.manifest.folder import shipped_models_dir
from kws_serve.messages import KwsError

SHIPPED = shipped_models_dir()
LISTS = sorted(SHIPPED.glob(f"*/{FILE}"))


def write_clip(path: Path, seed: int, seconds: float = 1.0, rate_hz: int = 16_000) -> np.ndarray:
    path.parent.mkdir(parents=True, exist_ok=True)
    samples = np.random.default_rng(seed).normal(0, 2000, round(seconds * rate_hz)).astype(np.int16)
    soundfile.write(path, samples, rate_hz)
    return samples


def write_list(folder: Path, recordings: Iterable[Recording], feature_clips: Iterable[str] = ()) -> None:
    """As `kws-models export` does."""
    learnt = training_list(recordings, feature_clips)
    for name, content in {FILE: learnt.listed, **learnt.keys}.items():
        (folder / name).write_bytes(content)


@pytest.fixture
def spoken(tmp_path: Path) -> list[Recording]:
    """Ten speakers, two files each."""
    for i in range(20):
        write_clip(tmp_path / "data" / "yes" / f"speaker{i // 2}_nohash_{i % 2}.wav", i, seconds=0.1)
    return list(flatten(find_recordings(tmp_path / "data")))


def test_digests_are_recognised_at_any_place_and_in_any_container(spoken: list[Recording], tmp_path: Path) -> None:
    write_list(tmp_path, spoken[:5])
    known = read_training_list(tmp_path)
    pcm, _ = soundfile.read(spoken[4].path, dtype="int16")
    soundfile.write(tmp_path / "renamed.flac", pcm, 16_000)
    renamed = described(tmp_path / "renamed.flac", {})
    assert known.has(renamed, soundfile.read(renamed.path, dtype="int16")[0])
    assert not known.has(renamed, pcm[1:])
    assert known.n_recordings == len(known.keys) == 5


def test_a_lossy_file_is_known_by_what_it_was_and_by_what_it_decodes_to(tmp_path: Path) -> None:
    original = write_clip(tmp_path / "a.wav", 1)
    decoded = write_clip(tmp_path / "lossy.wav", 2)
    lossy = Recording(tmp_path / "lossy.wav", "yes", "a", sha1_pcm=pcm_digest(original))
    write_list(tmp_path, [lossy])
    known = read_training_list(tmp_path)
    elsewhere = Recording(tmp_path / "b.wav", "b", "b")
    assert known.has(elsewhere, original) and known.has(elsewhere, decoded) and known.has(lossy, decoded[1:])
    assert known.n_recordings == 1 and len(known.keys) == 2


def test_clips_of_which_only_features_were_used_are_known_by_name(tmp_path: Path) -> None:
    write_list(tmp_path, [], ["yes/0a1b_nohash_0", "no/0a1b_nohash_0"])
    known = read_training_list(tmp_path)
    silence = np.zeros(10, np.int16)
    assert known.has(Recording(Path("x/yes/0a1b_nohash_0.wav"), "yes", "0a1b"), silence)
    assert not known.has(Recording(Path("x/up/0a1b_nohash_0.wav"), "up", "0a1b"), silence)
    assert not known.has(Recording(Path("x/yes/0a1b_nohash_1.wav"), "yes", "0a1b"), silence)
    assert (known.n_recordings, known.n_features) == (0, 2)


def test_models_that_learnt_from_the_same_folds_share_files(spoken: list[Recording]) -> None:
    clips = [f"yes/{i:04x}_nohash_0" for i in range(20)]
    held_out = 0
    everything = training_list(spoken, clips)
    part = training_list([r for r in spoken if r.fold != held_out], [c for c in clips if fold_of(c[4:8]) != held_out])
    assert set(part.keys) < set(everything.keys) and len(everything.keys) - len(part.keys) == 1
    for name, content in everything.keys.items():
        assert name == f"{hashlib.sha256(content).hexdigest()}.bin"
    assert training_list(reversed(spoken), reversed(clips)) == everything


@pytest.mark.parametrize("line", [
    "abc yes/a.wav", "3" * 40 + " yes/a.wav", "features yes/a", "/etc/passwd 0 1 0", "../" + "a" * 61 + ".bin 0 1 0",
    "a" * 63 + ".bin 0 1 0", "A" * 64 + ".bin 0 1 0", "x/" + "a" * 64 + ".bin 0 1 0", "a" * 64 + " 0 1 0",
    "a" * 64 + ".bin 0 1", "a" * 64 + ".bin 0 -1 0", " " + "a" * 64 + ".bin 0 1 0",
])  # fmt: skip
def test_a_foreign_line_is_refused(tmp_path: Path, line: str) -> None:
    (tmp_path / FILE).write_text(f"# a comment\n{line}\n")
    with pytest.raises(KwsError, match=rf"{FILE}:2: found .*, wanted <SHA-256>\.bin .*kws-models export writes it"):
        read_training_list(tmp_path)


def test_keys_that_are_not_the_named_ones_are_refused(spoken: list[Recording], tmp_path: Path) -> None:
    write_list(tmp_path, spoken[:1])
    (keys,) = tmp_path.glob("*.bin")
    keys.write_bytes(keys.read_bytes()[::-1])
    found = hashlib.sha256(keys.read_bytes()).hexdigest()
    with pytest.raises(KwsError, match=f"found SHA-256 {found}, wanted {keys.stem} .*kws-models export writes it"):
        read_training_list(tmp_path)
    keys.unlink()
    with pytest.raises(KwsError, match=rf"found no {keys.name}, wanted it in {tmp_path} or {SHIPPED / SHARED}"):
        read_training_list(tmp_path)
    odd = tmp_path / f"{hashlib.sha256(b'123').hexdigest()}.bin"
    odd.write_bytes(b"123")
    (tmp_path / FILE).write_text(f"{odd.name} 0 1 0\n")
    with pytest.raises(KwsError, match=r"found 3 bytes, wanted \d+ for \d+ keys; kws-models export writes it"):
        read_training_list(tmp_path)


def test_a_manifest_s_digest_that_is_none_is_refused(spoken: list[Recording]) -> None:
    with pytest.raises(KwsError, match=r"found sha1_pcm16 'abc' in its manifest, wanted a SHA-1"):
        training_list([odd := Recording(spoken[0].path, "yes", "a", sha1_pcm="abc")], [])
    with pytest.raises(KwsError, match=r"found sha1_pcm16 'abc' in its manifest, wanted a SHA-1"):
        TrainingList().has(odd, np.zeros(1, np.int16))


def test_where_the_keys_of_a_model_go(tmp_path: Path) -> None:
    assert keys_folder(tmp_path / "mine") == tmp_path / "mine"
    assert keys_folder(SHIPPED / "dscnn-s") == keys_folder(SHIPPED / "new") == SHIPPED / SHARED


def test_each_shared_file_is_named_by_a_shipped_model() -> None:
    named = {line.split()[0] for path in LISTS for line in path.read_text().splitlines() if line[0] != "#"}
    assert named == {path.name for path in (SHIPPED / SHARED).iterdir()}
    assert len(LISTS) == len(list(SHIPPED.glob("*/model.json")))


def test_the_shipped_lists_are_small_and_seldom_hold_a_clip_that_was_not_learnt() -> None:
    assert sum(path.stat().st_size for path in (SHIPPED / SHARED).iterdir()) < 320_000
    keys = frozenset().union(*(read_training_list(path.parent).keys for path in LISTS))
    digests_a_clip = 3
    assert digests_a_clip * len(keys) / 2**KEY_BITS < 2e-7
    foreign = (hashlib.sha1(b"foreign %d" % i).hexdigest() for i in range(200_000))
    assert not any(key_of(digest) in keys for digest in foreign)
