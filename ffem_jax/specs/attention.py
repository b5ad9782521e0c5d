"""Declares every kind of attention once: its class, the settings it reads, its sizes, its label.

Everything else follows from the declaration: choices and errors, labels, pairs in a comparison, the key, the cost, the
export and the table in docs/guide.md. No JAX: the class is given by name and imported when a network is built.
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

# An AttentionSpec; architecture.py defines it and imports this module.
Spec = Any

# Read by every kind but `none`, because the enclosing block reads them.
COMMON_SETTINGS = ("placement", "position", "fusion")
# Type check of a kind's own setting, by the type of its default.
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

    name: its name in configs and records.
    implementation: its class, or `package.module:Class`. It is called as `Class(channels, *sizes, rngs=rngs)` and
        returns a module [N, H, W, channels] -> [N, H, W, channels]. For export it has `fold(graph, x, name)`: see
        `models.graph.Graph`.
    label: its name in tables and figures; empty uses the name in capitals.
    summary, source: a one-sentence description, and the paper.
    reads: the fields of AttentionSpec that decide its sizes, or a function from the spec to them. Other
        fields do not distinguish networks.
    options: its own settings, name -> default. Set one as `arch.attention.options.NAME`; it takes values of its
        default's type, and is `spec.options["NAME"]` in the spec.
    compute_sizes: (input channels, spec) -> the arguments of its class after the channels: whole numbers from 1,
        floats, texts, true or false.
    size_names: their names in tables, one per size.
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
        """The fields of `spec` that decide the network, including placement."""
        if self.implementation is None:
            return ()
        reads = self.reads(spec) if callable(self.reads) else self.reads
        return (*COMMON_SETTINGS, *reads, *(f"options.{name}" for name in self.options))

    def read_options(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Return the values of its own settings, with defaults for those not `given`. No attention has none.

        Raises:
            SpecError: an unknown setting, or one whose type differs from its default's.
        """
        if self.implementation is None:
            return {}
        for name, value in given.items():
            where = f"arch.attention.options.{name}"
            if name not in self.options:
                close = difflib.get_close_matches(name, self.options, n=1)
                own = (
                    f"its settings are: {', '.join(self.options)}" if self.options else "it has no settings of its own"
                )
                meant = f" did you mean {close[0]}?" if close else ""
                raise SpecError(f"{where} is not a setting of arch.attention.kind={self.name};{meant} {own}")
            kind, wanted = OPTION_TYPES[type(self.options[name])]
            is_truth = isinstance(value, bool) and kind is not bool  # Python counts true as a whole number
            if not isinstance(value, kind) or is_truth or (isinstance(value, float) and not math.isfinite(value)):
                raise SpecError(f"{where}={value!r} must be {wanted}")
        return {name: type(default)(given.get(name, default)) for name, default in self.options.items()}

    def describe_sizes(self, sizes: tuple[Any, ...]) -> str:
        """Describe the sizes, such as `width 60`; empty if there are none."""
        names = [*self.size_names, *["size"] * (len(sizes) - len(self.size_names))]
        return ", ".join(f"{name} {size}" for name, size in zip(names, sizes, strict=False))


ATTENTIONS: Registry[AttentionKind] = Registry("arch.attention.kind")


def register_attention(kind: AttentionKind) -> AttentionKind:
    """Declare a kind of attention and return it.

    Raises:
        SpecError: the name is taken, or a default in `options` is not a number, text or boolean.
    """
    for name, default in kind.options.items():
        if type(default) not in OPTION_TYPES or not name.isidentifier():
            raise SpecError(
                f"attention {kind.name}: options has {name!r}: {default!r}; it must map names to a number, a "
                "text, true or false"
            )
    ATTENTIONS.register(kind)
    return kind


def get_attention_kind(name: str) -> AttentionKind:
    """Return the declaration of the kind `name`. Raises SpecError, which lists the kinds, if there is none."""
    return ATTENTIONS[name]


def get_title(name: str) -> str:
    """Return the label of a kind; for an undeclared kind, its name in capitals."""
    return ATTENTIONS[name].title if name in ATTENTIONS.names else name.upper()


def select_effective_attention(attention: Spec) -> dict[str, Any]:
    """Return the kind and the fields it reads, which are equal for two specs that build the same network."""
    fields = get_attention_kind(attention.kind).list_settings(attention)
    own = {f"options.{name}": value for name, value in attention.options.items()}
    return {"kind": attention.kind, **{name: own[name] if name in own else getattr(attention, name) for name in fields}}


def compute_eca_kernel_size(channels: int, attention: Spec) -> int:
    """Compute ECA's 1-D kernel size for `channels`, an odd number of at least 1.

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
    """Return the channels inside a bottleneck of dense layers: channels // reduction, at least `smallest`."""
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
