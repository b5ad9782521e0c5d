"""Run an ONNX file as a processor runs it that is not at hand: QEMU emulates the instructions (Debian: qemu-user).

    qemu-x86_64 -cpu Haswell python -m benchmarks.emulated FOLDER      what `run` starts

ONNX Runtime asks the processor what it can do and takes its kernels accordingly, so it takes those of the emulated one.
int8 files take a second or so per ten images. float32 files take minutes, since QEMU computes floats in software.
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
# What QEMU 7 can emulate, and ONNX Runtime has kernels of its own for. It knows neither VNNI nor AVX-512.
PROCESSORS = {
    "Haswell": "x86-64 with AVX2, without VNNI (QEMU's Haswell)",
    "Nehalem": "x86-64 with SSE4.2, without AVX (QEMU's Nehalem)",
}


def is_possible() -> bool:
    """Whether this machine can emulate PROCESSORS."""
    return platform.machine() == "x86_64" and shutil.which(EMULATOR) is not None


def run(folder: Path, pixels: np.ndarray, processor: str) -> tuple[np.ndarray, str]:
    """As `onnx.run` does, on one of PROCESSORS. Raises NotRunError where QEMU is missing."""
    if not is_possible():
        raise NotRunError(f"{EMULATOR} is not installed, or this is no x86-64; on Debian: apt-get install qemu-user")
    with tempfile.TemporaryDirectory() as scratch:
        shutil.copy(folder / onnx.MODEL_FILE, scratch)
        np.save(Path(scratch) / "pixels.npy", pixels)
        command = [EMULATOR, "-cpu", processor, sys.executable, "-m", "benchmarks.emulated", scratch]
        # Threads that wait for each other are slow where each instruction is emulated.
        environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        if done.returncode:
            raise NotRunError(f"{EMULATOR} -cpu {processor} failed: {done.stderr.strip().splitlines()[-1:]}")
        return np.load(Path(scratch) / "embeddings.npy"), done.stdout.strip().splitlines()[-1]


if __name__ == "__main__":  # runs the file in a folder on the pixels there, and leaves the embeddings beside them
    place = Path(sys.argv[1])
    embeddings, runtime = onnx.run(place, np.load(place / "pixels.npy"))
    np.save(place / "embeddings.npy", embeddings)
    print(runtime)
