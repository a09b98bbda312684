"""TFLite's reference kernels run on int8 patches."""

from __future__ import annotations

import numpy as np
from ai_edge_litert.interpreter import Interpreter, OpResolverType


def run(content: bytes, patches: np.ndarray, reference: bool = True) -> np.ndarray:
    """int8 scores (n, n_classes) of int8 patches (n, ...); `reference` False: the optimised kernels (XNNPACK)."""
    resolver = OpResolverType.BUILTIN_REF if reference else OpResolverType.AUTO
    interpreter = Interpreter(model_content=content, experimental_op_resolver_type=resolver, num_threads=1)
    interpreter.allocate_tensors()
    source, target = interpreter.get_input_details()[0], interpreter.get_output_details()[0]
    scores = []
    for patch in patches:
        interpreter.set_tensor(source["index"], patch.reshape(source["shape"]).astype(np.int8))
        interpreter.invoke()
        scores.append(interpreter.get_tensor(target["index"]).ravel().copy())
    return np.stack(scores)
