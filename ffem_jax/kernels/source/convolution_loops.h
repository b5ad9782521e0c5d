// Depthwise convolutions, 3x3 and as large as the map, and the gradient of a 1x1 convolution's kernel.
// A part of loops.cpp, which is compiled once for each instruction set.
#pragma once

#include "lanes.h"

namespace ffem {
namespace {

// ------------------------------------------------------------------------------------- depthwise convolution

// An image of x, or of a gradient, of `rows` rows of `floats`. `data` begins with row `first`; beyond the edges lie zeros.
struct Rows {
  const float* data;
  int64_t first, rows, floats;
  const float* zeros;

  INLINE const float* get(int64_t row) const { return row >= 0 && row < rows ? data + (row - first) * floats : zeros; }
};

// Image n of an array of c's input's shape, or of its output's.
INLINE Rows input_rows(const Convolution& c, const float* x, int64_t n, const float* zeros) {
  const int64_t floats = c.width * c.channels;
  return {x + n * c.height * floats, 0, c.height, floats, zeros};
}
INLINE Rows output_rows(const Convolution& c, const float* y, int64_t n, const float* zeros) {
  const int64_t floats = c.columns * c.channels;
  return {y + n * c.rows * floats, 0, c.rows, floats, zeros};
}

// One output pixel: nine taps, without the left ones at the left edge and the right ones at the right edge.
template <int N, bool kLeft, bool kRight>
INLINE typename Lanes<N>::Float convolve(const float* const rows[3], int64_t at, int64_t channels,
                                         const typename Lanes<N>::Float taps[9]) {
  using L = Lanes<N>;
  typename L::Float total = taps[1] * L::load(rows[0] + at);
  total += taps[4] * L::load(rows[1] + at);
  total += taps[7] * L::load(rows[2] + at);
  if constexpr (kLeft) {
    for (int i = 0; i < 3; ++i) total += taps[3 * i] * L::load(rows[i] + at - channels);
  }
  if constexpr (kRight) {
    for (int i = 0; i < 3; ++i) total += taps[3 * i + 2] * L::load(rows[i] + at + channels);
  }
  return total;
}

template <int N>
INLINE void convolve_row(const float* const rows[3], int64_t width, int64_t columns, int64_t stride, int64_t channels,
                         const typename Lanes<N>::Float taps[9], float* y) {
  using L = Lanes<N>;
  // Columns whose right neighbour is inside; the first has no left one.
  const int64_t whole = smaller(columns, (width - 2) / stride + 1), step = stride * channels;
  if (width < 2) {
    L::store(y, convolve<N, false, false>(rows, 0, channels, taps));
    return;
  }
  L::store(y, convolve<N, false, true>(rows, 0, channels, taps));
  for (int64_t j = 1; j < whole; ++j) {
    L::store(y + j * channels, convolve<N, true, true>(rows, j * step, channels, taps));
  }
  for (int64_t j = larger(1, whole); j < columns; ++j) {
    L::store(y + j * channels, convolve<N, true, false>(rows, j * step, channels, taps));
  }
}

struct ConvolveTile {
  const Convolution& c;
  const Rows& image;
  const float* kernel;
  float* y;  // its row `first`
  int64_t first, last;
  bool turned;  // the kernel turned round: the input's gradient where the stride is 1

  template <int N>
  INLINE void run(int64_t channel) const {
    using L = Lanes<N>;
    typename L::Float taps[9];
    for (int i = 0; i < 9; ++i) taps[i] = L::load(kernel + (turned ? 8 - i : i) * c.channels + channel);
    for (int64_t row = first; row < last; ++row) {
      const float* rows[3];
      for (int i = 0; i < 3; ++i) rows[i] = image.get(row * c.stride - 1 + i) + channel;
      convolve_row<N>(rows, c.width, c.columns, c.stride, c.channels, taps,
                      y + (row - first) * c.columns * c.channels + channel);
    }
  }
};

// Rows of the output that are taken at a time.
INLINE int64_t band(const Convolution& c) { return tile(c.width * c.channels * c.stride); }

void depthwise(const Convolution& c, const float* x, const float* kernel, const float* zeros, float* y) {
  const int64_t step = band(c);
  for (int64_t n = 0; n < c.batch; ++n) {
    const Rows image = input_rows(c, x, n, zeros);
    for (int64_t first = 0; first < c.rows; first += step) {
      float* out = y + (n * c.rows + first) * c.columns * c.channels;
      const ConvolveTile work{c, image, kernel, out, first, smaller(first + step, c.rows), false};
      for_channels<FFEM_WIDTH>(0, c.channels, work);
    }
  }
}

// Of stride 2: an even row of x meets the middle row of kernels alone, an odd one the last and the first of two rows
// of the gradient. Columns likewise.
struct SpreadTile {
  const Convolution& c;
  const Rows& grad;
  const float* kernel;
  float* grad_x;  // its row `first`
  int64_t first, last;

  template <int N>
  INLINE void run(int64_t channel) const {
    using L = Lanes<N>;
    typename L::Float taps[9];
    for (int i = 0; i < 9; ++i) taps[i] = L::load(kernel + i * c.channels + channel);
    for (int64_t row = first; row < last; ++row) {
      const float *above = grad.get(row / 2) + channel, *below = grad.get(row / 2 + 1) + channel;
      float* out = grad_x + (row - first) * c.width * c.channels + channel;
      if (row % 2) {
        spread<N, true>(above, below, taps + 6, taps, out);
      } else {
        spread<N, false>(above, below, taps + 3, taps, out);
      }
    }
  }

  template <int N, bool kTwo>
  INLINE void spread(const float* above, const float* below, const typename Lanes<N>::Float* upper,
                     const typename Lanes<N>::Float* lower, float* out) const {
    using L = Lanes<N>;
    for (int64_t j = 0; j < c.columns; ++j) {
      const int64_t at = j * c.channels;
      typename L::Float even = upper[1] * L::load(above + at), odd = upper[2] * L::load(above + at);
      if constexpr (kTwo) {
        even += lower[1] * L::load(below + at);
        odd += lower[2] * L::load(below + at);
      }
      L::store(out + 2 * at, even);
      if (2 * j + 1 == c.width) break;
      if (j + 1 < c.columns) {
        odd += upper[0] * L::load(above + at + c.channels);
        if constexpr (kTwo) odd += lower[0] * L::load(below + at + c.channels);
      }
      L::store(out + 2 * at + c.channels, odd);
    }
  }
};

// Rows `first` to `last` of the input's gradient; grad_x is where the first lies.
INLINE void pull_rows(const Convolution& c, const Rows& grad, const float* kernel, float* grad_x, int64_t first,
                      int64_t last) {
  if (c.stride == 1) {
    for_channels<FFEM_WIDTH>(0, c.channels, ConvolveTile{c, grad, kernel, grad_x, first, last, true});
  } else {
    for_channels<FFEM_WIDTH>(0, c.channels, SpreadTile{c, grad, kernel, grad_x, first, last});
  }
}

void depthwise_input_gradient(const Convolution& c, const float* grad, const float* kernel, const float* zeros,
                              float* grad_x) {
  const int64_t step = tile(c.width * c.channels);
  for (int64_t n = 0; n < c.batch; ++n) {
    const Rows image = output_rows(c, grad, n, zeros);
    for (int64_t first = 0; first < c.height; first += step) {
      float* out = grad_x + (n * c.height + first) * c.width * c.channels;
      pull_rows(c, image, kernel, out, first, smaller(first + step, c.height));
    }
  }
}

struct KernelGradientTile {
  const Convolution& c;
  const Rows &image, &grad;
  float* grad_kernel;
  int64_t first, last;

  template <int N>
  INLINE void run(int64_t channel) const {
    using L = Lanes<N>;
    typename L::Float sums[9] = {};
    for (int64_t row = first; row < last; ++row) {
      const float* rows[3];
      for (int i = 0; i < 3; ++i) rows[i] = image.get(row * c.stride - 1 + i) + channel;
      const float* g = grad.get(row) + channel;
      const int64_t whole = c.width < 2 ? 0 : smaller(c.columns, (c.width - 2) / c.stride + 1);
      const int64_t step = c.stride * c.channels;
      correlate<N, false, false>(rows, 0, g, sums);
      if (whole > 0) correlate_edge<N>(rows, 0, g, sums, 1);
      for (int64_t j = 1; j < whole; ++j) correlate<N, true, true>(rows, j * step, g + j * c.channels, sums);
      for (int64_t j = larger(1, whole); j < c.columns; ++j) {
        correlate<N, true, false>(rows, j * step, g + j * c.channels, sums);
      }
    }
    for (int i = 0; i < 9; ++i) {
      float* to = grad_kernel + i * c.channels + channel;
      L::store(to, L::load(to) + sums[i]);
    }
  }

  template <int N, bool kLeft, bool kRight>
  INLINE void correlate(const float* const rows[3], int64_t at, const float* g,
                        typename Lanes<N>::Float sums[9]) const {
    using L = Lanes<N>;
    const typename L::Float value = L::load(g);
    for (int i = 0; i < 3; ++i) {
      if constexpr (kLeft) sums[3 * i] += value * L::load(rows[i] + at - c.channels);
      sums[3 * i + 1] += value * L::load(rows[i] + at);
      if constexpr (kRight) sums[3 * i + 2] += value * L::load(rows[i] + at + c.channels);
    }
  }

  // What the first column has on its right.
  template <int N>
  INLINE void correlate_edge(const float* const rows[3], int64_t at, const float* g,
                             typename Lanes<N>::Float sums[9], int64_t shift) const {
    using L = Lanes<N>;
    const typename L::Float value = L::load(g);
    for (int i = 0; i < 3; ++i) sums[3 * i + 2] += value * L::load(rows[i] + at + shift * c.channels);
  }
};

void depthwise_kernel_gradient(const Convolution& c, const float* x, const float* grad, const float* zeros,
                               float* grad_kernel) {
  for (int64_t i = 0; i < 9 * c.channels; ++i) grad_kernel[i] = 0;
  const int64_t step = band(c);
  for (int64_t n = 0; n < c.batch; ++n) {
    const Rows image = input_rows(c, x, n, zeros), behind = output_rows(c, grad, n, zeros);
    for (int64_t first = 0; first < c.rows; first += step) {
      const KernelGradientTile work{c, image, behind, grad_kernel, first, smaller(first + step, c.rows)};
      for_channels<FFEM_WIDTH>(0, c.channels, work);
    }
  }
}

// --------------------------------------------------------------- depthwise convolution as large as the map

void global_depthwise(int64_t batch, int64_t positions, int64_t channels, const float* x, const float* kernel,
                      float* y) {
  for (int64_t n = 0; n < batch; ++n) {
    float* out = y + n * channels;
    for (int64_t i = 0; i < channels; ++i) out[i] = 0;
    for (int64_t p = 0; p < positions; ++p) {
      const float *from = x + (n * positions + p) * channels, *weights = kernel + p * channels;
      for (int64_t i = 0; i < channels; ++i) out[i] += from[i] * weights[i];
    }
  }
}

void global_depthwise_input_gradient(int64_t batch, int64_t positions, int64_t channels, const float* grad,
                                     const float* kernel, float* grad_x) {
  for (int64_t n = 0; n < batch; ++n) {
    for (int64_t p = 0; p < positions; ++p) {
      const float *from = grad + n * channels, *weights = kernel + p * channels;
      float* out = grad_x + (n * positions + p) * channels;
      for (int64_t i = 0; i < channels; ++i) out[i] = from[i] * weights[i];
    }
  }
}

void global_depthwise_kernel_gradient(int64_t batch, int64_t positions, int64_t channels, const float* x,
                                      const float* grad, float* grad_kernel) {
  for (int64_t i = 0; i < positions * channels; ++i) grad_kernel[i] = 0;
  for (int64_t n = 0; n < batch; ++n) {
    for (int64_t p = 0; p < positions; ++p) {
      const float *from = x + (n * positions + p) * channels, *g = grad + n * channels;
      float* out = grad_kernel + p * channels;
      for (int64_t i = 0; i < channels; ++i) out[i] += from[i] * g[i];
    }
  }
}

// -------------------------------------------------------------------------------- 1x1 convolution's kernel

// Sums over positions of products of each input with each output. XLA's product copies x transposed beforehand.
struct OuterTile {
  const float *x, *grad;
  float* grad_kernel;
  int64_t positions, inputs, outputs;

  // As many sums as registers hold beside what they are made of.
  static constexpr int kInputs = FFEM_WIDTH == 16 ? 8 : 4;

  template <int N>
  INLINE void run(int64_t output) const {
    run_vectors<N, 1>(output);
  }

  template <int N, int kVectors>
  INLINE void run_vectors(int64_t output) const {
    int64_t i = 0;
    for (; i + kInputs <= inputs; i += kInputs) add<N, kVectors, kInputs>(i, output);
    for (; i < inputs; ++i) add<N, kVectors, 1>(i, output);
  }

  template <int N, int kVectors, int kRows>
  INLINE void add(int64_t input, int64_t output) const {
    using L = Lanes<N>;
    typename L::Float sums[kRows][kVectors] = {};
    const float *from = x + input, *behind = grad + output;
    for (int64_t p = 0; p < positions; ++p, from += inputs, behind += outputs) {
      typename L::Float values[kVectors];
      for (int v = 0; v < kVectors; ++v) values[v] = L::load(behind + v * N);
      for (int r = 0; r < kRows; ++r) {
        for (int v = 0; v < kVectors; ++v) sums[r][v] += L::fill(from[r]) * values[v];
      }
    }
    for (int r = 0; r < kRows; ++r) {
      for (int v = 0; v < kVectors; ++v) {
        float* to = grad_kernel + (input + r) * outputs + output + v * N;
        L::store(to, L::load(to) + sums[r][v]);
      }
    }
  }
};

void pointwise_kernel_gradient(int64_t positions, int64_t inputs, int64_t outputs, const float* x, const float* grad,
                               float* grad_kernel) {
  for (int64_t i = 0; i < inputs * outputs; ++i) grad_kernel[i] = 0;
  const int64_t step = smaller(256, larger(32, 4 * kTileFloats / larger(1, inputs + outputs)));
  for (int64_t first = 0; first < positions; first += step) {
    const OuterTile work{x + first * inputs, grad + first * outputs,           grad_kernel,
                         smaller(step, positions - first), inputs, outputs};
    int64_t output = 0;
    for (; output + 2 * FFEM_WIDTH <= outputs; output += 2 * FFEM_WIDTH) work.run_vectors<FFEM_WIDTH, 2>(output);
    for_channels<FFEM_WIDTH>(output, outputs, work);
  }
}

}  // namespace
}  // namespace ffem
