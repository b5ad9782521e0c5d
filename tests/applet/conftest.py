"""The page in headless Chromium, its network trained and its server started once for all tests of a module."""

from __future__ import annotations

import json
import os
import tempfile
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from e2e import find_chromium, serve_gallery, serve_page, train_and_export, write_camera_film, write_face
from world import ENROLLED, STRANGER, Visit, World, choose_threshold, embed

if TYPE_CHECKING:
    from playwright.sync_api import BrowserContext


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    chromium = find_chromium()
    from playwright.sync_api import sync_playwright

    with tempfile.TemporaryDirectory(prefix="ffem-e2e-") as name:
        folder = Path(name)
        # Named, the folder of the trial is kept: training takes longer than all that follows.
        trained = Path(os.environ.get("FFEM_E2E_TRAINED") or folder)
        model = train_and_export(trained)
        wanted = [(person, image) for person in (*ENROLLED.values(), STRANGER) for image in range(3)]
        faces = {one: write_face(*one, folder / f"face-{one[0]}-{one[1]}.png") for one in wanted}
        vectors = dict(zip(wanted, embed(trained / "trial", list(faces.values())), strict=True))
        film = write_camera_film(faces[5, 2], folder / "camera.y4m")
        arguments = [
            "--use-fake-device-for-media-stream",
            "--use-fake-ui-for-media-stream",
            f"--use-file-for-fake-video-capture={film}",
        ]
        with (
            serve_page(model) as address,
            serve_gallery(model, address, choose_threshold(vectors), folder) as server,
            sync_playwright() as playwright,
        ):
            browser = playwright.chromium.launch(executable_path=chromium, args=arguments)
            yield World(browser, address, server, model, faces, vectors, folder)
            browser.close()


@pytest.fixture
def open_page(world: World, empty_gallery: None) -> Iterator[Any]:
    """A function that opens the page in a browser context of its own, ready to be used."""
    contexts: list[BrowserContext] = []

    def open_it(width: int = 1440, height: int = 900, scheme: str = "light", **options: Any) -> Visit:
        context = world.browser.new_context(
            viewport={"width": width, "height": height}, color_scheme=scheme, permissions=["camera"], **options
        )
        contexts.append(context)
        visit = Visit(context.new_page())
        context.on("request", lambda request: visit.requests.append(request))
        visit.page.on("websocket", lambda socket: visit.sockets.append(socket.url))
        visit.page.on("pageerror", lambda error: visit.errors.append(str(error)))
        visit.page.on("console", lambda line: line.type == "error" and visit.errors.append(line.text))
        visit.page.goto(f"{world.page_address}/web/?server={world.server.address}")
        visit.page.wait_for_selector("#network-status[data-mood=good]")
        visit.page.fill("#key", world.server.key)
        return visit

    yield open_it
    for context in contexts:
        context.close()


@pytest.fixture
def empty_gallery(world: World) -> Iterator[None]:
    """Nobody is enrolled when a test begins: what another enrolled is deleted, by the server."""

    def ask(method: str, path: str) -> Any:
        headers = {"Authorization": f"Bearer {world.server.key}"}
        request = urllib.request.Request(f"{world.server.address}{path}", method=method, headers=headers)
        return json.load(urllib.request.urlopen(request))

    yield
    for person in ask("GET", "/v1/people")["people"]:
        ask("DELETE", f"/v1/people/{person['person_id']}")
