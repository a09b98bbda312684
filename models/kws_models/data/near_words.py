"""Synthesised speech for training: sentences, and words that sound like the commands, alone and in sentences.

No word that sounds the same as a command is among the near-words (know, write): alone nobody can tell them apart.
"""

# ruff: noqa: SIM905  (word lists read best as text)
from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from kws_models.data.audio_cache import Audio, at_rate, cached
from kws_models.data.running_speech import COMMANDS, TRAINING_ACCENTS, pieces
from kws_models.data.synthesiser import ESPEAK, Piece, installed, spoken, versions
from kws_serve.messages import Int16Array, KwsError

NEAR_WORDS = tuple(
    """
yesterday yet guess chess less dress mess yell yesteryear jest best rest express unless
known note nose north normal notice november novel noble snow low although piano unknown
upper cup pup sup suppose upon supper abrupt corrupt puppy uppercut pub hub sum us
downtown town dawn drown crown brown don't done dune doubt noun found downward
lefty let lift loft laughed leaf leaves theft deft length lecture lend elf level
rightly bright light night ride rice rye riot height fright tight rival rise
non honest anchor own un an and orange song gone lawn horn arm aunt alone
offer office often soft cough awful half officer offence orphan cuff
stopped stoppage shop top stock stuff step staff star spot stomp storm store
goat gold ghost gopher goal girl grow ago gate good glow goes gospel cargo
mister cheese answer weather another already window follow yellow
""".split()
)
_CARRIERS = (
    "She said {} to him",
    "The {} was there before",
    "I think {} is what they meant",
    "It was called {} again",
    "They wanted {} and {}",
    "{}, he answered, {}",
)
_VARIANTS = tuple(
    """
Alicia Andrea Denis Diogo Henrique Hugo Jacky Mario Michael Mike adam anika aunty belinda benjamin boris caleb david
ed edward grandma grandpa iven iven2 iven3 john klatt2 klatt4 marcelo max michel miguel norbert pablo paul pedro quincy
rob robert sandro shelby steph steph2 travis victor zac
""".split()
)  # none of those that measure
_WORDS_A_PIECE = 10  # said alone, each as a sentence of its own: with a pause after it
_SENTENCES_A_PIECE = 4  # of one or two near-words each: some six more in a piece


def near_pieces(seed: int, hours: float) -> Iterator[Piece]:
    """Pieces of one voice each, until `hours` are full: near-words alone with pauses, then in sentences.

    Raises KwsError without espeak-ng.
    """
    if not installed(ESPEAK):
        raise KwsError("near-words: found no espeak-ng; install: apt-get install espeak-ng")
    rng = np.random.default_rng([seed, 17])
    words = [word for word in NEAR_WORDS if word not in COMMANDS]
    left_s = hours * 3600.0
    while left_s > 0:
        accent, variant = (names[int(rng.integers(len(names)))] for names in (TRAINING_ACCENTS, _VARIANTS))
        voice = f"{ESPEAK} {accent}+{variant}"
        # What is said: _WORDS_A_PIECE sentences of one word, then _SENTENCES_A_PIECE with others in the place of {}.
        #     "Yet. Guess. ... Chess. She said best to him. The rest was there before. ..."
        # Nothing is cut here: training patches are cut out of a piece anywhere, so across a word's edges, too.
        alone = [words[i] for i in rng.integers(0, len(words), _WORDS_A_PIECE)]
        said = []
        for _ in range(_SENTENCES_A_PIECE):
            carrier = _CARRIERS[int(rng.integers(len(_CARRIERS)))]
            n = carrier.count("{}")
            said.append(carrier.format(*(words[i] for i in rng.integers(0, len(words), n))))
        samples = spoken(rng, voice, ". ".join([*alone, *said]) + ".")
        left_s -= len(samples) / 16_000
        yield Piece(voice, samples)


def training_speech(seed: int, hours: float, near_hours: float, rate_hz: int, cache: Path) -> Audio | None:
    """`hours` of sentences and `near_hours` of near-words by the voices for training, at `rate_hz`, made once.

    None, said aloud, where no synthesiser is installed; without espeak-ng no near-words.
    """
    if not installed():
        print("found neither espeak-ng nor flite: training without synthesised running speech")
        return None
    near_hours = near_hours if installed(ESPEAK) else 0.0

    def make() -> list[Int16Array]:
        said = [*pieces(seed, hours, training=True), *(near_pieces(seed, near_hours) if near_hours else ())]
        return [at_rate(piece.samples, 16_000, rate_hz) for piece in said]

    what = f"{seed} {hours} {near_hours} {rate_hz} {versions()} {NEAR_WORDS} {_VARIANTS}"
    return cached(cache, "speech-" + hashlib.sha1(what.encode()).hexdigest()[:16], make)
