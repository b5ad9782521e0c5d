"""What the page says: its first paragraph in every case, what is missing, and text of others that stays text."""

from __future__ import annotations

import dataclasses
import json
import re

import numpy as np
import pytest

from ffem_jax.reports.paper import ImageGroups, write_paper
from ffem_jax.reports.paper.answer import write_answer
from ffem_jax.reports.paper.results import compute_paper
from ffem_jax.text.display import escape

ALL = {"ffem": 70, "ffem_am": 80, "ffem_se": 75, "mobilenetv2": 75, "shufflenetv2": 60}


def answer(records):
    (setting,) = compute_paper(records, "not asked").settings
    return write_answer(setting)


def page(records, tmp_path, groups="not asked"):
    write_paper(records, tmp_path / "out", groups)
    return (tmp_path / "out" / "README.md").read_text()


# ------------------------------------------------------------------------- the first paragraph


def test_better_and_on_the_frontier(make_set):
    text = answer(make_set(ALL))
    assert text.startswith("Recipe modern, 64 x 64: **ECA in the first and last bottleneck helps**: the difference ")
    assert "+10.0 points, 95 % interval " in text
    assert "after Holm's correction (10 pairs of trials, 100 images, 2 seeds)." in text
    assert text.endswith(
        "**FFEM-AM is on the frontier of accuracy against bytes**: every smaller network is significantly less "
        "accurate (FFEM and ShuffleNetV2 1.0x)."
    )


def test_worse_and_beaten(make_set):
    text = answer(make_set({**ALL, "ffem": 95}))
    assert (
        "**ECA in the first and last bottleneck costs accuracy**: the difference from FFEM to FFEM-AM is -15.0 points"
        in text
    )
    assert "**FFEM-AM is not on the frontier of accuracy against bytes**. No larger and no less accurate: " in text
    assert "8.80 against 8.80 MB; +15.0 points" in text


def test_not_told_apart(make_set):
    text = answer(make_set({**ALL, "ffem": 79, "shufflenetv2": 81}))
    assert (
        "**ECA in the first and last bottleneck has no significant effect**: the difference from FFEM to FFEM-AM "
        "is +1.0 points" in text
    )
    assert (
        "Attention kind `eca` is statistically indistinguishable from attention kind `none` (+1.0 points, 95 % CI"
        in text
    )
    assert "By measured accuracy, **FFEM-AM is not on the frontier" in text
    assert "but no network beats it significantly**. No larger and no less accurate: ShuffleNetV2 1.0x (5.67" in text


def test_on_the_frontier_by_luck_at_most(make_set):
    text = answer(make_set({**ALL, "ffem": 79}))
    assert (
        "By measured accuracy, **FFEM-AM is on the frontier of accuracy against bytes, but not beyond chance**" in text
    )
    assert text.endswith("but not beyond chance**. Smaller and not significantly less accurate: FFEM.")


def test_one_of_two_that_beat_it_is_shown_to(make_set):
    text = answer(make_set({**ALL, "ffem": 81, "shufflenetv2": 95}))
    assert "significantly more accurate: ShuffleNetV2 1.0x." in text


def test_one_seed_says_nothing_of_another(make_set):
    text = answer(make_set(ALL, seeds=(0,)))
    assert "(5 pairs of trials, 100 images, 1 seed)" in text
    assert text.endswith("All results are from one seed: the intervals exclude variance between seeds.")


def test_pretrained_once_is_said(make_set, tmp_path):
    records = make_set(ALL)
    assert "pretrained once" not in page(records, tmp_path)
    pretrain = {"name": "lfw_rest"}
    records = [dataclasses.replace(record, spec={**record.spec, "pretrain": pretrain}) for record in records]
    text = page(records, tmp_path)
    assert "Each network was pretrained once: the intervals exclude variance between pretraining runs." in text
    told = answer(records)
    assert "**ECA in the first and last bottleneck helps, with one pretraining of each network**" in told
    assert told.endswith("which alone may cause a difference.")


def test_records_that_do_not_say_who_was_right_claim_nothing(make_set):
    blind = [dataclasses.replace(record, hits="", test_images=[]) for record in make_set({**ALL, "ffem": 10})]
    text = answer(blind)
    assert "has no significant effect" in text
    assert "no paired test: the records do not list the correctly classified images" in text


@pytest.mark.parametrize(
    ("networks", "wanted"),
    [
        (["ffem_am"], "FFEM-AM is the only network with finished trials, and one network is not a frontier."),
        (["ffem", "ffem_se"], "It is not known whether FFEM-AM is on the frontier of accuracy against bytes"),
        (["ffem_am", "ffem_se"], "it is the smallest of the 2 networks."),
    ],
)
def test_without_the_networks_the_question_stays_open(make_set, networks, wanted):
    text = answer(make_set({name: ALL[name] for name in networks}))
    assert "it is not known whether ECA in the first and last bottleneck helps" in text
    assert wanted in text
    assert text.endswith("Networks, folds or seeds are missing, as listed below: this covers the recorded trials.")


# ------------------------------------------------------------------------------------- the page


def test_the_files_are_the_page_its_numbers_and_its_figures(make_set, tmp_path):
    result, files = write_paper(make_set(ALL), tmp_path / "out")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == sorted(path.name for path in files)
    assert {path.name for path in files} == {"README.md", "paper.json", "figure7.png", "figure7.svg"}
    assert json.loads((tmp_path / "out" / "paper.json").read_text()) == result.to_dict()
    text = (tmp_path / "out" / "README.md").read_text()
    assert text.startswith("<!-- Written by `ffem paper`")
    assert "A generated page" in text
    row = next(line for line in text.splitlines() if line.startswith("| FFEM-AM |"))
    assert row.startswith("| FFEM-AM | 80.0 [")
    assert row.endswith("| 2 x 5 | 2,200,008 | 21,000,000 | 8,800,032 | yes | 98.1 [93.3, 99.5] |")
    assert "| FFEM-SE | 75.0 [" in text
    assert "| no | - |" in text
    assert "validation is on the test images." in text
    assert "Synthetic" not in text
    assert "The set is incomplete" not in text
    assert "Left out: no attributes of the images were given." in text


def test_the_same_records_make_the_same_files(make_set, tmp_path):
    for name in ("a", "b"):
        write_paper(make_set(ALL), tmp_path / name)
    for file in (tmp_path / "a").iterdir():
        assert file.read_bytes() == (tmp_path / "b" / file.name).read_bytes()


def test_missing_folds_and_networks_are_said(make_set, tmp_path):
    records = [r for r in make_set(ALL) if r.arch != "shufflenetv2"]
    records = [r for r in records if not (r.arch == "mobilenetv2" and (r.seed == 1 or r.test_images[0] > 2))]
    text = page(records, tmp_path)
    assert "**The set is incomplete: the numbers cover the recorded trials.**" in text
    assert "- ShuffleNetV2 1.0x has no trial." in text
    assert "- MobileNetV2 lacks folds 3, 4 of seed 0; seed 1." in text
    assert "The frontier uses the trials that all networks have." in text


def test_failed_and_refused_trials_are_said(make_set, make_trial, tmp_path):
    records = [r for r in make_set({**ALL, "ffem_se": 75}) if r.arch != "ffem_se"]
    records.append(make_trial("ffem_se", status="over_cap", accuracy=None, tested=None))
    records.append(make_trial("ffem", seed=2, status="failed", accuracy=None, error="MemoryError: a | b\n<b>`c`</b>"))
    text = page(records, tmp_path)
    assert "- FFEM-SE is over the cap and was not trained." in text
    assert r"- FFEM, 1 trial failed: MemoryError: a \| b \<b\>\`c\`\</b\>" in text


def test_each_recipe_has_a_table_a_paragraph_and_a_figure(make_set, tmp_path):
    records = make_set(ALL) + make_set({**ALL, "ffem": 90}, recipe={"name": "paper", "loss": "softmax"})
    text = page(records, tmp_path)
    assert re.findall(r"^Recipe \w+", text, re.MULTILINE) == ["Recipe modern", "Recipe paper"]
    assert text.count("### Table 2: accuracy and size") == 2
    assert "(figure7_1.svg)" in text
    assert (tmp_path / "out" / "figure7_2.png").exists()
    assert "| FFEM | 70.0 [" in text
    assert "| FFEM | 90.0 [" in text


def test_drawn_faces_are_named_so(make_set, tmp_path):
    text = page(make_set(ALL, data={"name": "synthetic"}), tmp_path)
    assert text.splitlines()[3] == (
        "**Synthetic faces: drawn, not photographed. The numbers say nothing about real ones.**"
    )


def test_names_from_records_stay_text(make_set, tmp_path):
    name = "a|b*<script>$x$[y](z)"
    records = make_set(ALL, recipe={"name": name}, data_variant="v|<i>", device="cpu|`x`")
    text = page(records, tmp_path)
    assert "<script>" not in text
    assert r"Recipe a\|b\*\<script\>" in text
    assert r"cpu\|\`x\` (50)" in text
    for table in re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE):
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in table.splitlines()}) == 1


def test_escaped_text_is_one_line():
    assert escape("a\nb | c_d _e_") == r"a b \| c_d \_e\_"


# ---------------------------------------------------------------------------------------- groups


def test_groups_stand_beside_the_paper_s(make_set, tmp_path):
    people = np.arange(100) // 5
    gender = np.where(people % 2 == 0, "male", "female")
    glasses = np.where(np.arange(100) % 2 == 0, "0.1 or less", np.where(np.arange(100) % 4 == 1, "above 0.5", ""))
    right = gender == "male"
    groups = ImageGroups({"gender": gender, "eyeglasses_probability": glasses}, people)
    text = page(make_set({**ALL, "ffem_am": right}), tmp_path, groups)
    male = next(line for line in text.splitlines() if line.startswith(r"| gender: male"))
    assert male.startswith(r"| gender: male | 50 | 10 | ")
    assert "| 100.0 [92.9, 100.0] |" in male
    assert male.endswith("| 98.6 |")
    assert "| with glasses (too few to tell) | 25 | 20 |" in text
    assert text.count("| 97.2 |") == 1
    assert "- FFEM-AM by gender: 100.0 points between male and female" in text
    assert "Glasses are estimated by a model" in text
    assert "of the other networks, " in text


def test_groups_without_hits_are_left_out(make_set, tmp_path):
    blind = [dataclasses.replace(record, hits="", test_images=[]) for record in make_set(ALL)]
    text = page(blind, tmp_path, ImageGroups({"gender": np.array(["male"] * 100)}, np.arange(100)))
    assert "Left out: none of the 50 finished trials records which images were classified correctly" in text
