"""The same network for ONNX Runtime: exported from the PyTorch peer, bytes in, embeddings out."""

from __future__ import annotations

import warnings
from pathlib import Path

import torch

from benchmarks.peers.torch_network import Embedder


def export_onnx(embedder: Embedder, batch: int, resolution: int, path: Path) -> None:
    """Write `embedder`, in evaluation mode, for uint8 [batch, R, R, 3] to `path`."""
    images = torch.zeros(batch, resolution, resolution, 3, dtype=torch.uint8)
    names = {"input_names": ["images"], "output_names": ["embeddings"]}
    with warnings.catch_warnings():
        # The newer exporter needs onnxscript, and the older one says that it is old.
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.onnx.export(embedder.eval(), (images,), path, dynamo=False, opset_version=17, **names)
