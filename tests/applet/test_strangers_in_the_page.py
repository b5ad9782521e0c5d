"""The committed network in headless Chromium, on people whom it has never seen (`make test-e2e`, where LFW is at hand).

Who is asked follows from a rule: of the people in the pairs of View 2's fold that the network did not learn from, the
twelve with the most photographs (ties by name). The first six are enrolled with three photographs each, and the page is
then shown a fourth of everybody.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from e2e import REPOSITORY, find_chromium, serve_gallery, serve_page
from world import Visit

from ffem_jax.serve.thresholds import load_calibration

MODEL = REPOSITORY / "results" / "distilled" / "models" / "final_10-tfjs"
FALSE_ACCEPTS = 0.01  # per comparison, as the card gives the threshold


def choose_people(lfw: Path, fold: int) -> list[list[Path]]:
    """Four photographs each of twelve people."""
    lines = (lfw / "pairs.txt").read_text().splitlines()[1:][600 * fold : 600 * (fold + 1)]
    people = {word for line in lines for word in line.split() if not word.isdigit()}
    photographs = {person: sorted((lfw / "lfw-deepfunneled" / person).glob("*.jpg")) for person in people}
    most = sorted(people, key=lambda person: (-len(photographs[person]), person))[:12]
    return [photographs[person][:4] for person in most]


@pytest.fixture(scope="module")
def visit(lfw_root: Path) -> Iterator[Visit]:
    chromium = find_chromium()
    from playwright.sync_api import sync_playwright

    model_id = json.loads((MODEL / "export.json").read_text())["model_id"]
    calibration = load_calibration(MODEL / "calibration.json", model_id)
    with tempfile.TemporaryDirectory(prefix="ffem-e2e-") as name, sync_playwright() as playwright:
        threshold = calibration.choose_threshold(FALSE_ACCEPTS)
        with serve_page(MODEL) as address, serve_gallery(MODEL, address, threshold, Path(name)) as server:
            browser = playwright.chromium.launch(executable_path=chromium)
            page: Any = browser.new_page()
            page.goto(f"{address}/web/?server={server.address}")
            page.wait_for_selector("#network-status[data-mood=good]")
            page.fill("#key", server.key)
            yield Visit(page)
            browser.close()


def test_the_enrolled_are_recognised_and_strangers_are_turned_away(visit: Visit, lfw_root: Path) -> None:
    fold = json.loads((MODEL / "export.json").read_text())["protocol"]["fold"]
    people = choose_people(lfw_root, fold)
    for photographs in people[:6]:
        for photograph in photographs[:3]:
            assert visit.enrol(photograph.parent.name, photograph).startswith("Enrolled")
    answers = [visit.recognise(photographs[3]) for photographs in people]
    known = [answer.startswith(who[0].parent.name) for answer, who in zip(answers[:6], people[:6], strict=True)]
    refused = [answer.startswith("Nobody who is enrolled") for answer in answers[6:]]
    # results/distilled says five of six, and five of six: the threshold accepts 1 % of the pairs of two people.
    assert min(sum(known), sum(refused)) >= 5, [answer.splitlines()[0] for answer in answers]
