"""Milliseconds a call of the deployed network (bytes in, embeddings out), ours against other libraries.

    python -m benchmarks.inference [--networks ffem_am ...] [--resolutions 48 ...] [--batches 1 32] [--report-only]

From the repository root, with `pip install -e ".[bench]"`. All contestants hold the same weights, and must give the
same embeddings, before they are timed.
"""

from __future__ import annotations

import contextlib
from abc import abstractmethod
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import contest
from benchmarks.contest import Cell, Contest, Contestant
from benchmarks.peers.libraries import import_jax, import_keras, import_torch

PEOPLE = 52  # the classifier's; it is dropped


def build_classifier(cell: Cell) -> Any:
    """Our classifier with weights, and BatchNorm statistics as after some training, that are the same every time."""
    from flax import nnx

    from ffem_jax.specs.trial import RecipeSpec
    from ffem_jax.training.classifier import FaceClassifier

    recipe = RecipeSpec(loss="softmax")
    classifier = FaceClassifier(cell.network, cell.resolution, PEOPLE, recipe, rngs=nnx.Rngs(0))
    draw = np.random.default_rng(0)
    for _, module in nnx.iter_graph(classifier):
        if isinstance(module, nnx.BatchNorm):
            size = module.mean.shape
            module.scale[...] = draw.uniform(1.0, 2.0, size).astype(np.float32)
            module.bias[...] = draw.normal(0.0, 0.2, size).astype(np.float32)
            module.mean[...] = draw.normal(0.0, 0.1, size).astype(np.float32)
            module.var[...] = draw.uniform(0.2, 1.0, size).astype(np.float32)
    return classifier


def write_weights(cell: Cell, folder: Path) -> None:
    """Write our weights as each peer reads them, for those that are installed."""
    classifier = build_classifier(cell)
    for write in (_write_torch, _write_onnx, _write_keras):
        with contextlib.suppress(ImportError):
            write(classifier, cell, folder)


def _build_torch_peer(classifier: Any, cell: Cell) -> Any:
    from benchmarks.peers import torch_network

    peer = torch_network.FaceClassifier(cell.network, cell.resolution, PEOPLE)
    torch_network.copy_weights(classifier, peer)
    return peer


def _write_torch(classifier: Any, cell: Cell, folder: Path) -> None:
    import torch

    torch.save(_build_torch_peer(classifier, cell).state_dict(), folder / "torch.pt")


def _write_onnx(classifier: Any, cell: Cell, folder: Path) -> None:
    from benchmarks.peers.onnx_network import export_onnx
    from benchmarks.peers.torch_network import Embedder

    embedder = Embedder(_build_torch_peer(classifier, cell))
    export_onnx(embedder, cell.batch, cell.resolution, folder / "network.onnx")


def _write_keras(classifier: Any, cell: Cell, folder: Path) -> None:
    from benchmarks.peers import keras_network

    model = keras_network.build_keras_classifier(cell.network, cell.resolution, PEOPLE)
    keras_network.copy_weights(classifier, model)
    model.save_weights(folder / "keras.weights.h5")


class Embedding(Contestant):
    """What the contestants share: a call of `embed`, uint8 [N, R, R, 3] -> float32 [N, embedding_dim], NumPy both."""

    def __init__(self, cell: Cell, folder: Path):
        self.images = contest.make_images(cell.batch, cell.resolution)

    @abstractmethod
    def embed(self, images: np.ndarray) -> np.ndarray:
        """The network."""

    def run(self, steps: int) -> None:
        for _ in range(steps):
            self.embed(self.images)

    def answer(self) -> np.ndarray:
        return self.embed(self.images)


class Ours(Embedding):
    """The network of `build_model`, jitted; a batch split over the cores where that pays."""

    name, label, libraries, cached = "ours", "ffem_jax", ("jax",), True

    import_libraries = staticmethod(import_jax)

    def __init__(self, cell: Cell, folder: Path):
        import jax
        from flax import nnx
        from jax.sharding import NamedSharding, PartitionSpec

        from ffem_jax.machine.devices import make_batch_mesh

        super().__init__(cell, folder)
        network = build_classifier(cell).network
        network.eval()
        graph, weights = nnx.split(network)
        mesh = make_batch_mesh("batch", cell.batch)
        whole, split = PartitionSpec(), PartitionSpec("batch")
        self.weights = jax.device_put(nnx.as_pure(weights), NamedSharding(mesh, whole))

        def apply(weights, images):
            return nnx.merge(graph, weights)(images)

        self.apply = jax.jit(jax.shard_map(apply, mesh=mesh, in_specs=(whole, split), out_specs=split, check_vma=False))

    def embed(self, images: np.ndarray) -> np.ndarray:
        return np.asarray(self.apply(self.weights, images))


class Torch(Embedding):
    """PyTorch eager, channels_last, in inference mode."""

    name, label, libraries = "torch", "PyTorch eager", ("torch",)

    import_libraries = staticmethod(import_torch)

    def __init__(self, cell: Cell, folder: Path):
        import torch

        from benchmarks.peers.torch_network import Embedder, FaceClassifier

        super().__init__(cell, folder)
        classifier = FaceClassifier(cell.network, cell.resolution, PEOPLE)
        classifier.load_state_dict(torch.load(folder / "torch.pt"))
        self.embedder = Embedder(classifier.to(memory_format=torch.channels_last)).eval()

    def embed(self, images: np.ndarray) -> np.ndarray:
        import torch

        with torch.inference_mode():
            return self.embedder(torch.from_numpy(images)).numpy()


class TorchCompile(Torch):
    """PyTorch with torch.compile."""

    name, label, cached = "torch_compile", "torch.compile", True

    def __init__(self, cell: Cell, folder: Path):
        import torch

        super().__init__(cell, folder)
        self.embedder = torch.compile(self.embedder)


class Keras(Embedding):
    """Keras 3 on TensorFlow: a tf.function of the model."""

    name, label, libraries = "keras", "Keras (TensorFlow)", ("keras", "tensorflow")

    import_libraries = staticmethod(import_keras)

    def __init__(self, cell: Cell, folder: Path):
        import keras
        import tensorflow as tf

        from benchmarks.peers.keras_network import build_keras_classifier

        super().__init__(cell, folder)
        classifier = build_keras_classifier(cell.network, cell.resolution, PEOPLE)
        classifier.load_weights(folder / "keras.weights.h5")
        pixels = keras.Input((cell.resolution, cell.resolution, 3), dtype="uint8")
        embeddings, _ = classifier(keras.layers.Rescaling(1 / 127.5, offset=-1)(pixels))
        model = keras.Model(pixels, embeddings)
        signature = tf.TensorSpec((cell.batch, cell.resolution, cell.resolution, 3), tf.uint8)
        self.apply = tf.function(lambda images: model(images, training=False), input_signature=[signature])

    def embed(self, images: np.ndarray) -> np.ndarray:
        return self.apply(images).numpy()


class Onnx(Embedding):
    """ONNX Runtime, with the graph that PyTorch exports."""

    name, label, libraries = "onnx", "ONNX Runtime", ("onnxruntime", "onnx", "torch")

    @staticmethod
    def import_libraries(folder: Path) -> None:
        import joblib  # noqa: F401
        import onnxruntime  # noqa: F401

    def __init__(self, cell: Cell, folder: Path):
        import joblib
        import onnxruntime

        super().__init__(cell, folder)
        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
        options.intra_op_num_threads = joblib.cpu_count(only_physical_cores=True)
        path = str(folder / "network.onnx")
        self.session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])

    def embed(self, images: np.ndarray) -> np.ndarray:
        return self.session.run(None, {"images": images})[0]


CONTEST = Contest(
    name="inference",
    work="inference",
    step="call",
    notes=(
        "A call takes bytes from NumPy and gives embeddings back to NumPy: normalisation is inside, BatchNorm in "
        "evaluation mode, the classifier dropped, float32. All contestants hold the same weights. ONNX Runtime runs "
        "the graph that PyTorch exports, all graph optimisations on. Every library may use all cores; ffem_jax runs "
        "a batch of 1 on one core."
    ),
    contestants=(Ours, Torch, TorchCompile, Keras, Onnx),
    batches=(1, 32),
    prepare=write_weights,
)

if __name__ == "__main__":
    contest.run(CONTEST)
