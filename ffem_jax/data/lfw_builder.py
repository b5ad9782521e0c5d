"""Labeled Faces in the Wild as a TensorFlow Datasets builder that needs no TensorFlow.

TFDS's own `lfw` lists files with tf.io and so cannot run without it. This builder receives the images, preserves
each file's bytes, and writes ArrayRecord, which supports random access without TensorFlow.
"""

from __future__ import annotations

import contextlib
import io
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from ffem_jax.text.progress import track

# (name, JPEG bytes) of each image, and (name, None) for a skipped entry; an image's name is `person/file`.
ReadPictures = Callable[[], Iterator[tuple[str, bytes | None]]]


class FacesInTheWild(tfds.core.GeneratorBasedBuilder):
    """One split, `train`: `image` (JPEG, as published), `person`, `name` (`person/file`), in the order given."""

    VERSION = tfds.core.Version("1.0.0")
    # TFDS downloads nothing here, and its search for checksums imports importlib_resources, an undeclared dependency.
    url_infos = None

    def __init__(self, *, read_pictures: ReadPictures, **kwargs: Any) -> None:
        self._read_pictures = read_pictures
        self.passed_over: list[str] = []
        super().__init__(**kwargs)

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(
            builder=self,
            description="Labeled Faces in the Wild: photographs of people in the news, one face in the middle of each.",
            homepage="http://vis-www.cs.umass.edu/lfw",
            features=tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Image(shape=(None, None, 3), dtype=np.uint8, encoding_format="jpeg"),
                    "person": tfds.features.Text(),
                    "name": tfds.features.Text(),
                }
            ),
            disable_shuffling=True,
        )

    def _split_generators(self, dl_manager: Any) -> dict[str, Iterator[tuple[int, dict[str, Any]]]]:
        return {"train": self._generate_examples()}

    def _generate_examples(self) -> Iterator[tuple[int, dict[str, Any]]]:
        pictures = track(self._read_pictures(), "preparing LFW")
        for index, (name, data) in enumerate(pictures):
            if data is None:
                self.passed_over.append(name)
            else:
                yield index, {"image": io.BytesIO(data), "person": name.split("/")[0], "name": name}


class PreparedFaces:
    """The prepared images by name, not decoded. passed_over: names of skipped entries."""

    def __init__(self, folder: Path, read_pictures: ReadPictures) -> None:
        is_prepared = _is_prepared(folder)
        builder = FacesInTheWild(data_dir=folder, file_format="array_record", read_pictures=read_pictures)
        # TFDS prints to standard output, which is reserved for `--json`.
        with contextlib.redirect_stdout(io.StringIO()):
            tfds.disable_progress_bar()
            builder.download_and_prepare()
        kept = folder / "passed_over.json"
        if not is_prepared:
            kept.write_text(json.dumps(builder.passed_over), encoding="utf-8")
        self.passed_over: list[str] = json.loads(kept.read_text(encoding="utf-8"))
        self._images = builder.as_data_source(split="train", decoders={"image": tfds.decode.SkipDecoding()})
        self._index_of = {row["name"].decode(): index for index, row in enumerate(self._images)}

    @property
    def names(self) -> list[str]:
        """`person/file` of every image, sorted by person and then file."""
        return sorted(self._index_of, key=lambda name: tuple(name.split("/")))

    def read(self, name: str) -> bytes:
        """Return the JPEG file of the image `name`."""
        image: bytes = self._images[self._index_of[name]]["image"]
        return image


def prepare_faces(folder: Path, read_pictures: ReadPictures) -> PreparedFaces:
    """Open the images prepared in `folder`, preparing them if missing or corrupt.

    Raises OSError if the folder is not writable, and whatever `read_pictures` raises.
    """
    if _is_prepared(folder):
        try:
            return PreparedFaces(folder, read_pictures)
        except Exception:  # the readers of JSON, protobuf and ArrayRecord each raise their own types
            shutil.rmtree(folder, ignore_errors=True)
    return PreparedFaces(folder, read_pictures)


def _is_prepared(folder: Path) -> bool:
    return any(folder.glob("*/*/dataset_info.json"))
