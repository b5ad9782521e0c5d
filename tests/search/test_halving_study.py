"""Successive halving by workers on one study: who goes on with what, whoever dies; the training is made up."""

import collections
import json

import numpy as np
import pytest

from ffem_jax.cli import main
from ffem_jax.records.record import TrialRecord, latest_records, read_records
from ffem_jax.records.view import read_trial
from ffem_jax.runs.trial import run_trials
from ffem_jax.search.candidates import Candidate
from ffem_jax.search.settings import HalvingSettings, SearchSettings
from ffem_jax.search.space import Choice, SearchSpace
from ffem_jax.search.workers.following import SearchFollower
from ffem_jax.specs.architecture import SpecError
from ffem_jax.specs.trial import RunSpec

pytest.importorskip("optuna")

from ffem_jax.search.ledger import read_network
from ffem_jax.search.storage import open_storage
from ffem_jax.search.study import SearchStudy
from ffem_jax.search.workers.worker import Worker

EPOCHS = 9
SPACE = SearchSpace((Choice("size", tuple(map(str, range(1, 9))), ordered=True), Choice("kind", ("a", "b", "c"))))


class Killed(BaseException):
    """As a signal would: nothing is told."""


class Training:
    """Says of a network what it would come to, and writes down what was asked. kills: 1 in so many dies."""

    def __init__(self, kills=0, failing=()):
        self.asked, self.rng, self.kills, self.failing = [], np.random.default_rng(0), kills, failing

    def __call__(self, claim):
        point = claim.candidate.point
        self.asked.append((point["size"], point["kind"], claim.stop_epoch))
        if self.kills and not self.rng.integers(self.kills):
            raise Killed
        end = claim.stop_epoch or EPOCHS
        record = TrialRecord(claim.candidate.key, {}, 0, "done" if end >= EPOCHS else "pruned", epochs=end)
        record.accuracy = compute_accuracy(point, end)
        if (point["size"], end) in self.failing:
            record.status, record.accuracy, record.error = "failed", None, "the loss is not finite"
        return [record]


def compute_accuracy(point, epoch):
    """More with size and with each epoch; a's are best."""
    return (0.05 * int(point["size"]) + 0.1 * "cba".index(point["kind"])) * epoch / EPOCHS


def make(point):
    return Candidate(point, None, None, key="-".join(point.values()))


def measure(candidate):
    return Candidate(candidate.point, None, None, candidate.key, -0.5, {"macs": float(candidate.point["size"])})


def open_study(folder, enabled=True, **settings):
    halving = HalvingSettings(enabled=enabled, min_epochs=1, reduction=3)
    chosen = {"sampler": "random", "objectives": ["accuracy", "macs"], "n_trials": 12, **settings}
    settings = SearchSettings(halving=halving, **chosen)
    storage, lock = open_storage("", "test", folder)
    study = SearchStudy(settings, SPACE, storage, lock, "test", make, measure)
    study.rungs = halving.get_rungs(EPOCHS)
    return study


def read_point(ledger, number):
    return tuple(ledger.trials[number].user_attrs["claim"]["point"].values())


def work(study, training, name="worker", discard=lambda point: None):
    return Worker(name, study, training, discard, poll_seconds=0.01).run()


def check_accounts(study, training):
    """Every network begun stands in the study once, as far as it came, and no epoch was trained twice for nothing."""
    ledger = study.read_ledger()
    assert study.is_over()
    assert all(trial.state.is_finished() for trial in ledger.trials)
    assert len({tuple(t.user_attrs["claim"]["point"].values()) for t in ledger.finished}) == len(ledger.finished)
    reached = collections.defaultdict(int)
    for trial in ledger.settled:
        network = tuple(trial.user_attrs["claim"]["point"].values())
        if trial.user_attrs["outcome"]["status"] != "failed":
            reached[network] = max(reached[network], trial.user_attrs["outcome"]["epochs"])
    assert set(reached) <= {(size, kind) for size, kind, _ in training.asked}
    return ledger, reached


def test_a_third_goes_on_from_each_rung_and_what_goes_on_is_best(tmp_path):
    study, training = open_study(tmp_path), Training()
    assert work(study, training) == len(training.asked) == len(set(training.asked))
    ledger, reached = check_accounts(study, training)
    assert len(ledger.finished) == 12
    assert set(reached.values()) == {1, 3, 9}
    assert ledger.count_epochs() == sum(reached.values())
    halving = ledger.build_halving(study.rungs, 3, study.settings.costs)
    # At the end all that are among the best third of a rung have gone on. Some that were for a time have, too.
    gone_on = {network for network in map(read_network, ledger.settled) if reached[read_point(ledger, network)] > 1}
    assert set(halving.sort_rung(0)[:4]) <= gone_on
    assert len(gone_on) < 8
    # Told as far as each came, and only what is trained to the end is said to be.
    told = ledger.read_outcomes()
    assert len(told) == 12
    assert sorted(one.stopped or EPOCHS for one in told) == sorted(reached.values())
    for one in told:
        assert one.accuracy == pytest.approx(compute_accuracy(one.point, one.stopped or EPOCHS))
    # A proposer compares them all where they first stopped.
    for one in ledger.read_outcomes(first=True):
        assert (one.stopped, one.accuracy) == (1, pytest.approx(compute_accuracy(one.point, 1)))
    # All that is dominated by enough others to have no chance is among those that were stopped.
    assert {tuple(point.values()) for point in study.find_eliminated()} <= {n for n, e in reached.items() if e == 1}


def test_it_spends_less_than_training_all_and_its_end_is_on_their_frontier(tmp_path):
    with_halving, without = open_study(tmp_path / "with"), open_study(tmp_path / "without", enabled=False)
    for study in (with_halving, without):
        work(study, Training())
    spent = [study.read_ledger().count_epochs() for study in (with_halving, without)]
    assert spent[1] == 12 * EPOCHS
    assert spent[0] < spent[1] / 2
    # The same sampler and seed propose the same networks, whatever becomes of them.
    everything = {tuple(one.point.values()): one for one in without.read_ledger().read_outcomes()}
    ends = [one for one in with_halving.read_ledger().read_outcomes() if not one.stopped]
    assert ends
    assert all(everything[tuple(one.point.values())].accuracy == one.accuracy for one in ends)
    # Early epochs order these networks as the end does, so one that nothing beats is trained to the end.
    assert any(
        not any(o.accuracy > one.accuracy and o.costs["macs"] <= one.costs["macs"] for o in everything.values())
        for one in ends
    )


def test_the_surrogate_proposes_while_networks_are_stopped(tmp_path):
    study, training = open_study(tmp_path, sampler="surrogate", n_trials=18), Training()
    work(study, training)
    ledger, reached = check_accounts(study, training)
    assert len(ledger.finished) == 18
    assert EPOCHS in reached.values()


def test_a_worker_killed_while_going_on_is_followed_at_the_same_epoch(tmp_path):
    study, training = open_study(tmp_path), Training()
    first = []
    while True:  # until the first that goes on
        claim = study.claim("one")
        if claim.stop_epoch > 1:
            break
        study.tell_records(claim, training(claim))
        first.append(claim)
    study.reap_worker("one")
    again = study.claim("two")
    assert (again.candidate.key, again.stop_epoch, again.attempt) == (claim.candidate.key, 3, 2)
    # Told to stop, it is no attempt.
    study.release(again)
    once_more = study.claim("three")
    assert (once_more.candidate.key, once_more.stop_epoch, once_more.attempt) == (claim.candidate.key, 3, 2)
    # The first worker was only slow: its word comes too late.
    assert not study.tell_records(claim, training(claim))
    study.reap_worker("three")
    given_up = study.read_ledger().trials[once_more.number].user_attrs["outcome"]
    assert given_up["status"] == "failed"
    other = study.claim("four")
    assert other.candidate.key != claim.candidate.key
    study.release(other)
    work(study, training)
    ledger, reached = check_accounts(study, training)
    assert len(ledger.finished) == 12
    assert reached[tuple(claim.candidate.point.values())] == 1


def test_a_worker_killed_in_the_middle_of_a_claim_takes_nothing_with_it(tmp_path):
    study, training = open_study(tmp_path), Training()
    claim = study.claim("one")
    study.reap_worker("one")
    study.reap_silent()  # the network waits for another worker,
    study.study.ask()  # which is killed before it has written down whose it is
    again = study.claim("two")
    assert (again.candidate.key, again.attempt) == (claim.candidate.key, 2)
    study.tell_records(again, training(again))
    while study._find_promotion(ledger := study.read_ledger()) is None:
        claim = study.claim("two")
        study.tell_records(claim, training(claim))
    promotion = study._find_promotion(ledger)
    study._go_on_with(ledger, promotion)
    study.study.ask()
    goes_on = study.claim("three")
    assert (goes_on.stop_epoch, tuple(goes_on.candidate.point.values())) == (3, read_point(ledger, promotion.trial))
    study.tell_records(goes_on, training(goes_on))
    work(study, training)
    check_accounts(study, training)


def test_workers_killed_at_random_lose_no_network_and_train_none_twice(tmp_path):
    study, training, deaths = open_study(tmp_path), Training(kills=5), 0
    for worker in range(200):
        try:
            work(study, training, f"worker {worker}")
            break
        except Killed:
            deaths += 1
            study.reap_worker(f"worker {worker}")
    assert deaths > 3
    ledger, _ = check_accounts(study, training)
    assert len(ledger.finished) == 12
    counted = collections.Counter(training.asked)
    assert max(counted.values()) <= 2  # once, and once more where its worker was killed
    assert sum(counted.values()) - len(counted) <= deaths


def test_a_network_that_fails_on_the_way_stays_failed_and_the_search_ends(tmp_path):
    training = Training(failing={(str(size), 3) for size in range(1, 9)})
    study = open_study(tmp_path)
    work(study, training)
    ledger, reached = check_accounts(study, training)
    assert ledger.count("failed") >= 4
    assert set(reached.values()) == {1}
    assert all(one.accuracy is not None for one in ledger.read_outcomes())


def test_the_budget_may_be_in_epochs(tmp_path):
    study, training = open_study(tmp_path, n_epochs=10, n_trials=1000), Training()
    work(study, training)
    ledger, _ = check_accounts(study, training)
    assert 10 <= ledger.count_epochs() <= 10 + EPOCHS
    assert len(ledger.finished) < 12
    plain = open_study(tmp_path / "plain", enabled=False, n_epochs=20, n_trials=1000)
    work(plain, Training())
    assert plain.read_ledger().count_epochs() == 27  # three networks


def test_begun_again_with_more_networks_it_goes_on_with_those_it_had(tmp_path):
    work(open_study(tmp_path, n_trials=6), Training())
    study, training = open_study(tmp_path, n_trials=12), Training()
    before = {tuple(one.point.values()) for one in study.read_ledger().read_outcomes()}
    work(study, training)
    ledger = study.read_ledger()
    assert len(ledger.finished) == 12
    assert not {(size, kind) for size, kind, epoch in training.asked if epoch == 1} & before


def test_checkpoints_of_the_eliminated_are_discarded_and_of_no_other(tmp_path):
    study, training, discarded = open_study(tmp_path, n_trials=18), Training(), []
    work(study, training, discard=lambda point: discarded.append((point["size"], point["kind"], len(training.asked))))
    assert discarded
    check_accounts(study, training)
    for size, kind, place in discarded:
        assert (size, kind) in {asked[:2] for asked in training.asked[:place]}
        assert (size, kind) not in {asked[:2] for asked in training.asked[place:]}


def test_the_follower_tells_of_stops_and_counts_networks_once(tmp_path):
    study, said = open_study(tmp_path), []
    follower = SearchFollower(study, RunSpec(), said.append)
    follower.start()
    work(study, Training())
    assert follower.look() == len(study.read_ledger().settled) > 12
    assert any("stopped after epoch 1, accuracy" in line for line in said)
    assert sum("stopped after epoch 3" in line for line in said) >= 4
    assert said[-1].startswith("[12/12] ")
    assert SearchFollower(study, RunSpec(), said.append).start().finished


SWEEP = """\
# @package _global_
# Which small network?
defaults:
  - override /arch: ffem
  - override /data: synthetic
  - override /hydra/sweeper: search
data: {people: 3, images_per_person: 8, resolution: 16}
arch: {head_channels: 0, embedding_dim: 8, depth_multiplier: 0.3, stem_stride: 1}
recipe: {epochs: 2, batch_size: 6}
hydra:
  sweeper:
    sampler: grid
    n_trials: 3
    halving: {enabled: true, min_epochs: 1, reduction: 2}
    params:
      arch.width_multiplier: 0.15,0.25,0.35
"""


@pytest.mark.slow
def test_a_real_search_halves_and_ends_as_training_alone_would(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "sweeps").mkdir()
    (tmp_path / "sweeps" / "small.yaml").write_text(SWEEP)
    assert main(["sweep", "small", "--json"]) == 0
    found, said = capsys.readouterr()
    counts = json.loads(found)
    assert "after epoch 1 of 2 one network in 2 continues" in said
    assert counts["done"] >= 1
    assert counts["done"] + counts["pruned"] == 3
    assert sum(line.startswith("[") for line in said.splitlines()) == 3 + counts["done"]
    records = latest_records(read_records(counts["records"]))
    (last, *_) = [record for record in records if record.status == "done"]
    (alone,) = run_trials(read_trial(last.spec), RunSpec(progress=False), tmp_path / "alone", tmp_path / "alone.jsonl")
    same = ("trial_key", "loss", "train_accuracy", "validation_accuracy", "accuracy", "hits", "hits_gallery", "epochs")
    assert {name: getattr(last, name) for name in same} == {name: getattr(alone, name) for name in same}
    # The same command finds nothing left to do.
    assert main(["sweep", "small", "--json"]) == 0
    assert len(read_records(counts["records"])) == 3 + counts["done"]


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: HalvingSettings(reduction=1), "hydra.sweeper.halving.reduction=1 must be at least 2"),
        (lambda: HalvingSettings(True, 31).get_rungs(30), "halving.min_epochs=31 must be between 0 and 30"),
        (lambda: SearchSettings(n_epochs=-1), "hydra.sweeper.n_epochs=-1 must be at least 0"),
        (
            lambda: SearchSettings(objectives=["accuracy", "latency_ms_wasm"], halving={"enabled": True}),
            "take macs for latency_ms_wasm",
        ),
    ],
)
def test_settings_that_cannot_be_are_one_line(build, message):
    with pytest.raises(SpecError, match=message) as caught:
        build()
    assert "\n" not in str(caught.value)


def test_the_first_rung_is_a_quarter_of_the_epochs_unless_said():
    assert HalvingSettings(True).get_rungs(30) == (8, 30)
    assert HalvingSettings(True, 4).get_rungs(30) == (4, 12, 30)
    assert HalvingSettings(True).get_rungs(1) == (1,)
    assert HalvingSettings().get_rungs(30) == ()
