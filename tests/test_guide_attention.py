"""docs/guide.md's "Adding an attention", followed to the letter in a folder outside the repository."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

GUIDE = Path(__file__).resolve().parents[1] / "docs" / "guide.md"
# A network and faces so small that all commands together take two minutes; what the guide says stands before them.
SMALL = (
    "arch=ffem arch.width_multiplier=0.25 arch.depth_multiplier=0.3 arch.head_channels=0 data=synthetic "
    "data.resolution=32 data.people=4 data.images_per_person=8 protocol.test_per_person=2 recipe.epochs=1 "
    "recipe.batch_size=8"
).split()


def read_section() -> str:
    return GUIDE.read_text(encoding="utf-8").split("## Adding an attention")[1].split("\n## ")[0]


def read_block(language: str) -> str:
    found = re.search(rf"```{language}\n(.*?)```", read_section(), re.DOTALL)
    assert found
    return found[1]


def read_command(start: str) -> list[str]:
    (line,) = [line for line in read_section().splitlines() if line.startswith(start)]
    return shlex.split(line)


def run(words: list[str], folder: Path, *more: str) -> subprocess.CompletedProcess:
    variables = dict(word.split("=", 1) for word in words[: words.index("ffem")])
    command = [sys.executable, "-m", "ffem_jax.cli", *words[words.index("ffem") + 1 :], *more]
    env = {**os.environ, **variables, "FFEM_CACHE_DIR": str(folder / "cache")}
    return subprocess.run(command, capture_output=True, text=True, cwd=folder, env=env)


@pytest.fixture
def scratch(tmp_path):
    (tmp_path / "mine/attention").mkdir(parents=True)
    (tmp_path / "mine/attentions.py").write_text(read_block("python"))
    (tmp_path / "mine/attention/affine.yaml").write_text(read_block("yaml"))
    return tmp_path


def test_its_cost_is_counted_and_without_its_folder_it_is_refused_in_one_line(scratch):
    done = run(read_command("ffem cost"), scratch, *SMALL[:4], "data.resolution=32", "--json")
    assert done.returncode == 0, done.stderr
    refused = run(["ffem", "cost", "arch.attention.kind=affine"], scratch)
    assert (refused.returncode, len(refused.stderr.splitlines())) == (2, 1)
    assert "FFEM_PLUGINS=PATH" in refused.stderr


@pytest.mark.slow
def test_it_is_trained_exported_and_embedded(scratch):
    pytest.importorskip("onnxruntime")
    from PIL import Image

    words = [
        word for word in read_command("ffem train --config-dir mine attention=affine data") if word != "data=lfw52"
    ]
    trained = run(words, scratch, *SMALL)
    assert trained.returncode == 0, trained.stderr
    exported = run(read_command("ffem export --config-dir mine"), scratch)
    assert exported.returncode == 0, exported.stderr
    assert (scratch / "phone/export.json").exists()
    for person in ("ada", "bob"):
        (scratch / "faces" / person).mkdir(parents=True)
        pixels = np.random.default_rng(len(person)).integers(0, 256, (40, 40, 3), np.uint8)
        Image.fromarray(pixels).save(scratch / "faces" / person / "1.png")
    embedded = run(read_command("ffem embed --config-dir mine"), scratch)
    assert embedded.returncode == 0, embedded.stderr
    assert (scratch / "vectors.npz").exists()
    # Without its file a trial is refused and not read as another network.
    for command in ("ffem export trial --format onnx --out other", "ffem embed faces --trial trial --out other.npz"):
        refused = run(command.split(), scratch)
        assert (refused.returncode, "kind='affine' is not known" in refused.stderr) == (2, True)
