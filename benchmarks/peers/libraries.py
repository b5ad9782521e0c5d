"""What each contestant imports before its clock starts, with compiled programs kept in `folder` where it keeps any."""

from __future__ import annotations

import os
from pathlib import Path


def import_jax(folder: Path) -> None:
    """JAX and the training program, every compiled program kept."""
    import jax

    import ffem_jax.training.trainer  # noqa: F401
    from ffem_jax.machine.devices import use_cpu_cores

    jax.config.update("jax_compilation_cache_dir", str(folder / "jax"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
    use_cpu_cores()


def import_torch(folder: Path) -> None:
    """PyTorch, with TorchInductor's cache for those who compile."""
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(folder / "inductor")
    import torch  # noqa: F401

    import benchmarks.peers.torch_network  # noqa: F401


def import_keras(folder: Path) -> None:
    """Keras on TensorFlow, which keeps nothing."""
    import tensorflow  # noqa: F401

    import benchmarks.peers.keras_network  # noqa: F401
