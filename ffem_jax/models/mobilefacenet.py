"""MobileFaceNet (Chen et al., 2018, Table 1), made for 112 x 112."""

from ffem_jax.specs.architecture import ArchSpec, StageSpec

PRESETS = {
    "mobilefacenet": ArchSpec(
        name="mobilefacenet",
        stem_channels=64,
        stem_extra="depthwise",
        # expansion t, channels c, repeats n, first stride s
        stages=(
            StageSpec(2, 64, 5, 2),
            StageSpec(4, 128, 1, 2),
            StageSpec(2, 128, 6, 1),
            StageSpec(4, 128, 1, 2),
            StageSpec(2, 128, 2, 1),
        ),
        head_channels=512,
        pooling="global_depthwise",
        activation="prelu",
        embedding_norm=True,
    )
}
