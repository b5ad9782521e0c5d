"""insightface's evaluation sets: read without running anything, and tested after one training, in one record."""

from __future__ import annotations

import dataclasses
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_sets import draw_faces, draw_pairs, encode, write_bin, write_recordio
from made_trials import SMALL as NETWORK
from PIL import Image

from ffem_jax.analysis.comparability import FrontierError, check_comparable
from ffem_jax.data import DataError
from ffem_jax.data.bins import load_bins, read_bin
from ffem_jax.data.protocols import load_split
from ffem_jax.data.recorded import identify_faces
from ffem_jax.metrics.ten_folds import measure_folds
from ffem_jax.records.record import TrialRecord, read_records
from ffem_jax.runs.trial import run_trials
from ffem_jax.specs.architecture import resolve_network
from ffem_jax.specs.fields import SpecError
from ffem_jax.specs.trial import DataSpec, ProtocolSpec, RecipeSpec, RunSpec, TrialSpec, to_plain, trial_key
from ffem_jax.training.trainer import Trainer
from ffem_jax.training.weights import load_trial

TRUE = [True] * 5 + [False] * 5


def read(path: Path, held: Any, protocol: int = 4) -> tuple[list[bytes], np.ndarray]:
    path.write_bytes(held if isinstance(held, bytes) else pickle.dumps(held, protocol=protocol))
    return read_bin(path)


class Payload:
    """What a malicious file holds: a call of its own."""

    def __init__(self, call: Callable[..., Any], *arguments: Any) -> None:
        self.call = call, arguments

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return self.call


@pytest.mark.parametrize("protocol", [3, 4, 5])
def test_a_set_comes_back_as_it_was_written(tmp_path: Path, protocol: int) -> None:
    held = [bytes([i]) * 300 for i in range(20)], TRUE
    images, same = read(tmp_path / "a.bin", held, protocol)
    assert images == held[0]
    assert same.tolist() == TRUE


def test_what_python_2_wrote_is_read(tmp_path: Path) -> None:
    # Protocol 2, texts as SHORT_BINSTRING: what cPickle.dump of Python 2 writes for a str.
    images = b"".join(b"U\x02\xff" + bytes([i]) for i in range(20))
    data = b"\x80\x02](" + images + b"e](" + b"\x88" * 5 + b"\x89" * 5 + b"e\x86."
    found, same = read(tmp_path / "a.bin", data)
    assert found == [b"\xff" + bytes([i]) for i in range(20)]
    assert same.tolist() == TRUE


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4, 5])
@pytest.mark.parametrize("place", ["whole", "image", "truth"])
def test_a_malicious_file_is_refused_and_runs_nothing(tmp_path: Path, protocol: int, place: str) -> None:
    mark = tmp_path / "run"
    payload = Payload(os.system, f"touch {mark}")
    held: Any = {
        "whole": payload,
        "image": ([payload] + [b""] * 19, TRUE),
        "truth": ([b""] * 20, [payload, *TRUE[1:]]),
    }[place]
    with pytest.raises(DataError, match="is refused: it requests ") as caught:
        read(tmp_path / "a.bin", held, protocol)
    assert "\n" not in str(caught.value)
    assert not mark.exists()


def test_what_python_3_wrote_in_an_old_protocol_is_told_how_to_be_written(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"it requests _codecs\.encode.* protocol=4"):
        read(tmp_path / "a.bin", ([b"\xff\xd8"] * 20, TRUE), 2)


@pytest.mark.parametrize("call", [eval, exec, __import__, getattr, bytes.fromhex, np.frombuffer, dataclasses.replace])
def test_no_name_at_all_is_looked_up(tmp_path: Path, call: Callable[..., Any]) -> None:
    with pytest.raises(DataError, match="is refused"):
        read(tmp_path / "a.bin", ([Payload(call, "1")] * 20, TRUE))


@pytest.mark.parametrize(
    ("held", "said"),
    [
        (b"", "is refused: Ran out of input"),
        (b"no pickle", "is refused"),
        (pickle.dumps(([b"x"] * 20, TRUE))[:-40], "is refused"),
        (b"\x80\x04\x8e\xff\xff\xff\xff\xff\xff\xff\x7f.", "is refused"),  # an image of 8 EB
        ({"images": []}, "does not contain two lists"),
        (([b""] * 20, TRUE, []), "does not contain two lists"),
        ((["text"] * 20, TRUE), "not a list of encoded images"),
        (([b""] * 20, ["yes"] * 10), "not a list of booleans"),
        (([b""] * 20, [2] * 10), "not a list of booleans"),
        (([b""] * 20, [0.5] * 10), "not a list of booleans"),
        (([b""] * 19, TRUE), "19 images do not match 10 pairs"),
        (([b""] * 18, TRUE[:9]), "9 pairs are too few for 10 folds"),
        (([b""] * 20, [True] * 10), "all of one kind"),
    ],
)
def test_anything_else_is_one_line_that_names_the_file(tmp_path: Path, held: Any, said: str) -> None:
    with pytest.raises(DataError, match=said) as caught:
        read(tmp_path / "a.bin", held)
    assert "a.bin" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_images_are_resized_to_the_resolution_and_not_cropped(tmp_path: Path) -> None:
    pixels, _ = draw_faces(10, 2, resolution=64)
    write_bin(tmp_path / "big.bin", [encode(one) for one in pixels], TRUE)
    data = DataSpec(name="recordio", root=str(tmp_path), resolution=32, crop=0.5)
    (big,) = load_bins(data, ProtocolSpec(name="bins")).sets
    resized = [np.asarray(Image.fromarray(one).resize((32, 32), Image.Resampling.BILINEAR)) for one in pixels]
    np.testing.assert_array_equal(big.images, resized)
    assert big.same.tolist() == TRUE


def test_a_broken_image_refuses_the_set(tmp_path: Path) -> None:
    images, same = draw_pairs()
    write_bin(tmp_path / "lfw.bin", [*images[:7], images[7][:50], *images[8:]], same)
    with pytest.raises(DataError, match=r"lfw\.bin: image 7 cannot be read"):
        load_bins(DataSpec(name="recordio", root=str(tmp_path), resolution=32), ProtocolSpec(name="bins"))


def test_sets_are_chosen_by_name_and_what_is_missing_is_named(tmp_path: Path) -> None:
    data = DataSpec(name="recordio", root=str(tmp_path / "train"), resolution=32)
    for seed, name in enumerate(("lfw", "cfp_fp")):
        write_bin(tmp_path / f"{name}.bin", *draw_pairs(seed=seed + 1))
    elsewhere = ProtocolSpec(name="bins", bins_root=str(tmp_path))
    both = load_bins(data, elsewhere)
    assert [one.name for one in both.sets] == ["cfp_fp", "lfw"]
    (alone,) = load_bins(data, dataclasses.replace(elsewhere, bins=("lfw",))).sets
    np.testing.assert_array_equal(alone.images, both.sets[1].images)
    with pytest.raises(DataError, match=r"agedb_30\.bin does not exist; .* has cfp_fp\.bin, lfw\.bin"):
        load_bins(data, dataclasses.replace(elsewhere, bins=("lfw", "agedb_30")))
    with pytest.raises(DataError, match="no .bin file"):
        load_bins(data, ProtocolSpec(name="bins"))
    with pytest.raises(DataError, match=r"needs protocol\.bins_root=DIR"):
        load_bins(dataclasses.replace(data, root=""), ProtocolSpec(name="bins"))
    for bad in (("lfw", "lfw"), ("../lfw",), ("",), "lfw", (1, "lfw")):
        with pytest.raises(SpecError, match=r"protocol\.bins="):
            ProtocolSpec(name="bins", bins=bad)  # type: ignore[arg-type]


def test_everybody_trains_and_a_picture_on_both_sides_is_said(tmp_path: Path) -> None:
    pixels, _ = write_recordio(tmp_path)
    images, same = draw_pairs()
    write_bin(tmp_path / "lfw.bin", images, same)
    data = DataSpec(name="recordio", root=str(tmp_path), resolution=32, min_images=1)
    protocol = ProtocolSpec(name="bins")
    faces, split = load_split(data, protocol)
    assert split.train.tolist() == list(range(len(pixels)))
    assert (len(split.test), len(split.asked), split.tests_strangers) == (0, 0, True)
    assert split.notes == ("bins: lfw (20 pairs) test; all people train",)
    held_out = load_split(data, ProtocolSpec(name="bins", validation_per_person=1))[1]
    assert (len(held_out.train), len(held_out.validation)) == (9, 3)
    write_bin(tmp_path / "lfw.bin", [encode(pixels[0]), *images[1:]], same)
    changed = load_split(data, protocol)[1]
    assert "1 test images are also training images" in changed.notes[1]
    assert identify_faces(faces, changed) != identify_faces(faces, split)


def test_the_key_knows_the_sets_and_no_folder() -> None:
    bins = TrialSpec(protocol=ProtocolSpec(name="bins", bins=("lfw", "agedb_30")))
    moved = dataclasses.replace(bins, protocol=dataclasses.replace(bins.protocol, bins_root="elsewhere"))
    turned = dataclasses.replace(bins, protocol=dataclasses.replace(bins.protocol, bins=("agedb_30", "lfw")))
    fewer = dataclasses.replace(bins, protocol=dataclasses.replace(bins.protocol, bins=("lfw",)))
    assert trial_key(bins) == trial_key(moved) == trial_key(turned) != trial_key(fewer)
    # Other protocols read none of it, and their records do not mention it.
    holdout = TrialSpec(protocol=ProtocolSpec(bins=("lfw",), bins_root="somewhere"))
    assert trial_key(holdout) == trial_key(TrialSpec())
    assert "bins" not in to_plain(TrialSpec())["protocol"]


SMALL = TrialSpec(
    arch=NETWORK,
    recipe=RecipeSpec(epochs=1, batch_size=6),
)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, TrialSpec, list[TrialRecord]]:
    folder = tmp_path_factory.mktemp("bins")
    write_recordio(folder)
    for seed, name in enumerate(("lfw", "agedb_30")):
        write_bin(folder / f"{name}.bin", *draw_pairs(pairs=20 + 5 * seed, seed=seed + 1))
    data = DataSpec(name="recordio", root=str(folder), resolution=32, min_images=1)
    trial = dataclasses.replace(SMALL, data=data, protocol=ProtocolSpec(name="bins"))
    run = RunSpec(progress=False, seeds=(0, 1))
    return folder, trial, run_trials(trial, run, folder / "trial", folder / "records.jsonl")


def test_several_sets_are_tested_after_one_training_in_one_record(finished) -> None:
    folder, _, records = finished
    for record in records:
        assert (record.status, record.error) == ("done", "")
        assert {name: one["pairs"] for name, one in record.bins.items()} == {"agedb_30": 25, "lfw": 20}
        assert (record.tested, record.train_images, record.people) == (45, 12, 3)
        assert record.correct == sum(one["correct"] for one in record.bins.values())
        assert record.accuracy == record.correct / record.tested
        assert (record.hits, record.test_images, record.accuracy_gallery, record.validation_accuracy) == (
            "",
            [],
            None,
            [],
        )
    assert read_records(folder / "records.jsonl") == records
    assert records[0].bins != records[1].bins


def test_records_of_other_sets_do_not_compare(finished) -> None:
    _, _, (record, other) = finished
    check_comparable([record, other])
    for bins in ({"lfw": record.bins["lfw"]}, record.bins | {"lfw": record.bins["lfw"] | {"fingerprint": "0" * 16}}):
        with pytest.raises(FrontierError, match="the records mix evaluation sets: "):
            check_comparable([record, dataclasses.replace(other, bins=bins)])


@pytest.mark.slow
def test_each_image_and_its_mirror_image_are_added_by_the_kept_network(finished) -> None:
    folder, trial, records = finished
    bins = load_split(trial.data, trial.protocol)[1].bins
    for record in records:
        network = load_trial(folder / "trial", seed=record.seed).classifier.network
        for one in bins.sets:
            both = sum(np.asarray(network(side), np.float64) for side in (one.images, one.images[:, :, ::-1]))
            report = measure_folds(both[0::2], both[1::2], one.same)
            # One pair may lie at a threshold, where the last digit of a compiled program decides.
            assert abs(record.bins[one.name]["correct"] - report.hits.sum()) <= 1
            assert record.bins[one.name]["threshold"] == pytest.approx(report.threshold.mean(), abs=0.03)


@pytest.mark.slow
def test_images_that_are_no_part_of_the_faces_are_embedded_as_those_that_are(tmp_path: Path) -> None:
    images, labels = draw_faces(4, 20, resolution=16)
    everybody = np.arange(len(images))
    recipe = dataclasses.replace(SMALL.recipe, flip_test=True)
    trainer = Trainer(resolve_network(SMALL.arch), recipe, (0, 1), images, labels, everybody, everybody[:0])
    state = trainer.init()
    expected, _ = trainer.embed(state, everybody)
    np.testing.assert_allclose(trainer.embed_images(state, images), expected, atol=1e-5)
    np.testing.assert_allclose(trainer.embed_images(state, images[:3, :, ::-1]), expected[..., :3, :], atol=1e-5)
