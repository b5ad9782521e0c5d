"""Settings and their declarations: every one has a meaning, and what is declared is what is checked."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from ffem_jax.config.compose import open_composer, to_application
from ffem_jax.config.schema import ApplicationSpec, LauncherSpec
from ffem_jax.specs.data import DataSpec
from ffem_jax.specs.fields import SpecError, check_fields, get_added_defaults, list_settings, select_used, setting
from ffem_jax.specs.protocol import ProtocolSpec
from ffem_jax.specs.recipe import RecipeSpec
from ffem_jax.specs.run import RunSpec
from ffem_jax.specs.trial import PretrainSpec, TrialSpec, trial_key

SETTINGS = list_settings(ApplicationSpec)
SPECS = {"data": DataSpec, "protocol": ProtocolSpec, "recipe": RecipeSpec, "run": RunSpec}
FIELDS = [(prefix, kind, field) for prefix, kind in SPECS.items() for field in dataclasses.fields(kind)]


@pytest.mark.parametrize("one", SETTINGS, ids=lambda one: one.name)
def test_every_setting_has_a_meaning_in_a_sentence(one: Any) -> None:
    assert one.meaning[:1].isupper() or one.meaning[:1].isdigit()
    assert one.meaning.endswith(".")
    assert one.type


def test_settings_are_called_what_is_typed() -> None:
    names = [one.name for one in SETTINGS]
    assert len(set(names)) == len(names)
    config = OmegaConf.structured(ApplicationSpec)
    for name in names:
        assert OmegaConf.select(config, name.replace(".N.", "[0].")) is not None or name == "launcher.partition", name
    expected = {"arch.attention.kind", "arch.stages.N.channels", "pretrain.data.root", "run.seeds", "seed"}
    assert expected <= set(names)


def test_a_setting_says_all_that_is_declared() -> None:
    found = {one.name: one for one in SETTINGS}
    rotation = found["recipe.rotation"]
    assert (rotation.default, rotation.low, rotation.high, rotation.unit) == (0.0, 0.0, 180.0, "degrees")
    assert found["recipe.loss"].choices[-1] == "cosface"
    assert found["recipe.margin"].source == "Deng et al., CVPR 2019; Wang et al., CVPR 2018"
    assert found["data.crop"].type == "float"


@pytest.mark.parametrize(("prefix", "kind", "field"), FIELDS, ids=lambda one: getattr(one, "name", None))
def test_what_is_declared_is_what_is_checked(prefix: str, kind: Any, field: Any) -> None:
    """Just outside each bound, of the wrong type and not a number: refused under the setting's name."""
    name, low, high = f"{prefix}.{field.name}", field.metadata["low"], field.metadata["high"]
    step = 1 if field.type != "float" else 1e-6
    wrong: list[Any] = [low - step] if low is not None else []
    wrong += [high + step] if high not in (None, math.inf) else []
    wrong += ["no such choice"] if field.metadata["choices"] else []
    wrong += {
        "int": [1.5, True, "1", None, math.nan],
        "float": [math.nan, -math.inf, True, "1", None],
        "bool": [1, "true", None],
        "str": [1, None],
    }.get(field.type.removeprefix("tuple[").removesuffix(", ...]"), [])
    wrong += [math.inf] if field.type == "float" and high != math.inf else []
    assert wrong
    for value in wrong:
        value = (value,) if field.type.startswith("tuple[") else value
        with pytest.raises(SpecError) as caught:
            kind(**{field.name: value})
        assert str(caught.value).startswith(f"{name}="), (value, str(caught.value))
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("prefix", "kind", "field"), FIELDS, ids=lambda one: getattr(one, "name", None))
def test_both_bounds_are_inside(prefix: str, kind: Any, field: Any) -> None:
    for value in (field.metadata["low"], field.metadata["high"]):
        if value is None or field.name == "fold":
            continue
        value = (value,) if field.name == "seeds" else value
        assert getattr(kind(**{field.name: value}), field.name) == value


def test_a_limit_of_size_may_be_infinite() -> None:
    assert RunSpec(cap_mb=math.inf).measure_excess(10**12, 1)[0] == -1.0


@pytest.mark.parametrize("wrong", ["data.resolution=8", "seed=-1", "protocol.fold=9", "recipe.loss=x"])
def test_a_setting_of_a_pretraining_is_called_by_its_own_name(wrong: str) -> None:
    with open_composer() as composer:
        config = composer.compose(["pretrain=lfw_rest", f"pretrain.{wrong}"])
        with pytest.raises(SpecError) as caught:
            to_application(config)
    assert str(caught.value).startswith(f"pretrain.{wrong.split('=')[0]}=")


def test_each_seed_of_a_list_is_checked() -> None:
    for wrong in (-1, 2**31, 1.5):
        with pytest.raises(SpecError, match=r"run\.seeds=.* must be"):
            RunSpec(seeds=(0, wrong))  # type: ignore[arg-type]
    assert RunSpec(seeds=[1, 2]).seeds == (1, 2)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: LauncherSpec(name="kubernetes"), "launcher.name='kubernetes' is not known; choose one of: local"),
        (lambda: LauncherSpec(jobs=0), "launcher.jobs=0 must be at least 1"),
        (lambda: PretrainSpec(seed=-1), "pretrain.seed=-1 must be between 0 and 2147483647"),
        (lambda: TrialSpec(seed=1.5), "seed=1.5 must be a whole number"),  # type: ignore[arg-type]
        (lambda: ProtocolSpec(split_seed=-1), "protocol.split_seed=-1 must be at least 0"),
        (lambda: DataSpec(seed=-1), "data.seed=-1 must be at least 0"),
        (lambda: RecipeSpec(learning_rate=math.inf), "recipe.learning_rate=inf must be finite"),
        (lambda: RecipeSpec(flip=1), "recipe.flip=1 must be true or false"),  # type: ignore[arg-type]
    ],
)
def test_messages(build: Any, message: str) -> None:
    with pytest.raises(SpecError) as caught:
        build()
    assert message in str(caught.value)


def test_numpy_s_numbers_are_the_same_setting() -> None:
    made = TrialSpec(
        seed=np.int64(3),  # type: ignore[arg-type]
        recipe=RecipeSpec(epochs=np.int32(2), learning_rate=np.float32(0.5)),  # type: ignore[arg-type]
    )
    assert trial_key(made) == trial_key(TrialSpec(seed=3, recipe=RecipeSpec(epochs=2, learning_rate=0.5)))
    with pytest.raises(SpecError, match=r"recipe\.epochs=.* must be a whole number"):
        RecipeSpec(epochs=np.float64(2.0))  # type: ignore[arg-type]


# --------------------------------------------------------------------- a spec made for the test


@dataclass(frozen=True)
class Row:
    width: int = setting(8, "Its width.", low=1, unit="channels")


@dataclass(frozen=True)
class Made:
    name: str = setting("a", "Its name.", choices=lambda: tuple(CHOICES))
    stride: int = setting(1, "Its stride.", choices=(1, 2))
    rate: float = setting(0.5, "Its rate.", low=0.0, high=1.0, source="a paper")
    row: Row = setting(factory=Row)  # noqa: RUF009
    rows: tuple[Row, ...] = setting((Row(),), "Its rows.")
    later: float = setting(0.0, "Came later.", added=True)
    sometimes: float = setting(2.0, "Came later.", added=True, used=lambda made: made.name == "b")

    def __post_init__(self) -> None:
        object.__setattr__(self, "rows", tuple(self.rows))
        check_fields(self, "made")


CHOICES = ["a", "b"]


def test_choices_are_those_of_the_moment() -> None:
    with pytest.raises(SpecError, match="made.name='c' is not known; choose one of: a, b$"):
        Made(name="c")
    CHOICES.append("c")
    try:
        assert Made(name="c").name == "c"
        assert list_settings(Made, "made")[0].choices == ("a", "b", "c")
    finally:
        CHOICES.remove("c")


def test_choices_of_numbers_read_as_a_sentence() -> None:
    with pytest.raises(SpecError, match="made.stride=3 must be 1 or 2"):
        Made(stride=3)


def test_settings_of_specs_within_are_listed_by_their_whole_names() -> None:
    names = ["name", "stride", "rate", "row.width", "rows", "rows.N.width", "later", "sometimes"]
    assert [one.name for one in list_settings(Made, "made")] == [f"made.{name}" for name in names]
    assert list_settings(Made)[0].name == "name"


def test_a_later_field_stands_where_it_is_used() -> None:
    assert set(select_used(Made())) == {"name", "stride", "rate", "row", "rows"}
    assert {"later", "sometimes"} <= set(select_used(Made(name="b", later=1.0)))
    assert get_added_defaults(Made) == {"later": 0.0}


def test_declarations_do_no_harm_in_a_structured_config() -> None:
    """Hydra's schema is made of the same dataclasses: types, defaults and objects are those of plain fields."""
    config = OmegaConf.structured(Made)
    assert OmegaConf.to_container(config)["rows"] == [{"width": 8}]  # type: ignore[call-overload, index]
    assert OmegaConf.to_object(config) == Made()
    for override in ("stride=x", "unknown=1", "rate=[1]"):
        with pytest.raises(OmegaConfBaseException):
            OmegaConf.merge(config, OmegaConf.from_dotlist([override]))
