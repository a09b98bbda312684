"""An int8 TFLite file -> IntegerModel: every scale turned into the integers that TFLite's reference kernels use.

Reads the official schema (ai-edge-litert's Python classes, flatbuffers). RESHAPE is a name for the same bytes; a PAD
is taken into the convolution that reads it. Everything that a board cannot run is told at once.
"""

from __future__ import annotations

from typing import Any

from kws_board.errors import BoardError, ModelUnsupported
from kws_board.integer_model import IntegerModel, Map
from kws_board.tflite_operators import OPERATORS, unsupported
from kws_board.tflite_reading import Reading

MAX_FILE_BYTES = 16 << 20
SUPPORTED = (
    "CONV_2D, DEPTHWISE_CONV_2D, FULLY_CONNECTED, AVERAGE_POOL_2D, MEAN over height and width or one of them, ADD, "
    "MUL, LOGISTIC, RELU, RELU6, SOFTMAX, RESHAPE, and PAD before a convolution; int8 maps, int32 bias, batch 1"
)


def read_tflite(content: bytes, name: str) -> IntegerModel:
    """The model in a TFLite file's bytes.

    Raises ModelUnsupported listing what the board cannot run, BoardError where the file is none or is damaged.
    """
    if len(content) > MAX_FILE_BYTES:
        raise BoardError(f"{name}: found {len(content)} bytes, wanted at most {MAX_FILE_BYTES}")
    if content[4:8] != b"TFL3":
        raise BoardError(f"{name}: found no TFLite file (bytes 4-8 are {content[4:8]!r}), wanted b'TFL3'")
    schema = _schema()
    try:
        model = schema.ModelT.InitFromPackedBuf(content, 0)
        reading = Reading(schema, model, model.subgraphs[0], name)
        return _read(reading)
    except BoardError:
        raise
    except Exception as error:  # the schema's reader trusts every offset: any kind comes out of a damaged file
        raise BoardError(f"{name}: found a damaged TFLite file: {type(error).__name__}: {str(error)[:120]}") from error


def _schema() -> Any:
    try:
        from ai_edge_litert import schema_py_generated
    except ImportError as error:
        raise BoardError('found no TFLite schema, wanted: pip install "kws-serve[gap8]"') from error
    return schema_py_generated


def _read(reading: Reading) -> IntegerModel:
    graph = reading.graph
    if len(graph.inputs) != 1 or len(graph.outputs) != 1:
        found = f"{len(graph.inputs)} inputs, {len(graph.outputs)} outputs"
        raise BoardError(f"{reading.name}: found {found}, wanted one of each")
    reading.where = "input"
    reading.add_map(int(graph.inputs[0]))
    for i, op in enumerate(graph.operators):
        operator = reading.operator(op)
        reading.where = f"operator {i} {operator}"
        try:
            OPERATORS.get(operator, unsupported)(reading, op)
        except BoardError as error:
            reading.faults.append(str(error).removeprefix(f"{reading.name}: "))
            for index in op.outputs:  # go on: the next fault is told too
                if int(index) not in reading.map_of:
                    reading.maps.append(Map("", (1, 1, 1), 1.0, 0))
                    reading.map_of[int(index)] = len(reading.maps) - 1
            if len(reading.faults) >= 20:
                break
    if reading.faults:
        raise ModelUnsupported(reading.name, [*reading.faults, f"supported: {SUPPORTED}"])
    output = reading.map_of.get(int(graph.outputs[0]))
    if not reading.layers or output != reading.layers[-1].output:
        raise BoardError(f"{reading.name}: found an output that the last layer does not make, wanted the scores")
    shape = tuple(int(d) for d in reading.tensor(int(graph.inputs[0])).shape)
    if len(shape) < 2:
        raise BoardError(f"{reading.name}: input: found shape {shape}, wanted a patch")
    return IntegerModel(reading.name, tuple(reading.maps), tuple(reading.layers), shape)
