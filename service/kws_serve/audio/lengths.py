"""What a header says of its file, mended where libsndfile would read less of it, or something else: mostly the length,
which a writer to a pipe does not know in time.

Then programs leave a zero, the highest number, or what they hoped for; libsndfile believes some of it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

MAX_CHUNKS = 64
"""Before the samples; recorders write a dozen at most."""

ReadAt = Callable[[int, int], bytes]
"""(offset, number of bytes) -> as many bytes of a file, fewer at its end."""

Patches = dict[int, bytes]
"""What should stand at some offsets of a file."""


@dataclass(frozen=True, slots=True)
class _Chunk:
    name: bytes
    size_at: int  # where its size stands
    data_at: int
    size: int  # of its data, as stated


@dataclass(frozen=True, slots=True)
class _Layout:
    """How files of chunks are laid out: `|name|size| data |pad|name|size| ...`."""

    first_at: int
    name_bytes: int
    size_bytes: int
    order: Literal["big", "little"]  # of the size
    align: int
    counts_header: bool  # the size counts the chunk's name and size, too
    samples: bytes  # the name, or its beginning, of the chunk of samples

    def chunks(self, read_at: ReadAt, n_bytes: int) -> Iterator[_Chunk]:
        """The chunks by what their sizes say."""
        at, head = self.first_at, self.name_bytes + self.size_bytes
        for _ in range(MAX_CHUNKS):
            found = read_at(at, head)
            if len(found) < head or at >= n_bytes:
                return
            stated = int.from_bytes(found[self.name_bytes :], self.order)
            size = stated - head if self.counts_header else stated
            yield _Chunk(found[: self.name_bytes], at + self.name_bytes, at + head, size)
            end = at + head + max(0, size)
            at = end + -end % self.align

    def sized(self, size: int) -> bytes:
        """The bytes that state this size of a chunk's data."""
        size += self.name_bytes + self.size_bytes if self.counts_header else 0
        return _stated(size, self)


def _stated(size: int, layout: _Layout) -> bytes:
    """A size as such files state it, or the highest number that can be."""
    highest: int = (1 << 8 * layout.size_bytes) - 1
    return min(size, highest).to_bytes(layout.size_bytes, layout.order)


_LAYOUTS = {
    b"RIFF": _Layout(12, 4, 4, "little", 2, False, b"data"),
    b"RF64": _Layout(12, 4, 4, "little", 2, False, b"data"),
    b"RIFX": _Layout(12, 4, 4, "big", 2, False, b"data"),
    b"FORM": _Layout(12, 4, 4, "big", 2, False, b"SSND"),
    b"riff": _Layout(40, 16, 8, "little", 8, True, b"data"),
    b"caff": _Layout(8, 4, 8, "big", 1, False, b"data"),
}
_FORM_SIZES = {  # where the whole file's size stands, and what it leaves out
    b"RIFF": (4, 8), b"RIFX": (4, 8), b"FORM": (4, 8), b"riff": (16, 0),
}  # fmt: skip


def mended(read_at: ReadAt, n_bytes: int) -> Patches:
    """What a file of this many bytes should say of its length and does not; empty where it need not be touched."""
    kind = read_at(0, 4)
    if kind == b".snd":
        return _au(read_at, n_bytes)
    layout = _LAYOUTS.get(kind)
    if layout is None:
        return {}
    ds64, found = None, {}
    for chunk in layout.chunks(read_at, n_bytes):
        if chunk.name == b"ds64":
            ds64 = chunk
        elif kind == b"riff" and chunk.name.startswith(b"fmt "):
            found = _plain_tag(read_at, chunk)
        elif chunk.name.startswith(layout.samples):
            if ds64 is not None:
                return _rf64(read_at, n_bytes, ds64, chunk)
            return found | _chunked(read_at, n_bytes, kind, layout, chunk)
    return {}


def _plain_tag(read_at: ReadAt, fmt: _Chunk) -> Patches:
    """Wave64: libsndfile takes the extensible format for whole numbers, also where its last field, whose first two
    bytes are the true format, says floating point, A-law or u-law.
    """
    tag, true = read_at(fmt.data_at, 2), read_at(fmt.data_at + 24, 2)
    return {fmt.data_at: true} if fmt.size >= 40 and tag == b"\xfe\xff" and true not in (b"", b"\0\0", b"\1\0") else {}


def _chunked(read_at: ReadAt, n_bytes: int, kind: bytes, layout: _Layout, samples: _Chunk) -> Patches:
    rest = n_bytes - samples.data_at
    if not _is_wrong(samples.size, rest, samples, layout, read_at, n_bytes):
        return {}
    found = {samples.size_at: layout.sized(rest)}
    if kind in _FORM_SIZES:
        at, less = _FORM_SIZES[kind]
        found[at] = _stated(n_bytes - less, layout)
    return found


def _is_wrong(size: int, rest: int, samples: _Chunk, layout: _Layout, read_at: ReadAt, n_bytes: int) -> bool:
    """Whether a stated size cannot be: more than there is, or nothing where what follows is no chunk."""
    empty = 8 if samples.name == b"SSND" else 4 if layout is _LAYOUTS[b"caff"] else 0  # of its own head
    if size > rest or size < 0:
        return True
    return size <= empty < rest and not _chunks_to_the_end(layout, samples, read_at, n_bytes)


def _chunks_to_the_end(layout: _Layout, samples: _Chunk, read_at: ReadAt, n_bytes: int) -> bool:
    """Whether what follows an empty chunk are chunks, the last of which ends where the file does."""
    first = samples.data_at + max(0, samples.size)
    behind = _Layout(first, layout.name_bytes, layout.size_bytes, layout.order, layout.align, layout.counts_header, b"")
    found = list(behind.chunks(read_at, n_bytes))
    return bool(found) and 0 <= found[-1].data_at + found[-1].size + layout.align - 1 - n_bytes < layout.align


def _rf64(read_at: ReadAt, n_bytes: int, ds64: _Chunk, samples: _Chunk) -> Patches:
    """RF64 states its sizes in the chunk ds64: |whole file 8|samples' bytes 8|number of samples 8|."""
    rest = n_bytes - samples.data_at
    stated = int.from_bytes(read_at(ds64.data_at + 8, 8), "little")
    if 0 < stated <= rest:
        return {}
    return {ds64.data_at: (n_bytes - 8).to_bytes(8, "little") + rest.to_bytes(8, "little")}


def _au(read_at: ReadAt, n_bytes: int) -> Patches:
    """AU: |.snd|where the samples begin 4|their bytes 4|; unknown is the highest number."""
    head = read_at(0, 12)
    begins, stated = int.from_bytes(head[4:8], "big"), int.from_bytes(head[8:12], "big")
    return {8: b"\xff\xff\xff\xff"} if stated == 0 and n_bytes > begins else {}


def endless(read_at: ReadAt) -> Patches:
    """FLAC: zero, unknown, for the number of samples (36 bits at byte 21), so that all frames are decoded, however many
    the header says; empty for what is no FLAC.
    """
    head = read_at(0, 26)
    if len(head) < 26 or head[:4] != b"fLaC" or head[4] & 0x7F:  # STREAMINFO comes first
        return {}
    return {21: bytes([head[21] & 0xF0, 0, 0, 0, 0])}


class PatchedFile:
    """A file as it would be with the patches, for reading: a position of its own, whoever else reads the descriptor."""

    def __init__(self, fd: int, patches: Patches) -> None:
        self.n_bytes = os.fstat(fd).st_size
        self._fd = fd
        self._patches = patches
        self._at = 0

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """As of any file."""
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self.n_bytes}[whence]
        self._at = max(0, base + offset)
        return self._at

    def tell(self) -> int:
        """Where the next byte is read."""
        return self._at

    def read(self, n: int) -> bytes:
        """At most `n` bytes; none at the end."""
        data = bytearray(os.pread(self._fd, n, self._at))
        for at, patch in self._patches.items():
            first, last = max(at, self._at), min(at + len(patch), self._at + len(data))
            if first < last:
                data[first - self._at : last - self._at] = patch[first - at : last - at]
        self._at += len(data)
        return bytes(data)
