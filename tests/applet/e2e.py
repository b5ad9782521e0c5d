"""What the page's end-to-end test runs on: a network trained on drawn faces, the server, the page, a browser."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

REPOSITORY = Path(__file__).resolve().parents[2]
APPLET = REPOSITORY / "applet"
VENDOR = APPLET / "web" / "vendor"

# Drawn faces that a small network learns to tell apart in a minute: what is tested is the way from page to name.
DATA = {"name": "synthetic", "people": 16, "images_per_person": 20, "resolution": 48, "difficulty": 0.3}
RECIPE = ["recipe.epochs=24", "recipe.batch_size=32"]


def find_chromium() -> str:
    """Chromium's executable, or a skip that says what is missing."""
    if not os.environ.get("FFEM_E2E"):
        pytest.skip("the page in a browser is tested by `make test-e2e`")
    pytest.importorskip("playwright.sync_api", reason="pip install -c constraints.txt -e '.[e2e]'")
    found = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if not found:
        pytest.fail("no Chromium: apt-get install chromium")
    if not VENDOR.is_dir():
        pytest.fail(f"no {VENDOR.relative_to(REPOSITORY)}: run npm install and npm run vendor in applet/web")
    return found


def run_ffem(*words: str, folder: Path) -> str:
    """What `ffem words` prints."""
    command = [sys.executable, "-m", "ffem_jax.cli", *words]
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    result = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=1500)
    assert result.returncode == 0, result.stderr
    return result.stdout


def train_and_export(folder: Path) -> Path:
    """A trial on drawn faces and its export: the folder with export.json, made where it is not there."""
    out = folder / "model"
    if (out / "export.json").exists():
        return out
    data = [f"data={DATA['name']}"] + [f"data.{name}={value}" for name, value in DATA.items() if name != "name"]
    small = ["arch=ffem_am", "arch.width_multiplier=0.25", "arch.embedding_dim=64"]
    run_ffem("train", *small, *data, *RECIPE, f"hydra.run.dir={folder / 'trial'}", folder=folder)
    run_ffem(
        "export", str(folder / "trial"), "--format", "tfjs", "--dtype", "float16", "--out", str(out), folder=folder
    )
    return out


def write_face(person: int, index: int, path: Path) -> Path:
    """A drawn face of the data set as a PNG."""
    from ffem_jax.data.synthetic import draw_face
    from ffem_jax.specs.trial import DataSpec

    face, _, _ = draw_face(DataSpec(**DATA), person, index)
    Image.fromarray(face).save(path)
    return path


@contextlib.contextmanager
def serve_page(model: Path) -> Iterator[str]:
    """The address of the page: applet/ as it is, with `model` for web/model/."""

    class Handler(SimpleHTTPRequestHandler):
        def translate_path(self, path: str) -> str:
            name = path.partition("?")[0]
            if name.startswith("/web/model/"):
                return str(model / Path(name).name)
            return super().translate_path(path)

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=str(APPLET)))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()


@dataclass(frozen=True)
class RunningServer:
    """ffem serve: its address, a key with every scope, and the file of its gallery."""

    address: str
    key: str
    database: Path


@contextlib.contextmanager
def serve_gallery(model: Path, origin: str, threshold: float, folder: Path) -> Iterator[RunningServer]:
    """A recognition server that the page at `origin` may ask, with an empty gallery."""
    database = folder / "gallery.db"
    url = f"sqlite:///{database}"
    key = run_ffem(
        "serve", "keys", "add", "--scopes", "enrol,match,read,delete", "--database", url, folder=folder
    ).strip()
    command = [sys.executable, "-m", "ffem_jax.cli", "serve", "--model", str(model), "--database", url, "--port", "0"]
    # All tests ask with one key, faster than people would.
    command += ["--threshold", str(threshold), "--allow-origin", origin, "--rate", "10000/minute", "--json"]
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    process = subprocess.Popen(command, cwd=folder, env=environment, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        yield RunningServer(json.loads(process.stdout.readline())["address"], key, database)
    finally:
        process.terminate()
        process.wait(timeout=30)


def write_camera_film(face: Path, path: Path, size: tuple[int, int] = (640, 480)) -> Path:
    """A film of one frame for Chromium's fake camera: the face, 288 pixels per side, in the middle of grey."""
    frame = Image.new("RGB", size, (128, 128, 128))
    picture = Image.open(face).resize((288, 288), Image.Resampling.BILINEAR)
    frame.paste(picture, ((size[0] - 288) // 2, (size[1] - 288) // 2))
    planes = [np.asarray(plane) for plane in frame.convert("YCbCr").split()]
    body = planes[0].tobytes() + b"".join(plane[::2, ::2].tobytes() for plane in planes[1:])
    path.write_bytes(f"YUV4MPEG2 W{size[0]} H{size[1]} F10:1 Ip A1:1 C420jpeg\n".encode() + (b"FRAME\n" + body) * 10)
    return path


def count_numbers(text: str) -> int:
    """How many numbers with a fraction a text holds."""
    return len(re.findall(r"-?\d+\.\d+(?:e-?\d+)?", text))
