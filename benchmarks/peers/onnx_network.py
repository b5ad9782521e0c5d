"""The same network in ONNX Runtime: the graph that PyTorch exports, all graph optimisations on."""

from __future__ import annotations

from pathlib import Path

import joblib
import onnxruntime

from benchmarks.contest import Call, Cell, repeat


def embed(cell: Cell, folder: Path) -> Call:
    """Return calls of the deployed network, with one thread per physical core."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.intra_op_num_threads = joblib.cpu_count(only_physical_cores=True)
    path = str(folder / "network.onnx")
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return repeat(lambda images: session.run(None, {"images": images})[0], cell)
