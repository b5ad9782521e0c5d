"""Who teaches: a network that somebody has trained already says of every image what its vector is."""

from __future__ import annotations

from dataclasses import dataclass

from ffem_jax.specs.fields import SpecError, check_fields, setting

TEACHERS = ("none", "vectors", "onnx", "ffem")
CHANNEL_ORDERS = ("rgb", "bgr")
LAYOUTS = ("nchw", "nhwc")


@dataclass(frozen=True)
class TeacherSpec:
    """A teacher. Its vectors enter a trial's key by content, so none of these settings does.

    name: `vectors`, a file of vectors from any framework; `onnx`, a network that ONNX Runtime runs; `ffem`, a trial's
    folder or an export of this package.
    """

    name: str = setting(
        "none", "Who teaches: nobody, a file of vectors, an ONNX network, or one of ours.", choices=TEACHERS
    )
    path: str = setting("", "The teacher's .npz or .onnx file, or the folder of a trial or an export.")
    size: int = setting(112, "Of an ONNX teacher: the pixels per side that it takes.", low=8, high=1024, unit="pixels")
    crop: float = setting(
        1.0, "Of an ONNX teacher: the centred square it is shown, a share of the image's shorter side.",
        low=0.05, high=1.0, unit="fraction",
    )  # fmt: skip
    channels: str = setting("rgb", "Of an ONNX teacher: the order of the colours.", choices=CHANNEL_ORDERS)
    layout: str = setting("nchw", "Of an ONNX teacher: the order of its input's axes.", choices=LAYOUTS)
    scale: float = setting(1 / 127.5, "Of an ONNX teacher: its input is pixel * scale + offset.")
    offset: float = setting(-1.0, "Of an ONNX teacher: its input is pixel * scale + offset.")
    output: str = setting("", "Of an ONNX teacher: the output's name; empty where it has one output.")
    seed: int = setting(-1, "Of a trial's folder with several seeds: which; -1 where there is one.", low=-1)

    def __post_init__(self) -> None:
        check_fields(self, "teacher")
        if self.name != "none" and not self.path:
            raise SpecError(f"teacher={self.name} needs teacher.path")
