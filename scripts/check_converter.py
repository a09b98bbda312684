"""Compares our int8 files with TensorFlow's own converter, outside the tests.

    python -m venv v && v/bin/pip install tensorflow-cpu==2.21.0 onnx soundfile
    v/bin/python scripts/check_converter.py models/dscnn-s patches.npz

Rebuilds the model in TensorFlow from the weights in model.onnx (nothing of kws_models is imported), converts it with
TFLite's post-training quantisation (int8 weights per channel, int8 maps, calibrated on the same patches) and compares
scores on the other patches. patches.npz: `calibration` (n, n_frames, n_coeffs), `test`, and `classes` of the latter,
float32; scripts/save_patches.py writes it.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import tensorflow as tf
from onnx import numpy_helper


def attributes(node: Any) -> dict[str, Any]:
    return {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}


def rebuilt(model: Any, shape: tuple[int, ...], turned: bool) -> Any:
    """The ONNX graph as a TensorFlow function, NHWC; `turned`: the file's height is mel, ours is time first."""
    arrays = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}

    @tf.function(input_signature=[tf.TensorSpec((None, *shape), tf.float32)])
    def forward(patches: Any) -> Any:
        values = {"input": tf.transpose(patches, (0, 2, 1, 3)) if turned else patches}
        for node in model.graph.node:
            values[node.output[0]] = layer(node, attributes(node), values, arrays)
        return values["scores"]

    return forward


def layer(node: Any, attribute: dict[str, Any], values: dict[str, Any], arrays: dict[str, Any]) -> Any:
    x = values.get(node.input[0])
    match node.op_type:
        case "Conv":
            return convolution(x, attribute, arrays[node.input[1]], arrays[node.input[2]])
        case "Gemm":
            return tf.linalg.matmul(x, arrays[node.input[1]].T) + arrays[node.input[2]]
        case "Relu":
            return tf.nn.relu(x)
        case "Sigmoid":
            return tf.sigmoid(x)
        case "Softmax":
            return tf.nn.softmax(x)
        case "Add":
            return x + values[node.input[1]]
        case "Mul":
            return x * values[node.input[1]]
        case "Identity":
            return tf.identity(x)
        case "ReduceMean":
            axes = [{1: 3, 2: 1, 3: 2}[a] for a in attribute["axes"]]
            return tf.reduce_mean(x, axes)
        case "Reshape" if len(x.shape) == 2:  # the gate of squeeze-and-excitation
            return x[:, None, None, :]
        case "Reshape":  # (n, height, channels) after the mean over width: channel by channel
            return tf.reshape(tf.transpose(x, (0, 2, 1)), (-1, x.shape[1] * x.shape[2]))
    raise ValueError(f"{node.op_type}: found an operator that this script does not know")


def convolution(x: Any, attribute: dict[str, Any], weight: np.ndarray, bias: np.ndarray) -> Any:
    top, left, bottom, right = attribute["pads"]
    if any((top, left, bottom, right)):
        x = tf.pad(x, ((0, 0), (top, bottom), (left, right), (0, 0)))
    strides = (1, *attribute["strides"], 1)
    if attribute["group"] > 1:
        return tf.nn.depthwise_conv2d(x, weight.transpose(2, 3, 0, 1), strides, "VALID") + bias
    return tf.nn.conv2d(x, weight.transpose(2, 3, 1, 0), strides, "VALID") + bias


def converted(forward: Any, calibration: np.ndarray) -> bytes:
    converter = tf.lite.TFLiteConverter.from_concrete_functions([forward.get_concrete_function()])
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = lambda: ([row[None, ..., None]] for row in calibration)
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    converter.inference_input_type = converter.inference_output_type = tf.int8
    return converter.convert()


def run(content: bytes, patches: np.ndarray) -> np.ndarray:
    kernels = tf.lite.experimental.OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    interpreter = tf.lite.Interpreter(model_content=content, experimental_op_resolver_type=kernels)
    interpreter.allocate_tensors()
    source, target = interpreter.get_input_details()[0], interpreter.get_output_details()[0]
    (scale, zero), (out_scale, out_zero) = source["quantization"], target["quantization"]
    scores = []
    for patch in patches:
        interpreter.set_tensor(
            source["index"], np.clip(np.rint(patch[None, ..., None] / scale) + zero, -128, 127).astype(np.int8)
        )
        interpreter.invoke()
        scores.append((interpreter.get_tensor(target["index"])[0].astype(np.float32) - out_zero) * out_scale)
    return np.stack(scores)


def main(folder: Path, patches: Path) -> None:
    manifest = json.loads((folder / "model.json").read_text())
    found = np.load(patches)
    test, classes = found["test"], found["classes"]
    turned = manifest["files"]["onnx"]["axes"] == "NCFT"
    forward = rebuilt(onnx.load(str(folder / "model.onnx")), (*test.shape[1:], 1), turned)
    plain = np.concatenate([forward(part[..., None]).numpy() for part in np.array_split(test, 20)])
    theirs = run(converted(forward, found["calibration"]), test)
    ours = run((folder / "model.int8.tflite").read_bytes(), test)
    print(f"tensorflow {tf.__version__}, onnx {onnx.__version__}, {manifest['name']}, {len(test)} patches")
    for name, scores in (("float (rebuilt)", plain), ("int8, theirs", theirs), ("int8, ours", ours)):
        right = (scores.argmax(1) == classes).mean()
        alike = (scores.argmax(1) == plain.argmax(1)).mean()
        difference = np.abs(scores - plain).mean()
        print(f"{name:16} accuracy {right:.4f}  top class as float {alike:.4f}  mean |difference| {difference:.5f}")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
