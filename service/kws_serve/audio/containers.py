"""Which kind of file some bytes begin: audio, or what people take for it. Pure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Container:
    """A kind of file."""

    name: str
    readable: bool = True  # libsndfile has a decoder for what such files mostly hold

    def __str__(self) -> str:
        """With its article."""
        return f"{'an' if self.name[0] in 'AEIO' or self.name[:2] == 'MP' else 'a'} {self.name}"


MPEG = Container("MP3")

_RIFF = {b"WAVE": Container("WAV"), b"AVI ": Container("AVI", False)}
_FORM = {
    b"AIFF": Container("AIFF"), b"AIFC": Container("AIFF-C"), b"8SVX": Container("8SVX"), b"16SV": Container("8SVX"),
}  # fmt: skip
_BEGINNINGS = {
    b"RIFX": Container("WAV"),
    b"RF64": Container("RF64"),
    b"BW64": Container("BW64", False),
    b"riff\x2e\x91\xcf\x11": Container("Wave64"),
    b".snd": Container("AU"),
    b"dns.": Container("AU"),
    b"caff": Container("CAF"),
    b"fLaC": Container("FLAC"),
    b"OggS": Container("Ogg"),
    b"ID3": MPEG,
    b"NIST_1A": Container("SPHERE"),
    b"Creative Voice File": Container("VOC"),
    b"\x64\xa3\x01\x00": Container("IRCAM"),
    b"\x64\xa3\x02\x00": Container("IRCAM"),
    b"PVF1": Container("PVF"),
    b"2BIT": Container("AVR"),
    b"#!AMR": Container("AMR", False),
    b"\x1a\x45\xdf\xa3": Container("Matroska or WebM", False),
    b"\x30\x26\xb2\x75\x8e\x66\xcf\x11": Container("WMA", False),
    b"FLV\x01": Container("FLV", False),
    b"wvpk": Container("WavPack", False),
    b"MAC ": Container("Monkey's Audio", False),
    b"TTA1": Container("TTA", False),
    b"DSD ": Container("DSF", False),
    b"FRM8": Container("DSDIFF", False),
    b"MThd": Container("MIDI", False),
    b"\x00\x00\x01\xba": Container("MPEG program stream", False),
    b"\x1f\x8b\x08": Container("gzip", False),
    b"PK\x03\x04": Container("ZIP", False),
}

SURE_BYTES = 3200
"""After as many bytes nothing more can be said: two MPEG frames of the longest kind."""

_BIT_RATES_KBIT = (  # of layer III: of MPEG-1, of MPEG-2 and 2.5
    (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
)
_RATES_HZ = (44_100, 48_000, 32_000)  # of MPEG-1; half of it in MPEG-2, a quarter in MPEG-2.5


def recognised(beginning: bytes) -> Container | None:
    """The kind of file that these first bytes tell; None: none that is known. SURE_BYTES are enough, fewer will do for
    all but streams that have no header, like bare MPEG frames.
    """
    if beginning[:4] == b"RIFF":
        return _RIFF.get(beginning[8:12], Container("RIFF", False)) if len(beginning) >= 12 else None
    if beginning[:4] == b"FORM":
        return _FORM.get(beginning[8:12])
    if beginning[4:8] == b"ftyp":
        return Container("MP4", False)
    for magic, container in _BEGINNINGS.items():
        if beginning.startswith(magic):
            return container
    if _followed(beginning, mpeg_frame_bytes):
        return MPEG
    if _followed(beginning, _adts_frame_bytes):
        return Container("AAC", False)
    return None


def may_be_frames(beginning: bytes) -> bool:
    """Whether these first bytes are like those of a headerless stream: more are needed to tell it from samples."""
    return len(beginning) > 1 and beginning[0] == 0xFF and beginning[1] >= 0xE0


def mpeg_frame_bytes(header: bytes) -> int:
    """The length of the MPEG layer III frame that begins with this header; 0: none does."""
    # 11111111 111vvll. bbbbrrp.   v: version (3: 1, 2: 2, 0: 2.5), l: layer (1: III), b: bit rate, r: rate, p: padding
    if len(header) < 4 or header[0] != 0xFF or header[1] & 0xE0 != 0xE0:
        return 0
    version, layer = header[1] >> 3 & 3, header[1] >> 1 & 3
    bits, rate = header[2] >> 4, header[2] >> 2 & 3
    if version == 1 or layer != 1 or bits in (0, 15) or rate == 3:
        return 0
    first = version == 3
    rate_hz = _RATES_HZ[rate] // {3: 1, 2: 2, 0: 4}[version]
    bytes_a_second = _BIT_RATES_KBIT[not first][bits - 1] * 125
    return (1152 if first else 576) * bytes_a_second // rate_hz + (header[2] >> 1 & 1)


def _adts_frame_bytes(header: bytes) -> int:
    """The length of the AAC frame that begins with this ADTS header; 0: none does."""
    if len(header) < 6 or header[0] != 0xFF or header[1] & 0xF6 != 0xF0 or header[2] >> 2 & 15 > 12:
        return 0
    n = (header[3] & 3) << 11 | header[4] << 3 | header[5] >> 5
    return n if n > 7 else 0


def _followed(beginning: bytes, frame_bytes: Callable[[bytes], int]) -> bool:
    """Whether a frame is followed by one of the same kind: two in a row are no accident."""
    n = frame_bytes(beginning)
    second = beginning[n : n + 6]
    return n > 0 and len(second) >= 4 and second[1] & 0xFE == beginning[1] & 0xFE and frame_bytes(second) > 0
