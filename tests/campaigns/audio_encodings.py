"""A matrix of encodings by ffmpeg, SoX and libsndfile: which there are, and how one of them is written."""

from __future__ import annotations

import itertools
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import soundfile
import soxr

Tool = Literal["ffmpeg", "sox", "libsndfile"]
Way = Literal["file", "pipe", "fifo"]
"""How it comes: written by a program that can go back to its header; written to a pipe and kept; read from a FIFO."""

WAYS: tuple[Way, ...] = ("file", "pipe", "fifo")
RATES_HZ = (8000, 16000, 22050, 44100, 48000)
CHANNELS = (1, 2, 6)
ENCODE_S = 60
"""What an encoder may take; the slowest needs a tenth of a second."""


@dataclass(frozen=True)
class Encoding:
    """What a tool writes."""

    tool: Tool
    suffix: str  # of the file, which tells SoX its format; of libsndfile the format's name
    options: tuple[str, ...] = ()  # of libsndfile the subtype
    read: bool = True  # else one clear line is wanted
    rates_hz: tuple[int, ...] = RATES_HZ
    channels: tuple[int, ...] = CHANNELS


@dataclass(frozen=True)
class Case:
    """One of the matrix."""

    encoding: Encoding
    rate_hz: int
    channels: int
    length: Literal["long", "short"]
    way: Way

    @property
    def spoken(self) -> int:
        """The channel with the speech: the second; the last of six is for low frequencies."""
        return min(1, self.channels - 1)

    def __str__(self) -> str:
        e = self.encoding
        return "-".join([e.tool, e.suffix, *e.options, str(self.rate_hz), f"{self.channels}ch", self.length, self.way])


def _ffmpeg(suffix: str, codec: str, *more: str, **limits: object) -> Encoding:
    return Encoding("ffmpeg", suffix, ("-c:a", codec, *more), **limits)  # type: ignore[arg-type]


_OPUS = (8000, 16000, 48000)
_MP3 = {"channels": (1, 2)}
_NO_XING = {**_MP3, "rates_hz": (16000, 22050, 44100)}  # at 8 kHz the coder takes a word away; ffmpeg decodes the same
_PHONE = {"rates_hz": (8000,), "channels": (1,)}
_COARSE = {"channels": (1, 2), "rates_hz": (16000, 22050, 44100)}
"""ADPCM of 4 bits: at 8 kHz it takes one of the demo's words from `dscnn-s`, whoever decodes it."""

_SF_WAV = ("PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE", "ULAW", "ALAW")
_SF_16 = ("WAVEX", "RF64", "W64", "AIFF", "CAF", "IRCAM", "PVF", "NIST")

ENCODINGS = (
    *(_ffmpeg("wav", f"pcm_{kind}") for kind in ("u8", "s16le", "s24le", "s32le", "f32le", "f64le", "alaw", "mulaw")),
    *(_ffmpeg("wav", codec, **_COARSE) for codec in ("adpcm_ms", "adpcm_ima_wav")),
    _ffmpeg("wav", "gsm_ms", **_PHONE),
    _ffmpeg("wav", "pcm_s16le", "-rf64", "always"),
    _ffmpeg("w64", "pcm_s16le"),
    _ffmpeg("w64", "pcm_f32le"),
    _ffmpeg("w64", "pcm_alaw"),
    *(_ffmpeg("aiff", f"pcm_{kind}") for kind in ("s16be", "s24be", "f32be", "f64be")),
    *(_ffmpeg("au", f"pcm_{kind}") for kind in ("s16be", "f32be", "mulaw")),
    *(_ffmpeg("caf", f"pcm_{kind}") for kind in ("s16le", "s16be", "f32le")),
    _ffmpeg("flac", "flac"),
    _ffmpeg("flac", "flac", "-sample_fmt", "s32"),
    _ffmpeg("ogg", "libvorbis", "-q:a", "6", channels=(1, 2)),
    _ffmpeg("opus", "libopus", "-b:a", "48k", rates_hz=_OPUS, channels=(1, 2)),
    _ffmpeg("mp3", "libmp3lame", "-b:a", "64k", **_MP3),
    _ffmpeg("mp3", "libmp3lame", "-q:a", "1", **_MP3),
    _ffmpeg("mp3", "libmp3lame", "-q:a", "1", "-write_xing", "0", **_NO_XING),
    _ffmpeg("mp3", "libmp3lame", "-q:a", "1", "-write_xing", "0", "-id3v2_version", "0", **_NO_XING),
    *(_ffmpeg(suffix, codec, read=False, rates_hz=(16000, 44100), channels=(1, 2)) for suffix, codec in (
        ("m4a", "aac"), ("aac", "aac"), ("mka", "aac"), ("avi", "pcm_s16le"), ("wma", "wmav2"), ("wv", "wavpack"),
        ("tta", "tta"), ("webm", "libvorbis"),
    )),
    *(Encoding("sox", suffix) for suffix in ("wav", "aiff", "au", "w64", "caf", "flac", "sph", "ircam")),
    *(Encoding("sox", suffix, channels=(1, 2)) for suffix in ("ogg", "voc")),
    Encoding("sox", "mp3", ("-C", "64"), channels=(1, 2)),
    Encoding("sox", "avr", channels=(1, 2)),
    Encoding("sox", "gsm", **_PHONE),  # type: ignore[arg-type]
    *(Encoding("sox", "wav", ("-e", kind), channels=(1, 2)) for kind in ("a-law", "u-law")),
    *(Encoding("sox", "wav", ("-e", kind), **_COARSE) for kind in ("ms-adpcm", "ima-adpcm")),  # type: ignore[arg-type]
    *(Encoding("sox", "wav", ("-e", "floating-point", "-b", bits)) for bits in ("32", "64")),
    *(Encoding("sox", "wav", ("-b", bits)) for bits in ("8", "24", "32")),
    Encoding("sox", "wav", ("-e", "gsm-full-rate"), **_PHONE),  # type: ignore[arg-type]
    *(Encoding("libsndfile", "WAV", (kind,)) for kind in _SF_WAV),
    *(Encoding("libsndfile", "WAV", (kind,), **_PHONE) for kind in (  # type: ignore[arg-type]
        "GSM610", "G721_32", "NMS_ADPCM_32",
    )),
    *(Encoding("libsndfile", "WAV", (kind,), **_COARSE) for kind in ("IMA_ADPCM", "MS_ADPCM")),  # type: ignore[arg-type]
    *(Encoding("libsndfile", "AU", (kind,), **_PHONE) for kind in ("G721_32", "G723_40")),  # type: ignore[arg-type]
    *(Encoding("libsndfile", kind, ("PCM_16",)) for kind in _SF_16),
    # of more channels libsndfile 1.2.2's ALAC encoder writes past its buffer
    *(Encoding("libsndfile", "CAF", (kind,), channels=(1, 2)) for kind in ("ALAC_16", "ALAC_24")),
    Encoding("libsndfile", "CAF", ("FLOAT",)),
    *(Encoding("libsndfile", "FLAC", (kind,)) for kind in ("PCM_16", "PCM_24")),
    Encoding("libsndfile", "OGG", ("VORBIS",)),
    Encoding("libsndfile", "OGG", ("OPUS",), rates_hz=_OPUS),
    Encoding("libsndfile", "MP3", ("MPEG_LAYER_III",), channels=(1, 2)),
    Encoding("libsndfile", "AIFF", ("FLOAT",)),
    Encoding("libsndfile", "MAT5", ("FLOAT",)),
)  # fmt: skip


def cases() -> list[Case]:
    """Each encoding at each of its rates with each of its numbers of channels; lengths and ways take turns."""
    found = []
    turns = itertools.cycle(itertools.product(WAYS, ("long", "short")))
    for encoding in ENCODINGS:
        rates = encoding.rates_hz if len(encoding.rates_hz) < len(RATES_HZ) else _some_rates(len(found))
        for rate_hz, channels in itertools.product(rates, encoding.channels):
            way, length = next(turns)
            found.append(Case(encoding, rate_hz, channels, length, way))
    return found


def _some_rates(turn: int) -> tuple[int, ...]:
    """8 kHz, 16 kHz, and one of the others in turn."""
    others = tuple(rate for rate in RATES_HZ if rate > 16000)
    return 8000, 16000, others[turn % len(others)]


def at_rate(speech_16k: np.ndarray, rate_hz: int) -> np.ndarray:
    """Speech (n,) at 16 kHz, float in [-1, 1], at another rate."""
    return speech_16k if rate_hz == 16000 else soxr.resample(speech_16k, 16000, rate_hz, "HQ")


def written(case: Case, speech: np.ndarray, folder: Path) -> Path:
    """A file with the speech (n,) on channel `case.spoken` and faint noise on the others; for a FIFO, its content."""
    noise = np.random.default_rng(0).normal(0, 1e-4, (len(speech), case.channels))
    noise[:, case.spoken] = speech
    out = folder / f"out.{case.encoding.suffix.lower()}"
    if case.encoding.tool == "libsndfile":
        (kind,) = case.encoding.options
        soundfile.write(out, noise, case.rate_hz, format=case.encoding.suffix, subtype=kind)
        return out
    soundfile.write(folder / "in.wav", noise, case.rate_hz, subtype="PCM_16")
    to_pipe = case.way != "file" and case.encoding.suffix not in ("m4a", "caf", "w64", "avr")
    with out.open("wb") as f:
        done = subprocess.run(_command(case, folder, out, to_pipe), stdout=f, stderr=subprocess.PIPE, timeout=ENCODE_S)
        if done.returncode:
            raise RuntimeError(f"{case}: {done.stderr.decode(errors='replace')[-300:]}")
    return out


def _command(case: Case, folder: Path, out: Path, to_pipe: bool) -> list[str]:
    source, options, suffix = str(folder / "in.wav"), list(case.encoding.options), case.encoding.suffix
    if case.encoding.tool == "sox":
        return ["sox", "-D", source, "-t", suffix, *options, "-" if to_pipe else str(out)]
    kind = {"m4a": "ipod", "aac": "adts", "mka": "matroska", "wma": "asf"}.get(suffix, suffix)
    target = "pipe:1" if to_pipe else str(out)
    return ["ffmpeg", "-v", "error", "-y", "-i", source, *options, "-f", kind, target]
