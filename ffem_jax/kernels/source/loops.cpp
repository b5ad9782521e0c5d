// Compiled once for each instruction set, with FFEM_LOOPS the name of its table and FFEM_WIDTH the floats of its vectors.
#include "loops.h"

#include "convolution_loops.h"
#include "fused_loops.h"
#include "norm_loops.h"

namespace ffem {

extern const Loops FFEM_LOOPS;
const Loops FFEM_LOOPS = {
    FFEM_INSTRUCTIONS,
    depthwise,
    depthwise_input_gradient,
    depthwise_kernel_gradient,
    global_depthwise,
    global_depthwise_input_gradient,
    global_depthwise_kernel_gradient,
    pointwise_kernel_gradient,
    moments,
    normalize,
    normalize_sums,
    normalize_gradient,
    normalize_depthwise,
    normalize_depthwise_sums,
    normalize_depthwise_gradient,
};

}  // namespace ffem
