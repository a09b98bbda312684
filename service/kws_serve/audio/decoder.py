"""An audio file decoded by libsndfile: from its beginning as often as wanted, and never sought in.

soundfile's own reading seeks after each part. That fails where the codec cannot seek (GSM 6.10, G.721, NMS ADPCM) or
the length is unknown (FLAC from a pipe), garbles MP3, and ends at the length that a header says or libmpg123 guesses.
"""

from __future__ import annotations

import contextlib
import functools
import os
import stat
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from kws_serve.audio.containers import MPEG, SURE_BYTES, Container, recognised
from kws_serve.audio.lengths import PatchedFile, endless, mended
from kws_serve.core.dither import dithered
from kws_serve.core.pcm import check_rate, clean
from kws_serve.core.resampler import to_int16
from kws_serve.messages import Float32Array, Int16Array, SourceError

if TYPE_CHECKING:
    import soundfile  # else only where a file is opened: small machines run without one

STDIN = Path("-")

RAW = {"format": "RAW", "subtype": "PCM_16", "endian": "LITTLE", "samplerate": 16_000, "channels": 1}
"""What standard input is taken for where no header says otherwise."""

_UNKNOWN = 1 << 60  # frames: libsndfile tells 2^63 - 1 of a file whose header does not say how long it is
_COPY_BYTES = 1 << 16
_FINE = ("FLOAT", "DOUBLE", "PCM_24", "PCM_32", "ALAC_20", "ALAC_24", "ALAC_32")  # what 16 bits do not hold
_PCM_TEXT = "raw PCM (s16le, 16 kHz, mono)"
_TEXT = frozenset(range(32, 127)) | frozenset(b"\t\n\r")
_SURE_TEXT_BYTES = 64  # as many printable bytes in a row are text, not samples


class Decoder:
    """An opened file. What comes through a pipe is read to its end into a temporary file first."""

    def __init__(self, path: Path) -> None:
        """`path`: a file, a pipe, or STDIN. Raises SourceError in one line."""
        self.path = path
        self._file: IO[bytes] | None = None
        self._copy = False
        try:
            self._file = self._bytes()
            self._fd = self._file.fileno()
            beginning = self._read_at(0, SURE_BYTES)
            self._container = recognised(beginning)
            self._n_bytes = os.fstat(self._fd).st_size
            self._patches = mended(self._read_at, self._n_bytes)
            self._raw: dict[str, Any] = RAW if path == STDIN and self._container is None else {}
            if self._raw:
                self._check_raw(beginning)
            self._look()
        except BaseException:
            self.close()
            raise

    @property
    def stated_s(self) -> float | None:
        """Its length by its header, in seconds: of FLAC and MP3 not always right; None where it does not say."""
        return self._frames / self.rate_hz if self._frames < _UNKNOWN else None

    @property
    def is_copy(self) -> bool:
        """Whether it came through a pipe, which gives it once."""
        return self._copy

    def seconds(self) -> float:
        """Its length; where the header is not to be relied on, it is read through. Raises SourceError."""
        if self._frames < _UNKNOWN and self._container not in (MPEG, _FLAC):
            return self._frames / self.rate_hz
        return sum(map(len, self.parts(self.rate_hz))) / self.rate_hz

    def parts(self, n: int) -> Iterator[Float32Array]:
        """All samples (k, channels) float32, 1.0 full scale, k <= n at once: dithered where the file is finer than the
        16 bits that they are rounded to later, and else as they are, unclean.

        Raises SourceError where the file breaks off.
        """
        first = 0
        for part in self._read(n, "float32"):
            yield dithered(part, first) if self.subtype in _FINE else part
            first += len(part)

    def pcm16(self, channel: int = 0) -> Int16Array:
        """One channel (n,) as 16-bit PCM: 16-bit and lossy codecs as libsndfile gives them; finer ones and floats
        dithered, times 32768, rounded and saturated, as the service hears them. Raises SourceError.
        """
        if self.subtype not in _FINE:
            parts = [part[:, channel] for part in self._read(_COPY_BYTES, "int16")]
            return np.ascontiguousarray(np.concatenate(parts)) if parts else np.empty(0, np.int16)
        floats = [clean(np.ascontiguousarray(part[:, channel])).samples for part in self.parts(_COPY_BYTES)]
        return to_int16(np.concatenate(floats)) if floats else np.empty(0, np.int16)

    def close(self) -> None:
        """Close the file. Safe to call twice."""
        if self._file is not None:
            self._file.close()

    def _bytes(self) -> IO[bytes]:
        """The file itself, or a copy of what a pipe gives. Raises SourceError."""
        what = "standard input" if self.path == STDIN else str(self.path)
        try:
            # not to block for a writer of a FIFO would be to find it empty
            file: IO[bytes] = os.fdopen(os.dup(0), "rb") if self.path == STDIN else self.path.open("rb")
            with contextlib.ExitStack() as failed:
                failed.callback(file.close)
                if os.isatty(file.fileno()):
                    raise SourceError(f"{what}: found a terminal, wanted audio through a pipe")
                if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                    self._copy = True
                    return _copied(file)
                if not os.fstat(file.fileno()).st_size:
                    raise SourceError(f"{what}: found an empty file, wanted audio")
                failed.pop_all()
            return file
        except IsADirectoryError:
            raise SourceError(f"{what}: found a folder, wanted an audio file") from None
        except FileNotFoundError:
            raise SourceError(f"{what}: no such file") from None
        except PermissionError:
            raise SourceError(f"{what}: not allowed to read it") from None
        except (OSError, ValueError) as e:  # ValueError: a null byte in its name
            raise SourceError(f"{what}: cannot read it ({getattr(e, 'strerror', e)})") from None

    def _read_at(self, offset: int, n: int) -> bytes:
        return os.pread(self._fd, n, offset)

    def _look(self) -> None:
        """What the file is. Raises SourceError."""
        import soundfile

        try:
            with self._opened(self._patches) as sound:
                self.rate_hz: int = sound.samplerate
                self.channels: int = sound.channels
                self.subtype: str = sound.subtype
                self._frames: int = sound.frames
            check_rate("rate", self.rate_hz)
            if not self._frames:
                raise ValueError("found no samples, wanted some (an empty or cut-off file?)")
        except (soundfile.LibsndfileError, RuntimeError, OSError) as e:
            raise SourceError(f"{self.path}: {self._unreadable(e)}") from e
        except ValueError as e:
            raise SourceError(f"{self.path}: {e}") from None

    def _unreadable(self, error: Exception) -> str:
        """Why, and what helps."""
        kind: Container | None = self._container
        if kind is not None and not kind.readable:
            return f"found {kind} file, which is not read; convert it first: ffmpeg -i FILE OUT.wav"
        reason = str(error).rpartition(": ")[2].strip().rstrip(".")
        begins = f"begins as {kind} file does: " if kind else ""
        return f"not an audio file that libsndfile reads ({begins}{reason}, {self._n_bytes} bytes)"

    def _check_raw(self, beginning: bytes) -> None:
        if is_text(beginning):
            raise SourceError(f"standard input: found text, wanted an audio file or {_PCM_TEXT}")

    def _opened(self, patches: dict[int, bytes]) -> soundfile.SoundFile:
        """At the beginning. Raises as soundfile does."""
        if (
            self._container is None and not self._raw and not self._copy
        ):  # libsndfile knows some by the ends of their names
            return _sequential()(os.fsencode(self.path))
        return _sequential()(PatchedFile(self._fd, patches), **self._raw)

    def _pass(self) -> soundfile.SoundFile:
        """Opened so that all of it can be read, whatever its header says of its length."""
        if self._container is MPEG:
            return _sequential()(self._piped(), closefd=True)
        return self._opened(self._patches | endless(self._read_at))

    def _piped(self) -> int:
        """The reading end of a pipe with the file in it: so libmpg123 neither guesses the length nor looks for it."""
        ours, theirs = os.pipe()

        def pump() -> None:
            at = after_id3(self._read_at)
            with contextlib.suppress(OSError), os.fdopen(theirs, "wb", buffering=0) as pipe:  # OSError: closed early
                while data := self._read_at(at, _COPY_BYTES):
                    pipe.write(data)
                    at += len(data)

        threading.Thread(target=pump, name=f"reading {self.path.name}", daemon=True).start()
        return ours

    def _next(self, n: int, position: int) -> int:
        """How many samples to read at once, n at most: of a FLAC up to the end that its header states, for an error
        behind it, where a tag may stand, would lose those before it.
        """
        return min(n, self._frames - position) if self._container is _FLAC and position < self._frames else n

    def _read(self, n: int, dtype: str) -> Iterator[Any]:
        import soundfile

        position = 0
        try:
            with self._pass() as sound:
                while len(samples := sound.read(self._next(n, position), dtype=dtype, always_2d=True)):
                    position += len(samples)
                    yield samples
        except (soundfile.LibsndfileError, RuntimeError, OSError) as e:
            if self._container is _FLAC and position >= self._frames:  # a tag or another file behind it
                return
            raise SourceError(f"{self.path}: broke off after {position} samples ({e})") from e


_FLAC = recognised(b"fLaC")


def is_pipe(path: Path) -> bool:
    """Whether what stands there is read once, and perhaps waited for."""
    try:
        mode = path.stat().st_mode
    except (OSError, ValueError):
        return False
    return stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode) or stat.S_ISCHR(mode)


def is_text(beginning: bytes) -> bool:
    """Whether these first bytes are plainly text, not samples."""
    return len(beginning) > 1 and all(byte in _TEXT for byte in beginning[:_SURE_TEXT_BYTES])


def after_id3(read_at: Any) -> int:
    """Where the tags end that may stand before an MP3: |ID3|version 2|flags 1|size, 4 times 7 bits| size bytes |."""
    at = 0
    while (head := read_at(at, 10))[:3] == b"ID3" and len(head) == 10:
        footer = 10 if head[5] & 0x10 else 0
        at += 10 + footer + (head[6] << 21 | head[7] << 14 | head[8] << 7 | head[9])
    return at


def _copied(pipe: IO[bytes]) -> IO[bytes]:
    """All that a pipe gives, in a temporary file. Raises SourceError where that is nothing."""
    copy: IO[bytes] = tempfile.TemporaryFile(prefix="kws-")  # noqa: SIM115  # the decoder closes it
    while data := pipe.read(_COPY_BYTES):
        copy.write(data)
    copy.flush()
    if not copy.tell():
        copy.close()
        raise SourceError(f"{pipe.name}: found an empty pipe, wanted audio")
    return copy


@functools.cache
def _sequential() -> type[soundfile.SoundFile]:
    """SoundFile that only reads on."""
    import soundfile

    class Sequential(soundfile.SoundFile):  # type: ignore[misc]
        """It says that it cannot seek, so nothing is sought and no length is believed."""

        def seekable(self) -> bool:
            """Never."""
            return False

    return Sequential
