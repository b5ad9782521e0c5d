"""The cost model against the layer table worked by hand, and its sum over parts against one trace of the whole."""

import dataclasses
import json
from pathlib import Path

import jax
import pytest
from flax import nnx

from ffem_jax.config.presets import PRESETS
from ffem_jax.cost import cost
from ffem_jax.cost.cost import Cost, compute_cost, trace_cost
from ffem_jax.models import build_model
from ffem_jax.models.blocks import Bottleneck, ShuffleUnit
from ffem_jax.models.draws import plan_draws
from ffem_jax.specs.architecture import ArchSpec, AttentionSpec, BlockSpec, StageSpec, resolve_network
from ffem_jax.specs.trial import PRECISIONS

GOLDEN = Path(__file__).parents[1] / "golden" / "costs.json"

# Table 1 of the paper: expansion, channels, repeats, stride.
FFEM_ROWS = [(1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 2, 2), (6, 64, 3, 2), (6, 96, 2, 1), (6, 160, 3, 2), (6, 320, 1, 1)]
# Table 2 of MobileNetV2 (Sandler et al., CVPR 2018), in the same columns.
MOBILENETV2_ROWS = [
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
]

SMALL = ArchSpec(
    name="small",
    stem_channels=8,
    stages=(StageSpec(1, 8, 1, 1), StageSpec(3, 16, 2, 2), StageSpec(2, 24, 1, 2)),
    head_channels=48,
    embedding_dim=16,
)


def se(placement, **options) -> AttentionSpec:
    return AttentionSpec(kind="se", placement=placement, **options)


def list_convolutions(rows, resolution, embedding_dim, head=1280):
    """Each convolution's weights, output channels and output pixels, written out from a stage table."""
    size = -(-resolution // 2)
    convolutions = [(9 * 3 * 32, 32, size * size)]
    channels = 32
    for expansion, out, repeats, stride in rows:
        for repeat in range(repeats):
            hidden = channels * expansion
            if expansion > 1:
                convolutions.append((channels * hidden, hidden, size * size))
            size = -(-size // (stride if repeat == 0 else 1))
            convolutions.append((9 * hidden, hidden, size * size))
            convolutions.append((hidden * out, out, size * size))
            channels = out
    convolutions.append((channels * head, head, size * size))
    convolutions.append((head * embedding_dim, embedding_dim, 1))
    return convolutions


def make_cost_by_hand(convolutions) -> dict[str, int]:
    """All but the peak. The last convolution has a bias, every other a BatchNorm, which folds into a bias."""
    kernels = sum(weights for weights, _, _ in convolutions)
    channels = sum(out for _, out, _ in convolutions)
    return {
        "params": kernels + 2 * channels - convolutions[-1][1],
        # Every weight of a convolution, depthwise or not, meets each output pixel once.
        "macs": sum(weights * pixels for weights, _, pixels in convolutions),
        "kernel_params": kernels,
        "vector_params": channels,
        "kernels": len(convolutions),
        "vectors": len(convolutions),
    }


@pytest.mark.parametrize(
    ("preset", "rows", "resolution", "embedding_dim"),
    [
        ("ffem", FFEM_ROWS, 96, 128),
        ("ffem", FFEM_ROWS, 75, 256),
        ("mobilenetv2", MOBILENETV2_ROWS, 224, 1000),
    ],
)
def test_every_count_is_that_of_the_layer_table_worked_by_hand(preset, rows, resolution, embedding_dim):
    found = dataclasses.asdict(
        compute_cost(dataclasses.replace(PRESETS[preset], embedding_dim=embedding_dim), resolution)
    )
    del found["peak_activation_bytes"], found["part_bytes"]
    assert found == make_cost_by_hand(list_convolutions(rows, resolution, embedding_dim))


@pytest.mark.parametrize(
    ("preset", "channels"),
    [
        ("shufflenetv2_0_5", (48, 96, 192)),
        ("shufflenetv2", (116, 232, 464)),
        ("shufflenetv2_1_5", (176, 352, 704)),
    ],
)
def test_every_count_of_shufflenetv2_is_that_of_its_table_worked_by_hand(preset, channels):
    found = dataclasses.asdict(compute_cost(dataclasses.replace(PRESETS[preset], embedding_dim=1000), 224))
    del found["peak_activation_bytes"], found["part_bytes"]
    convolutions = [(9 * 3 * 24, 24, 112**2)]
    inputs = 24
    for out, repeats, size in zip(channels, (4, 8, 4), (28, 14, 7), strict=True):
        half, before, after = out // 2, (2 * size) ** 2, size**2
        convolutions += [(9 * inputs, inputs, after), (inputs * half, half, after)]
        convolutions += [(inputs * half, half, before), (9 * half, half, after), (half * half, half, after)]
        convolutions += (repeats - 1) * [
            (half * half, half, after),
            (9 * half, half, after),
            (half * half, half, after),
        ]
        inputs = out
    convolutions += [(inputs * 1024, 1024, 49), (1024 * 1000, 1000, 1)]
    assert found == make_cost_by_hand(convolutions)


def test_shufflenetv2_has_its_published_parameters_and_nearly_its_macs():
    """The paper counts 41, 146 and 299 million; 1 to 2 % less are multiplied by weights."""
    arches = [PRESETS[name] for name in ("shufflenetv2_0_5", "shufflenetv2", "shufflenetv2_1_5")]
    found = [compute_cost(dataclasses.replace(arch, embedding_dim=1000), 224) for arch in arches]
    assert [cost.params for cost in found] == [1_366_792, 2_278_604, 3_503_624]
    assert [cost.macs for cost in found] == [40_476_448, 144_907_992, 295_759_392]


def test_mobilefacenet_has_its_published_parameters_and_macs():
    """The paper: 0.99 million parameters, BatchNorm folded, and 221 million multiply-adds at 112 pixels."""
    found = compute_cost(PRESETS["mobilefacenet"], 112)
    convolutions, slopes, channels, size = [(9 * 3 * 64, 64, 56**2), (9 * 64, 64, 56**2)], 64 + 64, 64, 56
    for expansion, out, repeats, stride in [
        (2, 64, 5, 2),
        (4, 128, 1, 2),
        (2, 128, 6, 1),
        (4, 128, 1, 2),
        (2, 128, 2, 1),
    ]:
        for repeat in range(repeats):
            hidden, before, size = channels * expansion, size, size // (stride if repeat == 0 else 1)
            convolutions += [(channels * hidden, hidden, before**2), (9 * hidden, hidden, size**2)]
            convolutions.append((hidden * out, out, size**2))
            slopes, channels = slopes + 2 * hidden, out
    convolutions += [(128 * 512, 512, 49), (49 * 512, 512, 1), (512 * 128, 128, 1)]
    slopes += 512
    by_hand = make_cost_by_hand(convolutions)
    assert found.macs == by_hand["macs"] == 220_965_376
    assert found.kernel_params == by_hand["kernel_params"]
    assert found.vector_params == by_hand["vector_params"] + slopes
    assert found.kernel_params + found.vector_params == 993_344
    # Here the last convolution, too, has a BatchNorm: a scale more for each of its channels than a bias.
    assert found.params == by_hand["params"] + slopes + 128 == 1_003_136


def test_a_split_unit_peaks_where_its_halves_come_together():
    """At the end the half that was kept, the half that was computed and their interleaving: twice the unit's 8 channels
    of 6 x 6 pixels. With a branch of four times the half's channels, at its depthwise convolution: the half, and 16
    channels read and 16 written."""

    def peak(expansion):
        arch = ArchSpec(block="shuffle", stem_channels=8, stages=(StageSpec(expansion, 8, 1, 1),))
        return compute_peak(resolve_network(arch).blocks[0])

    def compute_peak(spec):
        unit = nnx.eval_shape(lambda: ShuffleUnit(spec, rngs=nnx.Rngs(0)))
        return trace_cost(unit, (1, 6, 6, 8)).peak_activation_bytes

    assert peak(1) == 4 * 36 * (4 + 4 + 8)
    assert peak(4) == 4 * 36 * (4 + 16 + 16)


def test_mobilenetv2_has_its_published_parameters_and_macs():
    found = compute_cost(dataclasses.replace(PRESETS["mobilenetv2"], embedding_dim=1000), 224)
    assert (found.params, found.macs) == (3_504_872, 300_774_272)


def test_ffem_has_the_papers_parameters():
    assert compute_cost(PRESETS["ffem"], 96).params == 2_200_448


def test_se_with_reduction_4_breaks_the_cap_of_10_mb_and_with_16_keeps_it():
    authors = PRESETS["ffem_se"]
    wide = dataclasses.replace(authors, attention=dataclasses.replace(authors.attention, reduction=4))
    assert authors.attention.reduction == 16
    assert compute_cost(wide, 96).params == 2_663_000
    assert compute_cost(wide, 96).bytes_float32 > 10e6 > compute_cost(authors, 96).bytes_float32


WHOLES = {
    **{name: (arch, 96) for name, arch in PRESETS.items()},
    "width-0.5": (dataclasses.replace(SMALL, width_multiplier=0.5), 32),
    "width-1.4": (dataclasses.replace(SMALL, width_multiplier=1.4), 32),
    "depth-2": (dataclasses.replace(SMALL, depth_multiplier=2.0), 32),
    "stem-stride-1": (dataclasses.replace(SMALL, stem_stride=1), 32),
    "global-depthwise": (dataclasses.replace(SMALL, pooling="global_depthwise"), 32),
    "prelu": (dataclasses.replace(SMALL, activation="prelu"), 32),
    "hard-swish": (dataclasses.replace(SMALL, activation="hard_swish"), 32),
    "no-head": (dataclasses.replace(SMALL, head_channels=0), 32),
    "no-head-global-depthwise": (dataclasses.replace(SMALL, head_channels=0, pooling="global_depthwise"), 32),
    "odd-resolution": (SMALL, 37),
    "stem-depthwise": (dataclasses.replace(SMALL, stem_extra="depthwise"), 32),
    "embedding-norm": (dataclasses.replace(SMALL, embedding_norm=True), 32),
    "shuffle-se-everywhere-odd-resolution": (
        dataclasses.replace(SMALL, block="shuffle", stem_extra="max_pool", attention=se("all")),
        37,
    ),
    "eca-everywhere": (dataclasses.replace(SMALL, attention=AttentionSpec(kind="eca", placement="all")), 32),
    "se-everywhere-after-the-projection": (
        dataclasses.replace(SMALL, attention=se("all", position="projection", fusion="residual", reduction=4)),
        32,
    ),
}


@pytest.mark.parametrize("name", WHOLES)
def test_the_parts_sum_to_one_trace_of_the_whole_network(name):
    arch, resolution = WHOLES[name]
    whole, _ = plan_draws(lambda keys: build_model(arch, resolution, rngs=keys))
    # The peak too: no value but the one handed on is alive between two parts.
    assert compute_cost(arch, resolution) == trace_cost(whole, (1, resolution, resolution, 3))


def trace_bottleneck(attention) -> Cost:
    spec = BlockSpec(4, 8, 6, 2, "relu6", attention)
    return trace_cost(nnx.eval_shape(lambda: Bottleneck(spec, rngs=nnx.Rngs(0))), (1, 7, 7, 4))


def test_macs_of_a_bottleneck_worked_by_hand():
    expand, depthwise, project = 7 * 7 * 4 * 8, 4 * 4 * 9 * 8, 4 * 4 * 8 * 6
    assert trace_bottleneck(None).macs == expand + depthwise + project
    squeeze_and_excite = 8 * 2 + 2 * 8
    assert trace_bottleneck(("se", "depthwise", "scale", 2)).macs == expand + depthwise + project + squeeze_and_excite
    assert trace_bottleneck(("se", "projection", "scale", 3)).macs == expand + depthwise + project + 6 * 3 + 3 * 6
    # Zeros beyond the first and the last channel are multiplied too.
    assert trace_bottleneck(("eca", "depthwise", "scale", 3)).macs == expand + depthwise + project + 8 * 3


def test_what_se_and_prelu_keep_when_deployed():
    plain, attended = trace_bottleneck(None), trace_bottleneck(("se", "depthwise", "scale", 2))
    assert attended.kernel_params - plain.kernel_params == 8 * 2 + 2 * 8
    assert attended.vector_params - plain.vector_params == 2 + 8  # biases that no BatchNorm had
    assert (attended.kernels - plain.kernels, attended.vectors - plain.vectors) == (2, 2)
    relu, prelu = (compute_cost(dataclasses.replace(SMALL, activation=name), 32) for name in ("relu6", "prelu"))
    # Slopes of the stem, four bottlenecks' expansions (but the first's) and depthwises, and the head.
    slopes = 8 + 8 + (24 + 24) + (48 + 48) + (32 + 32) + 48
    assert prelu.vector_params - relu.vector_params == prelu.params - relu.params == slopes
    assert prelu.kernel_params == relu.kernel_params


@pytest.mark.parametrize("name", PRESETS)
def test_bytes_follow_their_closed_form_and_shrink_with_precision(name):
    found = compute_cost(PRESETS[name], 96)
    assert found.bytes_int8 < found.bytes_float16 < found.bytes_float32
    topology = 900 + 337 * found.kernels + 112 * found.vectors + found.part_bytes
    assert found.bytes_float32 == 4 * (found.kernel_params + found.vector_params) + topology
    tensors = found.kernels + found.vectors
    assert found.bytes_float16 == 2 * (found.kernel_params + found.vector_params) + topology + 35 * tensors
    assert found.bytes_int8 == found.kernel_params + 4 * found.vector_params + topology + 90 * found.kernels
    assert [found.get_bytes(precision) for precision in PRECISIONS] == [
        found.bytes_float32,
        found.bytes_float16,
        found.bytes_int8,
    ]


def test_costs_add_up_but_for_the_peak():
    first, second = Cost(1, 2, 3, 4, 5, 6, 7, 80), Cost(10, 20, 30, 40, 50, 60, 70, 8)
    assert first + second == Cost(11, 22, 33, 44, 55, 66, 77, 80)


def test_resolution_changes_macs_and_memory_and_no_weight():
    small, large = compute_cost(SMALL, 32), compute_cost(SMALL, 64)
    assert large.macs > 3.9 * small.macs
    assert large.peak_activation_bytes == 4 * small.peak_activation_bytes
    assert small.bytes_float32 == large.bytes_float32


def test_a_part_that_was_costed_before_is_not_traced_again(monkeypatch):
    # Channels that no other test has, whose parts would be remembered.
    arch = ArchSpec(stem_channels=7, stages=(StageSpec(1, 9, 1, 1), StageSpec(3, 11, 2, 2)), embedding_dim=16)
    traced = []
    monkeypatch.setattr(cost, "trace_cost", lambda module, shape: traced.append(shape) or trace_cost(module, shape))
    first = compute_cost(arch, 32)
    assert len(traced) == 1 + 3 + 1
    assert compute_cost(dataclasses.replace(arch, name="another name"), 32) == first
    assert len(traced) == 5
    compute_cost(dataclasses.replace(arch, embedding_dim=17), 32)
    assert traced[5:] == [(1, 8, 8, 11)]  # the head alone


def test_the_record_gets_these_fields_as_plain_integers():
    row = compute_cost(SMALL, 32).to_dict()
    assert list(row) == ["params", "macs", "bytes_float32", "bytes_float16", "bytes_int8", "peak_activation_bytes"]
    assert {type(value) for value in row.values()} == {int}


def test_presets_at_96_pixels_cost_what_they_did():
    """A change in the golden file is a change in what records say; `ffem cost arch=NAME --json` prints a row of it."""
    golden = json.loads(GOLDEN.read_text())
    assert {name: compute_cost(arch, 96).to_dict() for name, arch in PRESETS.items()} == golden


def test_counting_compiles_nothing():
    """A search costs thousands of networks, each with shapes that no other has."""
    events = []

    def hear(event: str, seconds: float, **_) -> None:
        events.append(event)

    attention = AttentionSpec("cbam", "all", reduction=2)
    arch = ArchSpec(stem_channels=5, stages=(StageSpec(2, 13, 2, 2),), embedding_dim=9, attention=attention)
    jax.monitoring.register_event_duration_secs_listener(hear)
    try:
        compute_cost(arch, 32)
    finally:
        jax.monitoring.unregister_event_duration_listener(hear)
    assert "/jax/core/compile/jaxpr_trace_duration" in events  # it was heard
    assert "/jax/core/compile/backend_compile_duration" not in events
