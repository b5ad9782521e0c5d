"""Points as numbers: there and back, likeness by hand, and draws like the space's own."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from ffem_jax.search.model.encoding import (
    INACTIVE,
    change_codes,
    decode_point,
    embed_codes,
    encode_points,
    sample_codes,
)
from ffem_jax.search.space import Choice, SearchSpace

SPACE = SearchSpace(
    (
        Choice("width", ("1", "2", "4"), ordered=True),
        Choice("kind", ("none", "eca", "se")),
        Choice("placement", ("first", "all"), when=(("kind", ("eca", "se")),)),
        Choice("reduction", ("4", "8", "16"), when=(("kind", ("se",)), ("placement", ("all",))), ordered=True),
        Choice("only", ("1",)),
    )
)


def test_there_and_back():
    points = list(SPACE)
    codes = encode_points(SPACE, points)
    assert [decode_point(SPACE, row) for row in codes] == points
    assert (codes == INACTIVE).any()


def test_likeness_by_hand():
    width = {"kind": "none", "only": "1"}
    a, b, c = ({"width": value, **width} for value in "124")
    d = {"width": "1", "kind": "se", "placement": "all", "reduction": "4", "only": "1"}
    e = {**d, "reduction": "16"}
    f = {"width": "1", "kind": "eca", "placement": "all", "only": "1"}
    features = embed_codes(SPACE, encode_points(SPACE, [a, b, c, d, e, f]))
    alike = features @ features.T
    # Four choices that vary: width, kind, placement, reduction.
    expected = {
        (0, 0): 1, (3, 3): 1,
        (0, 1): (1 / 2 + 3) / 4,  # one of two steps apart; the same lacks
        (0, 2): 3 / 4,  # as far as can be
        (0, 3): 1 / 4,  # another kind, and two choices that only one has
        (3, 4): 3 / 4,  # the two ends of reduction
        (3, 5): 2 / 4,  # the same placement
    }  # fmt: skip
    for (row, column), value in expected.items():
        assert alike[row, column] == pytest.approx(value, abs=1e-6)
    assert np.allclose(np.diag(alike), 1)


def test_all_points_of_a_small_space_come_once():
    codes = sample_codes(SPACE, 1000, np.random.default_rng(0))
    assert len(codes) == len({tuple(row) for row in codes.tolist()}) == SPACE.size
    few = sample_codes(SPACE, SPACE.size // 2 + 1, np.random.default_rng(0))
    assert len({tuple(row) for row in few.tolist()}) == SPACE.size // 2 + 1


def test_draws_are_the_spaces_own():
    many = SearchSpace((*SPACE.choices, *(Choice(f"c{n}", ("0", "1", "2", "3")) for n in range(8))))
    draw = np.random.default_rng(1)
    codes = sample_codes(many, 4000, draw)
    points = [decode_point(many, row) for row in codes]
    assert len({tuple(point.items()) for point in points}) == 4000
    assert all(many.get_active(point) == point for point in points)
    drawn, theirs = (
        Counter((p["kind"], p.get("placement"), p.get("reduction")) for p in some)
        for some in (points, [many.sample(draw) for _ in range(4000)])
    )
    assert drawn.keys() == theirs.keys()
    # Of 4,000 draws the deviation is at most 32 each.
    assert all(abs(drawn[key] - theirs[key]) < 200 for key in drawn)


def test_neighbours_are_points_near_their_parents():
    parents = encode_points(SPACE, [{"width": "2", "kind": "se", "placement": "all", "reduction": "8", "only": "1"}])
    codes = change_codes(SPACE, parents, 500, np.random.default_rng(2))
    points = [decode_point(SPACE, row) for row in codes]
    assert all(SPACE.get_active(point) == point for point in points)
    assert len({tuple(row) for row in codes.tolist()}) == len(codes) > 5
    assert np.mean(embed_codes(SPACE, codes) @ embed_codes(SPACE, parents)[0]) > 0.5
