"""ShuffleNetV2 (Ma et al., ECCV 2018, Table 5) at three widths, its classifier's place taken by the embedding."""

from ffem_jax.specs.architecture import ArchSpec, StageSpec


def _make(name: str, *channels: int) -> ArchSpec:
    return ArchSpec(
        name=name,
        block="shuffle",
        stem_channels=24,
        stem_extra="max_pool",
        # expansion t, channels c, repeats n, first stride s
        stages=tuple(StageSpec(1, c, n, 2) for c, n in zip(channels, (4, 8, 4), strict=True)),
        head_channels=1024,
        activation="relu",
    )


# The widths are columns of the table and not width_multiplier, which rounds channels to multiples of 8.
PRESETS = {
    "shufflenetv2_0_5": _make("shufflenetv2_0_5", 48, 96, 192),
    "shufflenetv2": _make("shufflenetv2", 116, 232, 464),
    "shufflenetv2_1_5": _make("shufflenetv2_1_5", 176, 352, 704),
}
