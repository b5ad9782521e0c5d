"""Groups of test images: which records serve, how columns are cut, what is said of a gap."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from ffem_jax.analysis.groups import choose_records, compute_groups, cut_columns
from ffem_jax.analysis.summary import FrontierError
from ffem_jax.cli.groups import choose_attributes
from ffem_jax.cli.terminal import UsageError
from ffem_jax.data import Faces
from ffem_jax.reports.groups import groups_to_dict, render_groups, write_gap

PEOPLE = np.repeat(np.arange(20), 6)


def make_tests(make_record, right, **settings):
    images = np.arange(len(PEOPLE))
    hits = "".join("1" if hit else "0" for hit in right)
    return make_record(correct=hits.count("1"), tested=len(hits), test_images=images.tolist(), hits=hits, **settings)


def test_seeds_are_averaged_by_image_and_networks_kept_apart(make_record):
    first, second = PEOPLE % 2 == 0, PEOPLE < 20
    records = [make_tests(make_record, right, seed=seed) for seed, right in enumerate((first, second))]
    records.append(make_tests(make_record, first, attention={"kind": "eca"}, arch={"name": "ffem_am"}))
    names = np.where(PEOPLE % 2 == 0, "even", "odd")
    names[:12] = ""
    plain, eca = compute_groups(records, {"parity": names}, PEOPLE)
    assert (plain.network, eca.network) == ("ffem", "ffem_am")
    assert [(g.name, g.images, g.people, g.accuracy) for g in plain.groups] == [
        ("even", 54, 9, 1.0),
        ("odd", 54, 9, 0.5),
    ]
    assert (plain.unknown, plain.images, plain.seeds) == (12, 120, 2)
    assert eca.groups[1].accuracy == 0
    # Two gaps were looked at: Holm doubles the smaller.
    assert eca.p_corrected == pytest.approx(2 * eca.gap.p_value)
    assert write_gap(eca).startswith("ffem_am by parity: 100.0 points between even and odd; p < 0.001 by permutation")
    assert write_gap(eca).endswith("more than chance.")
    assert groups_to_dict(plain)["sentence"] == write_gap(plain)
    assert len(render_groups([plain, eca], "title").rows) == 6


def test_small_groups_are_said_to_be_small(make_record):
    names = np.where(PEOPLE < 4, "few", "many")
    (one,) = compute_groups([make_tests(make_record, PEOPLE > 0)], {"size": names}, PEOPLE)
    assert [group.enough for group in one.groups] == [False, True]
    assert one.gap is one.p_corrected is None
    assert "too few to tell" in write_gap(one)


def test_only_records_that_say_who_was_right_serve(make_record):
    good = make_tests(make_record, PEOPLE > 3)
    old = make_record(correct=3, seed=1)
    assert choose_records([good, old, make_record(status="failed", seed=2)]) == [good]
    with pytest.raises(
        FrontierError, match="none of the 1 finished trials records which images were classified correctly"
    ):
        choose_records([old])
    with pytest.raises(FrontierError, match="mix data sets.*; use them separately"):
        choose_records([good, make_tests(make_record, PEOPLE > 3, data={"name": "synthetic"})])
    with pytest.raises(FrontierError, match="none of the 1"):
        choose_records([dataclasses.replace(good, hits="1")])


ATTRIBUTES = {
    "gender": np.array(["male", "", "female", "male"]),
    "glasses": np.array([0.0, 0.1, np.nan, 0.51]),
    "worn": np.array([0.0, 1.0, np.nan, 1.0]),
    "age": np.array([20.5, 31, 42, 53]),
}


def test_columns_are_names_or_numbers_that_are_cut():
    columns, notes = cut_columns(ATTRIBUTES, ["gender", "glasses:0.5,0.1", "worn"])
    assert {name: values.tolist() for name, values in columns.items()} == {
        "gender": ["male", "", "female", "male"],
        "glasses": ["0.1 or less", "0.1 or less", "", "above 0.5"],
        "worn": ["0", "1", "", "1"],
    }
    assert notes == []
    middle, _ = cut_columns({"glasses": np.array([0.11, 0.5])}, ["glasses:0.1,0.5"])
    assert middle["glasses"].tolist() == ["above 0.1 to 0.5"] * 2


def test_without_a_wish_every_column_that_can_be_names_is_taken():
    many = {**ATTRIBUTES, "score": np.linspace(0, 1, 30)}
    columns, notes = cut_columns(many, [])
    assert list(columns) == ["gender", "glasses", "worn", "age"]
    assert notes == ["score has many numbers and is skipped; --by score:0.5 bins it"]


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        ("beard", "no column 'beard'; choose one of: gender, glasses, worn, age, score"),
        ("score", "give cuts, as in score:0.5"),
        ("glasses:a", "is not valid"),
        ("gender:0.5", "is not valid"),
        ("glasses:nan", "is not valid"),
        ("glasses:0.1,inf", "is not valid"),
        ("beard:0.5", "no column 'beard'"),
    ],
)
def test_wishes_that_mean_nothing_are_refused(wanted, message):
    with pytest.raises(FrontierError, match=message):
        cut_columns({**ATTRIBUTES, "score": np.linspace(0, 1, 30)}, [wanted])


def test_a_column_asked_for_twice_is_refused_and_overrules_nothing():
    with pytest.raises(FrontierError, match="column glasses is requested twice; .* as in glasses:0.1,0.5"):
        cut_columns(ATTRIBUTES, ["glasses:0.1", "gender", "glasses:0.5"])


def test_numbers_that_differ_have_names_that_differ():
    numbers = {"id": np.array([1000001.0, 1000002.0, np.nan]), "x": np.array([0.1234567, 0.12345678, 0.5])}
    columns, _ = cut_columns(numbers, ["id", "x:0.12345675,0.1234568"])
    assert columns["id"].tolist() == ["1000001", "1000002", ""]
    assert len(set(columns["x"])) == 3
    assert cut_columns(ATTRIBUTES, ["glasses:0.1,0.1"])[0]["glasses"].tolist()[3] == "above 0.1"


@pytest.mark.parametrize("wish", ["eye:open", "gr\u00f6\u00dfe", "gro\u0308\u00dfe"])
def test_a_column_is_found_by_its_whole_name_in_either_normal_form(wish):
    columns, _ = cut_columns({"eye:open": np.array(["a"]), "gr\u00f6\u00dfe": np.array(["b"])}, [wish])
    assert len(columns) == 1
    cut, _ = cut_columns({"eye:open": np.array([0.5])}, ["eye:open:0.4"])
    assert cut["eye:open"].tolist() == ["above 0.4"]


# ------------------------------------------------------- what the commands say of a table of attributes


@pytest.fixture
def faces(tmp_path):
    names = tuple(f"{person}/{number}.png" for person in ("ann", "bob") for number in range(2))
    return Faces(np.zeros((4, 16, 16, 3), np.uint8), np.repeat([0, 1], 2), ("ann", "bob"), names, names)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("path,sex\nann/0.png,f\nann/0.png,m\n", "column sex: ann/0.png is 'f' in line 2 and 'm' in line 3"),
        ("path,sex,sex\nann/0.png,f,m\n", "its first line names sex more than once"),
        ("path,sex\nann/9.png,f\n", "names none of the images, such as ann/0.png"),
    ],
)
def test_a_table_that_can_be_read_in_two_ways_is_refused(tmp_path, faces, text, message):
    (tmp_path / "table.csv").write_text(text)
    with pytest.raises(UsageError, match=message) as error:
        choose_attributes(faces, tmp_path / "table.csv")
    assert str(tmp_path / "table.csv") in str(error.value)


def test_what_is_odd_in_a_table_is_said_and_the_rest_is_used(tmp_path, faces, capsys):
    rows = ["ann/0.png,NA,Male", "ann/1.png,0.5,male", "bob/0.png,1,male", "cy/0.png,1,f"]
    (tmp_path / "table.csv").write_text("\n".join(["path,glasses,sex", *rows]))
    attributes = choose_attributes(faces, tmp_path / "table.csv")
    assert cut_columns(attributes, ["glasses:0.7"])[0]["glasses"].tolist() == ["", "0.7 or less", "above 0.7", ""]
    assert attributes["sex"].tolist() == ["male", "male", "male", ""]
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 3
    assert all(line.startswith("warning: table.csv: ") for line in said)
    for text in ("'NA' (line 2)", "'Male' (line 2), 'male' (line 3)", "cy/0.png (line 5)"):
        assert any(text in line for line in said), text


def test_notes_on_the_table_beside_the_faces_reach_the_user(faces, capsys):
    known = dataclasses.replace(
        faces, attributes={"sex": np.array(["f"] * 4)}, notes=("skipped ann/9.png: x", "attributes.csv: 1 of 4")
    )
    assert choose_attributes(known, None) is known.attributes
    assert capsys.readouterr().err == "warning: attributes.csv: 1 of 4\n"
    with pytest.raises(UsageError, match="attributes.csv ignored: why; fix it, or give --attributes"):
        choose_attributes(dataclasses.replace(faces, notes=("attributes.csv ignored: why",)), None)
