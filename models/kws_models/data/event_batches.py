"""Training batches for sound-event models: events and hard negatives in rooms, near and far, over backgrounds.

A patch is made of a sound (an event, a hard negative, speech, or none) and a bed (a background, or digital zeros as
where a short file is centred in zeros). Everything is at the model's rate before anything is added, so that a
source's rate says nothing about its class.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.random import Generator

from kws_models.data.audio_cache import Audio, joined, load_audio
from kws_models.data.augmentation import banded, masked, segments, stretched, to_int16
from kws_models.data.event_beds import coloured, over_beds
from kws_models.data.event_mix import EventMix
from kws_models.data.features import patch_maker
from kws_models.data.near_words import training_speech
from kws_models.data.recordings import (
    HARD,
    DataError,
    Recording,
    event_root,
    find_recordings,
    flatten,
    require_folders,
    without_fold,
)
from kws_models.data.rooms import impulse_responses, in_rooms
from kws_models.data.samplers import SourceSampler
from kws_models.data.shatter import shatterings
from kws_models.zoo.architectures import Architecture
from kws_serve.messages import Float32Array, Int16Array, Int64Array

GLASS = "glassbreak"  # the event that is synthesised, too
SPEECH_FOLDERS = ("speech_commands", "digits_fsdd_8k")
_SPEECH_PER_FOLDER = 60  # recordings of a word, the first ones: speech is one of many sounds here
_SUSTAINED_S = 3.0  # clips at least this long sound throughout: any loud part of them is the event
_TRIES = 6  # to find a part that is not quiet
_LOUD_SHARE = 0.5  # of the recording's RMS, that such a part has
_EVERY = 16  # samples, of which one is looked at for loudness: enough, and quick
_INSIDE_S = 0.2  # of a short clip from its loudest point on, that must lie in the patch: enough to know it by
_ATTACK_S = 0.1  # before the loudest point: the beginning that may be cut off, at most
_SPEECH_HOURS = 0.5  # synthesised sentences
_SHATTERINGS = 300  # synthesised, made once
_ROOMS = 400  # impulse responses of one second, made once


class EventBatches:
    """`batch(step)` for one held-out fold (None: train on everything)."""

    def __init__(
        self,
        architecture: Architecture,
        data: Path,
        fold: int | None,
        cache: Path,
        seed: int,
        mix: EventMix | None = None,
    ) -> None:
        self.labels, self.seed, self.mix = architecture.labels, seed, mix or EventMix()
        self.rest = architecture.rest_labels[0]
        self.maker = patch_maker(architecture)
        self.rate_hz = self.maker.spec.rate_hz
        root = event_root(data)
        found = find_recordings(root)
        require_folders(found, self.labels, root)
        folders = (*self.labels, HARD)
        everything = [r for r in flatten(found) if r.folder in folders] + find_speech(data)
        kept = [i for i, r in enumerate(everything) if fold is None or r.fold != fold]
        self.recordings = without_fold(everything, fold)
        self.audio = load_audio(everything, self.rate_hz, cache).take(kept)
        self._samplers = {
            name: SourceSampler([i for i, r in enumerate(self.recordings) if r.folder == name], self.recordings)
            for name in folders
            if any(r.folder == name for r in self.recordings)
        }
        missing = [label for label in self.labels if label not in self._samplers]
        if missing:
            raise DataError(f"data: found no recording of {', '.join(missing)} to train on, wanted some")
        speech = [i for i, r in enumerate(self.recordings) if r.folder not in folders]
        if speech:
            self._samplers["speech"] = SourceSampler(speech, self.recordings)
        self._running_speech = training_speech(seed, _SPEECH_HOURS, 0.0, self.rate_hz, cache)
        self._shatterings = joined(shatterings(np.random.default_rng([seed, 8]), _SHATTERINGS, self.rate_hz))
        self._rooms = impulse_responses(np.random.default_rng([seed, 7]), _ROOMS, self.rate_hz, self.rate_hz)

    @property
    def training_recordings(self) -> list[Recording]:
        """All that is learnt from."""
        return self.recordings

    @property
    def feature_clips(self) -> list[str]:
        """None: events are learnt from audio alone."""
        return []

    def batch(self, step: int) -> tuple[Float32Array, Int64Array]:
        """Patches (n, n_frames, n_coeffs) and class indexes (n,): a function of seed and step alone."""
        rng = np.random.default_rng([self.seed, step])
        mix, kinds = self.mix, self._kinds(rng, self.mix.n)
        sounds = np.zeros((self.mix.n, self.maker.patch_samples), np.float32)
        for kind in sorted(set(kinds) - {self.rest}):
            rows = np.flatnonzero(kinds == kind)
            sounds[rows] = self._sounds(rng, kind, len(rows))
        sounds = coloured(rng, in_rooms(rng, sounds, self._rooms, mix.room_share), mix, self.rate_hz)
        beds = segments(rng, self.audio, self._samplers[self.rest].draw(rng, mix.n), self.maker.patch_samples)
        samples = to_int16(over_beds(rng, sounds, beds, mix, self.rate_hz))
        classes = [self.labels.index(kind if kind in self.labels else self.rest) for kind in kinds]
        patches = banded(rng, self.maker.patches(samples), mix.mask_share, mix.mask_bands)
        return masked(rng, patches, mix.mask_share, mix.mask_frames), np.array(classes, np.int64)

    def _kinds(self, rng: Generator, n: int) -> np.ndarray:
        """A folder for each patch: an event, HARD, "speech", or the rest label for a bed alone."""
        # of the rows that are of no event:  kind  0 |-- hard_share --| a bed alone |-- speech_share --| 1
        # where the two shares overlap it is speech
        mix, events = self.mix, [label for label in self.labels if label != self.rest]
        kinds = rng.choice(events, n).astype(object)
        is_rest, kind = rng.random(n) < mix.rest_share, rng.random(n)
        kinds[is_rest] = self.rest
        if HARD in self._samplers:
            kinds[is_rest & (kind < mix.hard_share)] = HARD
        if "speech" in self._samplers:
            kinds[is_rest & (kind > 1.0 - mix.speech_share)] = "speech"
        return kinds

    def _sounds(self, rng: Generator, kind: str, n: int) -> Float32Array:
        """`n` sounds (n, patch_samples) of one kind at another speed, somewhere in the patch, full scale's peak."""
        out = self._placed(rng, self.audio, self._samplers[kind].draw(rng, n))
        share, synthetic = self._synthetic(kind)
        rows = np.flatnonzero(rng.random(n) < share)
        if synthetic is not None and len(rows):
            out[rows] = self._placed(rng, synthetic, rng.integers(0, len(synthetic), len(rows)))
        layered = np.flatnonzero(rng.random(n) < self.mix.layer_share)
        if len(layered):
            second = self._placed(rng, self.audio, self._samplers[kind].draw(rng, len(layered)))
            out[layered] += second * 10.0 ** (rng.uniform(-12, 0, (len(layered), 1)) / 20.0).astype(np.float32)
        return out

    def _synthetic(self, kind: str) -> tuple[float, Audio | None]:
        """How much of a kind is synthesised, and what."""
        if kind == GLASS:
            return self.mix.shatter_share, self._shatterings
        if kind == "speech":
            return self.mix.synthetic_speech_share, self._running_speech
        return 0.0, None

    def _placed(self, rng: Generator, audio: Audio, clips: Int64Array) -> Float32Array:
        n, width = len(clips), self.maker.patch_samples
        speed = rng.uniform(*self.mix.speed, n).astype(np.float32)
        start = np.array(
            [self._start(rng, audio.clip(int(clip)), float(s)) for clip, s in zip(clips, speed, strict=True)]
        )
        out = stretched(audio, clips, width, speed, start.astype(np.float32))
        return np.asarray(out * (32767.0 / (np.abs(out).max(1, keepdims=True) + 1.0)), np.float32)

    def _start(self, rng: Generator, samples: Int16Array, speed: float) -> float:
        """The clip's sample at which the patch begins; negative: the clip begins within the patch.

        A long clip: a random part that is not quiet. A short one: at least _INSIDE_S of it from its loudest point
        on, or all that is left, lies inside.
        """
        width_samples = self.maker.patch_samples * speed
        if len(samples) > max(_SUSTAINED_S * self.rate_hz, width_samples):
            rms = np.sqrt(np.mean(samples[::_EVERY].astype(np.float32) ** 2))
            for _ in range(_TRIES):
                first = rng.uniform(0, len(samples) - width_samples)
                part = samples[int(first) : int(first + width_samples) : _EVERY].astype(np.float32)
                if np.sqrt(np.mean(part**2)) > _LOUD_SHARE * rms:
                    break
            return first
        loudest = int(np.argmax(np.abs(samples.astype(np.int32)))) if len(samples) else 0
        inside = min(len(samples) - loudest, _INSIDE_S * self.rate_hz)
        # clip              |.../\..........|           loudest at /\
        # earliest   |-------- width -------|            ends `inside` after the loudest point
        # latest              |-------- width -------|   begins _ATTACK_S before it
        earliest = loudest + inside - width_samples
        return rng.uniform(earliest, max(loudest - _ATTACK_S * self.rate_hz, earliest + 1))


def find_speech(data: Path) -> list[Recording]:
    """Speech that is no sound event: the unlabelled clips, and the first clips of each word; [] where there is none."""
    speech: list[Recording] = []
    for name in SPEECH_FOLDERS:
        if (data / name).is_dir():
            for word, recordings in find_recordings(data / name).items():
                speech += [] if word.startswith("_") else recordings[:_SPEECH_PER_FOLDER]
    if (data / "speech_unlabelled").is_dir():
        speech += find_recordings(data).get("speech_unlabelled", [])
    return speech
