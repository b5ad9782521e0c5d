import pytest

from ffem_jax.analysis.labels import describe_placement, make_labels
from ffem_jax.specs.trial import DataSpec, RecipeSpec


def labels_of(make_record, *settings):
    return make_labels([make_record(**setting).spec for setting in settings])


def test_names_that_tell_apart_are_used(make_record):
    settings = [{"arch": {"name": "ffem"}}, {"arch": {"name": "ffem_am"}, "attention": {"kind": "eca"}}]
    assert labels_of(make_record, *settings) == ["ffem", "ffem_am"]


def test_a_placement_sweep_reads_by_attention(make_record):
    settings = [
        {},
        {"attention": {"kind": "eca", "placement": "first"}},
        {"attention": {"kind": "eca", "placement": [0, 13]}},
        {"attention": {"kind": "se", "placement": "all"}},
    ]
    assert labels_of(make_record, *settings) == ["no attention", "ECA first", "ECA [0,13]", "SE"]


def test_a_kernel_sweep_reads_by_its_numbers(make_record):
    attentions = [{"gamma": 1.0}, {"gamma": 2.0, "b": 2.0}, {"kernel": "fixed", "kernel_size": 5}]
    settings = [{"attention": {"kind": "eca", **attention}} for attention in attentions]
    assert labels_of(make_record, *settings) == [
        "ECA kernel adaptive gamma 1 b 1",
        "ECA kernel adaptive gamma 2 b 2",
        "ECA kernel fixed kernel size 5",
    ]


def test_what_differs_is_named_and_nothing_else(make_record):
    settings = [
        {"arch": {"width_multiplier": 0.5, "head_channels": 0}, "data": {"resolution": 48}},
        {"arch": {"width_multiplier": 1.0}, "data": {"resolution": 96}},
    ]
    assert labels_of(make_record, *settings) == ["width 0.5, no head, 48 px", "width 1, head 1280, 96 px"]


def test_recipes_are_called_by_name(make_record):
    settings = [{"recipe": {"name": "paper", "momentum": 0.0}}, {"recipe": {"name": "modern"}}]
    assert labels_of(make_record, *settings) == ["paper", "modern"]


def test_stage_tables_fall_back_on_names_and_then_on_numbers(make_record):
    from ffem_jax.specs.architecture import StageSpec

    stages = [(StageSpec(channels=8 * n),) for n in (1, 2, 3)]
    settings = [{"arch": {"name": name, "stages": s}} for name, s in zip(["a", "a", "b"], stages, strict=True)]
    assert labels_of(make_record, *settings) == ["a #1", "a #2", "b"]


@pytest.mark.parametrize("count", [1, 2, 5])
def test_labels_are_unique_even_for_empty_specs(count):
    assert len(set(make_labels([{}] * count))) == count


def test_placement_is_empty_without_attention():
    assert describe_placement({"kind": "none", "placement": "all"}) == ""
    assert describe_placement({"kind": "se", "placement": "all"}) == "all"
    assert describe_placement({"kind": "se", "placement": [0, -1]}) == "[0,-1]"


def test_pretrainings_of_one_name_are_told_apart_by_their_recipe(make_record):
    recipes = (None, "modern", "arcface")
    records = [
        make_record(pretrain={"name": "rest", "data": DataSpec(resolution=64), "recipe": RecipeSpec(name=name)})
        if name else make_record()
        for name in recipes
    ]  # fmt: skip
    labels = make_labels([record.spec for record in records])
    assert labels[1:] == ["pretrained on rest, by modern", "pretrained on rest, by arcface"]
    # One recipe goes without saying, beside networks without a pretraining too.
    assert make_labels([record.spec for record in records[:2]])[1] == "pretrained on rest"
