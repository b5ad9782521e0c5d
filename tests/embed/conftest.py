"""A network trained on drawn people, strangers to it, and an album with a picture in the wrong folder."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from made_people import write_people
from made_trials import SMALL

from ffem_jax.cli import main
from ffem_jax.export.bundle import export_trial
from ffem_jax.runs.trial import run_trials
from ffem_jax.specs.trial import DataSpec, ProtocolSpec, RecipeSpec, RunSpec, TrialSpec
from ffem_jax.training.weights import FinishedTrial, load_trial


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[FinishedTrial, Path]:
    """A network trained on a folder of people, and that folder."""
    folder = tmp_path_factory.mktemp("trained")
    people = write_people(folder / "people", {"ada": 6, "bob": 6, "eve": 6})
    trial = TrialSpec(
        arch=SMALL,
        data=DataSpec(name="folder", root=str(people), resolution=16, crop=0.9),
        protocol=ProtocolSpec(test_per_person=2),
        recipe=RecipeSpec(epochs=1, batch_size=6),
    )
    (record,) = run_trials(trial, RunSpec(progress=False), folder / "trial", folder / "records.jsonl")
    assert record.status == "done", record.error
    return load_trial(folder / "trial"), people


@pytest.fixture(scope="session")
def strangers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten people who trained nothing, one of them of a trained person's name."""
    counts = {f"stranger {number}": 3 for number in range(9)} | {"ada": 3}
    return write_people(tmp_path_factory.mktemp("strangers"), counts, seed=500)


@pytest.fixture(scope="session")
def exported(trained: tuple[FinishedTrial, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The network fine-tuned for int8, another model than the trial's own, as ONNX."""
    for package in ("onnx", "onnxruntime"):
        pytest.importorskip(package, reason=f"exporting needs the export extra: {package} is missing")
    out = tmp_path_factory.mktemp("exported")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ffem_jax.export.finetune.BATCH_SIZE", 4)
        patch.setattr("ffem_jax.export.finetune.LEARNING_RATE", 0.05)
        export_trial(trained[0].folder, "onnx", "int8", out, finetune_epochs=1)
    return out


@pytest.fixture
def album(tmp_path: Path) -> Path:
    """Three people of whom one has a picture of another."""
    folder = write_people(tmp_path / "people", {"ada": 3, "bob": 3, "zoe": 3}, seed=78)
    (folder / "zoe" / "1.png").rename(folder / "ada" / "zoe.png")
    return folder


@pytest.fixture
def ffem(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Runs the command: (exit status, standard output, standard error)."""

    def run(*words: object) -> tuple[int, str, str]:
        status = main([str(word) for word in words])
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return run
