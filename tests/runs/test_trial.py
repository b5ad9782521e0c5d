"""One trial from spec to record: done, skipped, refused, failed, interrupted; on drawn faces, in seconds."""

import dataclasses
import json
import multiprocessing
import os

import jax
import numpy as np
import pytest
import safetensors.numpy
from made_trials import RUN, TRIAL, run

import ffem_jax.training.trainer
from ffem_jax.data import DataError, load_faces
from ffem_jax.data.pairs import Pairs
from ffem_jax.data.protocols import load_split, make_view2_split
from ffem_jax.machine.hosts import describe_error
from ffem_jax.records.record import TrialRecord, append_record, latest_records, read_records
from ffem_jax.runs.fitting import describe_device
from ffem_jax.runs.trial import compute_key, discard_checkpoint, record_failure
from ffem_jax.specs.architecture import SpecError
from ffem_jax.specs.trial import DataSpec, ProtocolSpec, to_plain, trial_key
from ffem_jax.training.weights import find_weights


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("finished")
    return folder, run(folder)[0]


def test_a_finished_trial_records_all_it_promises(finished):
    folder, record = finished
    assert record.status == "done"
    assert record.error == ""
    faces, _ = load_split(TRIAL.data, TRIAL.protocol)
    assert record.trial_key == trial_key(TRIAL, faces.fingerprint)
    assert record.spec == to_plain(TRIAL)
    assert (record.tested, record.train_images, record.people) == (6, 18, 3)
    assert (record.synthetic, record.data, record.protocol, record.recipe) == (True, "synthetic", "holdout", "modern")
    assert record.accuracy == record.correct / record.tested
    assert record.accuracy_gallery == record.correct_gallery / record.tested
    assert record.test_images == load_split(TRIAL.data, TRIAL.protocol)[1].test.tolist()
    assert (record.hits.count("1"), len(record.hits)) == (record.correct, record.tested)
    assert (record.hits_gallery.count("1"), len(record.hits_gallery)) == (record.correct_gallery, record.tested)
    assert len(record.pictures_fingerprint) == 16
    assert record.accuracy_low <= record.accuracy <= record.accuracy_high
    assert record.epochs == len(record.loss) == len(record.train_accuracy) == len(record.validation_accuracy) == 3
    # What is reported is the network after its last epoch, not the best of them.
    assert record.accuracy == pytest.approx(record.validation_accuracy[-1])
    assert record.params > 0
    assert record.bytes_int8 < record.bytes_float16 < record.bytes_float32
    assert record.train_images_per_second > 0
    assert record.wall_seconds >= record.compile_seconds > 0
    assert record.device
    assert record.versions["jax"]
    assert (record.validated, record.verification) == (0, {})  # the accuracy after each epoch is of the test images
    missing = [f.name for f in dataclasses.fields(TrialRecord) if getattr(record, f.name) is None]
    # The images are on the device; ffem latency measures the other.
    assert sorted(missing) == ["data_wait_fraction", "latency_ms_wasm"]
    assert read_records(folder / "records.jsonl") == [record]
    kept = json.loads((folder / "trial" / "trial.json").read_text())
    assert kept["specs"] == [record.spec]


def test_images_held_out_are_what_is_looked_at_after_each_epoch(finished, tmp_path):
    protocol = dataclasses.replace(TRIAL.protocol, validation_per_person=1)
    (record,) = run(tmp_path, dataclasses.replace(TRIAL, protocol=protocol))
    assert (record.status, record.tested, record.train_images, record.validated) == ("done", 6, 15, 3)
    assert record.trial_key != finished[1].trial_key
    assert len(record.validation_accuracy) == 3
    assert all(3 * accuracy == pytest.approx(round(3 * accuracy)) for accuracy in record.validation_accuracy)


def make_pairs():
    """Two folds of two same and two different pairs of the first four people, who have eight images each."""
    rows = [(0, 1), (8, 9), (0, 8), (1, 9), (16, 17), (24, 25), (16, 24), (17, 25)]
    first, second = np.transpose(rows)
    return Pairs(first, second, np.asarray([True, True, False, False] * 2), np.repeat([0, 1], 4))


@pytest.mark.slow
def test_view2_trains_on_strangers_and_records_the_pairs(tmp_path, monkeypatch):
    data = dataclasses.replace(TRIAL.data, people=6)
    protocol = ProtocolSpec(name="view2", folds=2, fold=1)
    faces = load_faces(data)
    split = make_view2_split(faces, make_pairs(), DataSpec(name="lfw"), protocol)
    monkeypatch.setattr("ffem_jax.runs.trial.load_split", lambda *_: (faces, split))
    (record,) = run(tmp_path, dataclasses.replace(TRIAL, data=data, protocol=protocol))
    assert (record.status, record.error) == ("done", "")
    assert (record.people, record.train_images, record.tested, record.validated) == (4, 32, 4, 0)
    assert record.accuracy == record.correct / 4
    assert record.accuracy_low <= record.accuracy <= record.accuracy_high
    assert record.validation_accuracy == []
    assert record.accuracy_gallery is None
    found = record.verification
    assert len(found["distances_same"]) == len(found["distances_different"]) == 2
    assert all(0 <= found[name] <= 1 for name in ("eer", "auc", "tar_at_far_1e2", "tar_at_far_1e3"))
    # The record alone says which pairs were judged rightly.
    threshold = -1 if found["threshold"] is None else found["threshold"]
    right = [d <= threshold for d in found["distances_same"]] + [d > threshold for d in found["distances_different"]]
    assert sum(right) == record.correct
    assert [row.to_json() for row in read_records(tmp_path / "records.jsonl")] == [record.to_json()]


def test_a_recorded_trial_is_returned_and_not_run_again(finished, monkeypatch):
    folder, record = finished
    monkeypatch.setattr(ffem_jax.training.trainer, "Trainer", None)
    renamed = dataclasses.replace(TRIAL, arch=dataclasses.replace(TRIAL.arch, name="another name"))
    assert run(folder) == run(folder, renamed, "elsewhere") == [record]
    assert len(read_records(folder / "records.jsonl")) == 1


def test_a_network_over_the_cap_is_recorded_and_not_trained(tmp_path, monkeypatch):
    monkeypatch.setattr(ffem_jax.training.trainer, "Trainer", None)
    (record,) = run(tmp_path, cap_mb=0.001)
    assert record.status == "over_cap"
    assert record.bytes_float32 > 1000
    assert record.error.endswith(" MB is over the cap of 0.001 MB")
    assert record.accuracy is None
    assert read_records(tmp_path / "records.jsonl") == [record]


def test_a_network_over_the_limit_of_macs_is_recorded_and_not_trained(finished, tmp_path, monkeypatch):
    monkeypatch.setattr(ffem_jax.training.trainer, "Trainer", None)
    limit = finished[1].macs / 2e6
    (record,) = run(tmp_path, cap_mmacs=limit)
    assert record.status == "over_cap"
    assert record.error.endswith(f" M MACs is over the cap of {limit:g} M MACs")


def test_the_cap_is_checked_at_the_precision_asked_for(finished, tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise RuntimeError("would train")

    monkeypatch.setattr(ffem_jax.training.trainer, "Trainer", refuse)
    _, known = finished
    between = (known.bytes_int8 + known.bytes_float16) / 2e6
    assert run(tmp_path, cap_mb=between, cap_precision="float16")[0].status == "over_cap"
    assert run(tmp_path, cap_mb=between, cap_precision="int8")[0].error == "RuntimeError: would train"
    assert run(tmp_path, cap_mb=between, train_over_cap=True)[0].error == "RuntimeError: would train"


def test_a_trial_that_raises_is_recorded_as_failed_and_tried_again_next_time(finished, tmp_path, monkeypatch):
    def break_down(*_, **__):
        raise MemoryError("no room for the activations\nsecond line")

    monkeypatch.setattr(ffem_jax.training.trainer, "Trainer", break_down)
    (record,) = run(tmp_path)
    assert record.status == "failed"
    assert record.error == "MemoryError: no room for the activations"
    assert record.params == finished[1].params
    run(tmp_path)
    assert [r.status for r in read_records(tmp_path / "records.jsonl")] == ["failed", "failed"]


@pytest.mark.slow
def test_a_loss_that_is_not_finite_fails_with_its_step(tmp_path):
    recipe = dataclasses.replace(TRIAL.recipe, learning_rate=1e30, loss="softmax")
    (record,) = run(tmp_path, dataclasses.replace(TRIAL, recipe=recipe))
    assert record.status == "failed"
    assert "the loss is not finite: epoch 1, step " in record.error
    assert record.accuracy is None
    assert read_records(tmp_path / "records.jsonl")[0].status == "failed"


@pytest.mark.slow
def test_interrupted_it_goes_on_and_ends_with_the_same_numbers(finished, tmp_path, monkeypatch):
    fit = ffem_jax.training.trainer.Trainer.fit
    begun = []

    def interrupt(self, *, restored, on_epoch, **options):
        def save_then_stop(done, state, history):
            on_epoch(done, state, history)
            if done == 2:
                raise KeyboardInterrupt

        begun.append(restored[0] if restored else 0)
        return fit(self, restored=restored, on_epoch=save_then_stop, **options)

    monkeypatch.setattr(ffem_jax.training.trainer.Trainer, "fit", interrupt)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path)
    assert not (tmp_path / "records.jsonl").exists()
    (record,) = run(tmp_path)
    assert begun == [0, 2]
    whole = finished[1]
    assert (record.trial_key, record.status) == (whole.trial_key, "done")
    assert (record.loss, record.train_accuracy, record.accuracy) == (whole.loss, whole.train_accuracy, whole.accuracy)


@pytest.mark.slow
def test_interrupted_within_an_epoch_it_goes_on_from_the_very_step(finished, tmp_path, monkeypatch):
    fit, begun = ffem_jax.training.trainer.Trainer.fit, []

    def interrupt(self, *, restored, on_steps, **options):
        def save_then_stop(position):
            on_steps(position)
            if position.epochs == 1:
                raise KeyboardInterrupt

        begun.append((restored.epochs, restored.step) if restored else (0, 0))
        return fit(self, restored=restored, on_steps=save_then_stop if len(begun) == 1 else on_steps, **options)

    monkeypatch.setattr(ffem_jax.training.trainer.Trainer, "fit", interrupt)
    monkeypatch.setattr(ffem_jax.training.trainer.Throughput, "steps_per_call", property(lambda _: 1, lambda *_: None))
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, checkpoint_minutes=1e-9)
    (record,) = run(tmp_path)
    assert begun == [(0, 0), (1, 1)]
    check_same_training(record, finished[1])


def read_weights(folder, record):
    return safetensors.numpy.load_file(find_weights(folder, record.trial_key))


def check_same_training(found, whole):
    """Bit for bit, whatever it took and wherever it lies."""
    measured = ("train_images_per_second", "compile_seconds", "wall_seconds", "started_at", "trial_dir")
    same = [f.name for f in dataclasses.fields(TrialRecord) if f.name not in measured]
    assert {name: getattr(found, name) for name in same} == {name: getattr(whole, name) for name in same}


def test_stopped_twice_it_goes_on_from_there_and_ends_as_if_it_had_never_stopped(finished, tmp_path):
    folder, whole = finished
    (first,) = run(tmp_path, stop_epoch=1)
    assert (first.status, first.epochs, first.error) == ("pruned", 1, "")
    assert (first.loss, first.validation_accuracy) == (whole.loss[:1], whole.validation_accuracy[:1])
    assert first.accuracy == pytest.approx(first.validation_accuracy[0])
    assert first.accuracy_low <= first.accuracy <= first.accuracy_high
    assert not list((tmp_path / "trial").glob("weights-*"))  # which are of finished trials
    (second,) = run(tmp_path, stop_epoch=2)
    assert (second.status, second.epochs) == ("pruned", 2)
    # As much or less is on record: nothing is trained.
    assert run(tmp_path, stop_epoch=2) == run(tmp_path, stop_epoch=1) == [second]
    assert [r.to_json() for r in latest_records(read_records(tmp_path / "records.jsonl"))] == [second.to_json()]
    (last,) = run(tmp_path)
    check_same_training(last, whole)
    assert last.train_images_per_second is not None
    kept, straight = (read_weights(place / "trial", whole) for place in (tmp_path, folder))
    assert kept.keys() == straight.keys()
    assert all(np.array_equal(kept[name], straight[name]) for name in kept)
    assert run(tmp_path, stop_epoch=1) == [last]
    assert [r.epochs for r in read_records(tmp_path / "records.jsonl")] == [1, 2, 3]


@pytest.mark.slow
def test_several_seeds_stop_and_go_on_together(tmp_path, monkeypatch):
    whole = run(tmp_path / "straight", seeds=(0, 3))
    stopped = run(tmp_path / "stopped", seeds=(0, 3), stop_epoch=2)
    assert [(r.status, r.epochs, r.seed) for r in stopped] == [("pruned", 2, 0), ("pruned", 2, 3)]
    fit, begun = ffem_jax.training.trainer.Trainer.fit, []

    def watch(self, **options):
        begun.append(options["restored"][0])
        return fit(self, **options)

    monkeypatch.setattr(ffem_jax.training.trainer.Trainer, "fit", watch)
    for found, one in zip(run(tmp_path / "stopped", seeds=(0, 3)), whole, strict=True):
        check_same_training(found, one)
    assert begun == [2]


@pytest.mark.slow
def test_a_stopped_trial_whose_checkpoint_is_gone_starts_anew(finished, tmp_path):
    run(tmp_path, stop_epoch=2)
    discard_checkpoint(tmp_path / "trial")
    discard_checkpoint(tmp_path / "trial")  # of which there is none
    assert sorted(path.name for path in (tmp_path / "trial").iterdir()) == [".trial.lock", "trial.json"]
    (last,) = run(tmp_path)
    check_same_training(last, finished[1])


@pytest.mark.slow
def test_an_epoch_past_the_last_is_the_last(finished, tmp_path):
    (record,) = run(tmp_path, stop_epoch=TRIAL.recipe.epochs + 5)
    check_same_training(record, finished[1])


@pytest.mark.slow
def test_seeds_as_one_program_leave_a_record_each(finished, tmp_path):
    records = run(tmp_path, seeds=(0, 3))
    assert [r.seed for r in records] == [0, 3]
    assert [r.status for r in records] == ["done", "done"]
    assert records[0].trial_key == finished[1].trial_key
    assert records[0].loss != records[1].loss
    # One of them recorded already: only the other is run.
    more = run(tmp_path, seeds=(0, 3), name="again")
    assert [r.started_at for r in more] == [r.started_at for r in records]


def test_bad_data_and_a_bad_batch_are_not_recorded_as_trials(tmp_path):
    with pytest.raises(DataError, match="test_per_person"):
        run(tmp_path, dataclasses.replace(TRIAL, protocol=ProtocolSpec(test_per_person=8)))
    large = dataclasses.replace(TRIAL, recipe=dataclasses.replace(TRIAL.recipe, batch_size=1000))
    with pytest.raises(SpecError, match="batch_size=1000 is more than the 18 training images"):
        run(tmp_path, large)
    assert not (tmp_path / "records.jsonl").exists()


def test_a_record_that_cannot_be_written_says_so(finished, tmp_path, monkeypatch):
    def fill_up(path, record):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("ffem_jax.runs.trial.append_record", fill_up)
    with pytest.raises(OSError, match=r"record of small seed 0 could not be written \(No space left on device\)"):
        run(tmp_path, cap_mb=0.001)


def _run_in_process(folder):
    run(folder)


@pytest.mark.slow
def test_two_processes_asked_for_one_trial_run_it_once(tmp_path):
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=_run_in_process, args=(tmp_path,)) for _ in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0, 0]
    assert len(read_records(tmp_path / "records.jsonl")) == 1


def test_errors_are_described_in_one_line():
    assert describe_error(ValueError("one\ntwo")) == "ValueError: one"
    assert describe_error(KeyboardInterrupt()) == "KeyboardInterrupt"


def test_a_failure_is_recorded_for_the_seeds_that_have_no_record(tmp_path):
    path = tmp_path / "records.jsonl"
    stands = TrialRecord(compute_key(TRIAL), to_plain(TRIAL), TRIAL.seed, "done")
    append_record(path, stands)
    two = dataclasses.replace(RUN, seeds=(TRIAL.seed, 7))
    kept, failed = record_failure(TRIAL, two, tmp_path / "trial", path, "its worker was killed, 2 times")
    assert kept == stands
    assert (failed.seed, failed.status, failed.error) == (7, "failed", "its worker was killed, 2 times")
    assert record_failure(TRIAL, two, tmp_path / "trial", path, "again") == [stands, failed]
    assert read_records(path) == [stands, failed]


def test_a_record_says_how_many_devices_trained(monkeypatch):
    assert describe_device(2).endswith(f"(2 of {os.cpu_count()} cores, cpu)")

    class Accelerator:
        platform, device_kind = "gpu", "NVIDIA H100"

    monkeypatch.setattr(jax, "devices", lambda: [Accelerator()])
    assert (describe_device(1), describe_device(4)) == ("NVIDIA H100 (gpu)", "4 x NVIDIA H100 (gpu)")
    monkeypatch.setattr("ffem_jax.machine.hosts.count", lambda: 2)
    assert describe_device(8) == "8 x NVIDIA H100 (gpu) by 2 processes"
