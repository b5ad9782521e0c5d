"""The package from Python: light until it is used, its names whole, its errors one line, its vectors of unit length."""

from __future__ import annotations

import importlib
import inspect
import json
import logging
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
from made_records import build_record

import ffem_jax
from ffem_jax import api
from ffem_jax.embed import EmbedError
from ffem_jax.export.embedder import make_embedder
from ffem_jax.moved import MOVED
from ffem_jax.records.record import append_record
from ffem_jax.training.weights import load_trial

PACKAGE = Path(ffem_jax.__file__).parent
FUNCTIONS = [name for name in api.__all__ if inspect.isfunction(getattr(api, name))]
# A network that XLA compiles in seconds.
TINY = (
    "arch=ffem",
    "arch.stem_channels=8",
    "arch.stages=[{expansion:1,channels:8,repeats:1,stride:1},{expansion:2,channels:8,repeats:1,stride:2}]",
    "arch.head_channels=0",
    "arch.embedding_dim=8",
    "recipe.epochs=1",
    "recipe.batch_size=6",
    "protocol.test_per_person=2",
    "run.progress=false",
)


def draw(count: int = 12) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, 16, 16, 3), np.uint8)


# ------------------------------------------------------------------------------------------ names


def test_the_package_has_the_names_of_the_api() -> None:
    assert sorted(ffem_jax.__all__) == sorted([*api.__all__, "__version__"])
    assert all(getattr(ffem_jax, name) is getattr(api, name) for name in api.__all__)
    assert set(ffem_jax.__all__) <= set(dir(ffem_jax))
    with pytest.raises(AttributeError, match="has no attribute 'train_netwrok'"):
        _ = ffem_jax.train_netwrok  # type: ignore[attr-defined]


def test_no_name_is_that_of_a_module_of_today_or_before() -> None:
    # Importing `ffem_jax.NAME` would put the module in the place of the function.
    modules = {path.stem for path in PACKAGE.iterdir()} | {name.partition(".")[0] for name in MOVED}
    assert set(api.__all__) & modules == set()


def test_importing_the_package_loads_nothing_heavy_and_the_readers_load_no_jax() -> None:
    script = (
        "import sys, ffem_jax\n"
        "assert 'ffem_jax.api' not in sys.modules\n"
        "assert not {'jax', 'numpy', 'hydra', 'PIL'} & set(sys.modules)\n"
        "ffem_jax.read_records, ffem_jax.train_network, ffem_jax.load_network\n"
        "assert not {'jax', 'hydra', 'matplotlib'} & set(sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", FUNCTIONS)
def test_every_function_says_what_it_takes_gives_and_raises(name: str) -> None:
    function = getattr(api, name)
    signature = inspect.signature(function)
    assert signature.return_annotation is not signature.empty
    assert all(parameter.annotation is not parameter.empty for parameter in signature.parameters.values())
    text = inspect.getdoc(function) or ""
    if name in ("describe_comparison", "load_faces"):
        return  # a line says all
    assert "Args:" in text
    assert "Raises:" in text
    args = text.partition("Args:")[2].partition("\n\n")[0]
    for parameter in set(signature.parameters) - {"records"}:
        assert f"    {parameter}: " in args, f"{name} does not say what {parameter} is"


def test_type_checkers_see_the_names() -> None:
    assert (PACKAGE / "__init__.pyi").read_text().startswith("from ffem_jax.api import *")
    assert (PACKAGE / "py.typed").exists()


# --------------------------------------------------------------------------------------- training


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> ffem_jax.DataSpec:
    folder = tmp_path_factory.mktemp("made") / "faces"
    return ffem_jax.faces_from_arrays(draw(), ["ada", "bob", "eve"] * 4, folder=folder)


@pytest.fixture(scope="module")
def trained(data: ffem_jax.DataSpec, tmp_path_factory: pytest.TempPathFactory) -> ffem_jax.TrainedTrial:
    return ffem_jax.train_network(data, *TINY, out=tmp_path_factory.mktemp("trained"))


def test_a_trial_is_trained_recorded_and_not_trained_again(
    data: ffem_jax.DataSpec, trained: ffem_jax.TrainedTrial
) -> None:
    record = trained.record
    assert (record.status, record.tested, record.spec["recipe"]["epochs"]) == ("done", 6, 1)
    assert ffem_jax.read_records(trained.records_path) == [record]
    again = ffem_jax.train_network(data, *TINY, out=trained.records_path.parent)
    assert (again.record, again.folder) == (record, trained.folder)
    assert len(trained.records_path.read_text().splitlines()) == 1


def test_the_command_line_finds_the_trial_by_the_same_key(
    data: ffem_jax.DataSpec, trained: ffem_jax.TrainedTrial, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from ffem_jax.cli import main

    words = ["data=folder", f"data.root={data.root}", "data.resolution=16", "data.min_images=4"]
    records = f"run.records={trained.records_path}"
    assert main(["train", *TINY, *words, records, f"hydra.run.dir={tmp_path}", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["trial_key"] == trained.record.trial_key
    assert len(trained.records_path.read_text().splitlines()) == 1


def test_the_same_faces_elsewhere_are_the_same_trial_and_its_network_is_found(trained: ffem_jax.TrainedTrial) -> None:
    moved = ffem_jax.faces_from_arrays(draw(), ["ada", "bob", "eve"] * 4)
    again = ffem_jax.train_network(moved, *TINY, out=trained.records_path.parent)
    assert (again.record.trial_key, again.folder) == (trained.record.trial_key, trained.folder)
    assert again.network.model_id == trained.network.model_id


def test_a_network_over_the_limit_is_recorded_and_says_why_there_is_none(
    data: ffem_jax.DataSpec, tmp_path: Path
) -> None:
    refused = ffem_jax.train_network(data, *TINY, "run.cap_mb=0.001", out=tmp_path)
    assert refused.record.status == "over_cap"
    with pytest.raises(ffem_jax.TrainingError, match=r"ffem is not trained: over_cap, .* over the cap of 0\.001 MB"):
        _ = refused.network


def test_a_training_that_fails_raises_and_stays_recorded(data: ffem_jax.DataSpec, tmp_path: Path) -> None:
    with pytest.raises(ffem_jax.TrainingError, match="ffem seed 0 failed: ") as caught:
        ffem_jax.train_network(data, *TINY, "recipe.learning_rate=1e30", "recipe.clip_norm=0", out=tmp_path)
    assert "\n" not in str(caught.value)
    assert [record.status for record in ffem_jax.read_records(tmp_path)] == ["failed"]


@pytest.mark.slow
def test_several_seeds_are_several_records_and_each_has_its_network(data: ffem_jax.DataSpec, tmp_path: Path) -> None:
    both = ffem_jax.train_network(data, *TINY, "run.seeds=[0,1]", out=tmp_path)
    assert [record.seed for record in both.records] == [0, 1]
    with pytest.raises(ffem_jax.TrainingError, match=r"2 seeds were trained at once; take one of \.records"):
        _ = both.record
    ids = {ffem_jax.load_network(both.folder, seed).model_id for seed in (0, 1)}
    assert len(ids) == 2


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("data=lfw52", "data=lfw52 is not allowed here: `data` chooses the faces"),
        ("data.resolution=32", "data.resolution=32 is not allowed here"),
        ("run.records=x", "is not allowed here"),
        ("hydra.run.dir=x", "is not allowed here"),
        ("launcher=joblib", "is not allowed here"),
        ("recipe.epoch=3", "epochs"),
        ("arch=ffem_a", "ffem_am"),
        ("seed=0,1", "seed"),
        ("epochs", "epochs"),
    ],
)
def test_a_setting_that_there_is_not_is_one_line(
    data: ffem_jax.DataSpec, tmp_path: Path, word: str, message: str
) -> None:
    with pytest.raises(ffem_jax.FfemError, match=message) as caught:
        ffem_jax.train_network(data, word, out=tmp_path)
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_faces_that_are_no_data_set_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ffem_jax.FfemError, match="data is str; give faces_from_folder"):
        ffem_jax.train_network("faces", out=tmp_path)  # type: ignore[arg-type]
    with pytest.raises(ffem_jax.FfemError, match="is missing; it must contain one folder per person"):
        ffem_jax.train_network(ffem_jax.DataSpec(name="folder", root=str(tmp_path / "none")), out=tmp_path)
    with pytest.raises(ffem_jax.FfemError):
        ffem_jax.faces_from_folder(tmp_path / "none")


def test_a_folder_with_odd_characters_means_itself(tmp_path: Path) -> None:
    folder = tmp_path / "it's ${x}, [a=b]"
    data = ffem_jax.faces_from_arrays(draw(), ["ada", "bob", "eve"] * 4, folder=folder)
    assert ffem_jax.faces_from_folder(folder, resolution=16) == data
    done = ffem_jax.train_network(data, *TINY, "run.cap_mb=0.001", out=tmp_path / "out, 'a'")
    assert done.record.spec["data"]["root"] == str(folder)
    assert done.records_path.parent == tmp_path / "out, 'a'"


def test_the_logging_and_the_folder_of_the_script_stay_its_own(
    data: ffem_jax.DataSpec, trained: ffem_jax.TrainedTrial, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    handlers, level = list(logging.getLogger().handlers), logging.getLogger().level
    ffem_jax.train_network(data, *TINY, out=trained.records_path.parent)
    assert (logging.getLogger().handlers, logging.getLogger().level) == (handlers, level)
    assert Path.cwd() == tmp_path
    assert list(tmp_path.iterdir()) == []


def test_people_who_are_left_out_are_named_by_a_warning(tmp_path: Path) -> None:
    labels = ["ada", "bob", "eve"] * 4 + ["zoe"]
    data = ffem_jax.faces_from_arrays(draw(13), labels, folder=tmp_path / "faces")
    with pytest.warns(UserWarning, match="zoe"):
        ffem_jax.train_network(data, *TINY, "run.cap_mb=0.001", out=tmp_path / "out")


# ---------------------------------------------------------------------------------------- vectors


def test_vectors_are_those_that_the_command_writes(
    data: ffem_jax.DataSpec, trained: ffem_jax.TrainedTrial, tmp_path: Path
) -> None:
    from ffem_jax.cli import main

    images = ffem_jax.load_faces(data).images
    vectors = trained.network.embed(images)
    assert (vectors.dtype, vectors.shape) == (np.float32, (12, 8))
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)
    assert main(["embed", data.root, "--trial", str(trained.folder), "--out", str(tmp_path / "v.npz")]) == 0
    written = np.load(tmp_path / "v.npz")
    assert np.array_equal(written["vectors"], vectors)
    assert np.array_equal(make_embedder(load_trial(trained.folder)).compute(images), vectors)
    album = ffem_jax.load_network(str(trained.folder)).embed_folder(data.root)
    assert np.array_equal(album.vectors, vectors)
    assert (album.names, album.model_id) == (written["names"].tolist(), trained.network.model_id)
    assert (trained.network.resolution, trained.network.crop) == (16, 1.0)


@pytest.mark.parametrize(
    ("images", "shown"),
    [
        (draw() / 255, r"float64\[12, 16, 16, 3\]"),
        (draw().astype(np.float32), r"float32\[12, 16, 16, 3\]"),
        (draw()[0], r"uint8\[16, 16, 3\]"),
        (draw()[:, :, :, 0], r"uint8\[12, 16, 16\]"),
        (draw()[:, ::2, ::2], r"uint8\[12, 8, 8, 3\]"),
        (draw().transpose(0, 3, 1, 2), r"uint8\[12, 3, 16, 16\]"),
        (draw()[:0], r"uint8\[0, 16, 16, 3\]"),
    ],
)
def test_images_that_the_network_does_not_take_are_refused(
    trained: ffem_jax.TrainedTrial, images: np.ndarray, shown: str
) -> None:
    with pytest.raises(EmbedError, match=rf"the images are {shown}; the network takes uint8\[N, 16, 16, 3\]: RGB"):
        trained.network.embed(images)


def test_an_exported_network_is_loaded_too(trained: ffem_jax.TrainedTrial, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime", reason="pip install -c constraints.txt -e '.[export]'")
    pytest.importorskip("onnx")
    from ffem_jax.export.bundle import export_trial

    export_trial(trained.folder, "onnx", "float32", tmp_path)
    network = ffem_jax.load_network(tmp_path)
    assert network.model_id == trained.network.model_id
    assert np.allclose(network.embed(draw()), trained.network.embed(draw()), atol=1e-4)


def test_a_folder_without_a_network_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(ffem_jax.FfemError, match=r"holds no trial\.json"):
        ffem_jax.load_network(tmp_path)


# ---------------------------------------------------------------------------------------- records


@pytest.fixture
def recorded(tmp_path: Path) -> Path:
    for seed in (0, 1):
        for kind, hits in (("none", "10" * 20), ("eca", "1" * 40)):
            record = build_record(
                seed=seed,
                attention={"kind": kind},
                correct=hits.count("1"),
                tested=40,
                hits=hits,
                test_images=list(range(40)),
                data_fingerprint="0" * 16,
                pictures_fingerprint="0" * 16,
            )
            append_record(tmp_path / kind / "records.jsonl", record)
    return tmp_path


def test_records_of_folders_and_files_are_read_once_each(recorded: Path) -> None:
    assert len(ffem_jax.read_records(recorded)) == 4
    assert len(ffem_jax.read_records(recorded, str(recorded / "eca" / "records.jsonl"))) == 4
    with pytest.raises(ffem_jax.FfemError, match="does not exist"):
        ffem_jax.read_records(recorded / "nothing")


def test_a_frontier_is_drawn_and_writes_only_where_it_is_told(recorded: Path, tmp_path: Path) -> None:
    records = ffem_jax.read_records(recorded)
    before = set(tmp_path.rglob("*"))
    found = ffem_jax.draw_frontier(records)
    assert (len(found.networks), found.files) == (2, ())
    assert set(tmp_path.rglob("*")) == before
    written = ffem_jax.draw_frontier(records, tmp_path / "drawn", cap_mb=5.0, against="params")
    assert {path.name for path in written.files} >= {"frontier.png", "frontier.json", "frontier.md"}
    assert all(path.exists() for path in written.files)
    with pytest.raises(ffem_jax.FfemError, match="bytes"):
        ffem_jax.draw_frontier(records, against="size")


def test_a_comparison_is_that_of_the_command(recorded: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from ffem_jax.cli import main

    found = ffem_jax.compare_records(ffem_jax.read_records(recorded), "attention.kind", against="none")
    assert main(["compare", str(recorded), "--factor", "attention.kind", "--against", "none", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert [row["difference"] for row in told["rows"]] == [row.difference for row in found.rows]
    assert [row["sentence"] for row in told["rows"]] == ffem_jax.describe_comparison(found)
    with pytest.raises(ffem_jax.FfemError, match="attention"):
        ffem_jax.compare_records(ffem_jax.read_records(recorded), "recipe.epochs")


def test_what_a_frontier_and_a_comparison_leave_out_is_a_warning(recorded: Path) -> None:
    alone = build_record(seed=7, attention={"kind": "eca"}, data_fingerprint="0" * 16)
    records = [*ffem_jax.read_records(recorded), alone]
    with pytest.warns(UserWarning, match="not compared"):
        ffem_jax.compare_records(records, "attention.kind")
    other = build_record(seed=8, attention={"kind": "eca"}, data_fingerprint="f" * 16)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        found = ffem_jax.draw_frontier([*records, other])
    assert {str(one.message) for one in said} == {*found.notes, *found.warnings}
    assert found.notes
    assert all(one.filename == __file__ for one in said)


def test_the_module_imports_by_its_own_name_too() -> None:
    assert importlib.import_module("ffem_jax.api").train_network is ffem_jax.train_network
