"""FFEM (Xiao et al., Electronics 2024, 13, 201): plain, and with ECA or SE in its first and last bottleneck."""

from ffem_jax.specs.architecture import ArchSpec, AttentionSpec

PRESETS = {
    "ffem": ArchSpec(name="ffem"),
    "ffem_am": ArchSpec(name="ffem_am", attention=AttentionSpec(kind="eca")),
    "ffem_se": ArchSpec(name="ffem_se", attention=AttentionSpec(kind="se")),
}
