"""Which faces: the settings of a data set, and the data sets that there are."""

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

    load: (DataSpec) -> `data.Faces`. find_pairs: (DataSpec) -> the path of a pairs.txt, where there is one to test
    under protocol=view2. source: the paper, or where the faces come from.
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
DATA_SETS.register(DataSet("folder", "ffem_jax.data.folder:load", "the user's own, data.root=DIR"))
DATA_SETS.register(DataSet("recordio", "ffem_jax.data.recordio:load", "the user's own, as insightface packs them"))
DATA_SETS.register(DataSet("tfds", "ffem_jax.data.tfds:load", "prepared by TensorFlow Datasets, data.builder=NAME"))
DATA_SETS.register(DataSet("webdataset", "ffem_jax.data.webdataset:load", "the user's own, in WebDataset's tar files"))
DATA_SETS.register(
    DataSet("parquet", "ffem_jax.data.parquet:load", "the user's own, as Hugging Face's datasets writes")
)
DATA_SETS.register(DataSet("synthetic", "ffem_jax.data.synthetic:load", "drawn by ffem_jax/data/synthetic.py"))


def register_data_set(name: str, source: str = "", find_pairs: Reference | None = None) -> Callable[[Loader], Loader]:
    """Decorate a function (DataSpec) -> `data.Faces`, to make it the data set that `data.name=NAME` chooses.

    `data=NAME` also needs a file data/NAME.yaml under --config-dir, with `name: NAME`.

    Args:
        name: letters, digits and _.
        source: the paper, or where the faces come from.
        find_pairs: (DataSpec) -> the path of a pairs.txt as LFW's, for protocol=view2.

    Raises:
        SpecError: where the name is taken, or a function cannot be called so.
    """

    def register(load: Loader) -> Loader:
        check_signature(f"data.name={name}", load, ("spec",))
        if find_pairs is not None:
            check_signature(f"data.name={name}, find_pairs", find_pairs, ("spec",))
        DATA_SETS.register(DataSet(name, load, source, find_pairs))
        return load

    return register


# What becomes of images that are not square; the first is the default.
FITS = ("crop", "pad", "stretch")


@dataclass(frozen=True)
class DataSpec:
    """Which faces, at which size. `cache_dir` decides no result."""

    name: str = setting("lfw52", "The data set.", choices=lambda: DATA_SETS.names)
    root: str = setting(
        "",
        "The folder that holds the faces; empty asks the environment (FFEM_LFW_ROOT for lfw) and then downloads.",
    )
    resolution: int = setting(96, "The side of the square image.", low=16, high=512, unit="pixels")
    people: int = setting(
        0, "How many people are kept, those with the most images, ties by name; 0 keeps all.", low=0, unit="people"
    )
    min_images: int = setting(2, "The images that a person must have.", low=1, unit="images per person")
    max_images: int = setting(
        0, "How many images of each person are kept, the first by file name; 0 keeps all.", low=0,
        unit="images per person",
    )  # fmt: skip
    crop: float = setting(
        1.0,
        "The square that is kept, centred; 1 keeps the whole picture, and lfw's face is the middle 140 of 250 pixels.",
        low=0.05,
        high=1.0,
        unit="fraction of the frame's side",
    )
    fit: str = setting(
        FITS[0],
        "How an image that is not square becomes square: crop cuts the ends of its longer side off, pad keeps all of "
        "it between grey borders, stretch squeezes it. Square images are the same under all three. The recognition "
        "page and the mini-program take crop alone.",
        choices=FITS,
        added=True,
    )
    unlabelled: str = setting(
        "",
        "The folder (or label) whose images show nobody in particular: they teach what a teacher says of them and "
        "never test. It takes recipe=distill, and protocol=open_set or bins; min_images, max_images and people leave "
        "it alone.",
        added=True,
    )
    images_per_person: int = setting(
        20, "Of synthetic faces: how many images are drawn of each person.", low=2, unit="images per person"
    )
    difficulty: float = setting(
        1.0,
        "Of synthetic faces: how much pose, light and occlusion vary, and how alike people are.",
        low=0.0,
        high=4.0,
    )
    seed: int = setting(0, "Of synthetic faces: draws the people.", low=0)
    cache_dir: str = setting(
        "", "Where decoded arrays and compiled programs are kept; empty is the user's cache folder."
    )
    builder: str = setting(
        "",
        "Of tfds: the set's name in TensorFlow Datasets, with its config and version where there are several: NAME, "
        "NAME/CONFIG or NAME:1.0.0.",
        added=True,
    )
    split: str = setting("train", "Of tfds: the split, such as train, train+test or train[:10%].", added=True)
    files: str = setting(
        "",
        "Of webdataset and parquet: the files below data.root, with `*` and `{000..012}`; empty takes those whose "
        "names begin with train, or all where none does.",
        added=True,
    )
    image_field: str = setting(
        "", "Of tfds and parquet: the field that holds the image; empty takes the only one that does.", added=True
    )
    label_field: str = setting(
        "",
        "Of tfds, parquet and webdataset's json: the field that says who it is; empty takes `label`, or the only one "
        "that has classes.",
        added=True,
    )

    images_per_epoch: int = setting(
        0,
        "How many of the training images an epoch takes, others in every epoch; 0, or as many as there are and more, "
        "takes all. They fill whole batches.",
        low=0,
        unit="images per epoch",
        added=True,
    )

    def __post_init__(self) -> None:
        check_fields(self, "data")

    @property
    def least_people(self) -> int:
        """How many people there must be: two to tell apart, or the unlabelled ones alone."""
        return 1 if self.unlabelled else 2

    def limit_images(self, person: str) -> int | None:
        """How many images of `person` are kept, as the end of a slice; None is all."""
        return None if person == self.unlabelled else self.max_images or None
