// The loops behind the calls of handlers.cpp: float32, channels last, one thread, sums always in the same order.
// loops.cpp is compiled once for each instruction set; `select_loops` in handlers.cpp takes the best that runs here.
#pragma once

#include <cstdint>

namespace ffem {

enum Activation : int64_t { kLinear = 0, kRelu = 1, kRelu6 = 2, kPRelu = 3, kHardSwish = 4 };

// A 3x3 depthwise convolution with one pixel of zeros around its input: x [batch, height, width, channels], kernel
// [3, 3, channels], y [batch, rows, columns, channels]; rows is height / stride rounded up, columns likewise.
struct Convolution {
  int64_t batch, height, width, channels, rows, columns, stride;
};

// BatchNorm's own arrays, [channels] each. `slope` is read for kPRelu alone.
struct Norm {
  const float *mean, *variance, *scale, *bias, *slope;
  float epsilon;
  Activation activation;
};

struct Loops {
  const char* instructions;
  // `zeros` is a row of zeros: [width or columns, channels], whichever is more.
  void (*depthwise)(const Convolution&, const float* x, const float* kernel, const float* zeros, float* y);
  void (*depthwise_input_gradient)(const Convolution&, const float* grad, const float* kernel, const float* zeros,
                                   float* grad_x);
  void (*depthwise_kernel_gradient)(const Convolution&, const float* x, const float* grad, const float* zeros,
                                    float* grad_kernel);
  // As large as the map: x [batch, positions, channels], kernel [positions, channels], y [batch, channels].
  void (*global_depthwise)(int64_t batch, int64_t positions, int64_t channels, const float* x, const float* kernel,
                           float* y);
  void (*global_depthwise_input_gradient)(int64_t batch, int64_t positions, int64_t channels, const float* grad,
                                          const float* kernel, float* grad_x);
  void (*global_depthwise_kernel_gradient)(int64_t batch, int64_t positions, int64_t channels, const float* x,
                                           const float* grad, float* grad_kernel);
  // Of a 1x1 convolution, x [positions, inputs] and grad [positions, outputs]: grad_kernel [inputs, outputs].
  void (*pointwise_kernel_gradient)(int64_t positions, int64_t inputs, int64_t outputs, const float* x,
                                    const float* grad, float* grad_kernel);
  // Of x [positions, channels]: mean and variance, the mean of squared distances from it. `sums` holds 2 * channels.
  void (*moments)(int64_t positions, int64_t channels, const float* x, double* sums, float* mean, float* variance);
  // y = activation((x - mean) / sqrt(variance + epsilon) * scale + bias). `scratch` holds channels.
  void (*normalize)(int64_t positions, int64_t channels, const Norm&, const float* x, float* scratch, float* y);
  // With g the gradient before the activation: sums [3, channels] of g, g * normalized x, and the slope's gradient: the
  // gradients of bias, scale and slope.
  // `scratch` holds channels, `totals` 3 * channels.
  void (*normalize_sums)(int64_t positions, int64_t channels, const Norm&, const float* x, const float* grad,
                         float* scratch, double* totals, float* sums);
  // Of BatchNorm with these sums over the whole batch's `count` positions: the gradient of x. With count 0 mean and
  // variance are constants. `scratch` holds 3 * channels.
  void (*normalize_gradient)(int64_t positions, int64_t channels, const Norm&, const float* x, const float* grad,
                             const float* sums, int64_t count, float* scratch, float* grad_x);
  // `normalize` and then `depthwise`, what lies between made row by row and never whole. In all three `scratch` holds
  // count_fused(convolution).
  void (*normalize_depthwise)(const Convolution&, const Norm&, const float* x, const float* kernel, const float* zeros,
                              float* scratch, float* y);
  // From the gradient of y: that of the kernel and, of the norm, `normalize_sums`.
  void (*normalize_depthwise_sums)(const Convolution&, const Norm&, const float* x, const float* kernel,
                                   const float* grad, const float* zeros, float* scratch, double* totals,
                                   float* grad_kernel, float* sums);
  // The gradient of x, from the gradient of y and sums as `normalize_gradient` takes them.
  void (*normalize_depthwise_gradient)(const Convolution&, const Norm&, const float* x, const float* kernel,
                                       const float* grad, const float* zeros, const float* sums, int64_t count,
                                       float* scratch, float* grad_x);
};

// Floats that are worked on at a time, while they lie in the cache: rows of maps, or one row where it is longer.
constexpr int64_t kTileFloats = 16384;

// Vectors of BatchNorm and two bands of rows: of stride 2 one of two rows at least, and one with a row more on each side.
static constexpr int64_t count_fused(const Convolution& c) {
  return 3 * c.channels + 2 * kTileFloats + 6 * c.width * c.channels;
}

extern const Loops kBaseline;
#ifdef FFEM_X86
extern const Loops kAvx2;
extern const Loops kAvx512;
#endif

}  // namespace ffem
