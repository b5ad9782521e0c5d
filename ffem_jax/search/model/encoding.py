"""Points of a space as numbers: compact codes for a million points, and features for the surrogate. NumPy only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from ffem_jax.search.space import Point, SearchSpace

INACTIVE = -1


def encode_points(space: SearchSpace, points: Sequence[Mapping[str, str]]) -> np.ndarray:
    """Return each point as the indices of its values, int16 [point, choice]; INACTIVE for choices it does not have."""
    places = [{value: index for index, value in enumerate(choice.values)} for choice in space.choices]
    rows = [
        [
            place[point[choice.name]] if choice.name in point else INACTIVE
            for choice, place in zip(space.choices, places, strict=True)
        ]
        for point in points
    ]
    return np.array(rows, dtype=np.int16).reshape(len(points), len(space.choices))


def decode_point(space: SearchSpace, codes: np.ndarray) -> Point:
    """Return the point of one row of codes [choice]."""
    chosen = zip(space.choices, codes.tolist(), strict=True)
    return {choice.name: choice.values[code] for choice, code in chosen if code != INACTIVE}


def sample_codes(space: SearchSpace, count: int, rng: np.random.Generator) -> np.ndarray:
    """Return `count` distinct points, drawn as by `SearchSpace.sample`, int16 [point, choice]; all if there are fewer.

    The points are in random order, in a small space too.
    """
    if space.size <= 2 * count:
        codes = encode_points(space, list(space))
        return codes[rng.permutation(len(codes))[:count]]
    found = np.empty((0, len(space.choices)), dtype=np.int16)
    for _ in range(20):  # draws repeat earlier points; a few rounds fill the gaps
        drawn = np.vstack([found, _draw_codes(space, count, rng)])
        found = drawn[np.sort(_find_first(drawn))][:count]
        if len(found) == count:
            break
    return found


def draw_all_codes(space: SearchSpace, count: int, rng: np.random.Generator) -> np.ndarray:
    """Return `count` draws of a value for every choice, active or not, int16 [point, choice]."""
    columns = [rng.integers(len(choice.values), size=count, dtype=np.int16) for choice in space.choices]
    return np.stack(columns, axis=1)


def deactivate_codes(space: SearchSpace, codes: np.ndarray) -> np.ndarray:
    """Return `codes` [point, choice], changed in place: INACTIVE where the other values do not activate a choice."""
    places = {choice.name: index for index, choice in enumerate(space.choices)}
    for index, choice in enumerate(space.choices):  # each after those on which it depends
        for name, values in choice.when:
            wanted = [space.by_name[name].values.index(value) for value in values]
            codes[~np.isin(codes[:, places[name]], wanted), index] = INACTIVE
    return codes


def _draw_codes(space: SearchSpace, count: int, rng: np.random.Generator) -> np.ndarray:
    return deactivate_codes(space, draw_all_codes(space, count, rng))


def change_codes(
    space: SearchSpace, codes: np.ndarray, count: int, rng: np.random.Generator, changes: float = 1.5
) -> np.ndarray:
    """Return neighbours of the points `codes` [point, choice]: in each, about `changes` choices are resampled.

    Returns:
        At most `count` distinct points, int16 [point, choice].
    """
    drawn = _draw_codes(space, count, rng)
    parents = codes[rng.integers(len(codes), size=count)]
    anew = rng.random(drawn.shape) < changes / len(space.choices)
    anew[np.arange(count), rng.integers(drawn.shape[1], size=count)] = True
    for index, choice in enumerate(space.choices):
        fresh = rng.integers(len(choice.values), size=count, dtype=np.int16)
        # An inactive choice has no value to keep.
        drawn[:, index] = np.where(anew[:, index] | (parents[:, index] == INACTIVE), fresh, parents[:, index])
    deactivate_codes(space, drawn)
    return drawn[np.sort(_find_first(drawn))]


def _find_first(codes: np.ndarray) -> np.ndarray:
    """Return the index of the first occurrence of each distinct row."""
    rows = np.ascontiguousarray(codes).view(np.dtype((np.void, codes.dtype.itemsize * codes.shape[1]))).ravel()
    return np.unique(rows, return_index=True)[1]


def embed_codes(space: SearchSpace, codes: np.ndarray) -> np.ndarray:
    """Return features of points, float32 [point, feature]; the dot product of two rows is their similarity, in 0 to 1.

    The similarity is a mean over choices: 1 for equal values and 0 for different ones; for ordered values, 1 minus the
    share of the order between them (thermometer coding). A choice that both points lack counts as equal, one that only
    one of them lacks as different. A choice with one value is left out.

    Args:
        codes: [point, choice], from `encode_points`.
    """
    columns = []
    for index, choice in enumerate(space.choices):
        levels, code = len(choice.values), codes[:, index]
        if levels < 2 and not choice.when:
            continue
        if choice.ordered and levels > 1:
            above = code[:, None] > np.arange(levels - 1)
            active = (code != INACTIVE)[:, None]
            part = np.hstack([above, ~above & active]) / np.sqrt(levels - 1)
        else:
            part = (code[:, None] == np.arange(levels)).astype(np.float64)
        columns.append(np.hstack([part, (code == INACTIVE)[:, None]]) if choice.when else part)
    if not columns:
        return np.ones((len(codes), 1), dtype=np.float32)
    return (np.hstack(columns) / np.sqrt(len(columns))).astype(np.float32)
