"""The table of the contests of speed: who takes part, what is timed, in what unit, and what builds each contestant."""

from __future__ import annotations

from benchmarks.contest import Contest, Contestant

PEOPLE = 52
RATE, MOMENTUM, DECAY = 0.01, 0.9, 5e-4

TORCH, KERAS, OURS = "benchmarks.peers.torch_network", "benchmarks.peers.keras_network", "benchmarks.peers.ours"

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
                Contestant("torch_compile", "torch.compile", ("torch",), f"{TORCH}:train_compiled", cached=True),
                Contestant("keras", "Keras (TensorFlow)", ("keras", "tensorflow"), f"{KERAS}:train"),
            ),
            notes=(
                "A step gathers a shuffled batch of bytes from memory, normalises it, and goes forward, backward and "
                f"through SGD (Nesterov momentum {MOMENTUM}, weight decay {DECAY:g}; ours decays kernels only), in "
                f"float32, with softmax cross-entropy over {PEOPLE} people. ffem_jax is timed through `Trainer`, as "
                "`fit` calls it, and counts right answers besides; its first step includes compiling the program that "
                "evaluates. Keras is timed through the compiled function that `fit` calls, without what `fit` adds per "
                'call; `jit_compile="auto"`, which means no XLA on a CPU.'
            ),
        ),
        Contest(
            name="inference",
            work="inference",
            step="call",
            batches=(1, 32),
            contestants=(
                Contestant("ours", "ffem_jax", ("jax",), f"{OURS}:embed", cached=True),
                Contestant("torch", "PyTorch eager", ("torch",), f"{TORCH}:embed"),
                Contestant("torch_compile", "torch.compile", ("torch",), f"{TORCH}:embed_compiled", cached=True),
                Contestant("keras", "Keras (TensorFlow)", ("keras", "tensorflow"), f"{KERAS}:embed"),
                Contestant(
                    "onnx", "ONNX Runtime", ("onnxruntime", "onnx", "torch"), "benchmarks.peers.onnx_network:embed"
                ),
            ),
            prepare=f"{OURS}:write_weights",
            notes=(
                "A call takes bytes from NumPy and gives embeddings back to NumPy: normalisation is inside, BatchNorm "
                "in evaluation mode, the classifier dropped, float32. All contestants hold the same weights. ONNX "
                "Runtime runs the graph that PyTorch exports, all graph optimisations on. Every library may use all "
                "cores; ffem_jax runs a batch of 1 on one core."
            ),
        ),
    )
}
