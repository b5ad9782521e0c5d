"""Networks that several tests of specs share, and Hypothesis's draws of networks."""

from __future__ import annotations

from hypothesis import strategies as st

from ffem_jax.specs.architecture import (
    ATTENTION_POSITIONS,
    FUSIONS,
    PLACEMENTS,
    ArchSpec,
    AttentionSpec,
    StageSpec,
)
from ffem_jax.specs.attention import ATTENTIONS

FFEM_AM = ArchSpec(name="ffem_am", attention=AttentionSpec(kind="eca"))
# Of ShuffleNetV2's units: two stages, the first of them as in its 1.0x.
SHUFFLE = ArchSpec(
    block="shuffle", stem_channels=24, stem_extra="max_pool", stages=(StageSpec(1, 116, 2, 2), StageSpec(2, 58, 1, 1))
)

stages_strategy = st.lists(
    st.builds(
        StageSpec,
        expansion=st.integers(1, 8),
        channels=st.integers(1, 400),
        repeats=st.integers(1, 4),
        stride=st.sampled_from((1, 2)),
    ),
    min_size=1,
    max_size=5,
).map(tuple)
attention_strategy = st.builds(
    AttentionSpec,
    kind=st.sampled_from(ATTENTIONS.names),
    placement=st.sampled_from(PLACEMENTS),
    position=st.sampled_from(ATTENTION_POSITIONS),
    fusion=st.sampled_from(FUSIONS),
    reduction=st.integers(1, 64),
)
arch_strategy = st.builds(
    ArchSpec,
    stem_channels=st.integers(1, 64),
    stem_stride=st.sampled_from((1, 2)),
    stages=stages_strategy,
    width_multiplier=st.sampled_from((0.25, 0.5, 1.0, 1.4)),
    depth_multiplier=st.sampled_from((0.3, 0.5, 1.0, 2.0)),
    head_channels=st.sampled_from((0, 320, 1280)),
    attention=attention_strategy,
)
