"""What the tests of the page stand on: the browser, the server, drawn people, and a page that was opened."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from e2e import RunningServer
from PIL import Image

from ffem_jax.data.preprocessing import crop_face
from ffem_jax.metrics.matching import match

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page, Request

# Numbers of drawn people: three who are enrolled, one whom the network has never seen.
ENROLLED = {"Ann Lee": 0, "Bob Ray": 5, "Çağla Öz": 9}
STRANGER = 100


@dataclass
class World:
    """All that runs. faces: (person, image) -> file; embed: faces uint8 [N, R, R, 3] -> vectors, by the trained network
    itself."""

    browser: Browser
    page_address: str
    server: RunningServer
    model: Path
    faces: dict[tuple[int, int], Path]
    vectors: dict[tuple[int, int], np.ndarray]
    folder: Path

    @property
    def description(self) -> dict[str, Any]:
        """export.json."""
        return json.loads((self.model / "export.json").read_text("utf-8"))


def embed(trial: Path, files: list[Path]) -> np.ndarray:
    """Vectors by the trained network itself, of pictures read and cut as training does."""
    from ffem_jax.training.weights import load_trial

    finished = load_trial(trial)
    data = finished.trial.data
    pixels = np.stack([crop_face(Image.open(file), data.crop, data.resolution) for file in files])
    network = finished.classifier.network
    network.eval()
    return np.asarray(network(pixels))


def choose_threshold(vectors: dict[tuple[int, int], np.ndarray]) -> float:
    """Half way between the enrolled people's furthest second picture and the stranger's nearest.

    That there is such a place is the network's doing; that the page and the server respect it is what is tested.
    """
    gallery = [vectors[person, 0] for person in ENROLLED.values()]
    own = match([vectors[person, 1] for person in ENROLLED.values()], gallery, list(ENROLLED.values()), 1.0)
    assert own.label.tolist() == list(ENROLLED.values()), "the network confuses the drawn people: train it longer"
    strange = match([vectors[STRANGER, 1]], gallery, list(ENROLLED.values()), 1.0).distance[0]
    assert own.distance.max() < strange, "the network takes the stranger for somebody: train it longer"
    return float((own.distance.max() + strange) / 2)


@dataclass
class Visit:
    """A page that was opened, and every request that anything in it made."""

    page: Page
    requests: list[Request] = field(default_factory=list)
    sockets: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)

    def use_file(self, path: Path) -> None:
        self.page.set_input_files("#file", path)

    def read_answer(self) -> str:
        """The answer once there is one."""
        return self.wait_for_answer(r"^(?!One moment).")

    def wait_for_answer(self, pattern: str) -> str:
        """The answer once it matches. The page's policy forbids waiting by a function of its own."""
        self.page.locator("#answer", has_text=re.compile(pattern)).wait_for()
        return self.page.inner_text("#answer")

    def recognise(self, path: Path) -> str:
        self.use_file(path)
        self.page.click("#recognise")
        return self.read_answer()

    def enrol(self, name: str, path: Path) -> str:
        self.use_file(path)
        self.page.fill("#name", name)
        self.page.click("#enrol")
        return self.read_answer()

    def list_people(self) -> list[str]:
        self.page.click("#list")
        self.page.wait_for_selector("#answer:empty", state="attached")
        return self.page.locator("#people li span").all_inner_texts()
