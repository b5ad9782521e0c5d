"""`ffem serve people`: everybody is listed, and who is deleted is gone from the files and from a running server."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from made_galleries import LENGTH, MODEL_ID, OTHER_MODEL_ID, draw_people
from sqlalchemy import Engine

from ffem_jax.cli import main
from ffem_jax.serve import people as people_module
from ffem_jax.serve.gallery import Gallery
from ffem_jax.serve.people import write_id
from ffem_jax.serve.thresholds import FixedThreshold

VECTORS = draw_people(4, 2, seed=3)[0].reshape(4, 2, LENGTH)


@pytest.fixture
def ffem(capsys: pytest.CaptureFixture[str], database: Path):
    def run(*words: str) -> tuple[int, str, str]:
        status = main(["serve", "people", *words, "--database", f"sqlite:///{database}"])
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return run


@pytest.fixture
def enrolled(engine: Engine, gallery: Gallery) -> Gallery:
    other = Gallery(engine, OTHER_MODEL_ID, LENGTH)
    for name, vectors in zip(("zoe", "Ada L", "\x41\u0308rger"), VECTORS, strict=False):
        gallery.enrol(name, vectors)
    other.enrol("zoe", VECTORS[0, :1])
    return gallery


def test_all_are_listed_in_order_of_name(enrolled: Gallery, ffem, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(people_module, "PEOPLE_AT_ONCE", 2)
    status, out, _ = ffem("list", "--json")
    rows = json.loads(out)
    assert status == 0
    assert [(row["name"], row["vectors"]) for row in rows] == [("Ada L", 2), ("zoe", 3), ("\u00c4rger", 2)]
    assert [row["person_id"] for row in rows] == [write_id(enrolled.find_person(row["name"]).person_id) for row in rows]
    out = ffem("list")[1]
    assert all(row["name"] in out and row["person_id"] in out for row in rows)


@pytest.mark.parametrize("by_id", [True, False])
def test_who_is_deleted_is_gone(enrolled: Gallery, database: Path, ffem, by_id: bool) -> None:
    there = Gallery(enrolled.engine, MODEL_ID, LENGTH)  # as a running server has it in memory
    assert there.match(VECTORS[0, 0], FixedThreshold(1e-3)).name == "zoe"
    called = write_id(enrolled.find_person("zoe").person_id) if by_id else "zoe"
    status, out, _ = ffem("delete", called)
    assert (status, out) == (0, "deleted: zoe, 3 vectors\n")
    assert there.match(VECTORS[0, 0], FixedThreshold(1e-3)).name is None
    assert enrolled.count() == (2, 4)
    stored = (VECTORS[0, 0] / (VECTORS[0, 0] ** 2).sum() ** 0.5).astype("<f4").tobytes()
    assert stored not in database.read_bytes()
    status, out, err = ffem("delete", called)
    assert (status, out, len(err.splitlines())) == (2, "", 1)


@pytest.mark.parametrize(
    ("called", "told"),
    [
        ("ZOE", "did you mean zoe?"),
        ("Ada", "did you mean Ada L?"),
        ("nobody at all", "ffem serve people list shows who is"),
        ("f" * 16, "nobody is enrolled as 'ffffffffffffffff'"),
        ("", "nobody is enrolled as ''"),
        ("a\x1b[2Jb", "nobody is enrolled as 'a\\x1b[2Jb'"),
    ],
)
def test_who_is_not_enrolled_is_told_in_one_line(enrolled: Gallery, ffem, called: str, told: str) -> None:
    status, out, err = ffem("delete", called)
    assert (status, out, len(err.splitlines())) == (2, "", 1)
    assert told in err
    assert enrolled.count() == (3, 6)


def test_a_name_that_looks_like_an_id_is_a_name_first(enrolled: Gallery, ffem) -> None:
    looks = write_id(enrolled.find_person("zoe").person_id)
    enrolled.enrol(looks, VECTORS[3])
    assert ffem("delete", looks)[1] == f"deleted: {looks}, 2 vectors\n"
    assert enrolled.find_person("zoe")


def test_no_gallery_is_made_by_asking(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for words in (["people", "list"], ["people", "delete", "x"], ["keys", "list"]):
        assert main(["serve", *words, "--database", f"sqlite:///{tmp_path}/misspelt.db"]) == 2
        assert "there is no gallery" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
