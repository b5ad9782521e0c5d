"""The teacher: an already trained network that gives a target vector for every image."""

from __future__ import annotations

from dataclasses import dataclass

from ffem_jax.specs.fields import SpecError, check_fields, setting

TEACHERS = ("none", "vectors", "onnx", "ffem")
CHANNEL_ORDERS = ("rgb", "bgr")
LAYOUTS = ("nchw", "nhwc")


@dataclass(frozen=True)
class TeacherSpec:
    """A teacher. The content of its vectors is part of a trial's key, and these settings are not.

    name: `vectors`, a file of vectors from any framework; `onnx`, a network that ONNX Runtime runs; `ffem`, a trial's
    folder or an export of this package.
    """

    name: str = setting(
        "none", "The teacher: none, a file of vectors, an ONNX network, or a network of this package.", choices=TEACHERS
    )
    path: str = setting("", "The teacher's .npz or .onnx file, or the folder of a trial or an export.")
    size: int = setting(112, "For an ONNX teacher: its input size in pixels per side.", low=8, high=1024, unit="pixels")
    crop: float = setting(
        1.0, "For an ONNX teacher: the centred square of its input, as a share of the image's shorter side.",
        low=0.05, high=1.0, unit="fraction",
    )  # fmt: skip
    channels: str = setting("rgb", "For an ONNX teacher: the order of the colour channels.", choices=CHANNEL_ORDERS)
    layout: str = setting("nchw", "For an ONNX teacher: the order of its input's axes.", choices=LAYOUTS)
    scale: float = setting(1 / 127.5, "For an ONNX teacher: its input is pixel * scale + offset.")
    offset: float = setting(-1.0, "For an ONNX teacher: its input is pixel * scale + offset.")
    output: str = setting("", "For an ONNX teacher: the output's name; may be empty if it has one output.")
    seed: int = setting(
        -1, "For a trial's folder with several seeds: the seed to use; -1 if there is only one.", low=-1
    )

    def __post_init__(self) -> None:
        check_fields(self, "teacher")
        if self.name != "none" and not self.path:
            raise SpecError(f"teacher={self.name} needs teacher.path")
