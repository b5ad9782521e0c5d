"""The model card and the thresholds that an export has beside its files."""

import dataclasses
import io
import json
import pickle

import pytest
from PIL import Image

from ffem_jax.analysis.comparability import FrontierError
from ffem_jax.data import load_faces
from ffem_jax.export.bundle import export_trial
from ffem_jax.runs.trial import run_trials
from ffem_jax.serve.thresholds import load_calibration
from ffem_jax.specs.architecture import ArchSpec, StageSpec
from ffem_jax.specs.trial import DataSpec, ProtocolSpec, RecipeSpec, RunSpec, TrialSpec

TRIAL = TrialSpec(
    arch=ArchSpec(name="small", stem_channels=8, stages=(StageSpec(1, 8, 1, 2),), head_channels=0, embedding_dim=8),
    data=DataSpec(name="synthetic", people=48, images_per_person=4, resolution=16, crop=0.9),
    protocol=ProtocolSpec(name="open_set", folds=2, fold=1),
    recipe=RecipeSpec(epochs=1, batch_size=8),
)


def train(folder, trial):
    (record,) = run_trials(trial, RunSpec(progress=False), folder / "trial", folder / "records.jsonl")
    assert record.status == "done", record.error
    return folder / "trial", record


@pytest.fixture(scope="module")
def strangers(tmp_path_factory):
    return train(tmp_path_factory.mktemp("strangers"), TRIAL)


def test_a_trial_that_tests_strangers_brings_thresholds_that_the_server_takes(strangers, tmp_path):
    folder, _ = strangers
    manifest = export_trial(folder, "tfjs", "float32", tmp_path / "out")
    assert manifest["beside"] == ["calibration.json", "README.md"]
    calibration = load_calibration(tmp_path / "out" / "calibration.json", manifest["model_id"])
    assert (calibration.people, calibration.synthetic) == (24, True)
    told = manifest["strangers"]
    assert (told["people"], told["images"]) == (24, 96)
    assert [row["false_accept_rate"] for row in told["checked"]] == [0.1, 0.01, 0.001]
    for row in told["checked"]:
        assert 0 <= row["false_accepts"] <= 1
        assert 0 <= row["accepted"] <= 1
    falling = [row["accepted"] for row in told["checked"]]
    assert falling == sorted(falling, reverse=True)


def test_the_card_has_a_row_for_each_group_of_strangers(strangers, tmp_path):
    folder, _ = strangers
    manifest = export_trial(folder, "tfjs", "float32", tmp_path / "out", by=["glasses"])
    card = (tmp_path / "out" / "README.md").read_text().split("## By group\n")[1].split("## ")[0]
    groups = manifest["strangers"]["groups"]
    assert {(one["column"], one["group"]) for one in groups} == {("glasses", "0"), ("glasses", "1")}
    assert any(one["accepted"] for one in groups)
    for one in groups:
        row = next(line for line in card.splitlines() if line.startswith(f"| glasses | {one['group']} |"))
        for rate in filter(None, (one["accepted"], one["false_accepts"])):
            assert f"{100 * rate['value']:.1f} % [{100 * rate['low']:.1f}, {100 * rate['high']:.1f}]" in row
    with pytest.raises(FrontierError, match="there is no column 'hat'; choose one of: glasses, occlusion"):
        export_trial(folder, "tfjs", "float32", tmp_path / "refused", by=["hat"])
    assert not (tmp_path / "refused").exists()


def test_pairs_of_nobody_in_particular_give_no_thresholds(tmp_path):
    """The images of a .bin set are known by pair and not by person."""
    images = []
    for pixels in load_faces(TRIAL.data).images[:40]:
        Image.fromarray(pixels).save(file := io.BytesIO(), "PNG")
        images.append(file.getvalue())
    (tmp_path / "drawn.bin").write_bytes(pickle.dumps((images, [pair % 2 == 0 for pair in range(20)])))
    data = dataclasses.replace(TRIAL.data, people=8)
    protocol = ProtocolSpec(name="bins", bins=("drawn",), bins_root=str(tmp_path))
    folder, _ = train(tmp_path / "bins", dataclasses.replace(TRIAL, data=data, protocol=protocol))
    manifest = export_trial(folder, "tfjs", "float32", tmp_path / "out")
    assert "strangers" not in manifest
    assert manifest["beside"] == ["README.md"]
    assert "## Thresholds" not in (tmp_path / "out" / "README.md").read_text()


def test_what_is_trained_further_has_thresholds_of_its_own(strangers, tmp_path):
    folder, _ = strangers
    plain = export_trial(folder, "tfjs", "uint8", tmp_path / "plain")
    tuned = export_trial(folder, "tfjs", "uint8", tmp_path / "tuned", finetune_epochs=2)
    assert plain["model_id"] != tuned["model_id"]
    curves = [load_calibration(tmp_path / name / "calibration.json", one["model_id"]).curve
              for name, one in (("plain", plain), ("tuned", tuned))]  # fmt: skip
    assert curves[0] != curves[1]


def test_the_card_says_what_the_record_says(strangers, tmp_path):
    folder, record = strangers
    manifest = export_trial(folder, "tfjs", "float16", tmp_path / "out")
    card = (tmp_path / "out" / "README.md").read_text()
    assert card.startswith("# small: faces to vectors of 8 numbers\n")
    for told in (
        f"`{manifest['model_id']}`",
        f"`{record.trial_key}`",
        f"{record.params:,} parameters",
        "drawn, not photographed",
        "Nobody in fold 1 of 2 by people trained it",
        f"{100 * record.accuracy:.1f} % [{100 * record.accuracy_low:.1f}, {100 * record.accuracy_high:.1f}]",
        "the centred square of 0.9 of",
        "## Thresholds",
        "ffem serve --calibration",
    ):
        assert told in card, told
    assert "None" not in card
    assert "nan" not in card


def test_a_card_without_a_record_tells_no_measure(strangers, tmp_path):
    folder, _ = strangers
    records = folder.parent / "records.jsonl"
    kept = records.read_text()
    records.unlink()
    try:
        export_trial(folder, "tfjs", "float32", tmp_path / "out")
    finally:
        records.write_text(kept)
    card = (tmp_path / "out" / "README.md").read_text()
    assert "no measure is told" in card
    assert "None" not in card


@pytest.mark.slow
def test_people_who_trained_give_no_thresholds_of_strangers(tmp_path):
    trial = dataclasses.replace(TRIAL, protocol=ProtocolSpec(test_per_person=1))
    folder, _ = train(tmp_path, trial)
    manifest = export_trial(folder, "tfjs", "float32", tmp_path / "out")
    assert manifest["beside"] == ["README.md"]
    assert "strangers" not in manifest
    card = (tmp_path / "out" / "README.md").read_text()
    assert "It knows the people it was tested on" in card
    assert "## Thresholds" not in card


def test_an_export_anew_replaces_what_lay_beside_and_a_stranger_file_is_refused(strangers, tmp_path):
    folder, _ = strangers
    out = tmp_path / "out"
    export_trial(folder, "tfjs", "float32", out)
    export_trial(folder, "tfjs", "float16", out)
    assert json.loads((out / "export.json").read_text())["dtype"] == "float16"
    (out / "notes.md").write_text("mine")
    with pytest.raises(ValueError, match=r"holds notes\.md"):
        export_trial(folder, "tfjs", "float32", out)


def test_the_teacher_is_named_with_its_licence_and_that_it_saw_more():
    from ffem_jax.export.card import _say_teacher

    line = _say_teacher({"name": "big", "licence": "MIT", "source": "a registry", "measured": {"view2": 0.965}})
    assert "Teacher: big (source a registry, licence MIT); by itself 96.5 % right" in line
    assert "It saw other data" in line
