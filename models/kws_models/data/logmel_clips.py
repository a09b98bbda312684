"""Training patches out of packed log-mel features, of clips that exist only so."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.random import Generator

from kws_models.data.audio_cache import Audio
from kws_models.data.augmentation import AugmentSpec, FramePlace, mixed_log_mel, warped_log_mel
from kws_models.data.features import PatchMaker, bands_maker, behind_bands, mel_step
from kws_models.data.logmel_pack import N_MELS, PACK_HOP_MS, PackEntry, fit_bands, frame_line, read_index, read_log_mels
from kws_models.data.recordings import Recording, fold_of
from kws_models.data.samplers import ClassSampler
from kws_serve.messages import Float32Array, Int64Array

FOLDER = "speech_commands_logmel"


@dataclass(frozen=True)
class LogMelClips:
    """Clips of the pack on the scale of a model's own front end, and what makes patches of them."""

    entries: list[PackEntry]
    log_mels: Float32Array  # (n, N_FRAMES, N_MELS), row i of entries[i]
    sampler: ClassSampler
    maker: PatchMaker  # the model's front end up to the log of the mel bands, for the noise
    dct: Float32Array  # (N_MELS, n_coeffs), or what leaves the bands as they are
    mel_step: float  # mel from band to band

    def draw(self, rng: Generator, classes: Int64Array) -> Int64Array:
        """One clip for each class index (n,)."""
        return self.sampler.draw(rng, classes)

    def patches(
        self,
        rng: Generator,
        clips: Int64Array,
        noise: Float32Array,
        spec: AugmentSpec,
        shift_ms: tuple[float, float],
        room_ms: float,
    ) -> Float32Array:
        """Patches (n, n_frames, n_coeffs) of the `clips` (n,) with `noise` (n, n_samples), int16's scale.

        `room_ms`: of the patch before the clip, where it is longer than a second.
        """
        # The pack's frames stand 20 ms apart, the front end's where frame_line says; a patch that begins room_ms
        # before the clip reads frames before the pack's first, which are faint:
        #
        #     pack       .  .  .  | 0     1     2     3 ...
        #     patch    0    1    2|   3    4    5 ...          frame t at slope * t + offset - room_ms / 20 ms
        #              <-room_ms->|
        slope, offset = frame_line(self.maker.spec)
        place = FramePlace(self.maker.n_frames, slope, offset - room_ms / PACK_HOP_MS, PACK_HOP_MS)
        noise_mels = self.maker.patches(noise.astype(np.int16))
        clean = warped_log_mel(rng, self.log_mels[clips], spec, shift_ms, place, self.mel_step)
        mixed = mixed_log_mel(rng, clean, noise_mels, spec)
        return np.maximum(mixed, math.log(self.maker.spec.log.floor)) @ self.dct


def load_log_mels(
    data: Path, fold: int | None, labels: tuple[str, ...], maker: PatchMaker, recordings: list[Recording], audio: Audio
) -> LogMelClips | None:
    """The pack under `data` without the held-out fold; None where there is none or the model hears otherwise.

    `recordings` and their `audio` set the scale (logmel_pack.fit_bands). Raises DataError where they are too few.
    """
    spec, folder = maker.spec, data / FOLDER
    entries = [e for e in read_index(folder) if fold is None or fold_of(e.source) != fold]
    if not entries or spec.mel is None or spec.mel.n != N_MELS:
        return None
    bands = bands_maker(spec, maker.n_frames)
    slope, offset, _ = fit_bands(folder, entries, recordings, audio, bands)
    return LogMelClips(
        entries,
        (read_log_mels(folder, [e.column for e in entries]) * slope + offset).astype(np.float32),
        ClassSampler([e.folder for e in entries], labels),
        bands,
        behind_bands(spec),
        mel_step(spec.mel),
    )
