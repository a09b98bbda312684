"""Running speech by free synthesisers (espeak-ng, flite; no MBROLA), without the command words: synthetic, so called.

Sentences are put together from the word lists below; voices, rates and pitches vary; noise is mixed in by the caller's
backgrounds. Debian packages espeak-ng and flite. One seed gives the same audio with the same programs.
"""

# ruff: noqa: SIM905  (word lists read best as text)
from __future__ import annotations

import re
from collections.abc import Iterator

import numpy as np
from numpy.random import Generator

from kws_models.data.synthesiser import ESPEAK, FLITE, Piece, installed, spoken
from kws_serve.messages import KwsError

COMMANDS = frozenset("yes no up down left right on off stop go".split())
_ACCENTS = ("en-gb", "en-us", "en-gb-scotland", "en-gb-x-gbclan", "en-gb-x-rp", "en-gb-x-gbcwmd", "en-029")
_VARIANTS = ("m1", "m2", "m3", "m4", "m5", "m7", "f1", "f2", "f3", "f4", "f5", "Andy", "Annie", "Gene", "Lee", "linda")
_FLITE_VOICES = ("awb", "kal16", "rms", "slt")
_FLITE_WEIGHT = 8  # times as likely as a voice of espeak-ng: few voices, but of another make
_TRAINING_VARIANTS = (
    "Alicia",
    "Denis",
    "Diogo",
    "Jacky",
    "adam",
    "anika",
    "boris",
    "caleb",
    "david",
    "edward",
    "grandma",
)
TRAINING_ACCENTS = ("en-gb", "en-us", "en-029")
_SENTENCES_A_PIECE = 14  # by one voice: about a minute, so that an hour has some sixty voices

_PEOPLE = """
teacher neighbour doctor farmer painter sailor grandmother student driver baker captain daughter engineer gardener
musician nurse officer plumber reporter scientist tailor uncle visitor waiter writer cousin judge pilot lawyer carpenter
brother singer mayor clerk hunter guest mother father child sister editor poet dentist chemist butcher
""".split()
_THINGS = """
bottle garden window letter kitchen basket mountain river market station picture blanket candle ladder engine bridge
forest village paper button camera carpet pencil saddle ticket umbrella wallet yacht hammer island jacket lantern mirror
needle orange pillow quilt ribbon spoon tower vessel wagon apple bicycle castle desert elephant fountain guitar helmet
insect jewel kettle lemon machine notebook ocean parcel rabbit shelter tunnel valley whistle zebra barrel cushion drawer
envelope feather glove hillside ivory junction keyboard library magnet napkin oven package quarry radio sandwich
telephone uniform violin weather chair table house water street music coffee dinner weekend morning evening language
history science number answer question problem reason minute hour month season colour flavour pattern shadow
""".split()
_QUALITIES = """
ancient bitter careful distant empty famous gentle hidden icy jolly kind lonely modern narrow ordinary patient quiet
rapid silver tender unusual violent wooden yellow zealous bright clever dusty eager fragile golden humble important
jealous large massive nervous odd pleasant rough simple thick useful valuable warm blue green purple seven fourteen
twenty several many few other strange perfect little heavy loose pale
""".split()
_DEEDS = """
carried painted discovered followed gathered harvested imagined measured noticed offered polished received sketched
traded understood visited watched borrowed cleaned described examined forgot guarded admired inspected joined kept
lifted mended needed ordered praised questioned repaired searched touched used wanted bought caught drew emptied found
gave held improved kicked learned made packed reached shared threw wrapped remembered recorded arranged collected
""".split()
_WAYS = """
slowly quietly carefully suddenly gladly rarely usually eagerly politely secretly badly calmly early finally honestly
perhaps nearly often probably quickly really safely together yesterday tomorrow afterwards everywhere sometimes
""".split()
_PLACES = (
    """
beside the harbour|behind the theatre|near the old mill|in the middle of winter|after a long journey|before breakfast
during the concert|at the railway station|under a cloudy sky|across the frozen lake|without any help|for the third time
between two tall trees|inside the museum|around the corner|with great patience|since early summer|past the bakery
through the narrow alley|beyond the last field|within a single week|against all advice|among good friends
""".strip()
    .replace("\n", "|")
    .split("|")
)
_PHRASES = (
    """
What do you think about that|I have never seen anything like it|It takes about twenty five minutes by train
We should talk about it tomorrow|The temperature will fall to minus three|She said that everybody was welcome
Could you pass me the salt please|They are still waiting for the results|He told us a very long story
There are nine hundred and sixty seven of them|My favourite season is autumn|Thank you for calling
Let us meet at a quarter past eight|That depends entirely upon the weather|I would rather have tea than coffee
""".strip()
    .replace("\n", "|")
    .split("|")
)


def sentence(rng: Generator) -> str:
    """One sentence in which no command word stands."""

    def one(words: list[str]) -> str:
        return words[int(rng.integers(len(words)))]

    place = one(_PLACES)
    shapes = (
        lambda: f"The {one(_QUALITIES)} {one(_PEOPLE)} {one(_WAYS)} {one(_DEEDS)} the {one(_THINGS)} {place}",
        lambda: f"My {one(_PEOPLE)} {one(_DEEDS)} a {one(_QUALITIES)} {one(_THINGS)} and the {one(_THINGS)}",
        lambda: f"Have you {one(_WAYS)} {one(_DEEDS)} that {one(_QUALITIES)} {one(_THINGS)} {place}",
        lambda: f"{one(_WAYS)}, the {one(_PEOPLE)} and her {one(_PEOPLE)} {one(_DEEDS)} every {one(_THINGS)}",
        lambda: one(_PHRASES),
        lambda: f"If the {one(_THINGS)} is {one(_QUALITIES)}, then the {one(_PEOPLE)} will be {one(_QUALITIES)}",
    )
    made = shapes[int(rng.integers(len(shapes)))]() + "."
    assert not COMMANDS & set(re.findall(r"[a-z]+", made.lower())), made
    return made


def pieces(seed: int, hours: float, training: bool = False) -> Iterator[Piece]:
    """Speech until `hours` are full; voices for `training` are other ones. Raises KwsError without a synthesiser."""
    voices = _voices(training)
    rng = np.random.default_rng([seed, 11])
    left_s = hours * 3600.0
    while left_s > 0:
        voice = voices[int(rng.integers(len(voices)))]
        text = " ".join(sentence(rng) for _ in range(_SENTENCES_A_PIECE))
        samples = spoken(rng, voice, text)
        left_s -= len(samples) / 16_000
        yield Piece(voice, samples)


def _voices(training: bool) -> list[str]:
    accents, variants = (TRAINING_ACCENTS, _TRAINING_VARIANTS) if training else (_ACCENTS, _VARIANTS)
    voices = [f"{ESPEAK} {accent}+{variant}" for accent in accents for variant in variants]
    voices = voices if installed(ESPEAK) else []
    if installed(FLITE) and not training:
        voices += [f"{FLITE} {name}" for name in _FLITE_VOICES for _ in range(_FLITE_WEIGHT)]
    if not voices:
        raise KwsError("running speech: found neither espeak-ng nor flite; install: apt-get install espeak-ng flite")
    return voices
