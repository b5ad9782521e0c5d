"""Every kind of attention, declared once: its class, the settings it reads, its sizes, its name in tables.

All else follows from the declaration: choices and errors, labels, which trials pair in a comparison, the key, the cost,
the export and the table in docs/guide.md. No JAX: the class is named, and imported where networks are built.
"""

from __future__ import annotations

import difflib
import math
import numbers
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ffem_jax.specs.fields import SpecError
from ffem_jax.specs.registry import Registry

# An AttentionSpec; architecture.py, which has it, reads this module.
Spec = Any

# What every kind but `none` reads, since the block that holds it does.
COMMON_SETTINGS = ("placement", "position", "fusion")
# What a value of a kind's own setting must be, by the type of its default.
OPTION_TYPES = {
    bool: (bool, "true or false"),
    int: (numbers.Integral, "a whole number"),
    float: (numbers.Real, "a number"),
    str: (str, "text"),
}


def _no_sizes(channels: int, spec: Spec) -> tuple[int, ...]:
    return ()


@dataclass(frozen=True)
class AttentionKind:
    """One kind of attention.

    name: what it is called by in configs and records.
    implementation: its class, or `package.module:Class`. It is called as `Class(channels, *sizes, rngs=rngs)` and gives
        a module [N, H, W, channels] -> [N, H, W, channels]. For export it has `fold(graph, x, name)`: see
        `models.graph.Graph`.
    label: its name in tables and figures; the name in capitals where it is empty.
    summary, source: one sentence on what it does, and the paper.
    reads: the fields of AttentionSpec that decide its sizes, or a function from the spec to them. What it does not read
        tells no two networks apart.
    options: settings of its own, name -> default. One is typed as `arch.attention.options.NAME`, takes values of its
        default's type, and stands in the spec as `spec.options["NAME"]`.
    compute_sizes: (channels that it sees, spec) -> what its class takes behind the channels: whole numbers from 1,
        floats, texts, true or false.
    size_names: what these are called in tables, one name per size.
    """

    name: str
    implementation: Any
    label: str = ""
    summary: str = ""
    source: str = ""
    reads: tuple[str, ...] | Callable[[Spec], tuple[str, ...]] = ()
    compute_sizes: Callable[[int, Spec], tuple[Any, ...]] = _no_sizes
    size_names: tuple[str, ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def title(self) -> str:
        """Its name in tables and figures."""
        return self.label or self.name.upper()

    def list_settings(self, spec: Spec) -> tuple[str, ...]:
        """The fields of `spec` that decide what is built, placement among them."""
        if self.implementation is None:
            return ()
        reads = self.reads(spec) if callable(self.reads) else self.reads
        return (*COMMON_SETTINGS, *reads, *(f"options.{name}" for name in self.options))

    def read_options(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """The values of its own settings, those that are not `given` at their defaults. No attention has none.

        Raises:
            SpecError: one that it does not have, or of another type than its default.
        """
        if self.implementation is None:
            return {}
        for name, value in given.items():
            where = f"arch.attention.options.{name}"
            if name not in self.options:
                close = difflib.get_close_matches(name, self.options, n=1)
                own = f"its own settings are: {', '.join(self.options)}" if self.options else "it has none of its own"
                meant = f" did you mean {close[0]}?" if close else ""
                raise SpecError(f"{where} is no setting of arch.attention.kind={self.name};{meant} {own}")
            kind, wanted = OPTION_TYPES[type(self.options[name])]
            is_truth = isinstance(value, bool) and kind is not bool  # true is a whole number to Python
            if not isinstance(value, kind) or is_truth or (isinstance(value, float) and not math.isfinite(value)):
                raise SpecError(f"{where}={value!r} must be {wanted}")
        return {name: type(default)(given.get(name, default)) for name, default in self.options.items()}

    def describe_sizes(self, sizes: tuple[Any, ...]) -> str:
        """The sizes in words, such as `width 60`; empty where there are none."""
        names = [*self.size_names, *["size"] * (len(sizes) - len(self.size_names))]
        return ", ".join(f"{name} {size}" for name, size in zip(names, sizes, strict=False))


ATTENTIONS: Registry[AttentionKind] = Registry("arch.attention.kind")


def register_attention(kind: AttentionKind) -> AttentionKind:
    """Declare a kind of attention; returns it.

    Raises:
        SpecError: its name stands for another already, or a default of `options` is no number, text or truth.
    """
    for name, default in kind.options.items():
        if type(default) not in OPTION_TYPES or not name.isidentifier():
            raise SpecError(
                f"attention {kind.name}: options has {name!r}: {default!r}; it takes names, and for each a number, a "
                "text, true or false"
            )
    ATTENTIONS.register(kind)
    return kind


def get_attention_kind(name: str) -> AttentionKind:
    """The declaration of the kind `name`. Raises SpecError, naming those there are, where it is not declared."""
    return ATTENTIONS[name]


def get_title(name: str) -> str:
    """The name of a kind in tables and figures; of one that is not declared here, its name in capitals."""
    return ATTENTIONS[name].title if name in ATTENTIONS.names else name.upper()


def select_effective_attention(attention: Spec) -> dict[str, Any]:
    """The kind and the fields that it reads: equal for two specs of which neither could build another network."""
    fields = get_attention_kind(attention.kind).list_settings(attention)
    own = {f"options.{name}": value for name, value in attention.options.items()}
    return {"kind": attention.kind, **{name: own[name] if name in own else getattr(attention, name) for name in fields}}


def compute_eca_kernel_size(channels: int, attention: Spec) -> int:
    """ECA's 1-D kernel size for `channels`, an odd number of at least 1.

    adaptive: t = int(|(log2(C) + b) / gamma|), K = t if t is odd else t + 1.

    References:
        Wang et al., CVPR 2020: the authors' code; the paper's Eq. 3 up to its tie at even numbers.
    """
    if attention.kernel == "fixed":
        return attention.kernel_size
    if attention.kernel == "mobilenetv2":
        return 1 if channels < 96 else 3
    size = int(abs((math.log2(channels) + attention.b) / attention.gamma))
    return size if size % 2 else size + 1


def compute_width(channels: int, attention: Spec, smallest: int = 1) -> int:
    """The channels inside a bottleneck of dense layers: channels // reduction, at least `smallest`."""
    return max(smallest, channels // attention.reduction)


# The settings of ECA's kernel rules.
_KERNEL_FIELDS = {"adaptive": ("gamma", "b"), "fixed": ("kernel_size",), "mobilenetv2": ()}

register_attention(AttentionKind("none", None, label="no attention", summary="Nothing is scaled."))
register_attention(
    AttentionKind(
        "eca",
        "ffem_jax.models.attention:EfficientChannelAttention",
        label="ECA",
        summary="A 1-D convolution across the channels' means gives one gate per channel.",
        source="Wang et al., CVPR 2020",
        reads=lambda spec: ("kernel", *_KERNEL_FIELDS[spec.kernel]),
        compute_sizes=lambda channels, spec: (compute_eca_kernel_size(channels, spec),),
        size_names=("kernel",),
    )
)
register_attention(
    AttentionKind(
        "se",
        "ffem_jax.models.attention:SqueezeExcitation",
        label="SE",
        summary="Two dense layers over the channels' means give one gate per channel.",
        source="Hu et al., CVPR 2018",
        reads=("reduction",),
        compute_sizes=lambda channels, spec: (compute_width(channels, spec),),
        size_names=("width",),
    )
)
register_attention(
    AttentionKind(
        "cbam",
        "ffem_jax.models.cbam:ConvolutionalBlockAttention",
        label="CBAM",
        summary="A gate per channel from means and maxima, then a gate per pixel from a 7x7 convolution.",
        source="Woo et al., ECCV 2018",
        reads=("reduction", "spatial_kernel"),
        compute_sizes=lambda channels, spec: (compute_width(channels, spec), spec.spatial_kernel),
        size_names=("width", "spatial kernel"),
    )
)
register_attention(
    AttentionKind(
        "coordinate",
        "ffem_jax.models.coordinate:CoordinateAttention",
        label="CA",
        summary="A gate per channel and row, and one per channel and column, from means along each axis.",
        source="Hou et al., CVPR 2021",
        reads=("reduction",),
        compute_sizes=lambda channels, spec: (compute_width(channels, spec, smallest=8),),
        size_names=("width",),
    )
)
