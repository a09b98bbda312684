"""Another model's scores, for a training to follow where they are right."""

from __future__ import annotations

import numpy as np

from kws_models.data.features import patch_maker
from kws_models.evaluation.chosen_model import FLOAT, choose_model, open_file
from kws_models.training.loop import Teacher
from kws_models.zoo.architectures import Architecture
from kws_serve.messages import Float32Array, KwsError

_LEAST_SCORE = 1e-6  # added to scores before their logarithm: what rounds to 0 must not become -infinity


def open_teacher(name: str, architecture: Architecture) -> Teacher:
    """The model called `name`, or in that folder, as a teacher; one of shorter patches hears the middle.

    Raises KwsError if it hears or says something else.
    """
    spec = choose_model(name)
    same_input = spec.front_end == patch_maker(architecture).spec and spec.n_frames <= architecture.n_frames
    # patch of the learner    |---- n_frames ----|
    # patch of the teacher      first |--------|        as many frames before it as after it, or one more after
    first = (architecture.n_frames - spec.n_frames) // 2
    if spec.labels != architecture.labels or not same_input:
        raise KwsError(f"--teacher: {name} has other labels or another front end than {architecture.name}")
    infer = open_file(FLOAT, spec).infer

    def taught(patches: Float32Array) -> Float32Array:
        middle = patches[:, first : first + spec.n_frames]
        return np.asarray(np.log(infer(middle) + _LEAST_SCORE), np.float32)

    return taught
