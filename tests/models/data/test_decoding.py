"""Recordings as the tools read them: the samples that the service hears, whatever the file's encoding."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile

from kws_models.data.audio_cache import decode, load_audio, read_pcm
from kws_models.data.recordings import DataError, find_recordings, flatten
from kws_models.data.training_list import pcm_digest

PCM = np.random.default_rng(0).integers(-20000, 20000, 16000).astype(np.int16)


@pytest.mark.parametrize(("suffix", "subtype"), [
    ("wav", "FLOAT"), ("wav", "DOUBLE"), ("aiff", "FLOAT"), ("aiff", "PCM_16"), ("wav", "PCM_24"),
    ("wav", "PCM_32"), ("flac", "PCM_24"),
])  # fmt: skip
def test_one_recording_has_one_digest_and_one_sound_in_every_encoding(
    tmp_path: Path, suffix: str, subtype: str
) -> None:
    folder = tmp_path / "data" / "yes"
    folder.mkdir(parents=True)
    soundfile.write(folder / f"a.{suffix}", PCM / 32768, 16000, subtype=subtype)
    samples, rate_hz = read_pcm(folder / f"a.{suffix}")
    np.testing.assert_array_equal(samples, PCM)
    soundfile.write(tmp_path / "plain.wav", PCM, 16000)
    assert pcm_digest(samples) == pcm_digest(read_pcm(tmp_path / "plain.wav")[0]) and rate_hz == 16000
    np.testing.assert_array_equal(decode(folder / f"a.{suffix}", 8000), decode(tmp_path / "plain.wav", 8000))
    found = list(flatten(find_recordings(tmp_path / "data")))
    np.testing.assert_array_equal(load_audio(found, 16000, tmp_path / "cache").clip(0), PCM)


def test_what_cannot_be_read_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "a.wav").write_bytes(b"RIFF\x24\0\0\0WAVEfmt ")
    with pytest.raises(DataError, match=r"a\.wav: not an audio file"):
        read_pcm(tmp_path / "a.wav")
