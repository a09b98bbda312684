"""What a batch for models of words is made of."""

from __future__ import annotations

from dataclasses import dataclass, field

from kws_models.data.augmentation import AugmentSpec


@dataclass(frozen=True)
class KeywordMix:
    """Numbers of patches, and shares of the batch unless they say otherwise."""

    n_audio: int = 64
    n_log_mel: int = 64
    silence_share: float = 0.10
    unknown_share: float = 0.16
    running_speech_share: float = 0.12  # of the audio: `_unknown_` out of synthesised speech, cut anywhere
    real_speech_share: float = 0.25  # of the audio, where there is some: `_unknown_` out of what real people say
    mined_share: float = 0.5  # of both and of silence, where places were mined: what the model took for a command
    opus_share: float = 0.5  # of clips that have an Opus twin, and of real speech
    augment: AugmentSpec = field(default_factory=AugmentSpec)
