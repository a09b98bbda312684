"""Training batches for keyword models: audio through the service's front end, and packed log-mel features."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.random import Generator

from kws_models.data.audio_cache import load_audio
from kws_models.data.augmentation import AugmentSpec, masked, mixed, segments, stretched, with_gain
from kws_models.data.features import patch_maker
from kws_models.data.keyword_mix import KeywordMix
from kws_models.data.logmel_clips import LogMelClips, load_log_mels
from kws_models.data.negatives import RATE_HZ, Negatives, Shares
from kws_models.data.recordings import (
    NOISE_FOLDER,
    Recording,
    event_root,
    find_recordings,
    flatten,
    keyword_root,
    require_folders,
    without_fold,
)
from kws_models.data.rooms import impulse_responses, in_rooms
from kws_models.data.samplers import ClassSampler
from kws_models.zoo.architectures import Architecture
from kws_models.zoo.labels import BACKGROUND, SILENCE, UNKNOWN
from kws_serve.messages import Float32Array, Int16Array, Int64Array

DIGITS_FOLDER, DIGITS_EVERY = "digits_fsdd_8k", 5  # four speakers: a fifth of their many clips
_ROOMS = 200  # impulse responses of half a second, made once
_EVENT_WEIGHT = 0.3  # of a second of a sound event as noise, against a second of background
SILENCE_GAIN_DB = (-40.0, 6.0)  # of noise alone: inaudible to loud
NOTHING_SHARE = 0.05  # of silence: digital zeros
N_SAMPLES = 16_000  # of a clip, and of what is drawn for a patch at least
LATE_MS = 150.0  # a word ends about a quarter of a second before its clip does


class KeywordBatches:
    """`batch(step)` for one held-out fold (None: train on everything)."""

    def __init__(
        self,
        architecture: Architecture,
        data: Path,
        fold: int | None,
        cache: Path,
        seed: int,
        mix: KeywordMix | None = None,
    ) -> None:
        self.labels, self.seed, self.mix = architecture.labels, seed, mix or KeywordMix()
        self.maker = patch_maker(architecture)
        self.n_samples = max(N_SAMPLES, self.maker.patch_samples)
        self._room_ms = (self.n_samples - N_SAMPLES) / 2 * 1000 / RATE_HZ
        hop_ms = 1000 * self.maker.spec.hop_samples / RATE_HZ
        self._mask_frames = max(1, round(self.mix.augment.mask_ms / hop_ms))
        root = keyword_root(data)
        found = find_recordings(root)
        words = tuple(label for label in self.labels if label not in (UNKNOWN, SILENCE))
        require_folders(found, (*words, NOISE_FOLDER), root)
        clips = self._clips(found, data)
        self.recordings = without_fold(clips, fold)
        kept = [i for i, r in enumerate(clips) if fold is None or r.fold != fold]
        self.audio = load_audio(clips, RATE_HZ, cache).take(kept)
        self._sampler = ClassSampler([r.folder for r in self.recordings], self.labels)
        self._load_twins(clips, kept, cache)
        self._load_noise(found, data, fold, cache)
        self.log_mels = load_log_mels(data, fold, self.labels, self.maker, self.recordings, self.audio)
        self.speech = Negatives(self.labels, self.noise, seed, cache)
        if UNKNOWN in self.labels:
            self.speech.load(data, fold)
        mix = self.mix
        self._shares = Shares(mix.running_speech_share, mix.real_speech_share, mix.mined_share, mix.opus_share)
        self._rooms = impulse_responses(np.random.default_rng([seed, 7]), _ROOMS, RATE_HZ, RATE_HZ // 2)

    def _clips(self, found: dict[str, list[Recording]], data: Path) -> list[Recording]:
        """Words; where none stands in for `_unknown_`, only the labels', and some of the few digit speakers'."""
        words = [r for r in flatten(found) if not r.folder.startswith("_") or r.folder == UNKNOWN]
        if UNKNOWN in self.labels:
            return words
        digits = find_recordings(data / DIGITS_FOLDER) if (data / DIGITS_FOLDER).is_dir() else {}
        some = [r for recordings in digits.values() for r in recordings[::DIGITS_EVERY]]
        return [r for r in (*words, *some) if r.folder in self.labels]

    def _load_twins(self, clips: list[Recording], kept: list[int], cache: Path) -> None:
        with_twin = [i for i, r in enumerate(clips) if r.path.suffix == ".flac"]
        self.twins = load_audio([clips[i] for i in with_twin], RATE_HZ, cache, opus_twins=True)
        twin_of = np.full(len(clips), -1)
        twin_of[with_twin] = np.arange(len(with_twin))
        self.twin_of = twin_of[kept]

    def _load_noise(self, found: dict[str, list[Recording]], data: Path, fold: int | None, cache: Path) -> None:
        """Noise: half from `_background_noise_`, half from the event folders where there are some."""
        events = find_recordings(event_root(data)) if (data / "events").is_dir() else {}
        everything = [*found[NOISE_FOLDER], *flatten(events)]
        own, other = without_fold(found[NOISE_FOLDER], fold), without_fold(list(flatten(events)), fold)
        self.noise_recordings = [*own, *other]
        kept = [i for i, r in enumerate(everything) if fold is None or r.fold != fold]
        self.noise = load_audio(everything, RATE_HZ, cache).take(kept)
        lengths = (self.noise.ends - self.noise.starts).astype(np.float64)
        rest = np.array([r.folder == BACKGROUND for r in self.noise_recordings])
        weights = np.where(rest, lengths, _EVENT_WEIGHT * lengths)
        # both halves get the same sum: own is scaled to that of the others
        weights[: len(own)] *= weights[len(own) :].sum() / weights[: len(own)].sum() if other else 1.0
        self._noise_edges = np.cumsum(weights) / weights.sum()

    @property
    def training_recordings(self) -> list[Recording]:
        """All that is learnt from: words, noise and running speech."""
        return [*self.recordings, *self.noise_recordings, *self.speech.recordings]

    @property
    def feature_clips(self) -> list[str]:
        """`word/stem` of the clips known by their features only."""
        return [f"{entry.folder}/{entry.stem}" for entry in self.log_mels.entries] if self.log_mels else []

    def batch(self, step: int) -> tuple[Float32Array, Int64Array]:
        """Patches (n, n_frames, n_coeffs) and class indexes (n,): a function of seed and step alone."""
        rng = np.random.default_rng([self.seed, step])
        n_audio = self.mix.n_audio + (0 if self.log_mels else self.mix.n_log_mel)
        audio, audio_classes = self._from_audio(rng, n_audio)
        parts, classes = [audio], [audio_classes]
        if self.log_mels and self.mix.n_log_mel:
            log_mel, log_mel_classes = self._from_log_mel(rng, self.mix.n_log_mel, self.log_mels)
            parts.append(log_mel)
            classes.append(log_mel_classes)
        augment = self.mix.augment
        patches = masked(rng, np.concatenate(parts), augment.mask_share, self._mask_frames)
        return patches, np.concatenate(classes)

    def _classes(self, rng: Generator, n: int, silence_share: float) -> Int64Array:
        """Silence and unknown by their shares, the words evenly."""
        words = [i for i, label in enumerate(self.labels) if label not in (UNKNOWN, SILENCE)]
        drawn = rng.choice(words, n)
        kind = rng.random(n)
        if SILENCE in self.labels:
            drawn[kind < silence_share] = self.labels.index(SILENCE)
        if UNKNOWN in self.labels:
            drawn[kind > 1.0 - self.mix.unknown_share] = self.labels.index(UNKNOWN)
        return drawn

    def _noise_segments(self, rng: Generator, n: int) -> Float32Array:
        clips = np.searchsorted(self._noise_edges, rng.random(n), side="right")
        return segments(rng, self.noise, clips, self.n_samples)

    def _from_audio(self, rng: Generator, n: int) -> tuple[Float32Array, Int64Array]:
        spec = self.mix.augment
        classes = self._classes(rng, n, 2.0 * self.mix.silence_share if self.log_mels else self.mix.silence_share)
        cuts = self.speech.cuts(rng, classes, self.n_samples, self._shares, spec.speed)
        classes[cuts.rows] = cuts.classes
        noise = self._noise_segments(rng, n)
        spoken = classes != (self.labels.index(SILENCE) if SILENCE in self.labels else -1)
        spoken[cuts.rows] = True
        rows = np.flatnonzero(spoken)
        clean = np.zeros((n, self.n_samples), np.float32)
        words = np.setdiff1d(rows, cuts.rows)
        clean[words] = self._spoken(rng, self._sampler.draw(rng, classes[words]), spec)
        clean[cuts.rows] = in_rooms(rng, cuts.samples, self._rooms, spec.room_share)
        samples = np.empty((n, self.n_samples), np.int16)
        samples[rows] = with_gain(rng, mixed(rng, clean[rows], noise[rows], spec), spec.gain_db)
        samples[~spoken] = self._silence(rng, noise[~spoken])
        return self.maker.patches(samples), classes

    def _spoken(self, rng: Generator, clips: Int64Array, spec: AugmentSpec) -> Float32Array:
        """The clips (n, n_samples), shifted and at another speed, some through Opus."""
        n = len(clips)
        speed = rng.uniform(*spec.speed, n).astype(np.float32)
        shift = rng.uniform(*self._shift_ms(spec), n) * RATE_HZ / 1000
        # The clip's second stands in the patch's middle, both stretched about their middles. So that the clip's sample
        # N_SAMPLES / 2 is read at the patch's n_samples / 2, the patch begins at the clip's sample
        #     N_SAMPLES / 2 - speed * n_samples / 2        and later by `shift`, which moves the word before its place
        start = (N_SAMPLES / 2 - self.n_samples / 2 * speed + shift).astype(np.float32)
        out = stretched(self.audio, clips, self.n_samples, speed, start)
        coded = np.flatnonzero((self.twin_of[clips] >= 0) & (rng.random(n) < self.mix.opus_share))
        if len(coded):
            twins = self.twin_of[clips[coded]]
            out[coded] = stretched(self.twins, twins, self.n_samples, speed[coded], start[coded])
        return in_rooms(rng, out, self._rooms, spec.room_share)

    def _shift_ms(self, spec: AugmentSpec) -> tuple[float, float]:
        """By how much a clip stands before the patch's middle: in a patch of more than a second anywhere, and up to
        where the word has just been said, so that a stream need not wait for what follows it.
        """
        most = spec.shift_ms + self._room_ms
        return (-most - (LATE_MS if self._room_ms > 0 else 0.0), most)

    def _silence(self, rng: Generator, noise: Float32Array) -> Int16Array:
        """Noise alone, loud to inaudible; now and then nothing at all."""
        out = with_gain(rng, noise, SILENCE_GAIN_DB)
        out[rng.random(len(noise)) < NOTHING_SHARE] = 0
        return out

    def _from_log_mel(self, rng: Generator, n: int, log_mels: LogMelClips) -> tuple[Float32Array, Int64Array]:
        spec = self.mix.augment
        classes = self._classes(rng, n, 0.0)
        clips = log_mels.draw(rng, classes)
        noise = self._noise_segments(rng, n)
        return log_mels.patches(rng, clips, noise, spec, self._shift_ms(spec), self._room_ms), classes
