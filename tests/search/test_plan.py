"""The shipped search, what users may change of it, and what they are told where that cannot be."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from ffem_jax.config.compose import Composer, ConfigError, find_sweep, open_composer, to_specs
from ffem_jax.search.candidates import CandidateMaker, add_cost
from ffem_jax.search.plan import SearchPlan, is_search, load_plan, plan_search, save_plan
from ffem_jax.specs.trial import to_plain


@pytest.fixture(scope="module")
def composer() -> Iterator[Composer]:
    with open_composer() as opened:
        yield opened


@pytest.fixture(scope="module")
def shipped(composer: Composer) -> SearchPlan:
    return plan_search(composer, "search", [])


def test_its_head_says_how_many_points_there_are(shipped: SearchPlan) -> None:
    head = find_sweep("search").read_text(encoding="utf-8")
    stated = re.search(r"The space: (\S+) points", head)
    assert stated is not None
    assert f"{shipped.space.size:.1e}".replace("e+", "e") == stated[1]


@pytest.mark.parametrize("arch", ["ffem", "ffem_am", "ffem_se"])
def test_the_paper_s_networks_are_in_the_space(composer: Composer, shipped: SearchPlan, arch: str) -> None:
    trial, _ = to_specs(composer.compose([*shipped.fixed, f"arch={arch}"]))
    point = shipped.space.read_point(to_plain(trial), to_plain(shipped.base))
    assert point is not None
    found, _ = CandidateMaker(composer, shipped.fixed, shipped.space).compose(point)
    assert found.arch.stages == trial.arch.stages
    assert found.arch.attention.kind == trial.arch.attention.kind


def test_a_point_is_composed_as_hydra_composes_it(composer: Composer) -> None:
    plan = plan_search(composer, "search", ["recipe=modern,paper", "data=synthetic"])
    maker = CandidateMaker(composer, plan.fixed, plan.space)
    assert maker.groups == {"recipe"}
    rng = np.random.default_rng(0)
    for _ in range(4):
        point = plan.space.sample(rng)
        expected = to_specs(composer.compose([*plan.fixed, *plan.space.to_overrides(point)]))
        assert maker.compose(point) == expected
        assert plan.space.read_point(to_plain(expected[0])) == point


def test_a_candidate_is_known_by_what_it_builds(composer: Composer, shipped: SearchPlan) -> None:
    maker = CandidateMaker(composer, shipped.fixed, shipped.space)
    point = shipped.space.sample(np.random.default_rng(0))
    point = shipped.space.get_active(
        {
            **point,
            "arch.attention.kind": "eca",
            "arch.attention.placement": "first",
            "arch.attention.position": "depthwise",
        }
        | {"arch.attention.kernel": "adaptive", "arch.attention.gamma": "4.0"}
    )
    other = shipped.space.get_active(
        {**point, "arch.attention.kernel": "fixed", "arch.attention.kernel_size": "3"} | {"arch.attention.gamma": "1.0"}
    )
    keys = {maker.make(one).key for one in (point, other, {**point, "arch.attention.placement": "last"})}
    # Of a first bottleneck's 8 to 40 channels gamma 4 makes a kernel of 1, and fixed is 3.
    assert len(keys) == 3
    assert maker.make(dict(point)).key == maker.make(point).key


def test_an_override_replaces_a_choice_and_what_depended_on_it(composer: Composer, shipped: SearchPlan) -> None:
    plan = plan_search(composer, "search", ["arch.attention.kind=none", "arch.stem_stride=2", "data.resolution=48,64"])
    names = set(plan.space.by_name)
    assert names - set(shipped.space.by_name) == {"data.resolution"}
    assert not any(name.startswith("arch.attention.") and name != "arch.attention.kind" for name in names)
    assert plan.space.by_name["arch.stem_stride"].values == ("2",)
    point = plan.space.sample(np.random.default_rng(0))
    trial, _ = CandidateMaker(composer, plan.fixed, plan.space).compose(point)
    assert trial.arch.stem_stride == 2
    assert str(trial.data.resolution) == point["data.resolution"]


def test_a_plan_is_read_back_as_it_was_written(
    composer: Composer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    plan = plan_search(composer, "search", ["hydra.sweeper.n_trials=7", "arch.stem_stride=1", "data=synthetic"])
    save_plan(plan, None, find_sweep("search"))
    monkeypatch.chdir("/")
    read = load_plan(composer, plan.folder)
    assert (read.space, read.settings, read.base) == (plan.space, plan.settings, plan.base)
    assert (read.sweep_dir, read.records_path) == (plan.sweep_dir, plan.records_path)
    assert read.identify() == plan.identify()
    assert plan.sweep_dir == tmp_path / "outputs" / "search-synthetic"


def test_what_is_a_search(composer: Composer) -> None:
    assert is_search(composer, "search", [])
    assert not is_search(composer, "placement", [])
    assert not is_search(composer, "", [])


@pytest.mark.parametrize(
    ("override", "message"),
    [
        (
            "hydra.sweeper.sampler=nsga3",
            "hydra.sweeper.sampler='nsga3' is not known; choose one of: random, nsga2, tpe",
        ),
        (
            "hydra.sweeper.objectives=[accuracy,bytes]",
            "hydra.sweeper.objectives='bytes' is not known; choose one of: acc",
        ),
        (
            "hydra.sweeper.objectives=[accuracy]",
            "hydra.sweeper.objectives=['accuracy'] must be accuracy and 1 or 2 of: b",
        ),
        ("hydra.sweeper.storage=mysql://host/x", "hydra.sweeper.storage='mysql://host/x' is unknown; leave it empty"),
        ("hydra.sweeper.n_trials=0", "hydra.sweeper.n_trials=0 must be at least 1"),
        ("hydra.sweeper.n_trails=9", "hydra.sweeper.n_trails: "),
        ("hydra.sweeper.stale_seconds=1", "hydra.sweeper.stale_seconds=1.0 must be at least 30.0"),
        ("arch.stem_stride=1,3", None),
        ("arch.stages.9.repeats=1,2", "none of 20 networks of the space can be built: "),
        ("arch.stem_strode=1,2", "arch.stem_strode is not known; did you mean arch.stem_stride?"),
        ("recipe=modern,papper", "recipe=papper is not known; did you mean paper?"),
    ],
)
def test_a_mistake_is_one_line(composer: Composer, override: str, message: str | None) -> None:
    if message is None:  # some points can be built: the others are refused when they come up
        plan = plan_search(composer, "search", [override])
        maker = CandidateMaker(composer, plan.fixed, plan.space)
        point = plan.space.sample(np.random.default_rng(0))
        assert maker.make({**point, "arch.stem_stride": "3"}).reason == "arch.stem_stride=3 must be 1 or 2"
        return
    with pytest.raises((ConfigError, ValueError)) as caught:
        plan_search(composer, "search", [override])
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


@pytest.mark.slow
@pytest.mark.parametrize("activation", ["relu6", "relu", "hard_swish", "prelu"])
def test_networks_of_the_space_are_built_costed_and_written_for_a_phone(
    composer: Composer, shipped: SearchPlan, tmp_path: Path, activation: str
) -> None:
    onnx = pytest.importorskip("onnx")
    from ffem_jax.latency.measure import write_untrained

    maker = CandidateMaker(composer, shipped.fixed, shipped.space)
    point = shipped.space.sample(np.random.default_rng(len(activation)))
    small = {"arch.width_multiplier": "0.25", "arch.activation": activation, "arch.pooling": "global_depthwise"}
    candidate = add_cost(maker.make(shipped.space.get_active({**point, **small})))
    assert candidate.trial is not None
    write_untrained(candidate.trial.arch, 48, {str(tmp_path / "onnx"): ("onnx", "float32")})
    (path,) = (tmp_path / "onnx").glob("*.onnx")
    weights = sum(np.prod(one.dims) for one in onnx.load(path).graph.initializer)
    # The cost's bytes are of four-byte weights and a topology of some kilobytes a block.
    assert (
        4 * weights <= candidate.costs["bytes_float32"] <= 4 * weights + 2500 * (candidate.trial.arch.block_count + 4)
    )
