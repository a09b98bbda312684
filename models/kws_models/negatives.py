"""What a model of words should keep silent on: running speech, synthesised and of real people, and noise."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.random import Generator

from kws_models.audio_cache import Audio
from kws_models.evaluation import UNKNOWN
from kws_models.near_words import training_speech
from kws_models.real_speech import FOLDER, Talk, find_sentences, load_talk, may_be_learnt, without_words
from kws_models.recordings import Recording
from kws_models.speech_cuts import Place, Pool, Stream, at_places
from kws_serve.messages import Float32Array, Int64Array

SILENCE = "_silence_"
RATE_HZ = 16_000
_SPEECH_HOURS, _NEAR_HOURS = 0.5, 0.3  # synthesised sentences and near-words


@dataclass(frozen=True)
class Shares:
    """Of a batch's audio: out of synthesised speech, out of real speech; of both, where a model was mistaken."""

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
        self._synthesised: Pool | None = None
        self._real: Pool | None = None

    def load(self, data: Path, fold: int | None) -> None:
        """Synthesised speech, and that of real people who are not of `fold`, one piece each, plain and through Opus."""
        made = training_speech(self._seed, _SPEECH_HOURS, _NEAR_HOURS, RATE_HZ, self._cache)
        self._synthesised = Pool(made) if made else None
        found = may_be_learnt(without_words(find_sentences(data), self._labels))
        wanted = [s for s in found if fold is None or s.recording.fold != fold]
        if not wanted:
            print(f"found no {FOLDER} to learn from under {data}: training without real running speech")
            return
        self.talk = load_talk(wanted, RATE_HZ, self._cache, self._seed)
        twins = load_talk(wanted, RATE_HZ, self._cache, self._seed, opus_twins=True)
        self._real = Pool(self.talk.audio, twins.audio)

    @property
    def recordings(self) -> tuple[Recording, ...]:
        """Of real people."""
        return self.talk.recordings if self.talk else ()

    @property
    def streams(self) -> tuple[Stream, ...]:
        """Where for certain no command is said: what can be mined."""
        made = [Stream("synthesised speech", UNKNOWN, self._synthesised.audio)] if self._synthesised else []
        if self.talk:
            known = [i for i, transcribed in enumerate(self.talk.transcribed) if transcribed]
            made.append(Stream("real speech", UNKNOWN, self.talk.audio.take(known)))
        return (*made, *([Stream("noise", SILENCE, self._noise)] if SILENCE in self._labels else []))

    def cuts(self, rng: Generator, n: int, n_samples: int, shares: Shares, speed: tuple[float, float]) -> Cuts:
        """Those of a batch's `n` rows that are cut out of long pieces."""
        kind = rng.random(n)
        speech = (kind < shares.synthesised) & (self._synthesised is not None)
        talk = (kind >= 1.0 - shares.real) & (self._real is not None)
        mined = (speech | talk) & (rng.random(n) < shares.mined) & bool(self.places)
        rows, classes, samples = [], [], []
        for chosen, pool in ((speech & ~mined, self._synthesised), (talk & ~mined, self._real)):
            if pool:
                rows.append(np.flatnonzero(chosen))
                classes.append(np.full(len(rows[-1]), self._labels.index(UNKNOWN)))
                samples.append(pool.anywhere(rng, len(rows[-1]), n_samples, speed, shares.opus))
        if mined.any():
            places = [self.places[i] for i in rng.integers(0, len(self.places), int(mined.sum()))]
            rows.append(np.flatnonzero(mined))
            classes.append(np.array([self._labels.index(self.streams[place.stream].label) for place in places]))
            samples.append(at_places(rng, self.streams, places, n_samples, speed))
        none = np.zeros(0, np.int64)
        kept = np.concatenate([np.zeros((0, n_samples), np.float32), *samples])
        return Cuts(np.concatenate([none, *rows]), np.concatenate([none, *classes]), kept)
