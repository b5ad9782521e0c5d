"""The speed contests: their contestants, what is timed, in which unit, and what builds each contestant."""

from __future__ import annotations

from benchmarks.contest import PEOPLE, Contest, Contestant
from benchmarks.report import fill_template

RATE, MOMENTUM, DECAY = 0.01, 0.9, 5e-4

TORCH, KERAS, OURS = "benchmarks.peers.torch_network", "benchmarks.peers.keras_network", "benchmarks.peers.ours"
ONNX, COMPILED = "benchmarks.peers.onnx_network", {"compiled": True}

CONTESTS = {
    contest.name: contest
    for contest in (
        Contest(
            name="train_step",
            work="a training step",
            step="step",
            batches=(32, 128),
            contestants=(
                Contestant("ours", "ffem_jax", ("jax",), f"{OURS}:train", cached=True),
                Contestant("torch", "PyTorch eager", ("torch",), f"{TORCH}:train"),
                Contestant("torch_compile", "torch.compile", ("torch",), f"{TORCH}:train", True, COMPILED),
                Contestant("keras", "Keras (TensorFlow)", ("keras", "tensorflow"), f"{KERAS}:train"),
            ),
            notes=fill_template("train_step", momentum=MOMENTUM, decay=DECAY, people=PEOPLE),
        ),
        Contest(
            name="inference",
            work="inference",
            step="call",
            batches=(1, 32),
            contestants=(
                Contestant("ours", "ffem_jax", ("jax",), f"{OURS}:embed", cached=True),
                Contestant("torch", "PyTorch eager", ("torch",), f"{TORCH}:embed"),
                Contestant("torch_compile", "torch.compile", ("torch",), f"{TORCH}:embed", True, COMPILED),
                Contestant("keras", "Keras (TensorFlow)", ("keras", "tensorflow"), f"{KERAS}:embed"),
                Contestant("onnx", "ONNX Runtime", ("onnxruntime", "onnx", "torch"), f"{ONNX}:embed"),
            ),
            prepare=f"{OURS}:write_weights",
            notes=fill_template("inference"),
        ),
    )
}
