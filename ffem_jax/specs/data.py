"""The settings of a data set, and the registry of data sets."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from ffem_jax.specs.fields import check_fields, setting
from ffem_jax.specs.registry import Reference, Registry, check_signature

Loader = TypeVar("Loader", bound=Callable[..., Any])


@dataclass(frozen=True)
class DataSet:
    """A data set that `data.name` can choose.

    load: (DataSpec) -> `data.Faces`. find_pairs: (DataSpec) -> the path of a pairs.txt, if there is one for
    protocol=view2. source: the paper, or the origin of the faces.
    """

    name: str
    load: Reference
    source: str = ""
    find_pairs: Reference | None = None


DATA_SETS: Registry[DataSet] = Registry("data.name")

_LFW = "Huang et al., Labeled Faces in the Wild, 2007"
DATA_SETS.register(DataSet("lfw52", "ffem_jax.data.lfw:load", _LFW))
DATA_SETS.register(DataSet("lfw", "ffem_jax.data.lfw:load", _LFW, find_pairs="ffem_jax.data.lfw:find_pairs"))
DATA_SETS.register(DataSet("lfw_rest", "ffem_jax.data.lfw:load", _LFW))
DATA_SETS.register(DataSet("folder", "ffem_jax.data.folder:load", "user-provided, data.root=DIR"))
DATA_SETS.register(DataSet("recordio", "ffem_jax.data.recordio:load", "user-provided, in insightface's format"))
DATA_SETS.register(DataSet("tfds", "ffem_jax.data.tfds:load", "prepared by TensorFlow Datasets, data.builder=NAME"))
DATA_SETS.register(DataSet("webdataset", "ffem_jax.data.webdataset:load", "user-provided, in WebDataset's tar files"))
DATA_SETS.register(
    DataSet("parquet", "ffem_jax.data.parquet:load", "user-provided, in the format of Hugging Face's datasets")
)
DATA_SETS.register(DataSet("synthetic", "ffem_jax.data.synthetic:load", "drawn by ffem_jax/data/synthetic.py"))


def register_data_set(name: str, source: str = "", find_pairs: Reference | None = None) -> Callable[[Loader], Loader]:
    """Decorator that registers a function (DataSpec) -> `data.Faces` as the data set `data.name=NAME`.

    `data=NAME` also needs a file data/NAME.yaml under --config-dir, with `name: NAME`.

    Args:
        name: letters, digits and _.
        source: the paper, or the origin of the faces.
        find_pairs: (DataSpec) -> the path of a pairs.txt like LFW's, for protocol=view2.

    Raises:
        SpecError: the name is taken, or the function has another signature.
    """

    def register(load: Loader) -> Loader:
        check_signature(f"data.name={name}", load, ("spec",))
        if find_pairs is not None:
            check_signature(f"data.name={name}, find_pairs", find_pairs, ("spec",))
        DATA_SETS.register(DataSet(name, load, source, find_pairs))
        return load

    return register


# How images are made square; the first is the default.
FITS = ("crop", "pad", "stretch")


@dataclass(frozen=True)
class DataSpec:
    """The faces and their size. `cache_dir` does not affect results."""

    name: str = setting("lfw52", "The data set.", choices=lambda: DATA_SETS.names)
    root: str = setting(
        "",
        "The folder of the faces; if empty, the environment (FFEM_LFW_ROOT for lfw), or else a download.",
    )
    resolution: int = setting(96, "Side length of the square image.", low=16, high=512, unit="pixels")
    people: int = setting(
        0, "Number of people to keep, those with the most images, ties by name; 0 keeps all.", low=0, unit="people"
    )
    min_images: int = setting(2, "The minimum number of images per person.", low=1, unit="images per person")
    max_images: int = setting(
        0, "Number of images to keep per person, the first by file name; 0 keeps all.", low=0,
        unit="images per person",
    )  # fmt: skip
    crop: float = setting(
        1.0,
        "The centred square to keep; 1 keeps the whole image, and lfw's face is the middle 140 of 250 pixels.",
        low=0.05,
        high=1.0,
        unit="fraction of the frame's side",
    )
    fit: str = setting(
        FITS[0],
        "How an image is made square: crop cuts off the ends of its longer side, pad keeps all of it between grey "
        "borders, stretch squeezes it. Square images are the same under all three. The recognition page and the "
        "mini-program support only crop.",
        choices=FITS,
        added=True,
    )
    unlabelled: str = setting(
        "",
        "The folder (or label) of images without identities: they train on the teacher's vectors and never test. It "
        "needs recipe=distill, and protocol=open_set or bins; min_images, max_images and people do not apply to "
        "it.",
        added=True,
    )
    images_per_person: int = setting(
        20, "For synthetic faces: number of images per person.", low=2, unit="images per person"
    )
    difficulty: float = setting(
        1.0,
        "For synthetic faces: how much pose, light and occlusion vary, and how similar people are.",
        low=0.0,
        high=4.0,
    )
    seed: int = setting(0, "For synthetic faces: random seed of the people.", low=0)
    cache_dir: str = setting("", "Folder for decoded arrays and compiled programs; empty uses the user's cache folder.")
    builder: str = setting(
        "",
        "For tfds: the set's name in TensorFlow Datasets, with its config and version if there are several: NAME, "
        "NAME/CONFIG or NAME:1.0.0.",
        added=True,
    )
    split: str = setting("train", "For tfds: the split, such as train, train+test or train[:10%].", added=True)
    files: str = setting(
        "",
        "For webdataset and parquet: the files below data.root, with `*` and `{000..012}`; empty uses those whose "
        "names start with train, or all if none does.",
        added=True,
    )
    image_field: str = setting(
        "", "For tfds and parquet: the field with the image; empty uses the only one.", added=True
    )
    label_field: str = setting(
        "",
        "For tfds, parquet and webdataset's json: the field with the identity; empty uses `label`, or the only one "
        "with classes.",
        added=True,
    )

    images_per_epoch: int = setting(
        0,
        "Number of training images per epoch, different ones in every epoch; 0, or at least the number available, "
        "uses all. They fill complete batches.",
        low=0,
        unit="images per epoch",
        added=True,
    )

    def __post_init__(self) -> None:
        check_fields(self, "data")

    @property
    def least_people(self) -> int:
        """The minimum number of people: two, or one if it is the unlabelled folder."""
        return 1 if self.unlabelled else 2

    def limit_images(self, person: str) -> int | None:
        """Number of images of `person` to keep, as the end of a slice; None keeps all."""
        return None if person == self.unlabelled else self.max_images or None
