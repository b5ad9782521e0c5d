// BatchNorm and its activation followed by a 3x3 depthwise convolution: what lies between, in memory as large as x, is
// made anew wherever it is needed, a few rows at a time in the cache.
// A part of loops.cpp, which is compiled once for each instruction set.
#pragma once

#include "convolution_loops.h"
#include "norm_loops.h"

namespace ffem {
namespace {

// One image behind BatchNorm and activation. Its rows are made once, in order, and kept while the next band needs them.
template <Activation kActivation>
struct NormalizedRows {
  const Convolution& c;
  const Norm& norm;
  const float *gain, *image, *zeros;
  float* buffer;
  int64_t first = 0, made = 0;

  // What the output's rows from `begin` to `end` are made of.
  INLINE Rows get(int64_t begin, int64_t end) {
    const int64_t from = larger(0, begin * c.stride - 1), to = smaller((end - 1) * c.stride + 2, c.height);
    const int64_t floats = c.width * c.channels, kept = (made - from) * floats;
    __builtin_memmove(buffer, buffer + (from - first) * floats, static_cast<unsigned long>(kept) * sizeof(float));
    normalize_positions<kActivation>((to - made) * c.width, c.channels, norm, gain, image + made * floats,
                                     buffer + kept);
    first = from;
    made = to;
    return {buffer, first, c.height, floats, zeros};
  }
};

template <Activation kActivation>
void normalize_depthwise_as(const Convolution& c, const Norm& norm, const float* x, const float* kernel,
                            const float* zeros, float* scratch, float* y) {
  float *gain = scratch, *buffer = gain + c.channels;
  compute_gain(c.channels, norm, gain);
  const int64_t step = band(c);
  for (int64_t n = 0; n < c.batch; ++n) {
    NormalizedRows<kActivation> image{c, norm, gain, x + n * c.height * c.width * c.channels, zeros, buffer};
    for (int64_t first = 0; first < c.rows; first += step) {
      const int64_t last = smaller(first + step, c.rows);
      const Rows rows = image.get(first, last);
      float* out = y + (n * c.rows + first) * c.columns * c.channels;
      for_channels<FFEM_WIDTH>(0, c.channels, ConvolveTile{c, rows, kernel, out, first, last, false});
    }
  }
}

template <Activation kActivation>
void normalize_depthwise_sums_as(const Convolution& c, const Norm& norm, const float* x, const float* kernel,
                                 const float* grad, const float* zeros, float* scratch, double* totals,
                                 float* grad_kernel, float* sums) {
  const int64_t step = band(c), floats = c.width * c.channels;
  float *gain = scratch, *pulled = gain + c.channels, *buffer = pulled + step * c.stride * floats;
  compute_gain(c.channels, norm, gain);
  for (int64_t i = 0; i < 9 * c.channels; ++i) grad_kernel[i] = 0;
  for (int64_t i = 0; i < 3 * c.channels; ++i) totals[i] = 0;
  for (int64_t n = 0; n < c.batch; ++n) {
    NormalizedRows<kActivation> image{c, norm, gain, x + n * c.height * floats, zeros, buffer};
    const Rows behind = output_rows(c, grad, n, zeros);
    for (int64_t first = 0; first < c.rows; first += step) {
      const int64_t last = smaller(first + step, c.rows);
      const Rows rows = image.get(first, last);
      for_channels<FFEM_WIDTH>(0, c.channels, KernelGradientTile{c, rows, behind, grad_kernel, first, last});
      const int64_t top = first * c.stride, bottom = smaller(last * c.stride, c.height);
      pull_rows(c, behind, kernel, pulled, top, bottom);
      add_sums<kActivation>((bottom - top) * c.width, c.channels, norm, gain, image.image + top * floats, pulled,
                            totals);
    }
  }
  finish_sums(c.channels, norm, totals, sums);
}

template <Activation kActivation>
void normalize_depthwise_gradient_as(const Convolution& c, const Norm& norm, const float* x, const float* kernel,
                                     const float* grad, const float* zeros, const float* sums, int64_t count,
                                     float* scratch, float* grad_x) {
  const int64_t floats = c.width * c.channels, step = tile(floats);
  float *factors = scratch, *pulled = factors + 3 * c.channels;
  compute_factors(c.channels, norm, sums, count, factors);
  for (int64_t n = 0; n < c.batch; ++n) {
    const Rows behind = output_rows(c, grad, n, zeros);
    for (int64_t first = 0; first < c.height; first += step) {
      const int64_t last = smaller(first + step, c.height), at = (n * c.height + first) * floats;
      pull_rows(c, behind, kernel, pulled, first, last);
      gradient_positions<kActivation>((last - first) * c.width, c.channels, norm, factors, x + at, pulled, grad_x + at);
    }
  }
}

void normalize_depthwise(const Convolution& c, const Norm& norm, const float* x, const float* kernel,
                         const float* zeros, float* scratch, float* y) {
  BY_ACTIVATION(normalize_depthwise, c, norm, x, kernel, zeros, scratch, y)
}

void normalize_depthwise_sums(const Convolution& c, const Norm& norm, const float* x, const float* kernel,
                              const float* grad, const float* zeros, float* scratch, double* totals,
                              float* grad_kernel, float* sums) {
  BY_ACTIVATION(normalize_depthwise_sums, c, norm, x, kernel, grad, zeros, scratch, totals, grad_kernel, sums)
}

void normalize_depthwise_gradient(const Convolution& c, const Norm& norm, const float* x, const float* kernel,
                                  const float* grad, const float* zeros, const float* sums, int64_t count,
                                  float* scratch, float* grad_x) {
  BY_ACTIVATION(normalize_depthwise_gradient, c, norm, x, kernel, grad, zeros, sums, count, scratch, grad_x)
}

}  // namespace
}  // namespace ffem
