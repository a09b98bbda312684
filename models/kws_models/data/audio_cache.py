"""Decoded audio: read once at the service's own rates, then mapped from a cache file outside the repository."""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile

from kws_models.data.recordings import DataError, Recording
from kws_serve.audio import Decoder
from kws_serve.core.resampler import LAG, LEAD, StreamResampler, half_rate
from kws_serve.messages import Int16Array, Int64Array, SourceError

_DECODING = 2  # counts changes of how files are decoded: 2 reads floating point
# libsndfile: bit rate = 6000 + (1 - level) * 250000: 20 kbit/s, as the recordings that come as Opus
_OPUS_LEVEL = 1.0 - (20_000 - 6_000) / 250_000


def default_cache() -> Path:
    """Where decoded audio is kept; without a home, among the temporary files."""
    if folder := os.environ.get("XDG_CACHE_HOME"):
        return Path(folder) / "kws-models"
    try:
        return Path.home() / ".cache" / "kws-models"
    except RuntimeError:  # neither HOME nor an entry in passwd: so it is in many containers
        return Path(tempfile.gettempdir()) / "kws-models"


@dataclass(frozen=True)
class Audio:
    """Recordings end to end in one array: recording i is samples[starts[i] : ends[i]]."""

    samples: Int16Array
    starts: Int64Array  # (n,)
    ends: Int64Array  # (n,)

    def __len__(self) -> int:
        return len(self.starts)

    def clip(self, index: int) -> Int16Array:
        """Samples (n,) of one recording."""
        return self.samples[self.starts[index] : self.ends[index]]

    def take(self, indexes: Sequence[int]) -> Audio:
        """These recordings only, in this order; nothing is copied."""
        chosen = np.asarray(indexes, np.int64)
        return Audio(self.samples, self.starts[chosen], self.ends[chosen])


def joined(clips: Sequence[Int16Array]) -> Audio:
    """Clips that are in memory already."""
    edges = np.cumsum([0, *map(len, clips)], dtype=np.int64)
    return Audio(np.concatenate([*clips, np.zeros(1, np.int16)]), edges[:-1], edges[1:])


def decode(path: Path, rate_hz: int) -> Int16Array:
    """The file's first channel at 16 or 8 kHz, resampled as the service does. Raises DataError."""
    samples, file_rate_hz = read_pcm(path)
    return at_rate(samples, file_rate_hz, rate_hz)


def read_pcm(path: Path) -> tuple[Int16Array, int]:
    """The file's first channel (n,) as 16-bit PCM (Decoder.pcm16), and its rate. Raises DataError."""
    try:
        with contextlib.closing(Decoder(path)) as decoder:
            return decoder.pcm16(), decoder.rate_hz
    except SourceError as error:
        raise DataError(str(error)) from error


def at_rate(samples: Int16Array, file_rate_hz: int, rate_hz: int) -> Int16Array:
    """To 16 kHz with the stream resampler, then to 8 kHz with the core's filter, as the engine does."""
    resampler = StreamResampler(file_rate_hz)
    samples_16k = np.concatenate([resampler.push(samples), resampler.flush()])
    if rate_hz == 16_000:
        return samples_16k
    # half_rate reads LEAD samples before and LAG after the place that it makes a value for; m values, rounded up:
    #     |0 LEAD 0| samples_16k (2 m, or 2 m - 1 and a zero) |0 LAG 0|
    m = -(-len(samples_16k) // 2)
    padded = np.zeros(LEAD + 2 * m + LAG, np.int16)
    padded[LEAD : LEAD + len(samples_16k)] = samples_16k
    return np.asarray(half_rate(padded[None])[0], np.int16)


def through_opus(samples_16k: Int16Array) -> Int16Array:
    """Coded as Opus at 20 kbit/s and back, same length."""
    coded = io.BytesIO()
    soundfile.write(coded, samples_16k, 16_000, format="OGG", subtype="OPUS", compression_level=_OPUS_LEVEL)
    coded.seek(0)
    back, _ = soundfile.read(coded, dtype="int16")
    out = np.zeros(len(samples_16k), np.int16)
    out[: min(len(out), len(back))] = back[: len(out)]
    return out


def load_audio(recordings: Sequence[Recording], rate_hz: int, cache: Path, opus_twins: bool = False) -> Audio:
    """All recordings decoded, in order; `opus_twins`: instead, each as it sounds after Opus."""
    read: Callable[[Path], Int16Array] = lambda path: decode(path, rate_hz)  # noqa: E731
    if opus_twins:
        read = lambda path: through_opus(decode(path, rate_hz))  # noqa: E731
    key = hashlib.sha1(f"{_DECODING} {rate_hz} {opus_twins}".encode())
    for recording in recordings:
        stat = recording.path.stat()
        key.update(os.fsencode(recording.path) + f" {stat.st_size} {stat.st_mtime_ns}\n".encode())
    return cached(cache, key.hexdigest()[:16], lambda: [read(recording.path) for recording in recordings])


def cached(cache: Path, name: str, make: Callable[[], list[Int16Array]]) -> Audio:
    """What `make` gives, made once and then mapped from the folder `name` in `cache`."""
    folder = cache / name
    if not (folder / "edges.npy").exists():
        _write(folder, make())
    edges = np.load(folder / "edges.npy")
    return Audio(np.load(folder / "samples.npy", mmap_mode="r"), edges[:-1], edges[1:])


def _write(folder: Path, clips: list[Int16Array]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    edges = np.cumsum([0, *map(len, clips)], dtype=np.int64)
    samples = np.concatenate([*clips, np.zeros(1, np.int16)])  # an empty file cannot be mapped
    for name, array in (("samples.npy", samples), ("edges.npy", edges)):  # the edges last: it says complete
        part = folder / f"{name}.part{os.getpid()}.npy"
        np.save(part, array)
        part.replace(folder / name)
