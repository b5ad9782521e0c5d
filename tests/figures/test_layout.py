import itertools

import pytest

from ffem_jax.figures.layout import Label, place_labels


def overlap(a, b):
    return min(a[2], b[2]) - max(a[0], b[0]) > 1e-9 and min(a[3], b[3]) - max(a[1], b[1]) > 1e-9


def test_labels_cover_neither_each_other_nor_obstacles():
    xs = [100.0, 113.0, 126.0, 139.0, 300.0]
    labels = [Label(x, 150, 130, 170, 60, 10, required=i == 0) for i, x in enumerate(xs)]
    obstacles = [(x - 1.5, 130.0, x + 1.5, 170.0) for x in xs]
    bounds = (0.0, 0.0, 400.0, 300.0)
    placements = place_labels(labels, obstacles, bounds)
    assert None not in placements
    for placement in placements:
        assert placement.box[0] >= 0
        assert placement.box[3] <= 300
    for a, b in itertools.combinations(placements, 2):
        assert not overlap(a.box, b.box)
    for label, placement in zip(labels, placements, strict=True):
        for obstacle in obstacles:
            own = abs((obstacle[0] + obstacle[2]) / 2 - label.x) < 1
            assert own or not overlap(placement.box, obstacle)


def test_a_lone_label_stands_right_of_its_mark():
    (placement,) = place_labels([Label(50, 50, 40, 60, 30, 10)], [], (0, 0, 200, 100))
    assert placement.box[0] > 50
    assert placement.centre[1] == 50
    assert not placement.rotated
    assert not placement.leader


@pytest.mark.parametrize("required", [True, False])
def test_without_room_only_the_required_are_placed(required):
    everywhere = [(-500.0, -500.0, 480.0, 500.0)]
    (placement,) = place_labels([Label(50, 50, 40, 60, 30, 10, required)], everywhere, (0, 0, 100, 100))
    assert (placement is not None) == required


def test_numbers_stand_above_their_whiskers():
    (placement,) = place_labels([Label(50, 50, 40, 60, 8, 10, beside=False)], [], (0, 0, 200, 100))
    assert placement.box[1] > 60
    assert placement.centre[0] == 50


def test_marks_at_one_cost_are_in_the_way_of_each_others_names():
    labels = [Label(50, 20 + 12 * n, 12 * n, 40 + 12 * n, 8, 10, beside=False) for n in range(5)]
    marks = [(45.0, label.y - 5, 55.0, label.y + 5) for label in labels]
    whiskers = [(48.5, label.low - 12, 51.5, label.high + 12) for label in labels]
    placements = place_labels(labels, marks + whiskers, (0, -60, 200, 200))
    for number, placement in enumerate(placements):
        for other, (mark, whisker) in enumerate(zip(marks, whiskers, strict=True)):
            assert other == number or (not overlap(placement.box, mark) and not overlap(placement.box, whisker))
    for a, b in itertools.combinations(placements, 2):
        assert not overlap(a.box, b.box)
