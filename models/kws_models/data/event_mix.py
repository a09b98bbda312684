"""What a batch for models of sound events is made of."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class EventMix:
    """What a batch is made of, and ranges drawn from uniformly."""

    n: int = 64
    rest_share: float = 0.45  # patches whose label is the rest label; the events share the others evenly
    hard_share: float = 0.45  # of those: a hard negative
    speech_share: float = 0.2  # of those: speech
    no_bed_share: float = 0.4
    room_share: float = 0.6
    layer_share: float = 0.25
    speed: tuple[float, float] = (0.8, 1.25)
    snr_db: tuple[float, float] = (0.0, 35.0)
    level_db: tuple[float, float] = (-45.0, 0.0)  # of the loudest 50 ms against full scale
    tilt_db_per_octave: float = 3.0
    mask_share: float = 0.3  # patches with runs of frames and of mel bands hidden (SpecAugment)
    mask_frames: int = 16
    mask_bands: int = 4
    shatter_share: float = 0.3  # of the glass: synthesised
    synthetic_speech_share: float = 0.5  # of the speech: running, by a synthesiser where one is installed


MIXES: dict[str, EventMix] = {
    "strong": EventMix(),
    "mild": EventMix(
        hard_share=0.55,
        room_share=0.3,
        layer_share=0.1,
        speed=(0.9, 1.12),
        snr_db=(6.0, 40.0),
        tilt_db_per_octave=1.5,
        mask_share=0.0,
    ),
}
