"""The one place that makes ONNX Runtime sessions: for the service, the model tools, the tests and the benchmarks.

On x86 processors without VNNI (AMD before Zen 4, most of Intel's before Ice Lake) ONNX Runtime multiplies uint8
activations by int8 weights with PMADDUBSW, whose sum of two products sticks at 32767: large activations under large
weights give wrong scores, and nothing is said. `session.x64quantprecision` turns the weights into uint8, whose kernels
are exact.
"""

from __future__ import annotations

from typing import Any


def new_session(
    data: bytes, *, threads: int = 1, arena: bool = False, optimised: bool = True, exact: bool = True
) -> Any:
    """A session over an ONNX file, on the CPU. Raises ImportError, or what ONNX Runtime raises.

    `threads`: of one run; 0: one a core. `arena`: keep the largest batch's memory for ever, which a file that runs
    all the time needs at once again.
    `optimised`: false leaves the graph as the file has it, so that what stands between dequantise and quantise nodes
    is computed in float. `exact`: false leaves the integer kernels to ONNX Runtime, as a test of the self-test needs.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.enable_cpu_mem_arena = options.enable_mem_pattern = arena
    options.log_severity_level = 4  # what matters comes as an exception
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.x64quantprecision", "1" if exact else "0")
    if not optimised:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    return onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
