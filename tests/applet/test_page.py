"""The page in headless Chromium, with a real network and a real server (`make test-e2e`). Its faces are drawn."""

from __future__ import annotations

import json
import os
import re
import sqlite3
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from e2e import APPLET, DATA
from PIL import Image
from world import ENROLLED, STRANGER, Visit, World

if TYPE_CHECKING:
    from playwright.sync_api import Page


def keep_screenshot(page: Page, name: str) -> None:
    """A picture of the whole page in the folder FFEM_SCREENSHOTS, where that is named."""
    if os.environ.get("FFEM_SCREENSHOTS"):
        page.screenshot(path=Path(os.environ["FFEM_SCREENSHOTS"]) / f"{name}.png", full_page=True)


# ------------------------------------------------------------------------------- the whole way


def test_three_are_enrolled_and_recognised_and_a_stranger_is_turned_away(world: World, open_page: Any) -> None:
    visit = open_page()
    assert "gallery is empty" in visit.recognise(world.faces[0, 1])
    for name, person in ENROLLED.items():
        assert visit.enrol(name, world.faces[person, 0]) == f"Enrolled {name}."
    for name, person in ENROLLED.items():
        answer = visit.recognise(world.faces[person, 1])
        assert answer.startswith(name), answer
        distance, threshold = map(float, re.findall(r"\d\.\d{3}", answer))
        assert 0 <= distance <= threshold
    answer = visit.recognise(world.faces[STRANGER, 1])
    assert answer.startswith("Nobody who is enrolled"), answer
    distance, threshold = map(float, re.findall(r"\d\.\d{3}", answer))
    assert distance > threshold
    assert visit.list_people() == [f"{name}, 1 vector" for name in ENROLLED]
    assert visit.errors == []


def test_only_vectors_leave_the_page(world: World, open_page: Any) -> None:
    visit = open_page()
    loaded = len(visit.requests)
    for name, person in ENROLLED.items():
        visit.enrol(name, world.faces[person, 0])
        visit.recognise(world.faces[person, 1])
    visit.recognise(world.faces[STRANGER, 1])
    visit.list_people()
    # While it loads, the page fetches its own files and sends nothing.
    for request in visit.requests[:loaded]:
        path = request.url.removeprefix(world.page_address).partition("?")[0].lstrip("/")
        assert request.url.startswith(world.page_address), request.url
        assert (request.method, request.post_data_buffer) == ("GET", None)
        assert path == "web/" or (APPLET / path).is_file() or (world.model / Path(path).name).is_file(), path
    # From then on nothing is asked but the server, and what it is sent is known to the last field.
    description = world.description
    sent = {"/v1/enrol": 0, "/v1/match": 0}
    for request in visit.requests[loaded:]:
        path = request.url.removeprefix(world.server.address)
        assert request.url.startswith(world.server.address), request.url
        assert all(len(value) < 300 for value in request.headers.values()), request.headers
        if request.method in ("GET", "OPTIONS"):
            assert request.post_data_buffer is None
            assert path in ("/v1/people", "/v1/enrol", "/v1/match")
            continue
        assert request.method == "POST"
        body = json.loads(request.post_data_buffer)
        assert set(body) == {"model_id", "vector"} | ({"name"} if path == "/v1/enrol" else set())
        assert body["model_id"] == description["model_id"]
        assert len(body["vector"]) == description["output"]["length"]
        assert all(isinstance(number, float | int) for number in body["vector"])
        assert body.get("name") in (None, *ENROLLED)
        assert len(request.post_data_buffer) < 20 * len(body["vector"]) + 200
        sent[path] += 1
    assert sent == {"/v1/enrol": 3, "/v1/match": 4}
    assert visit.sockets == []


ATTEMPTS = {
    "img-src": "new Image().src = address",
    "script-src-elem": "document.head.append(Object.assign(document.createElement('script'), { src: address }))",
    "script-src": "setTimeout(() => eval('1'))",
    "form-action": "(() => { const form = document.createElement('form'); form.action = address;"
    " document.body.append(form); form.submit(); })()",
}


@pytest.mark.parametrize("directive", ATTEMPTS)
def test_the_browser_itself_lets_nothing_else_out(world: World, open_page: Any, directive: str) -> None:
    """The page's policy: no picture, script or form can carry something away."""
    visit = open_page()
    refused = visit.page.evaluate(
        f"""(address) => new Promise((resolve) => {{
          document.addEventListener("securitypolicyviolation", (event) => resolve(event.effectiveDirective));
          setTimeout(() => resolve("nothing"), 5000);
          {ATTEMPTS[directive]};
        }})""",
        f"{world.server.address}/health",
    )
    assert refused == directive


def test_the_vector_is_the_trained_network_s(world: World, open_page: Any) -> None:
    visit = open_page()
    for key, file in world.faces.items():
        visit.recognise(file)
        body = next(json.loads(r.post_data) for r in reversed(visit.requests) if r.method == "POST")
        found, wanted = np.array(body["vector"]), world.vectors[key].astype(float)
        cosine = found @ wanted / np.linalg.norm(found) / np.linalg.norm(wanted)
        assert cosine > 0.9995, key  # weights rounded to float16
    others = np.array(list(world.vectors.values())).astype(float)
    others /= np.linalg.norm(others, axis=1, keepdims=True)
    assert (others @ others.T).min() < 0.9, "all vectors are alike: the cosines above prove nothing"


def test_the_request_that_is_shown_is_the_one_that_was_sent(world: World, open_page: Any) -> None:
    visit = open_page()
    visit.recognise(world.faces[0, 1])
    request = next(r for r in reversed(visit.requests) if r.method == "POST")
    shown = visit.page.inner_text("#wire-request")
    head, _, body = shown.partition("\n\n")
    assert body == request.post_data
    assert head.splitlines()[0] == f"POST {request.url}"
    assert world.server.key not in visit.page.inner_text("body")
    assert visit.page.inner_text("#bytes-sent") == f"{len(request.post_data_buffer):,} bytes"
    answer = request.response().text()
    assert visit.page.inner_text("#wire-response") == f"200\n\n{answer}"
    assert visit.page.inner_text("#bytes-received") == f"{len(answer):,} bytes"
    for figure in ("crop", "network", "server"):
        assert re.fullmatch(r"\d+\.\d ms", visit.page.inner_text(f"#milliseconds-{figure}"))


def test_a_deleted_person_is_gone(world: World, open_page: Any) -> None:
    visit = open_page()
    for name, person in ENROLLED.items():
        visit.enrol(name, world.faces[person, 0])
    visit.page.click("text=Delete >> nth=0")
    visit.wait_for_answer("^Deleted Ann Lee")
    assert visit.list_people() == ["Bob Ray, 1 vector", "Çağla Öz, 1 vector"]
    assert not visit.recognise(world.faces[0, 1]).startswith("Ann Lee")
    rows = sqlite3.connect(f"file:{world.server.database}?mode=ro", uri=True).execute("SELECT name FROM people")
    assert "Ann Lee" not in [name for (name,) in rows]


def test_the_camera_s_face_is_recognised(world: World, open_page: Any) -> None:
    visit = open_page()
    visit.enrol("Bob Ray", world.faces[5, 2])
    visit.page.click("#open-camera")
    visit.page.wait_for_selector("#guide")
    visit.page.click("#take-picture")
    assert visit.page.evaluate("document.getElementById('video').srcObject") is None, "the camera stays open"
    visit.page.click("#recognise")
    assert visit.read_answer().startswith("Bob Ray")
    keep_screenshot(visit.page, "camera")


# ------------------------------------------------------------------------------ what goes wrong


def test_what_goes_wrong_is_said(world: World, open_page: Any, tmp_path: Path) -> None:
    visit = open_page()
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no picture")
    visit.use_file(broken)
    assert "no picture that this browser can read: broken.png" in visit.read_answer()
    assert visit.page.is_disabled("#recognise")
    visit.use_file(world.faces[0, 0])
    visit.page.click("#enrol")
    assert "Give a name" in visit.read_answer()
    visit.page.fill("#key", "wrong")
    visit.page.click("#recognise")
    visit.wait_for_answer("does not know this API key")
    visit.page.fill("#address", "http://127.0.0.1:9")
    visit.page.click("#recognise")
    visit.wait_for_answer("does not answer")
    visit.page.fill("#address", "not an address")
    visit.page.click("#recognise")
    visit.wait_for_answer("is no address")


def test_a_missing_network_is_said(world: World) -> None:
    page = world.browser.new_page()
    page.goto(f"{world.page_address}/web/?model=nowhere")
    page.wait_for_selector("#network-status[data-mood=bad]")
    assert "ffem export" in page.inner_text("#network-status")
    page.close()


# ------------------------------------------------------------------------------ people's hands


def test_it_works_by_keyboard_alone(world: World, open_page: Any) -> None:
    visit = open_page()
    visit.use_file(write_wide(world, visit))
    page = visit.page
    page.locator("#guide").wait_for()  # once the picture is there: focus does not wait until it can be seen
    page.focus("#guide")
    before = read_guide(page)
    for key in ("+", "ArrowRight", "Shift+ArrowDown"):
        page.keyboard.press(key)
    after = read_guide(page)
    assert after["width"] >= before["width"]
    assert after["left"] > before["left"]
    # Everything that can be used is reached by Tab, in the order of the page.
    reached: list[str] = []
    for _ in range(40):
        page.keyboard.press("Tab")
        name = page.evaluate("document.activeElement.id || document.activeElement.name")
        if name in reached:
            break
        reached.append(name)
    usable = ["open-camera", "file", "guide", "placing", "guide-size", "recognise", "name", "enrol", "list", "address"]
    start = reached.index(usable[0])  # it began at the frame, and went round
    assert [name for name in reached[start:] + reached[:start] if name in usable] == usable
    page.focus("#name")
    page.keyboard.type("Ann Lee")
    page.keyboard.press("Enter")
    assert visit.read_answer() == "Enrolled Ann Lee."
    page.focus("#recognise")
    page.keyboard.press("Enter")
    visit.wait_for_answer("^Ann Lee")


def write_wide(world: World, visit: Visit) -> Path:
    """A face in the middle of a wide picture."""
    wide = Image.new("RGB", (300, 200), (70, 90, 110))
    wide.paste(Image.open(world.faces[0, 0]).resize((120, 120), Image.Resampling.BILINEAR), (90, 40))
    path = world.folder / "wide.png"
    wide.save(path)
    return path


def read_guide(page: Page) -> dict[str, float]:
    return page.evaluate(
        "(() => { const { left, top, width } = document.getElementById('guide').getBoundingClientRect();"
        " return { left, top, width }; })()"
    )


def test_the_frame_is_dragged_and_the_eyes_are_too(world: World, open_page: Any) -> None:
    visit = open_page()
    page = visit.page
    visit.use_file(write_wide(world, visit))
    page.fill("#guide-size", "60")
    before = read_guide(page)
    drag(page, "#guide", 40, 25)
    after = read_guide(page)
    assert (after["left"] - before["left"], after["top"] - before["top"]) == pytest.approx((40, 25), abs=4)
    page.check("input[value=eyes]")
    assert page.is_hidden("#guide")
    box = page.locator("#left-eye").bounding_box()
    drag(page, "#left-eye", -30, 12)
    moved = page.locator("#left-eye").bounding_box()
    assert (moved["x"] - box["x"], moved["y"] - box["y"]) == pytest.approx((-30, 12), abs=1)
    assert page.is_enabled("#recognise")
    keep_screenshot(page, "eyes")


def drag(page: Page, selector: str, dx: float, dy: float) -> None:
    box = page.locator(selector).bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x + dx, y + dy, steps=12)
    page.mouse.up()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1440])
def test_it_is_readable_and_fits(world: World, open_page: Any, width: int, scheme: str) -> None:
    visit = open_page(width, 844 if width < 800 else 900, scheme)
    for name, person in ENROLLED.items():
        visit.enrol(name, world.faces[person, 0])
    visit.recognise(world.faces[5, 1])
    page = visit.page
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    small = page.evaluate(
        "[...document.querySelectorAll('button, input[type=text], input[type=url], input[type=password], .button')]"
        ".filter((e) => e.offsetParent && e.getBoundingClientRect().height < 44).map((e) => e.id || e.textContent)"
    )
    assert small == [], "too small for a thumb"
    keep_screenshot(page, f"page-{width}-{scheme}")
    # axe-core's rules of WCAG 2.2 A and AA, contrast among them; run by the test's own hand, past the page's policy.
    page.evaluate((APPLET / "web" / "node_modules" / "axe-core" / "axe.min.js").read_text("utf-8"))
    found = page.evaluate("axe.run({ runOnly: ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'wcag22aa'] })")
    assert found["passes"], "no rule was run"
    assert [(one["id"], [node["html"] for node in one["nodes"]]) for one in found["violations"]] == []


def test_drawn_faces_are_what_they_are_said_to_be(world: World) -> None:
    assert world.description["synthetic"] is True
    assert world.description["crop"]["resolution"] == DATA["resolution"]
