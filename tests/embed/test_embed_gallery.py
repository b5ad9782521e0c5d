"""`ffem embed --import`: what comes, what a sync takes away, and what is refused."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
from made_people import write_people

from ffem_jax.embed import embed_folder
from ffem_jax.export.embedder import make_embedder
from ffem_jax.serve.database import open_database
from ffem_jax.serve.gallery import Gallery
from ffem_jax.serve.thresholds import FixedThreshold
from ffem_jax.training.weights import FinishedTrial

Run = Callable[..., tuple[int, str, str]]


def test_one_person_with_one_picture_is_enough_to_enrol(
    trained: tuple[FinishedTrial, Path], tmp_path: Path, ffem: Run
) -> None:
    write_people(tmp_path / "one", {"Zoe\u0308": 1}, seed=900)
    url = f"sqlite:///{tmp_path}/gallery.db"
    words = ("embed", tmp_path / "one", "--trial", trained[0].folder, "--import", url, "--json")
    first, again = (json.loads(ffem(*words)[1]) for _ in range(2))
    assert (first["imported"], again["imported"], first["people"], first["images"]) == (1, 0, 1, 1)
    gallery = Gallery(open_database(url), first["model_id"], first["length"])
    vector = embed_folder(tmp_path / "one", make_embedder(trained[0])).vectors[0]
    assert gallery.match(vector, FixedThreshold(1e-3)).name == "Zo\u00eb"


def test_a_sync_leaves_the_gallery_as_the_folder_is(
    trained: tuple[FinishedTrial, Path], album: Path, tmp_path: Path, ffem: Run
) -> None:
    url = f"sqlite:///{tmp_path}/gallery.db"
    words = ("embed", album, "--trial", trained[0].folder, "--import", url)
    assert ffem(*words)[0] == 0
    (album / "ada" / "zoe.png").rename(album / "zoe" / "1.png")
    embedded = embed_folder(album, make_embedder(trained[0]))
    gallery = Gallery(open_database(url), embedded.model_id, embedded.vectors.shape[1])

    def ask() -> list[str | None]:
        return [gallery.match(vector, FixedThreshold(1e-4)).name for vector in embedded.vectors]

    # On its own an import adds, and names the clash.
    status, out, err = ffem(*words)
    assert (status, "imported: 0 new vectors" in out) == (0, True)
    assert "one image under two names (1): zoe (zoe/1.png) and ada (ada/zoe.png)" in err
    assert ask() == [*["ada"] * 3, *["bob"] * 3, "ada", "zoe", "zoe"]
    status, out, err = ffem(*words, "--sync", "--dry-run")
    assert out.splitlines()[1:] == [
        "would be imported: 1 new vectors",
        "  zoe: zoe/1.png",
        "would be deleted: 1 vectors that are not in the folder",
        "  ada: ada/zoe.png",
    ]
    assert ask()[6] == "ada"
    changes = json.loads(ffem(*words, "--sync", "--json")[1])["changes"]
    assert (changes["added"], changes["removed"]) == (
        [{"name": "zoe", "image": "zoe/1.png"}],
        [{"name": "ada", "image": "ada/zoe.png"}],
    )
    assert ask() == embedded.names
    # Another way to the same folder is the same folder; people who go are listed.
    gallery.enrol("eve", [-embedded.vectors[0]])
    shutil.rmtree(album / "bob")
    (tmp_path / "link").symlink_to(album)
    words = ("embed", tmp_path / "link", *words[2:])
    status, out, err = ffem(*words, "--sync")
    assert out.splitlines()[2:] == [
        "deleted: 3 vectors that are not in the folder",
        *[f"  bob: bob/{number}.png" for number in (1, 2, 3)],
        "  bob: has no vector left and is no longer enrolled",
        "not touched: 1 vectors of 1 people, enrolled from an unknown folder (over HTTP, or by an earlier "
        "version); --sync-all includes them",
    ]
    assert {one.name for one in gallery.list_people()} == {"ada", "eve", "zoe"}
    status, out, err = ffem(*words, "--sync-all")
    assert "  eve: enrolled from an unknown file" in out
    assert gallery.count() == (2, 6)


def test_a_sync_takes_nothing_for_deleted_that_it_could_not_read(
    trained: tuple[FinishedTrial, Path], album: Path, tmp_path: Path, ffem: Run
) -> None:
    url = f"sqlite:///{tmp_path}/gallery.db"
    words = ("embed", album, "--trial", trained[0].folder, "--import", url)
    model_id = json.loads(ffem(*words, "--json")[1])["model_id"]
    gallery = Gallery(open_database(url), model_id, 8)
    picture, kept = album / "bob" / "2.png", (album / "bob" / "2.png").read_bytes()

    def refuse(told: str) -> None:
        status, out, err = ffem(*words, "--sync")
        assert (status, out, gallery.count()) == (2, "", (3, 9)), err
        assert told in err.splitlines()[-1]

    picture.write_bytes(b"no picture")
    refuse("bob would lose vectors, and bob/2.png could not be read")
    picture.unlink()
    picture.symlink_to(tmp_path / "gone.png")
    refuse("bob/2.png could not be read")
    picture.unlink()
    (album / "bob" / "older").mkdir()
    (album / "bob" / "older" / "2.png").write_bytes(kept)
    refuse("bob/older could not be read")
    (album / "bob").rename(tmp_path / "bob")
    (album / "bob").mkdir()
    refuse("bob could not be read")
    (album / "bob").rmdir()
    (album / "bob").symlink_to(tmp_path / "not mounted")
    refuse("bob could not be read")
    assert ffem(*words, "--sync", "--force")[0] == 0
    assert gallery.count() == (2, 6)


def test_one_picture_in_two_folders_is_enrolled_for_nobody(
    trained: tuple[FinishedTrial, Path], album: Path, tmp_path: Path, ffem: Run
) -> None:
    shutil.copy(album / "bob" / "1.png", album / "zoe" / "bob.png")
    words = ("embed", album, "--trial", trained[0].folder, "--import", f"sqlite:///{tmp_path}/gallery.db")
    status, out, err = ffem(*words)
    assert (status, "imported: 8 new vectors" in out) == (0, True)
    assert "one image under two names (1): zoe (zoe/bob.png) and bob (bob/1.png); one of the names is wrong" in err
    status, out, err = ffem(*words, "--sync")
    assert (status, out) == (2, "")
    assert "the folder has pictures under two people (1), such as zoe/bob.png and bob/1.png" in err


def test_folders_whose_names_cannot_be_enrolled_are_named_before_anything_is_done(
    trained: tuple[FinishedTrial, Path], album: Path, tmp_path: Path, ffem: Run
) -> None:
    for name in ("x" * 101, "ada\u202eeve"):
        shutil.copytree(album / "bob", album / name)
    out = tmp_path / "vectors.jsonl"
    words = ("embed", album, "--trial", trained[0].folder, "--out", out)
    status, _, err = ffem(*words, "--import", f"sqlite:///{tmp_path}/gallery.db")
    assert (status, len(err.splitlines()), out.exists(), (tmp_path / "gallery.db").exists()) == (2, 1, False, False)
    assert "the names of these folders are not valid for enrolment (2): 'ada\\u202eeve'; 'xxx" in err
    assert ffem(*words)[0] == 0, "a file takes any name"


def test_one_name_is_one_person_whatever_wrote_it(
    trained: tuple[FinishedTrial, Path], tmp_path: Path, ffem: Run
) -> None:
    people = write_people(tmp_path / "people", {"Jos\u00e9": 2, "Jose\u0301": 2, "jos\u00e9": 1}, seed=5)
    latin = os.fsencode(people) + b"/caf\xe9"
    os.mkdir(latin)
    write_people(tmp_path / "more", {"x": 1}, seed=6)
    shutil.copy(tmp_path / "more" / "x" / "1.png", latin + b"/\xfc.png")
    url = f"sqlite:///{tmp_path}/gallery.db"
    words = ("embed", people, "--trial", trained[0].folder, "--import", url)
    for name in ("vectors.npz", "vectors.jsonl"):
        status, out, err = ffem(*words, "--sync", "--out", tmp_path / name)
        assert (status, "6 images of 3 people" in out) == (0, True), err
        assert "names that may be one person's are enrolled as several people: Jos\u00e9 and jos\u00e9" in err
    summary = json.loads(ffem(*words, "--json")[1])
    gallery = Gallery(open_database(url), summary["model_id"], summary["length"])
    held = {person.name: person.vectors for person in gallery.list_people()}
    assert held == {"Jos\u00e9": 4, "jos\u00e9": 1, "caf\\xe9": 1}
    names = [json.loads(line)["name"] for line in (tmp_path / "vectors.jsonl").read_text().splitlines()]
    with np.load(tmp_path / "vectors.npz") as file:
        assert sorted(file["names"].tolist()) == sorted(names)
    assert set(names) == set(held)


def test_a_dry_run_makes_no_file_and_ends_as_the_import_would(
    trained: tuple[FinishedTrial, Path], album: Path, tmp_path: Path, ffem: Run
) -> None:
    place = tmp_path / "new" / "gallery.db"
    words = ("embed", album, "--trial", trained[0].folder, "--import", f"sqlite:///{place}")
    status, out, _ = ffem(*words, "--dry-run")
    assert (status, "would be imported: 9 new vectors" in out, place.parent.exists()) == (0, True, False)
    assert ffem(*words)[0] == 0
    before = place.read_bytes()
    (album / "bob" / "2.png").write_bytes(b"no picture")
    status, out, err = ffem(*words, "--sync", "--dry-run")
    assert (status, place.read_bytes() == before) == (2, True)
    assert "would be deleted: 1 vectors" in out
    refusal = "bob would lose vectors, and bob/2.png could not be read"
    assert f"without --dry-run this is refused: {refusal}" in err
    status, _, err = ffem(*words, "--sync")
    assert (status, refusal in err) == (2, True)
    summary = json.loads(ffem(*words, "--sync", "--dry-run", "--json")[1])
    assert summary["changes"]["refused"].startswith(refusal)


def test_a_picture_that_changed_is_named(
    trained: tuple[FinishedTrial, Path], album: Path, tmp_path: Path, ffem: Run
) -> None:
    words = ("embed", album, "--trial", trained[0].folder, "--import", f"sqlite:///{tmp_path}/gallery.db")
    assert "another image" not in ffem(*words)[2]
    write_people(tmp_path / "other", {"bob": 1}, seed=4711)
    shutil.copy(tmp_path / "other" / "bob" / "1.png", album / "bob" / "1.png")
    _, out, err = ffem(*words)
    assert "imported: 1 new vectors" in out
    assert "files that contain another image since their import (1): bob (bob/1.png)" in err
    assert "--sync deletes" in err
    _, out, err = ffem(*words, "--sync")
    assert "deleted: 1 vectors" in out
    assert "another image" not in ffem(*words)[2]


def test_what_another_folder_has_too_stays_and_is_named(
    trained: tuple[FinishedTrial, Path], album: Path, tmp_path: Path, ffem: Run
) -> None:
    url = f"sqlite:///{tmp_path}/gallery.db"
    double = shutil.copytree(album, tmp_path / "double")
    for folder in (album, double):
        assert ffem("embed", folder, "--trial", trained[0].folder, "--import", url)[0] == 0
    shutil.rmtree(double / "bob")
    words = ("embed", double, "--trial", trained[0].folder, "--import", url, "--sync")
    _, out, _ = ffem(*words, "--dry-run")
    assert f"  bob: bob/1.png is not in the folder but kept, since {album}" in out
    assert "would be deleted: 0 vectors" in out
    _, out, _ = ffem(*words, "--moved-from", album)
    assert "deleted: 3 vectors" in out
    assert "  bob: has no vector left" in out
