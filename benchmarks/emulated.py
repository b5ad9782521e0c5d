"""Run an ONNX file as another processor would: QEMU emulates its instructions (Debian: qemu-user).

    qemu-x86_64 -cpu Haswell python -m benchmarks.emulated FOLDER      the command that `run` starts

ONNX Runtime selects its kernels by the processor's features, so it selects those of the emulated processor. int8 files
take about a second per ten images. float32 files take minutes, because QEMU computes floats in software.
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from ffem_jax.export import NotRunError, onnx

EMULATOR = "qemu-x86_64"
# Processors that QEMU 7 emulates and for which ONNX Runtime has dedicated kernels. QEMU 7 has neither VNNI nor AVX-512.
PROCESSORS = {
    "Haswell": "x86-64 with AVX2, without VNNI (QEMU's Haswell)",
    "Nehalem": "x86-64 with SSE4.2, without AVX (QEMU's Nehalem)",
}


def is_possible() -> bool:
    """Return whether this machine can emulate PROCESSORS."""
    return platform.machine() == "x86_64" and shutil.which(EMULATOR) is not None


def run(folder: Path, pixels: np.ndarray, processor: str) -> tuple[np.ndarray, str]:
    """Run as `onnx.run` does, on one of PROCESSORS. Raises NotRunError if QEMU is missing or fails."""
    if not is_possible():
        raise NotRunError(f"{EMULATOR} is not installed, or this is not x86-64; on Debian: apt-get install qemu-user")
    with tempfile.TemporaryDirectory() as scratch:
        shutil.copy(folder / onnx.MODEL_FILE, scratch)
        np.save(Path(scratch) / "pixels.npy", pixels)
        command = [EMULATOR, "-cpu", processor, sys.executable, "-m", "benchmarks.emulated", scratch]
        # Threads that wait for each other are slow under emulation.
        environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        if done.returncode:
            raise NotRunError(f"{EMULATOR} -cpu {processor} failed: {done.stderr.strip().splitlines()[-1:]}")
        return np.load(Path(scratch) / "embeddings.npy"), done.stdout.strip().splitlines()[-1]


if __name__ == "__main__":  # runs a folder's ONNX file on its pixels.npy and writes embeddings.npy beside them
    place = Path(sys.argv[1])
    embeddings, runtime = onnx.run(place, np.load(place / "pixels.npy"))
    np.save(place / "embeddings.npy", embeddings)
    print(runtime)
