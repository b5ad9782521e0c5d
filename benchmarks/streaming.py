"""The memory of a training whose images are in memory, and of one that streams them: `python -m benchmarks.streaming`.

It writes a record file of noise JPEGs to a scratch folder, trains one epoch of a small network in a process for each
way, and prints the largest resident memory of each. The first run of each way looks through the files; the second
finds what it kept.
"""

from __future__ import annotations

import argparse
import io
import json
import resource
import struct
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

MAGIC = struct.pack("<I", 0xCED7230A)
PER_PERSON = 20


def write_set(root: Path, images: int, side: int) -> None:
    """`root`/train.rec and train.idx with so many JPEGs of noise, 20 of each person."""
    random, place = np.random.default_rng(0), 0
    with open(root / "train.rec", "wb") as records, open(root / "train.idx", "w") as index:
        for key in range(images):
            small = Image.fromarray(random.integers(0, 256, (8, 8, 3), np.uint8))
            file = io.BytesIO()
            small.resize((side, side), Image.Resampling.BILINEAR).save(file, "JPEG", quality=80)
            content = struct.pack("<IfQQ", 0, float(key // PER_PERSON), key, 0) + file.getvalue()
            record = MAGIC + struct.pack("<I", len(content)) + content + b"\0" * (-len(content) % 4)
            index.write(f"{key}\t{place}\n")
            place += records.write(record)


def train(root: str, load: str, side: int) -> None:
    """One short trial in this process; prints its status, seconds and largest resident memory as JSON."""
    from ffem_jax.runs.trial import run_trials
    from ffem_jax.specs.architecture import ArchSpec, StageSpec
    from ffem_jax.specs.trial import DataSpec, ProtocolSpec, RecipeSpec, RunSpec, TrialSpec

    arch = ArchSpec(
        name="small", stem_channels=8, stages=(StageSpec(1, 8, 1, 2),), head_channels=0, embedding_dim=16
    )  # fmt: skip
    data = DataSpec(name="recordio", root=root, resolution=side, cache_dir=f"{root}/cache", images_per_epoch=2048)
    protocol = ProtocolSpec(test_people=50, test_per_person=2)
    trial = TrialSpec(arch=arch, data=data, protocol=protocol, recipe=RecipeSpec(epochs=1, batch_size=64))
    out = Path(root) / load
    run = RunSpec(progress=False, load=load, retrain=True, cores=1)
    record = run_trials(trial, run, out, out / "records.jsonl")[0]
    megabytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000
    measured = {"status": record.status, "error": record.error, "key": record.trial_key, "MB": round(megabytes)}
    print(json.dumps(measured | {"seconds": record.wall_seconds, "waiting": record.data_wait_fraction}))


def main() -> None:
    """Measure the ways that are asked for, one process after another."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=20_000)
    parser.add_argument("--side", type=int, default=112, help="pixels")
    parser.add_argument("--ways", nargs="+", default=["stream", "stream", "memory", "memory"], help="stream or memory")
    parser.add_argument("--train", nargs=2, metavar=("ROOT", "LOAD"), help="what a process of its own is started with")
    options = parser.parse_args()
    if options.train:
        return train(*options.train, options.side)
    with tempfile.TemporaryDirectory() as root:
        write_set(Path(root), options.images, options.side)
        print(f"{options.images:,} images, {options.images * options.side**2 * 3 / 1e6:,.0f} MB decoded")
        for load in options.ways:
            command = [sys.executable, "-m", "benchmarks.streaming", "--side", str(options.side), "--train", root, load]
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            print(f"{load:7}", done.stdout.strip().splitlines()[-1], flush=True)


if __name__ == "__main__":
    main()
