"""Every config file composes to checked specs, and every mistake comes back as one line that says what to do."""

from __future__ import annotations

import dataclasses
import importlib.util
import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest
from hydra.types import RunMode
from hypothesis import given
from hypothesis import strategies as st
from omegaconf import OmegaConf

from ffem_jax.config import compose as configuration
from ffem_jax.config import plugins
from ffem_jax.config.compose import Composer, ConfigError, open_composer, to_application, to_specs
from ffem_jax.config.overrides import quote_value
from ffem_jax.config.schema import LauncherSpec
from ffem_jax.specs.architecture import AttentionSpec, SpecError, StageSpec
from ffem_jax.specs.run import LOGGERS
from ffem_jax.specs.trial import ProtocolSpec, RecipeSpec, RunSpec, TrialSpec

GROUPS = configuration.list_groups()
CHOICES = [(group, choice) for group, choices in GROUPS.items() for choice in choices]


@pytest.fixture(scope="module")
def composer() -> Iterator[Composer]:
    with open_composer() as opened:
        yield opened


def compose(composer: Composer, *overrides: str) -> tuple[TrialSpec, RunSpec]:
    composer.parse(overrides)
    return to_specs(composer.compose(overrides))


def test_the_fixed_names_are_there() -> None:
    assert GROUPS == {
        "arch": [
            "ffem",
            "ffem_am",
            "ffem_se",
            "mobilefacenet",
            "mobilenetv2",
            "shufflenetv2",
            "shufflenetv2_0_5",
            "shufflenetv2_1_5",
        ],
        "attention": ["cbam", "coordinate", "eca", "none", "se"],
        "data": ["folder", "lfw", "lfw52", "lfw_rest", "parquet", "recordio", "synthetic", "tfds", "webdataset"],
        "launcher": ["joblib", "local", "ray", "slurm"],
        "logger": ["mlflow", "none", "tensorboard", "wandb"],
        "protocol": ["bins", "holdout", "kfold", "open_set", "repeated", "view2"],
        "pretrain": ["lfw_rest", "none"],
        "recipe": [
            "ablation/arcface",
            "ablation/averaged",
            "ablation/clipped",
            "ablation/cosface",
            "ablation/erased",
            "ablation/gentle",
            "ablation/lit",
            "ablation/longer",
            "ablation/mirror_tested",
            "ablation/shifted",
            "ablation/softmax",
            "ablation/turned",
            "ablation/unmirrored",
            "ablation/unsmoothed",
            "arcface",
            "cosface",
            "distill",
            "fine_tuning",
            "modern",
            "paper",
            "strong",
        ],
        "teacher": ["ffem", "none", "onnx", "vectors"],
    }


@pytest.mark.parametrize(("group", "choice"), CHOICES, ids=lambda value: value)
def test_every_file_composes_and_is_named_after_itself(composer: Composer, group: str, choice: str) -> None:
    needed = plugins.LAUNCHER_PLUGINS | {one.name: (one.library, one.install) for one in LOGGERS.kinds.values()}
    module = needed.get(choice, ("", ""))[0] or "json"
    if importlib.util.find_spec(module) is None:
        pytest.skip(f"{module} is not installed")
    # A teacher and a recipe that has a use for one go together.
    taught = {"recipe": ["teacher=vectors", "teacher.path=t.npz"], "teacher": ["recipe=distill", "teacher.path=t.npz"]}
    more = taught[group] if choice == "distill" or (group == "teacher" and choice != "none") else []
    composer.parse([f"{group}={choice}", *more])
    application = to_application(composer.compose([f"{group}={choice}", *more], multirun=True))
    if group == "attention":
        assert application.arch.attention.kind == choice
    elif group == "logger":
        assert application.run.logger == choice
    else:
        assert getattr(application, group).name == {"repeated": "kfold"}.get(choice, choice.split("/")[-1])


def test_a_logger_without_its_library_is_refused_before_anything_runs(
    composer: Composer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(ConfigError, match=r"logger=mlflow needs mlflow.*in the checkout, pip install .*'\.\[mlflow\]'"):
        composer.parse(["logger=mlflow"])


ABLATION = sorted((configuration.find_conf_dir() / "recipe" / "ablation").iterdir())


@pytest.mark.parametrize("path", ABLATION, ids=lambda path: path.stem)
def test_an_ablation_s_recipe_is_modern_with_what_it_names_changed(composer: Composer, path: Path) -> None:
    recipe, modern = (compose(composer, f"recipe={name}")[0].recipe for name in (f"ablation/{path.stem}", "modern"))
    written = {line.split(":")[0] for line in path.read_text().split("_self_")[1].splitlines() if ":" in line}
    fields = [field.name for field in dataclasses.fields(recipe)]
    changed = {name for name in fields if getattr(recipe, name) != getattr(modern, name)}
    assert {"name"} < changed <= written


@pytest.mark.parametrize("path", sorted(configuration.find_conf_dir().rglob("*.yaml")), ids=lambda path: path.stem)
def test_every_file_says_what_it_is_and_how_to_use_it(path: Path) -> None:
    head = itertools.takewhile(lambda line: line.startswith("#"), path.read_text(encoding="utf-8").splitlines())
    assert any(line.startswith("#   ffem ") for line in head)


@pytest.mark.parametrize("name", GROUPS["arch"])
def test_the_arch_files_are_the_presets(composer: Composer, name: str) -> None:
    from ffem_jax.config.presets import PRESETS

    assert compose(composer, f"arch={name}")[0].arch == PRESETS[name]


def test_a_repeated_split_is_the_seeds(composer: Composer) -> None:
    first, second = (compose(composer, "protocol=repeated", f"seed={seed}")[0].protocol for seed in (0, 7))
    assert (first, second) == (ProtocolSpec(name="kfold"), ProtocolSpec(name="kfold", split_seed=7))
    assert compose(composer, "protocol=repeated", "seed=7", "protocol.split_seed=1")[0].protocol.split_seed == 1


def test_the_modern_recipe_is_the_default_of_the_spec(composer: Composer) -> None:
    assert compose(composer, "recipe=modern")[0].recipe == RecipeSpec()


def test_the_paper_recipe_is_the_paper_s(composer: Composer) -> None:
    recipe = compose(composer, "recipe=paper")[0].recipe
    assert (recipe.epochs, recipe.batch_size, recipe.optimizer) == (30, 32, "sgd")
    assert (recipe.learning_rate, recipe.schedule, recipe.decay) == (0.1, "exponential", 0.96)
    assert (recipe.momentum, recipe.nesterov, recipe.weight_decay, recipe.label_smoothing) == (0, False, 0, 0)
    assert (recipe.crop_padding, recipe.flip, recipe.brightness, recipe.contrast, recipe.erase) == (0, False, 0, 0, 0)


def test_lfw52_is_the_data_readme_s(composer: Composer) -> None:
    data = compose(composer, "data=lfw52")[0].data
    assert (data.people, data.max_images, data.crop) == (52, 30, 0.56)


def test_a_pretraining_takes_the_trial_s_resolution_folder_and_cache(composer: Composer) -> None:
    places = ["data.root=/faces", "data.cache_dir=/cache", "data.resolution=64"]
    trial, _ = compose(composer, "pretrain=lfw_rest", "seed=3", *places)
    first = trial.pretraining
    assert first is not None
    assert (first.data.name, first.data.min_images, first.data.max_images, first.data.crop) == ("lfw_rest", 2, 0, 0.56)
    assert (first.data.root, first.data.cache_dir, first.data.resolution) == ("/faces", "/cache", 64)
    assert (first.protocol.test_per_person, first.protocol.test_people) == (1, 200)
    assert (first.recipe.name, first.recipe.epochs, first.seed, first.arch) == ("arcface", 60, 0, trial.arch)
    assert compose(composer, "seed=3")[0].pretraining is None


def test_a_pretraining_has_settings_of_its_own(composer: Composer) -> None:
    own = ["recipe@pretrain.recipe=cosface", "pretrain.recipe.epochs=7", "pretrain.seed=${seed}"]
    trial, _ = compose(composer, "pretrain=lfw_rest", "seed=3", *own)
    assert (trial.pretrain.recipe.name, trial.pretrain.recipe.loss, trial.pretrain.recipe.epochs) == (
        "cosface",
        "cosface",
        7,
    )
    assert (trial.pretrain.seed, trial.recipe.name) == (3, "modern")
    with pytest.raises(ConfigError, match="pretrain.recipe.epoch is not known; did you mean pretrain.recipe.epochs"):
        compose(composer, "pretrain=lfw_rest", "pretrain.recipe.epoch=7")


def test_left_alone_it_is_ffem_am_on_lfw52(composer: Composer) -> None:
    from ffem_jax.config.presets import PRESETS

    trial, run = compose(composer)
    assert (trial.arch, trial.data.name, trial.protocol.name, trial.seed) == (PRESETS["ffem_am"], "lfw52", "holdout", 0)
    assert run == RunSpec()


def test_attention_goes_on_top_of_any_network(composer: Composer) -> None:
    arch = compose(composer, "attention=se", "arch=mobilenetv2")[0].arch
    assert (arch.name, arch.attention.kind, arch.block_count) == ("mobilenetv2", "se", 17)
    assert compose(composer, "arch=ffem_am", "attention=none")[0].arch.attention.kind == "none"


def test_typed_values_become_tuples_and_specs(composer: Composer) -> None:
    trial, run = compose(
        composer,
        "arch.attention.kind=eca",
        "arch.attention.placement=[0,13]",
        "run.seeds=[0,1]",
        "arch.stages=[{expansion: 1, channels: 8},{channels: 24, repeats: 13, stride: 2}]",
    )
    assert trial.arch.attention == AttentionSpec(kind="eca", placement=(0, 13))
    assert trial.arch.stages == (StageSpec(1, 8), StageSpec(6, 24, 13, 2))
    assert run.seeds == (0, 1)


def test_a_launcher_s_settings_reach_hydra(composer: Composer) -> None:
    config = composer.compose(["launcher=joblib", "launcher.jobs=3"], multirun=True)
    assert OmegaConf.to_container(config.hydra.launcher, resolve=True)["n_jobs"] == 3  # type: ignore[index,call-overload]
    assert to_application(config).launcher == LauncherSpec("joblib", jobs=3)
    assert not to_application(config).run.progress


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("arch.atention.kind=eca", "did you mean arch.attention.kind?"),
        ("sed=1", "did you mean seed?"),
        ("+foo=1", "the config has: arch, data"),
        ("arch=ffemm", "did you mean ffem? choose one of: ffem, ffem_am, ffem_se, mobilefacenet"),
        ("arch=null", "choose one of: ffem"),
        ("data=foo/bar", "choose one of: folder, lfw, lfw52, lfw_rest, parquet, recordio, synthetic, tfds, webdataset"),
        ("hydra/launcher=cloud", "basic"),
        ("arch.attention.kind=ecaa", "choose one of: none, eca, se"),
        ("arch.attention.placement=middle", "first_last"),
        ("seed=abc", "seed: Value 'abc'"),
        ("seed=1.5", "seed: Value '1.5'"),
        ("seed=-1", "seed=-1 must be between 0"),
        ("run.seeds=[a]", "run.seeds[0]"),
        ("arch.stages=[{chanels: 8}]", "chanels"),
        ("arch.stages.0.repets=2", "arch.stages.0 has: expansion, channels, repeats, stride"),
        ("arch.stages.first.repeats=2", "give it whole, or a row's value as arch.stages.0.channels"),
        ("arch.stages.7.repeats=2", "arch.stages has no row 7; its rows are 0 to 6"),
        ("arch.seed.x=2", "arch has: name"),
        ("seed.x=2", "seed is a value and has no keys"),
        ("data.resolution=16", "total stride of 32"),
        ("launcher.jobs=0", "launcher.jobs=0 must be at least 1"),
        ("arch", "'arch' cannot be read as key=value"),
        ("arch.stages=[1", "cannot be read as key=value"),
        ("arch.name=${nowhere}", "arch.name"),
        ("hydra.foo=1", "hydra.foo"),
        ("+seed=3", "seed"),
    ],
)
def test_a_mistake_is_one_line_that_says_what_to_do(composer: Composer, override: str, told: str) -> None:
    with pytest.raises((ConfigError, SpecError)) as caught:
        composer.parse([override])
        to_application(composer.compose([override]))
    assert told in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("launcher", "command"),
    [
        ("ray", "pip install -c constraints.txt -e '.[ray]'"),
        ("slurm", "pip install -c constraints.txt -e '.[slurm]'"),
        ("submitit_local", "pip install -c constraints.txt -e '.[slurm]'"),
    ],
)
def test_a_missing_plugin_names_its_extra(
    composer: Composer, monkeypatch: pytest.MonkeyPatch, launcher: str, command: str
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    group = "hydra/launcher" if launcher == "submitit_local" else "launcher"
    with pytest.raises(ConfigError, match=r"not installed") as caught:
        composer.parse([f"{group}={launcher}"])
    assert command in str(caught.value)


@given(st.text(st.characters(exclude_categories=("Cs", "Cc")), max_size=20).filter(lambda text: "${" not in text))
def test_a_quoted_value_is_read_back_as_it_was(text: str) -> None:
    from hydra.core.override_parser.overrides_parser import OverridesParser

    override = OverridesParser.create().parse_override(f"run.records={quote_value(text)}")
    assert str(override.value()) == text


# ------------------------------------------------------------------------------------ folders


def test_a_wheel_s_folders_come_before_the_checkout_s(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "site-packages" / "ffem_jax"
    (tmp_path / "site-packages" / "conf").mkdir(parents=True)
    package.mkdir()
    monkeypatch.setattr(configuration, "__file__", str(package / "config" / "compose.py"))
    assert configuration.find_conf_dir() == tmp_path / "site-packages" / "conf"
    (package / "conf").mkdir()
    assert configuration.find_conf_dir() == package / "conf"


def test_sweeps_are_found_from_anywhere_the_user_s_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    shipped = configuration.find_sweeps()
    assert {"quickstart", "placement", "depth", "kernel", "resolution"} <= set(shipped)
    own, other = tmp_path / "sweeps", tmp_path / "other"
    for folder in (own, other / "sweeps"):
        folder.mkdir(parents=True)
        (folder / "depth.yaml").write_text("# Mine?\n")
    (other / "width.yaml").write_text("# @package _global_\n# How wide?\n# And more.\n")
    assert configuration.find_sweeps()["depth"] == own / "depth.yaml"
    found = configuration.find_sweeps(other)
    assert (found["depth"], found["width"]) == (other / "sweeps" / "depth.yaml", other / "width.yaml")
    assert configuration.read_question(found["width"]) == "How wide?"


def test_an_unknown_sweep_names_the_known_ones() -> None:
    with pytest.raises(ConfigError, match=r"did you mean placement\? choose one of: .*quickstart"):
        configuration.find_sweep("placment")


@pytest.mark.parametrize("text", ["a: [1", "- a\n- b\n"])
def test_a_broken_sweep_file_is_named(tmp_path: Path, text: str) -> None:
    path = tmp_path / "broken.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=r"broken\.yaml") as caught:
        configuration.register_sweep("broken", path)
    assert "\n" not in str(caught.value)


def test_one_value_of_one_stage_changes_and_nothing_else(composer: Composer) -> None:
    base, _ = compose(composer, "arch=mobilenetv2")
    trial, _ = compose(composer, "arch=mobilenetv2", "arch.stages.2.repeats=7", "arch.stages.2.channels=40", "seed=3")
    rows = list(base.arch.stages)
    rows[2] = dataclasses.replace(rows[2], repeats=7, channels=40)
    assert trial == dataclasses.replace(base, arch=dataclasses.replace(base.arch, stages=tuple(rows)), seed=3)
    # As a launcher gets them, which composes by itself.
    written = composer.write_out_rows(["arch=mobilenetv2", "arch.stages.2.repeats=7", "seed=3"])
    assert written[:2] == ["arch=mobilenetv2", "seed=3"]
    assert to_specs(composer.loader.load_configuration("config", written, run_mode=RunMode.RUN)) == compose(
        composer, "arch=mobilenetv2", "arch.stages.2.repeats=7", "seed=3"
    )
