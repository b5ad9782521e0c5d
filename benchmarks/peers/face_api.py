"""LFW's vectors from npm's `@vladmandic/face-api`, as a file for teacher=vectors; see `face_api.mjs` beside it.

Run python -m benchmarks.peers.face_api LFW_FOLDER teacher.npz where `npm install` put the packages. LFW_FOLDER contains
one folder per person. Each image is cropped to pixels 70 to 180 across and 78 to 188 down, and resized to 150 x 150.
"""

from __future__ import annotations

import base64
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
from PIL import Image

from ffem_jax.teachers.vectors import write_vectors

BOX = (70, 78, 180, 188)
SIZE = 150
ABOUT = {
    "name": "face-api",
    "source": "npm @vladmandic/face-api 1.7.15, the recognition network of dlib",
    "licence": "MIT",
    "crop": list(BOX),
    "size": SIZE,
}


def main(root: Path, out: Path) -> None:
    """Write the vectors of every image below `root` to `out`."""
    lines = []
    for path in sorted(root.glob("*/*.jpg")):
        face = Image.open(path).convert("RGB").crop(BOX).resize((SIZE, SIZE), Image.Resampling.BILINEAR)
        pixels = base64.b64encode(face.tobytes()).decode()
        lines.append(json.dumps({"path": path.relative_to(root).as_posix(), "size": SIZE, "pixels": pixels}))
    command = ["node", str(Path(__file__).with_suffix(".mjs"))]
    done = subprocess.run(command, input="\n".join(lines), capture_output=True, text=True, check=True)
    rows = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    write_vectors(out, [row["path"] for row in rows], np.array([row["vector"] for row in rows]), ABOUT)
    print(f"{out}: {len(rows):,} vectors")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
