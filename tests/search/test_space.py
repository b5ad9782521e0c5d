"""What a space holds: its size against its own enumeration, its points against specs, its mistakes in one line."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ffem_jax.search.space import Choice, SearchSpace, SpaceError, read_space
from ffem_jax.specs.architecture import AttentionSpec
from ffem_jax.specs.trial import RecipeSpec, TrialSpec, to_plain

PARAMS = {
    "arch.attention.placement": "first,last,first_last",
    "arch.attention.kind": "none,eca,se",
    "arch.attention.reduction": "4,16",
    "arch.stages.0.repeats": "range(1,4)",
    "arch.width_multiplier": "0.25,0.5,1",
}
WHEN = {
    "arch.attention.placement": {"arch.attention.kind": ["eca", "se"]},
    "arch.attention.reduction": {"arch.attention.kind": "se"},
}
SPACE = read_space({"params": PARAMS, "when": WHEN})
BASE = TrialSpec()


@st.composite
def draw_space(draw: st.DrawFn) -> SearchSpace:
    """A space of up to six choices, each with up to two conditions on earlier ones."""
    choices: list[Choice] = []
    for number in range(draw(st.integers(1, 6))):
        values = tuple(f"v{value}" for value in range(draw(st.integers(1, 3))))
        others = draw(st.lists(st.sampled_from(choices), max_size=2, unique=True)) if choices else []
        when = tuple(
            (one.name, tuple(draw(st.lists(st.sampled_from(one.values), min_size=1, unique=True)))) for one in others
        )
        choices.append(Choice(f"c{number}", values, when))
    return SearchSpace(tuple(choices))


@given(draw_space())
def test_the_size_is_the_number_of_points_and_all_differ(space: SearchSpace) -> None:
    points = list(space)
    assert space.size == len(points) == len({tuple(point.items()) for point in points})
    for point in points:
        assert space.get_active(point) == point


@given(draw_space(), st.integers(0, 2**31))
def test_a_sample_is_a_point(space: SearchSpace, seed: int) -> None:
    assert space.sample(np.random.default_rng(seed)) in list(space)


def test_choices_stand_after_those_they_depend_on_whatever_the_order_written() -> None:
    names = [choice.name for choice in SPACE.choices]
    assert names[:3] == ["arch.attention.kind", "arch.attention.placement", "arch.attention.reduction"]
    assert SPACE.size == (1 + 3 + 3 * 2) * 3 * 3
    assert [choice.ordered for choice in SPACE.choices] == [False, False, True, True, True]


def test_each_value_of_a_choice_is_as_likely() -> None:
    rng = np.random.default_rng(0)
    points = [SPACE.sample(rng) for _ in range(3000)]
    for kind in ("none", "eca", "se"):
        assert 900 < sum(point["arch.attention.kind"] == kind for point in points) < 1100
    assert {point.get("arch.attention.placement") for point in points} == {None, "first", "last", "first_last"}


def test_what_is_inactive_is_dropped_and_no_override() -> None:
    point = {"arch.attention.kind": "none", "arch.attention.placement": "last", "arch.stages.0.repeats": "2"}
    point["arch.width_multiplier"] = "1"
    assert SPACE.to_overrides(point) == [
        "arch.attention.kind=none",
        "arch.stages.0.repeats=2",
        "arch.width_multiplier=1",
    ]


def test_a_spec_is_read_back_as_its_point() -> None:
    arch = dataclasses.replace(BASE.arch, width_multiplier=0.5, attention=AttentionSpec(kind="eca", placement="last"))
    point = SPACE.read_point(to_plain(dataclasses.replace(BASE, arch=arch, seed=3)), to_plain(BASE))
    assert point == {
        "arch.attention.kind": "eca",
        "arch.attention.placement": "last",
        "arch.stages.0.repeats": "1",
        "arch.width_multiplier": "0.5",
    }


@pytest.mark.parametrize(
    ("arch", "recipe"),
    [
        ({"width_multiplier": 0.75}, {}),
        ({"head_channels": 0}, {}),
        ({"stages": BASE.arch.stages[:3]}, {}),
        ({"stem_extra": "depthwise"}, {}),  # an `added` field, which most records do not name
        ({}, {"epochs": 3}),
    ],
)
def test_a_spec_outside_the_space_is_none(arch: dict[str, Any], recipe: dict[str, Any]) -> None:
    base = to_plain(BASE)
    other = dataclasses.replace(
        BASE, arch=dataclasses.replace(BASE.arch, **arch), recipe=dataclasses.replace(RecipeSpec(), **recipe)
    )
    assert SPACE.read_point(base, base) is not None
    assert SPACE.read_point(to_plain(other), base) is None


def test_a_config_group_is_known_by_its_name_and_a_dict_by_its_items() -> None:
    space = read_space({"params": {"recipe": "modern,paper", "arch.attention": "{kind: eca, gamma: 2},{kind: se}"}})
    spec = to_plain(BASE)
    assert space.read_point(spec) is None  # no attention
    spec["arch"]["attention"]["kind"] = "eca"
    assert space.read_point(spec) == {"recipe": "modern", "arch.attention": "{kind:eca,gamma:2}"}


@pytest.mark.parametrize(
    ("params", "when", "message"),
    [
        ({}, {}, "the space has no choices"),
        ({"a": "1,1"}, {}, "a has the value 1 twice"),
        ({"a": "interval(0,1)"}, {}, "a: 'interval(0,1)' is not a list of values"),
        ({"a": "1,2"}, {"b": {"a": 1}}, "hydra.sweeper.when names b, which is not a choice; choose from: a"),
        ({"a": "1,2", "b": "1"}, {"b": {"c": 1}}, "b depends on c, which is not a choice before it"),
        ({"a": "1,2", "b": "1"}, {"b": {"a": 3}}, "b depends on a=3; choose one of: 1, 2"),
        ({"a": "1,2", "b": "1"}, {"b": {"a": 1}, "a": {"b": 1}}, "hydra.sweeper.when is circular: a -> b"),
    ],
)
def test_a_mistake_is_one_line(params: dict[str, str], when: dict[str, Any], message: str) -> None:
    with pytest.raises(SpaceError) as caught:
        read_space({"params": params, "when": when})
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"arch.attention.kind": "sea"}, "arch.attention.kind=sea is not in the space; choose one of: none, eca, se"),
        ({"depth": "1"}, "depth is not a choice of this space"),
        ({"arch.attention.kind": "eca"}, "arch.attention.placement is missing; choose one of: first, last, first_last"),
    ],
)
def test_a_point_outside_is_one_line(change: dict[str, str], message: str) -> None:
    point = {"arch.attention.kind": "none", "arch.stages.0.repeats": "2", "arch.width_multiplier": "1", **change}
    with pytest.raises(SpaceError, match="^" + message.replace("(", r"\(")):
        SPACE.to_overrides(point)
