"""What a written file computes, held against the network it was made from, on the trial's own held-out faces.

A file's numbers are close or not; whether that matters is told by the answers. So the accuracy of both is measured on
the same images: of the classifier (the record's accuracy), and of the nearest enrolled face (Eq. 6) where the gallery
is the reference's, as it is where photographs are enrolled on a computer and compared with vectors from phones.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import jax
import numpy as np

from ffem_jax.data import Faces
from ffem_jax.data.bins import Bins
from ffem_jax.data.pairs import Pairs
from ffem_jax.data.protocols import Split
from ffem_jax.export.layers import LayerList
from ffem_jax.export.reference import run_layers
from ffem_jax.machine.processor import describe_processor
from ffem_jax.metrics.duplicates import find_duplicates
from ffem_jax.metrics.identification import compute_closed_set_hits
from ffem_jax.metrics.matching import calibrate_sigma
from ffem_jax.metrics.open_set import find_rank1_hits
from ffem_jax.metrics.verification import choose_threshold, compute_pair_distances
from ffem_jax.models import normalize_pixels
from ffem_jax.training.weights import FinishedTrial

EMBED_BATCH = 64
# Of the held-out faces, evenly over them: a phone's runtime takes them one by one.
IMAGES_AT_MOST = 2000
FALSE_ACCEPT_RATES = (0.1, 0.01, 0.001)


@dataclass(frozen=True, eq=False)
class Reference:
    """A trained network on its trial's faces. embeddings [image, D] of `images`, indices into faces.

    tested: positions in `images` of those that are tested; gallery: of those that train, empty under view2.
    """

    finished: FinishedTrial
    faces: Faces
    split: Split
    images: np.ndarray
    embeddings: np.ndarray

    @property
    def tested(self) -> np.ndarray:
        return np.flatnonzero(np.isin(self.images, self.split.test))

    @property
    def gallery(self) -> np.ndarray:
        return np.flatnonzero(np.isin(self.images, self.split.train))

    def get_pixels(self, positions: np.ndarray) -> np.ndarray:
        """The network's input [position, R, R, 3] of images by their positions."""
        return np.asarray(normalize_pixels(self.faces.images[self.images[positions]]))


def embed_reference(finished: FinishedTrial, faces: Faces, split: Split) -> Reference:
    """Embeddings of the held-out faces and, where those who train are tested, of theirs, by the network itself."""
    if split.bins:
        faces, split = take_pairs(split.bins, finished.trial.protocol.fold)
    tests = split.test
    if split.probes is not None:
        tests = tests[:IMAGES_AT_MOST]  # the first: people stay whole
    elif split.pairs is None and len(tests) > IMAGES_AT_MOST:
        tests = tests[np.linspace(0, len(tests) - 1, IMAGES_AT_MOST).astype(int)]
    images = np.sort(tests if split.tests_strangers else np.concatenate([tests, split.train]))
    return Reference(finished, faces, split, images, embed(finished, faces.images[images]))


def take_pairs(bins: Bins, fold: int) -> tuple[Faces, Split]:
    """Pairs of the sets of `bins`, spread over them, as faces of nobody who trains and as pairs of that fold."""
    same = np.concatenate([one.same for one in bins.sets])
    # Drawn, for sets alternate between the two kinds of pairs, in blocks or one by one.
    taken = np.sort(np.random.default_rng(0).permutation(len(same))[: IMAGES_AT_MOST // 2])
    images = np.concatenate([one.images for one in bins.sets])[np.repeat(2 * taken, 2) + np.tile([0, 1], len(taken))]
    everything = np.arange(len(images))
    pairs = Pairs(everything[0::2], everything[1::2], same[taken], np.full(len(taken), fold))
    names = tuple(map(str, everything))
    faces = Faces(images, everything, names, names, names)
    return faces, Split(everything[:0], everything, pairs=pairs, bins=bins)


def embed(finished: FinishedTrial, images: np.ndarray) -> np.ndarray:
    """Embeddings [N, D] of uint8 faces [N, R, R, 3] by the trained network, the mirror image left out."""
    compute = jax.jit(finished.classifier.network)
    return np.concatenate([np.asarray(compute(batch)) for batch in _cut_batches(images)])[: len(images)]


def embed_again(reference: Reference, network: LayerList) -> Reference:
    """The same faces by another network, such as one that was trained further for its export."""
    compute = jax.jit(lambda pixels: run_layers(network, pixels)["embedding"])
    images = reference.faces.images[reference.images]
    parts = [np.asarray(compute(normalize_pixels(batch))) for batch in _cut_batches(images)]
    return replace(reference, embeddings=np.concatenate(parts)[: len(images)])


def _cut_batches(images: np.ndarray) -> np.ndarray:
    """Images [N, R, R, 3] as [batch, EMBED_BATCH, R, R, 3], filled up with zeros."""
    padded = np.concatenate([images, np.zeros((-len(images) % EMBED_BATCH, *images.shape[1:]), images.dtype)])
    return padded.reshape(-1, EMBED_BATCH, *images.shape[1:])


def compare_embeddings(reference: np.ndarray, exported: np.ndarray) -> dict[str, float]:
    """max_difference of single numbers; mean and lowest cosine between the two vectors of an image."""
    first, second = (values / np.linalg.norm(values, axis=1, keepdims=True) for values in (reference, exported))
    cosines = (first * second).sum(axis=1)
    return {
        "max_difference": float(np.abs(reference - exported).max()),
        "largest": float(np.abs(reference).max()),
        "cosine_mean": float(cosines.mean()),
        "cosine_lowest": float(cosines.min()),
    }


def measure_parity(reference: Reference, run: Callable[[np.ndarray], tuple[np.ndarray, str]]) -> dict[str, Any]:
    """The fields `parity` and `accuracy` of export.json, of a file that `run` runs."""
    tested = reference.tested
    exported, runtime = run(reference.get_pixels(tested))
    parity = {
        "ran": True,
        "runtime": runtime,
        "processor": describe_processor(),
        "images": len(tested),
        **compare_embeddings(reference.embeddings[tested], exported),
    }
    split = reference.split
    judge = _judge_pairs if split.pairs else _judge_strangers if split.probes is not None else _judge_people
    return {"parity": parity, "accuracy": judge(reference, exported)}


def _judge_people(reference: Reference, exported: np.ndarray) -> dict[str, Any]:
    labels, (tested, gallery) = reference.faces.labels, (reference.tested, reference.gallery)
    own, enrolled = labels[reference.images[tested]], labels[reference.images[gallery]]
    weights = compute_class_weights(reference.finished)
    people = np.unique(labels[reference.split.train])

    def classify(embeddings: np.ndarray) -> np.ndarray:
        return people[(embeddings @ weights[0] + weights[1]).argmax(axis=1)] == own

    def match(embeddings: np.ndarray) -> np.ndarray:
        return compute_closed_set_hits(embeddings, own, reference.embeddings[gallery], enrolled)

    before = reference.embeddings[tested]
    return {
        "measure": "classifier",
        **_compare_hits(classify(before), classify(exported)),
        "gallery": _compare_hits(match(before), match(exported)),
    }


def compute_class_weights(finished: FinishedTrial) -> tuple[np.ndarray, np.ndarray]:
    """kernel [D, people] and bias [people] whose argmax is the classifier's answer, the embedding as it is."""
    kernel = np.asarray(finished.classifier.classifier.kernel[...])
    bias = finished.classifier.classifier.bias
    if finished.classifier.classifier.scale is None:
        assert bias is not None
        return kernel, np.asarray(bias[...])
    return kernel / np.linalg.norm(kernel, axis=0), np.zeros(kernel.shape[1], kernel.dtype)


def _judge_pairs(reference: Reference, exported: np.ndarray) -> dict[str, Any]:
    """Of the tested fold's pairs at the threshold that suits these very pairs best: it is the change that is asked."""
    pairs = reference.split.pairs
    assert pairs is not None
    fold = pairs.fold == reference.finished.trial.protocol.fold
    first, second = (np.searchsorted(reference.images, side[fold]) for side in (pairs.first, pairs.second))
    same = pairs.same[fold]

    everywhere = np.zeros_like(reference.embeddings)
    everywhere[reference.tested] = exported
    before, after = (
        compute_pair_distances(embeddings[first], embeddings[second])
        for embeddings in (reference.embeddings, everywhere)
    )
    threshold = choose_threshold(before, same)
    return {"measure": "pairs", **_compare_hits((before <= threshold) == same, (after <= threshold) == same)}


def _judge_strangers(reference: Reference, exported: np.ndarray) -> dict[str, Any]:
    """Of the tested people, by the most similar other image."""
    people = reference.faces.labels[reference.images[reference.tested]]
    before, after = (find_rank1_hits(e, people)[1] for e in (reference.embeddings[reference.tested], exported))
    return {"measure": "rank-1", **_compare_hits(before, after)}


def _compare_hits(before: np.ndarray, after: np.ndarray) -> dict[str, Any]:
    return {
        "reference": float(before.mean()),
        "exported": float(after.mean()),
        "change": float(after.mean() - before.mean()),
        "images": len(before),
        "answers_changed": int((before != after).sum()),
    }


def calibrate_thresholds(reference: Reference) -> dict[str, float]:
    """The distance (Eq. 7) at which so many training faces would be taken for somebody else, by false-accept rate.

    Empty where nobody who is tested is enrolled: those who trained are no strangers.
    """
    gallery = reference.gallery
    if reference.split.tests_strangers or not len(gallery):
        return {}
    images = reference.images[gallery]
    labels, embeddings = reference.faces.labels[images], reference.embeddings[gallery]
    # A picture under two people is no pair of different people.
    kept = find_duplicates(labels, [reference.faces.content[image] for image in images]).select(len(images))
    if len(np.unique(labels[kept])) < 2:
        return {}
    return {f"{rate:g}": calibrate_sigma(embeddings[kept], labels[kept], rate) for rate in FALSE_ACCEPT_RATES}
