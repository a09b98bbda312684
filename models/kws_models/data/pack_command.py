"""`kws-models pack`: a training's recordings as log-mel maps in one file, for `train --pack` on a GPU elsewhere."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np

from kws_models.command_line import Commands, add_command
from kws_models.data.audio_cache import Audio, default_cache
from kws_models.data.augmentation import LOG_FLOOR
from kws_models.data.features import PatchMaker, bands_maker, first_second
from kws_models.data.keyword_batches import KeywordBatches
from kws_models.data.logmel_pack import at_frames, frame_line
from kws_models.data.mel_pack import ANY_FOLD, KINDS, Kind, MelPack, Piece, mel_part, write_pack
from kws_models.data.negatives import RATE_HZ
from kws_models.data.preflight import check_recordings, wanted_recordings
from kws_models.data.recordings import fold_of
from kws_models.zoo.architectures import Architecture, find_architecture
from kws_models.zoo.labels import UNKNOWN
from kws_serve.messages import Float32Array, KwsError

_MOST_BYTES = 60 << 20  # what is promised: a file that travels
_CLIPS_AT_ONCE = 512  # through the front end: some 60 MB of windows


def add_pack(commands: Commands) -> None:
    """`pack`."""
    parser = add_command(commands, "pack", _pack, "put a training's features into one file", "dscnn-s --data DIR")
    parser.add_argument("name", help="architecture whose front end makes the features")
    parser.add_argument("--data", type=Path, required=True, metavar="DIR", help="recordings, a folder a label")
    parser.add_argument("--out", type=Path, metavar="FILE", help="file to write (default NAME.pack.npz)")
    parser.add_argument("--cache", type=Path, default=default_cache(), metavar="DIR", help="decoded audio")


def _pack(name: str, data: Path, out: Path | None, cache: Path) -> None:
    architecture = find_architecture(name)
    check_recordings(wanted_recordings(architecture, data))
    pack = build_pack(architecture, data, cache)
    path = out or Path(f"{name}.pack.npz")
    n_bytes = write_pack(path, pack)
    real, made, noise = (len(pack.of_kind(kind, None)) * hop_s(pack) / 3600 for kind in KINDS)
    print(
        f"{path}: {n_bytes / 2**20:.1f} MiB: {len(pack.words)} clips of {len(pack.folders)} words, {real:.2f} h of "
        f"talk, {made:.2f} h of synthesised speech, {noise:.2f} h of noise; next: kws-models train {name} --pack {path}"
    )
    if n_bytes > _MOST_BYTES:
        print(f"{path}: larger than {_MOST_BYTES >> 20} MiB, which is what such a file should fit into")


def hop_s(pack: MelPack) -> float:
    """Seconds from frame to frame."""
    return float(pack.front_end["hop_samples"] / pack.front_end["rate_hz"])


def build_pack(architecture: Architecture, data: Path, cache: Path, seed: int = 1) -> MelPack:
    """Every clip and every piece, no fold left out. Raises KwsError for a model that has no such maps."""
    if architecture.raw or architecture.task != "keyword" or UNKNOWN not in architecture.labels:
        raise KwsError(f"pack: found {architecture.name}, wanted a model of words that takes mel features")
    batches = KeywordBatches(architecture, data, None, cache, seed)
    spec = batches.maker.spec
    n_frames = 1 + (RATE_HZ - spec.window_samples) // spec.hop_samples
    log = replace(spec.log, floor=math.exp(LOG_FLOOR))
    bands = bands_maker(replace(spec, log=log), n_frames)
    names = [r.folder for r in batches.recordings]
    folds = [r.fold for r in batches.recordings]
    words = [_clips(bands, batches)]
    if batches.log_mels:
        names += [e.folder for e in batches.log_mels.entries]
        folds += [fold_of(e.source) for e in batches.log_mels.entries]
        words.append(at_frames(batches.log_mels.log_mels, n_frames, frame_line(spec)))
    folders = tuple(sorted(set(names)))
    pieces, frames = _pieces(bands, batches)
    return MelPack(
        mel_part(architecture.front_end),
        folders,
        np.array([folders.index(name) for name in names]),
        np.array(folds),
        np.arange(len(names)) >= len(batches.recordings),
        np.concatenate(words),
        pieces,
        frames,
    )


def _clips(bands: PatchMaker, batches: KeywordBatches) -> Float32Array:
    """The first second of each recording; every other one that has an Opus twin as that sounds."""
    # n_frames of a clip begin at its sample 0, so that the clip's middle is the map's
    out = np.empty((len(batches.audio), bands.n_frames, bands.spec.n_coeffs), np.float32)
    twin_of = batches.twin_of
    for first in range(0, len(out), _CLIPS_AT_ONCE):
        rows = range(first, min(first + _CLIPS_AT_ONCE, len(out)))
        clips = [batches.twins.clip(twin_of[i]) if twin_of[i] >= 0 and i % 2 else batches.audio.clip(i) for i in rows]
        out[rows.start : rows.stop] = bands.patches(np.stack([first_second(clip) for clip in clips]))
    return out


def _pieces(bands: PatchMaker, batches: KeywordBatches) -> tuple[tuple[Piece, ...], Float32Array]:
    """Talk (every other speaker through Opus), synthesised speech and noise."""
    kinds: list[tuple[Kind, Audio, int, int, bool]] = []
    speech, talk = batches.speech, batches.speech.talk
    if talk and speech.real and speech.real.twins:
        for i, speaker in enumerate(talk.speakers):
            audio = speech.real.twins if i % 2 else speech.real.audio
            kinds.append(("real", audio, i, fold_of(speaker), talk.transcribed[i]))
    if speech.synthesised:
        kinds += [
            ("synthesised", speech.synthesised.audio, i, ANY_FOLD, True) for i in range(len(speech.synthesised.audio))
        ]
    kinds += [("noise", batches.noise, i, r.fold, True) for i, r in enumerate(batches.noise_recordings)]
    pieces, parts, first = [], [], 0
    for kind, audio, i, fold, certain in kinds:
        samples = audio.clip(i)
        if len(samples) >= bands.spec.window_samples:
            parts.append(bands.frames(samples[None])[0])
            pieces.append(Piece(kind, fold, first, len(parts[-1]), certain))
            first += len(parts[-1])
    return tuple(pieces), np.concatenate(parts)
