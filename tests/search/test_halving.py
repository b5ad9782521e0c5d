"""Successive halving: cases worked by hand, and what holds whatever comes in whatever order."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ffem_jax.search.halving import Halving, Promotion, compute_rungs


@pytest.mark.parametrize(
    ("min_epochs", "reduction", "epochs", "rungs"),
    [
        (4, 3, 30, (4, 12, 30)),
        (1, 2, 8, (1, 2, 4, 8)),
        (5, 2, 9, (5, 9)),
        (8, 4, 8, (8,)),
        (1, 10, 2, (1, 2)),
        (8, 3, 30, (8, 30)),  # and none at 24
    ],
)
def test_rungs_rise_by_the_reduction_and_end_at_the_end(min_epochs, reduction, epochs, rungs):
    assert compute_rungs(min_epochs, reduction, epochs) == rungs


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: compute_rungs(0, 3, 30), "min_epochs=0 must be between 1 and the 30 epochs"),
        (lambda: compute_rungs(31, 3, 30), "min_epochs=31 must be between"),
        (lambda: compute_rungs(4, 1, 30), "reduction=1 must be at least 2"),
        (lambda: Halving((4, 4), 3), r"rungs=\[4, 4\] must rise"),
        (lambda: Halving((), 3), r"rungs=\[\] must rise"),
        (lambda: Halving((4, 30), 3).report(0, 5, 0.5, [1]), "epoch 5 is not a rung; the rungs are: 4, 30"),
        (lambda: Halving((4, 30), 3).report(0, 4, math.nan, [1]), "must be finite"),
        (lambda: Halving((4, 30), 3).report(0, 4, 0.5, [math.inf]), "must be finite"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(build, message):
    with pytest.raises(ValueError, match=message) as caught:
        build()
    assert "\n" not in str(caught.value)


def test_all_trials_have_as_many_costs():
    halving = Halving((4, 30), 3)
    halving.report(0, 4, 0.5, [1])
    with pytest.raises(ValueError, match="trial 1 has 2 costs and the others 1"):
        halving.report(1, 30, 0.5, [1, 2])


# --------------------------------------------------------------------------------- promotions


def test_with_one_cost_for_all_it_is_plain_halving_by_accuracy():
    halving = Halving(compute_rungs(4, 3, 30), 3)
    for trial, accuracy in enumerate([0.3, 0.1, 0.5, 0.2, 0.6, 0.4]):
        assert halving.propose() is None or trial >= 3
        halving.report(trial, 4, accuracy, [7])
    assert halving.propose() == Promotion(4, 12)
    halving.claim(4, 12)
    assert halving.propose() == Promotion(2, 12)
    halving.claim(2, 12)
    assert halving.propose() is None  # two of six went on
    halving.report(4, 12, 0.7, [7])
    halving.report(2, 12, 0.8, [7])
    assert halving.propose() is None  # a third of two is none
    for trial, accuracy in enumerate([0.9, 0.05, 0.05], start=6):
        halving.report(trial, 4, accuracy, [7])
    assert halving.propose() == Promotion(6, 12)
    halving.report(6, 12, 0.1, [7])
    # Of three at epoch 12 one goes on, and the highest rung comes first.
    assert halving.propose() == Promotion(2, 30)
    assert halving.epochs_spent == 6 * 4 + 3 * 12


def list_stopped(halving):
    """The trials that wait below the last rung, each with the epoch that it was stopped at."""
    return [
        Promotion(trial, epoch)
        for epoch, results, promoted in zip(halving.rungs[:-1], halving._results, halving._promoted, strict=False)
        for trial in results
        if trial not in promoted and trial not in halving._closed
    ]


def test_a_small_network_goes_on_beside_an_accurate_one_and_a_beaten_one_does_not():
    halving = Halving((4, 30), 2)
    for trial, accuracy, size in [("large", 0.5, 10), ("small", 0.2, 1), ("beaten", 0.19, 2), ("middle", 0.3, 5)]:
        halving.report(trial, 4, accuracy, [size])
    # Rank 0 is large, middle, small; both ends stand at infinity, and the more accurate comes first.
    assert halving.sort_rung(0) == ("large", "small", "middle", "beaten")
    promoted = []
    while promotion := halving.propose():
        promoted.append(promotion.trial)
        halving.claim(*promotion)
    assert promoted == ["large", "small"]
    assert list_stopped(halving) == [("beaten", 4), ("middle", 4)]


def test_a_copy_takes_no_place_of_the_front():
    halving = Halving((1, 2), 2)
    for trial, accuracy, size in [(0, 0.5, 5), (1, 0.5, 5), (2, 0.5, 5), (3, 0.2, 1)]:
        halving.report(trial, 1, accuracy, [size])
    assert halving.sort_rung(0) == (0, 3, 1, 2)


def test_closing_a_search_takes_one_trial_to_the_end():
    halving = Halving((4, 12, 30), 3)
    halving.report(0, 4, 0.2, [5])
    halving.report(1, 4, 0.4, [5])
    assert halving.propose() is None
    assert halving.propose(closing=True) == Promotion(1, 12)
    halving.report(1, 12, 0.5, [5])
    assert halving.propose(closing=True) == Promotion(1, 30)
    halving.report(1, 30, 0.6, [5])
    assert halving.propose(closing=True) is None
    assert Halving((4, 30), 3).propose(closing=True) is None
    # Who qualifies by the rule goes first: the best of two goes to the end and not the one that came early.
    halving = Halving((1, 2, 4), 2)
    for trial, accuracy in enumerate([0.2, 0.4, 0.3, 0.1]):
        halving.report(trial, 1, accuracy, [5])
    halving.report(1, 2, 0.4, [5])
    assert halving.propose(closing=True) == Promotion(2, 2)
    halving.report(2, 2, 0.5, [5])
    assert halving.propose(closing=True) == Promotion(2, 4)


def test_a_failed_trial_keeps_its_place_and_never_goes_on():
    halving = Halving((1, 2), 2)
    for trial, accuracy in enumerate([0.9, 0.8, 0.7, 0.6]):
        halving.report(trial, 1, accuracy, [1])
    halving.claim(*halving.propose())
    halving.close(0)  # it failed on the way to epoch 2
    assert halving.propose() == Promotion(1, 2)
    halving.close(1)  # its checkpoint is gone: nobody takes its place
    assert halving.propose() is None
    halving.close("refused before it began")
    assert halving.propose() is None


def test_trials_that_enough_others_dominate_are_eliminated():
    halving = Halving((1, 2), 2)
    for trial, accuracy in enumerate([0.9, 0.8, 0.7, 0.6]):
        halving.report(trial, 1, accuracy, [1])
    assert halving.find_eliminated(4) == [2, 3]
    assert halving.find_eliminated(6) == [3]
    assert halving.find_eliminated(8) == []
    halving.close(3)
    assert halving.find_eliminated(6) == []
    assert Halving((4,), 2).find_eliminated(10) == []


# ------------------------------------------------------------------- whatever comes, any order

# Few values, so that ties and copies are many. Each draw is one thing that a worker does.
values = st.tuples(st.integers(0, 3), st.integers(0, 3))
events = st.lists(
    st.tuples(st.sampled_from(("ask", "finish", "fail")), values, st.integers(0, 20)), min_size=25, max_size=80
)


def dominates(first, second):
    return first[0] >= second[0] and first[1] <= second[1] and first != second


class Search:
    """Workers on one Halving, with records of its own to judge it by."""

    def __init__(self, reduction):
        self.halving = Halving(compute_rungs(1, reduction, reduction**2), reduction)
        self.seen = {epoch: {} for epoch in self.halving.rungs}
        self.running, self.promoted, self.failed, self.started = [], set(), set(), 0

    def ask(self):
        promotion = self.halving.propose()
        if promotion is None:
            promotion, self.started = Promotion(self.started, self.halving.rungs[0]), self.started + 1
        else:
            self.check(promotion)
            self.promoted.add(promotion)
        self.halving.claim(*promotion)
        self.running.append(promotion)

    def check(self, promotion):
        assert promotion not in self.promoted
        rungs = self.halving.rungs
        below = rungs[rungs.index(promotion.epoch) - 1]
        rung = self.seen[below]
        waiting = [t for t in rung if Promotion(t, promotion.epoch) not in self.promoted and t not in self.failed]
        assert promotion.trial in waiting
        own = rung[promotion.trial]
        assert not any(dominates(rung[trial], own) for trial in waiting)
        # Those that dominate it and so come before it leave it a place.
        assert sum(dominates(other, own) for other in rung.values()) < len(rung) // self.halving.reduction

    def end(self, value, which, failed):
        if not self.running:
            return
        trial, epoch = self.running.pop(which % len(self.running))
        if failed:
            self.halving.close(trial)
            self.failed.add(trial)
        else:
            self.seen[epoch][trial] = value
            self.halving.report(trial, epoch, value[0], [value[1]])

    def play(self, events):
        for event, value, which in events:
            if event == "ask":
                self.ask()
            else:
                self.end(value, which, event == "fail")
            yield


@settings(max_examples=60, deadline=None)
@given(st.sampled_from((2, 3)), events)
def test_what_goes_on_is_never_dominated_by_what_waits(reduction, events):
    search = Search(reduction)
    for _ in search.play(events):
        pass
    assert search.halving.epochs_spent == sum(
        max(epoch for epoch, rung in search.seen.items() if trial in rung)
        for trial in {trial for rung in search.seen.values() for trial in rung}
    )


@settings(max_examples=40, deadline=None)
@given(st.sampled_from((2, 3)), events)
def test_what_is_eliminated_never_goes_on(reduction, events):
    given_up, search = set(), Search(reduction)
    total = sum(event == "ask" for event, *_ in events)
    for _ in search.play(events):
        stopped = dict(list_stopped(search.halving))
        given_up.update(Promotion(t, stopped[t] * reduction) for t in search.halving.find_eliminated(total))
        assert not given_up & search.promoted


@settings(max_examples=40, deadline=None)
@given(st.sampled_from((2, 3)), events, st.randoms(use_true_random=False))
def test_the_state_follows_from_results_and_what_is_running(reduction, events, random):
    search = Search(reduction)
    for _ in search.play(events):
        pass
    again = Halving(search.halving.rungs, reduction)
    # Rung by rung in order of arrival, which decides between equals; the rungs in any order.
    rows = [[(trial, epoch, *value) for trial, value in rung.items()] for epoch, rung in search.seen.items()]
    random.shuffle(rows)
    for trial in search.failed:
        again.close(trial)
    for promotion in search.running:
        again.claim(*promotion)
    for trial, epoch, accuracy, size in [row for rung in rows for row in rung]:
        again.report(trial, epoch, accuracy, [size])
    assert again.propose() == search.halving.propose()
    assert list_stopped(again) == list_stopped(search.halving)
    assert again.epochs_spent == search.halving.epochs_spent
