"""Calls of the compiled kernels that do not fit: refused by the call's name and the shapes."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ffem_jax.kernels import calls

if not calls.are_there():
    pytest.skip("no compiled kernels", allow_module_level=True)


def shaped(*shape, dtype=jnp.float32):
    return jax.ShapeDtypeStruct(shape, dtype)


STRIDE, THREE = {"stride": np.int64(1)}, {"stride": np.int64(3)}
INTEGERS = shaped(1, 4, 4, 8, dtype=jnp.int32)
NORM = {"activation": np.int64(1), "epsilon": np.float32(1e-5)}
FIFTH = {**NORM, "activation": np.int64(5)}
FUSED = {**NORM, **STRIDE, "momentum": np.float32(0.9), "count": np.int64(16)}
MAP, TAPS, VECTORS = (1, 4, 4, 8), (3, 3, 1, 8), [(8,)] * 5
REFUSED = {
    "kernel of other channels": (
        "depthwise",
        shaped(1, 4, 4, 8),
        [(1, 4, 4, 8), (3, 3, 1, 7)],
        STRIDE,
        r"ffem kernel depthwise takes a kernel \[3, 3, 1, channels\]; it got float32\[1,4,4,8\], float32\[3,3,1,7\] -> "
        r"float32\[1,4,4,8\]",
    ),
    "result of another size": ("depthwise", shaped(1, 3, 4, 8), [(1, 4, 4, 8), (3, 3, 1, 8)], STRIDE, "makes"),
    "stride": ("depthwise", shaped(1, 2, 2, 8), [(1, 4, 4, 8), (3, 3, 1, 8)], THREE, "stride of 1 or 2"),
    "no stride": ("depthwise", shaped(1, 4, 4, 8), [(1, 4, 4, 8), (3, 3, 1, 8)], {}, "attribute stride"),
    "too few axes": ("depthwise", shaped(1, 4, 4, 8), [(8,), (3, 3, 1, 8)], STRIDE, "at least 4 axes"),
    "other type": ("depthwise", INTEGERS, [(1, 4, 4, 8), (3, 3, 1, 8)], STRIDE, "float32 alone"),
    "one argument": ("depthwise", shaped(1, 4, 4, 8), [(1, 4, 4, 8)], STRIDE, "takes 2 arguments"),
    "two results": ("depthwise", [shaped(1, 4, 4, 8)] * 2, [(1, 4, 4, 8), (3, 3, 1, 8)], STRIDE, "gives 1 results"),
    "pointwise": (
        "pointwise_kernel_gradient",
        shaped(8, 7),
        [(2, 4, 8), (2, 5, 7)],
        {},
        "pointwise_kernel_gradient takes x",
    ),
    "pooling": ("global_depthwise", shaped(1, 8), [(1, 4, 4, 8), (3, 3, 1, 8)], {}, "global_depthwise takes a kernel"),
    "vectors": ("normalize", shaped(1, 4, 4, 8), [(1, 4, 4, 8), *[(8,)] * 4, (7,)], NORM, "normalize takes arrays"),
    "seeds": ("normalize", shaped(1, 4, 4, 8), [(1, 4, 4, 8), *[(8,)] * 4, (2, 8)], NORM, "same leading axes"),
    "activation": ("normalize", shaped(1, 4, 4, 8), [(1, 4, 4, 8), *[(8,)] * 5], FIFTH, "from 0 to 4"),
    "nothing": ("moments", [shaped(8)] * 2, [(0, 8)], {}, "at least one position"),
    "fused kernel": (
        "batch_norm_depthwise",
        [shaped(*MAP), shaped(8), shaped(8)],
        [MAP, *VECTORS, (3, 3, 1, 7), (8,), (8,)],
        FUSED,
        r"batch_norm_depthwise takes a kernel \[3, 3, 1, channels\]; it got float32\[1,4,4,8\]",
    ),
    "fused running": (
        "batch_norm_depthwise",
        [shaped(*MAP), shaped(8), shaped(8)],
        [MAP, *VECTORS, TAPS, (8,), (7,)],
        FUSED,
        "batch_norm_depthwise takes arrays",
    ),
    "fused without momentum": (
        "batch_norm_depthwise",
        [shaped(*MAP), shaped(8), shaped(8)],
        [MAP, *VECTORS, TAPS, (8,), (8,)],
        {**NORM, **STRIDE},
        "attribute momentum",
    ),
    "fused activation": (
        "batch_norm_depthwise",
        [shaped(*MAP), shaped(8), shaped(8)],
        [MAP, *VECTORS, TAPS, (8,), (8,)],
        {**FUSED, **FIFTH},
        "from 0 to 4",
    ),
    "fused gradient": (
        "normalize_depthwise_sums",
        [shaped(*TAPS), *[shaped(8)] * 3],
        [MAP, *VECTORS, TAPS, (1, 4, 3, 8)],
        FUSED,
        "normalize_depthwise_sums makes",
    ),
    "fused gradient of a kernel": (
        "normalize_depthwise_sums",
        [shaped(3, 3, 8, 1), *[shaped(8)] * 3],
        [MAP, *VECTORS, TAPS, MAP],
        FUSED,
        "of the kernel's shape",
    ),
    "fused gradient of x": (
        "normalize_depthwise_gradient",
        shaped(1, 4, 3, 8),
        [MAP, *VECTORS, TAPS, MAP, (8,), (8,)],
        FUSED,
        "normalize_depthwise_gradient takes arrays",
    ),
    "fused sums of other channels": (
        "normalize_depthwise_gradient",
        shaped(*MAP),
        [MAP, *VECTORS, TAPS, MAP, (8,), (7,)],
        FUSED,
        "normalize_depthwise_gradient takes arrays",
    ),
    "too long a vector": ("join", shaped(9), [(8,)], {}, "join takes a vector as long as its parts"),
    "too short a vector": ("split", [shaped(4), shaped(5)], [(8,)], {}, "split takes a vector as long as its parts"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_does_not_fit_is_refused_by_name_and_shapes(name):
    call, results, shapes, attributes, message = REFUSED[name]
    arguments = [np.zeros(shape, np.float32) for shape in shapes]
    with pytest.raises(Exception, match=message):
        jax.block_until_ready(calls._call(call, results, *arguments, **attributes))
