"""MobileNetV2 (Sandler et al., CVPR 2018, Table 2), its classifier's place taken by the embedding."""

from ffem_jax.specs.architecture import ArchSpec, StageSpec

PRESETS = {
    "mobilenetv2": ArchSpec(
        name="mobilenetv2",
        # expansion t, channels c, repeats n, first stride s
        stages=(
            StageSpec(1, 16, 1, 1),
            StageSpec(6, 24, 2, 2),
            StageSpec(6, 32, 3, 2),
            StageSpec(6, 64, 4, 2),
            StageSpec(6, 96, 3, 1),
            StageSpec(6, 160, 3, 2),
            StageSpec(6, 320, 1, 1),
        ),
    )
}
