"""The settings of a protocol, which divides images into training and test, and those that each kind reads."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ffem_jax.specs.fields import SpecError, check_fields, check_range, select_used, setting

# Settings that each kind ignores.
_UNREAD = {
    "holdout": {"folds", "fold", "bins", "bins_root"},
    "kfold": {"test_per_person", "test_people", "bins", "bins_root"},
    "view2": {"test_per_person", "test_people", "folds", "sigma", "far_target", "bins", "bins_root"},
    "open_set": {
        "test_per_person", "test_people", "sigma", "far_target", "validation_per_person", "bins", "bins_root",
    },
    "bins": {"test_per_person", "test_people", "folds", "fold", "sigma", "far_target", "bins_root"},
}  # fmt: skip
PROTOCOLS = tuple(_UNREAD)


@dataclass(frozen=True)
class ProtocolSpec:
    """How images are divided into training and test.

    holdout: `test_per_person` images of each person, drawn by `split_seed`, test; the rest train.
    kfold: `folds` stratified folds drawn by `split_seed`; fold number `fold` tests, the others train.
    view2: fold number `fold` of the `folds` folds of pairs in LFW's pairs.txt tests; its people do not train.
    open_set: `folds` folds of people drawn by `split_seed`; the people of fold number `fold` test, the others train.
    bins: all people train; the pairs of insightface's evaluation sets test, ten folds of each.
    """

    name: str = setting(
        "holdout",
        "How images are split: some of each person (holdout), stratified folds (kfold), LFW's pairs (view2), folds "
        "of people (open_set) or not at all, with insightface's evaluation sets to test (bins).",
        choices=PROTOCOLS,
        source="view2: Huang et al., Labeled Faces in the Wild, 2007, section III; bins: insightface, verification.py",
    )
    test_per_person: int = setting(
        2,
        "For holdout: test images per person.",
        low=1,
        unit="images per person",
        source="Xiao et al., Electronics 2024, 13, 201, section 3",
    )
    folds: int = setting(5, "Number of folds.", low=2)
    fold: int = setting(0, "The fold that tests, from 0.", low=0)
    split_seed: int = setting(0, "Random seed of the split.", low=0)
    sigma: float = setting(
        0.5,
        "Two faces count as one person up to this half distance of their unit vectors.",
        low=0.0,
        high=1.0,
        source="Eq. 7 of Xiao et al., Electronics 2024, 13, 201",
    )
    far_target: float = setting(
        0.01, "The target false-accept rate of the calibrated threshold, on training images only.",
        low=0.0, high=1.0, unit="fraction of pairs",
    )  # fmt: skip
    validation_per_person: int = setting(
        0,
        "The images of each person held out of training for the accuracy after each epoch; with 0 that accuracy is "
        "of the test images, and view2 and bins have none.",
        low=0,
        unit="images per person",
        added=True,
    )
    test_people: int = setting(
        0,
        "For holdout: number of people to test, those with the most images, ties by name; 0 tests all.",
        low=0,
        unit="people",
        added=True,
    )
    bins: tuple[str, ...] = setting(
        (), "For bins: the evaluation sets, such as [lfw,cfp_fp,agedb_30]; empty tests all in the folder.", added=True
    )
    bins_root: str = setting("", "For bins: the folder with lfw.bin and others; empty uses data.root.", added=True)

    def __post_init__(self) -> None:
        check_fields(self, "protocol")
        # A text would be a sequence of letters.
        bins: Any = self.bins
        odd = [name for name in bins if name in ("", ".", "..") or "/" in name or "\\" in name]
        if odd or isinstance(bins, str) or len(set(bins)) < len(bins):
            raise SpecError(
                f"protocol.bins={bins if isinstance(bins, str) else list(bins)} must name each set once, "
                "as its file is called without .bin: [lfw,agedb_30]; the folder is protocol.bins_root"
            )
        # The order of sets does not matter, so it must not change the protocol.
        object.__setattr__(self, "bins", tuple(sorted(bins)))
        check_range("protocol.fold", self.fold, 0, self.folds - 1)
        if self.name == "open_set" and self.validation_per_person:
            raise SpecError(
                f"protocol.validation_per_person={self.validation_per_person} does not apply to protocol=open_set, "
                "which has no accuracy after each epoch, since no test person trains; set it to 0"
            )


def select_effective_protocol(protocol: ProtocolSpec) -> dict[str, Any]:
    """Return the values that this kind of protocol reads."""
    unread = _UNREAD[protocol.name]
    if protocol.name in ("view2", "bins") and not protocol.validation_per_person:
        unread = unread | {"split_seed"}
    return {name: value for name, value in select_used(protocol).items() if name not in unread}
