"""What a model of words should keep silent on: running speech, synthesised and of real people, and noise."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.random import Generator

from kws_models.data.audio_cache import Audio
from kws_models.data.near_words import training_speech
from kws_models.data.real_speech import FOLDER, Talk, find_sentences, load_talk, may_be_learnt, without_words
from kws_models.data.recordings import Recording
from kws_models.data.speech_cuts import Place, Pool, Stream, at_places
from kws_models.zoo.labels import SILENCE, UNKNOWN
from kws_serve.messages import Float32Array, Int64Array

RATE_HZ = 16_000  # of all models of words
_SYNTHESISED, _REAL, _NOISE = "synthesised speech", "real speech", "noise"
_FULL_SHARE_AT = 100  # mined places of a stream: with fewer, fewer cuts are made there, lest they be learnt by heart
_SPEECH_HOURS, _NEAR_HOURS = 0.5, 0.3  # synthesised sentences and near-words


@dataclass(frozen=True)
class Shares:
    """Of a batch's audio: out of synthesised and of real speech; of these and of silence, where a model was wrong."""

    synthesised: float
    real: float
    mined: float
    opus: float  # of real speech


@dataclass(frozen=True)
class Cuts:
    """Rows of a batch (k,), their class indexes (k,) and what is heard in them (k, n_samples)."""

    rows: Int64Array
    classes: Int64Array
    samples: Float32Array


class Negatives:
    """Long pieces without a command word; `places` (mining.py) are set before the first batch."""

    def __init__(self, labels: tuple[str, ...], noise: Audio, seed: int, cache: Path) -> None:
        self.places: tuple[Place, ...] = ()
        self.talk: Talk | None = None
        self._labels, self._noise, self._seed, self._cache = labels, noise, seed, cache
        self.synthesised: Pool | None = None
        self.real: Pool | None = None

    def load(self, data: Path, fold: int | None) -> None:
        """Synthesised speech, and that of real people who are not of `fold`, one piece each, plain and through Opus."""
        made = training_speech(self._seed, _SPEECH_HOURS, _NEAR_HOURS, RATE_HZ, self._cache)
        self.synthesised = Pool(made) if made else None
        found = may_be_learnt(without_words(find_sentences(data), self._labels))
        wanted = [s for s in found if fold is None or s.recording.fold != fold]
        if not wanted:
            print(f"found no {FOLDER} to learn from under {data}: training without real running speech")
            return
        self.talk = load_talk(wanted, RATE_HZ, self._cache, self._seed)
        twins = load_talk(wanted, RATE_HZ, self._cache, self._seed, opus_twins=True)
        self.real = Pool(self.talk.audio, twins.audio)

    @property
    def recordings(self) -> tuple[Recording, ...]:
        """Of real people."""
        return self.talk.recordings if self.talk else ()

    @property
    def streams(self) -> tuple[Stream, ...]:
        """Where for certain no command is said: what can be mined."""
        made = [Stream(_SYNTHESISED, UNKNOWN, self.synthesised.audio)] if self.synthesised else []
        if self.talk:
            known = [i for i, transcribed in enumerate(self.talk.transcribed) if transcribed]
            made.append(Stream(_REAL, UNKNOWN, self.talk.audio.take(known)))
        return (*made, *([Stream(_NOISE, SILENCE, self._noise)] if SILENCE in self._labels else []))

    def cuts(
        self, rng: Generator, classes: Int64Array, n_samples: int, shares: Shares, speed: tuple[float, float]
    ) -> Cuts:
        """Rows of a batch of these `classes` (n,) that are cut out of long pieces instead."""
        #  kind   0 |-- synthesised --|        the other words        |-- real --| 1       a row's origin
        #  Rows of silence among the others may be cut at mined places; of each kind `mined` of the rows are.
        kind = rng.random(len(classes))
        speech = (kind < shares.synthesised) & (self.synthesised is not None)
        talk = (kind >= 1.0 - shares.real) & (self.real is not None)
        silence = ~speech & ~talk & (classes == (self._labels.index(SILENCE) if SILENCE in self._labels else -1))
        drawn_at = rng.random(len(classes))
        streams = self.streams
        parts: list[tuple[Int64Array, str, Float32Array]] = []
        sources = ((speech, _SYNTHESISED, self.synthesised), (talk, _REAL, self.real), (silence, _NOISE, None))
        for chosen, name, pool in sources:
            places = [place for place in self.places if streams[place.stream].name == name]
            hard = chosen & (drawn_at < shares.mined * min(1.0, len(places) / _FULL_SHARE_AT))
            if hard.any():
                drawn = [places[i] for i in rng.integers(0, len(places), int(hard.sum()))]
                label = SILENCE if name == _NOISE else UNKNOWN
                parts.append((np.flatnonzero(hard), label, at_places(rng, streams, drawn, n_samples, speed)))
            rows = np.flatnonzero(chosen & ~hard)
            if pool and len(rows):
                parts.append((rows, UNKNOWN, pool.anywhere(rng, len(rows), n_samples, speed, shares.opus)))
        return self._together(parts, n_samples)

    def _together(self, parts: list[tuple[Int64Array, str, Float32Array]], n_samples: int) -> Cuts:
        rows = [np.zeros(0, np.int64), *(rows for rows, _, _ in parts)]
        classes = [np.zeros(0, np.int64), *(np.full(len(rows), self._labels.index(x)) for rows, x, _ in parts)]
        samples = [np.zeros((0, n_samples), np.float32), *(samples for _, _, samples in parts)]
        return Cuts(np.concatenate(rows), np.concatenate(classes), np.concatenate(samples))
