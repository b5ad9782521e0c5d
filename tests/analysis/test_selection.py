"""`--where`: what it takes, what it leaves out, and one line for what it does not know."""

from __future__ import annotations

import pytest
from made_records import build_record

from ffem_jax.analysis.comparability import FrontierError
from ffem_jax.analysis.selection import list_settings, select_where


@pytest.fixture
def records():
    return [
        build_record(),
        build_record(attention={"kind": "eca", "placement": [0, 13]}, arch={"width_multiplier": 0.5}),
        build_record(attention={"kind": "se", "reduction": 4}, recipe={"name": "strong", "epochs": 60}, seed=1),
        build_record(data={"resolution": 96}, protocol={"name": "kfold", "fold": 2}),
    ]


@pytest.mark.parametrize(
    ("conditions", "kept"),
    [
        ([], [0, 1, 2, 3]),
        (["recipe.name=strong"], [2]),
        (["recipe.epochs=30"], [0, 1, 3]),
        (["attention.kind=eca"], [1]),
        (["arch.attention.kind=eca"], [1]),
        (["arch.width_multiplier=0.50"], [1]),
        (["arch.attention.placement=first_last"], [1, 2]),
        (["attention.kind=eca", "attention.kind=se"], [1, 2]),
        (["data.resolution=96"], [3]),
        (["seed=1"], [2]),
        (["protocol.fold=2"], [3]),
        (["recipe.flip=True", "attention.kind=none"], [0, 3]),
        (["attention.reduction=4"], [2]),  # the others read no reduction
        (["pretrain.name=none"], [0, 1, 2, 3]),
    ],
)
def test_conditions_select(records, conditions, kept):
    assert select_where(records, conditions) == [records[i] for i in kept]


@pytest.mark.parametrize(
    ("conditions", "message"),
    [
        (["attention"], "is not KEY=VALUE"),
        (["=3"], "is not KEY=VALUE"),
        (["recipe.epoch=30"], r"recipe.epoch: no recorded trial has this setting; choose one of: recipe.epochs"),
        (["kind=eca"], "no recorded trial has this setting; choose one of: .*attention.kind"),
        (["attention.kind=cbam"], r"has this value; choose one of: none \(2\), eca \(1\), se \(1\)"),
        (["attention.reduction=16"], r"choose one of: 4 \(1\)"),
        (
            ["attention.kind=eca", "recipe.name=strong"],
            "no trial meets --where attention.kind=eca and recipe.name=strong",
        ),
    ],
)
def test_what_is_not_there_is_one_line(records, conditions, message):
    with pytest.raises(FrontierError, match=message) as caught:
        select_where(records, conditions)
    assert "\n" not in str(caught.value)


def test_every_setting_can_be_asked_for(records):
    for record in records:
        for key, value in list_settings(record).items():
            assert record in select_where(records, [f"{key}={value}"]), key


def test_an_attention_of_another_version_can_be_chosen(records):
    records[0].spec["arch"]["attention"]["kind"] = "unheard_of"
    assert select_where(records, ["attention.kind=unheard_of"]) == [records[0]]
