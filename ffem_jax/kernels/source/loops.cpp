// Compiled once for each instruction set, with FFEM_LOOPS the name of its table and FFEM_WIDTH the floats of its vectors.
// No standard library here: an inline function of it, compiled for AVX-512, could be the copy that the linker keeps.
#include "loops.h"

namespace ffem {
namespace {

#define INLINE inline __attribute__((always_inline))

// N floats side by side. Compilers that know GCC's vectors know how to keep them in registers.
template <int N>
struct Vector {
  typedef float Float __attribute__((vector_size(4 * N)));
};
template <>
struct Vector<1> {
  typedef float Float;
};

template <int N>
struct Lanes {
  using Float = typename Vector<N>::Float;

  static INLINE Float load(const float* from) {
    Float value;
    __builtin_memcpy(&value, from, sizeof value);
    return value;
  }
  static INLINE void store(float* to, Float value) { __builtin_memcpy(to, &value, sizeof value); }
  static INLINE Float fill(float value) { return value - Float{}; }
  // Sums of many go into float64 now and then.
  static INLINE void add(double* to, Float value) {
    float parts[N];
    __builtin_memcpy(parts, &value, sizeof parts);
    for (int i = 0; i < N; ++i) to[i] += static_cast<double>(parts[i]);
  }
};

// Work on all channels, as wide as vectors are and then narrower: work.template run<N>(first channel).
template <int N, class Work>
INLINE void for_channels(int64_t first, int64_t channels, const Work& work) {
  for (; first + N <= channels; first += N) work.template run<N>(first);
  if constexpr (N > 1) {
    if (first < channels) for_channels<N / 2>(first, channels, work);
  }
}

INLINE int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }
INLINE int64_t larger(int64_t a, int64_t b) { return a > b ? a : b; }

// Positions, or rows of `width` of them, that are taken channel by channel while they lie in the cache.
constexpr int64_t kTileFloats = 16384;
INLINE int64_t tile(int64_t floats_each) { return larger(1, kTileFloats / larger(1, floats_each)); }

// ------------------------------------------------------------------------------------- depthwise convolution

// The row of x, or of a gradient, with that number; the row of zeros beyond the edge.
INLINE const float* row_of(const float* image, int64_t row, int64_t rows, int64_t floats, const float* zeros) {
  return row >= 0 && row < rows ? image + row * floats : zeros;
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
  const float *image, *kernel, *zeros;
  float* y;
  int64_t first, last;
  bool turned;  // the kernel turned round: the input's gradient where the stride is 1

  template <int N>
  INLINE void run(int64_t channel) const {
    using L = Lanes<N>;
    typename L::Float taps[9];
    for (int i = 0; i < 9; ++i) taps[i] = L::load(kernel + (turned ? 8 - i : i) * c.channels + channel);
    for (int64_t row = first; row < last; ++row) {
      const float* rows[3];
      for (int i = 0; i < 3; ++i) {
        rows[i] = row_of(image, row * c.stride - 1 + i, c.height, c.width * c.channels, zeros) + channel;
      }
      convolve_row<N>(rows, c.width, c.columns, c.stride, c.channels, taps,
                      y + row * c.columns * c.channels + channel);
    }
  }
};

void convolve_images(const Convolution& c, const float* x, const float* kernel, const float* zeros, float* y,
                     bool turned) {
  const int64_t rows = tile(c.width * c.channels * c.stride);
  for (int64_t n = 0; n < c.batch; ++n) {
    const float* image = x + n * c.height * c.width * c.channels;
    float* out = y + n * c.rows * c.columns * c.channels;
    for (int64_t first = 0; first < c.rows; first += rows) {
      const ConvolveTile work{c, image, kernel, zeros, out, first, smaller(first + rows, c.rows), turned};
      for_channels<FFEM_WIDTH>(0, c.channels, work);
    }
  }
}

void depthwise(const Convolution& c, const float* x, const float* kernel, const float* zeros, float* y) {
  convolve_images(c, x, kernel, zeros, y, false);
}

// Of stride 2: an even row of x meets the middle row of kernels alone, an odd one the last and the first of two rows
// of the gradient. Columns likewise.
struct SpreadTile {
  const Convolution& c;
  const float *grad, *kernel, *zeros;
  float* grad_x;
  int64_t first, last;

  template <int N>
  INLINE void run(int64_t channel) const {
    using L = Lanes<N>;
    typename L::Float taps[9];
    for (int i = 0; i < 9; ++i) taps[i] = L::load(kernel + i * c.channels + channel);
    for (int64_t row = first; row < last; ++row) {
      const float* above = row_of(grad, row / 2, c.rows, c.columns * c.channels, zeros) + channel;
      const float* below = row_of(grad, row / 2 + 1, c.rows, c.columns * c.channels, zeros) + channel;
      float* out = grad_x + row * c.width * c.channels + channel;
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

void depthwise_input_gradient(const Convolution& c, const float* grad, const float* kernel, const float* zeros,
                              float* grad_x) {
  if (c.stride == 1) {
    convolve_images(c, grad, kernel, zeros, grad_x, true);
    return;
  }
  const int64_t rows = tile(c.width * c.channels);
  for (int64_t n = 0; n < c.batch; ++n) {
    const float* image = grad + n * c.rows * c.columns * c.channels;
    float* out = grad_x + n * c.height * c.width * c.channels;
    for (int64_t first = 0; first < c.height; first += rows) {
      const SpreadTile work{c, image, kernel, zeros, out, first, smaller(first + rows, c.height)};
      for_channels<FFEM_WIDTH>(0, c.channels, work);
    }
  }
}

struct KernelGradientTile {
  const Convolution& c;
  const float *image, *grad, *zeros;
  float* grad_kernel;
  int64_t first, last;

  template <int N>
  INLINE void run(int64_t channel) const {
    using L = Lanes<N>;
    typename L::Float sums[9] = {};
    for (int64_t row = first; row < last; ++row) {
      const float* rows[3];
      for (int i = 0; i < 3; ++i) {
        rows[i] = row_of(image, row * c.stride - 1 + i, c.height, c.width * c.channels, zeros) + channel;
      }
      const float* g = grad + row * c.columns * c.channels + channel;
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
  const int64_t rows = tile(c.width * c.channels * c.stride);
  for (int64_t n = 0; n < c.batch; ++n) {
    const float* image = x + n * c.height * c.width * c.channels;
    const float* g = grad + n * c.rows * c.columns * c.channels;
    for (int64_t first = 0; first < c.rows; first += rows) {
      const KernelGradientTile work{c, image, g, zeros, grad_kernel, first, smaller(first + rows, c.rows)};
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

// ------------------------------------------------------------------------------- BatchNorm and activation

struct MomentsTile {
  const float *x, *shift;
  double* sums;
  int64_t positions, channels;

  template <int N>
  INLINE void run(int64_t channel) const {
    using L = Lanes<N>;
    // Distances from the first pixel: the variance is then no small difference of two large numbers.
    const typename L::Float middle = L::load(shift + channel);
    typename L::Float sum[2] = {}, square[2] = {};
    const float* from = x + channel;
    int64_t p = 0;
    for (; p + 2 <= positions; p += 2, from += 2 * channels) {
      for (int i = 0; i < 2; ++i) {
        const typename L::Float value = L::load(from + i * channels) - middle;
        sum[i] += value;
        square[i] += value * value;
      }
    }
    if (p < positions) {
      const typename L::Float value = L::load(from) - middle;
      sum[0] += value;
      square[0] += value * value;
    }
    L::add(sums + channel, sum[0] + sum[1]);
    L::add(sums + channels + channel, square[0] + square[1]);
  }
};

void moments(int64_t positions, int64_t channels, const float* x, double* sums, float* mean, float* variance) {
  for (int64_t i = 0; i < 2 * channels; ++i) sums[i] = 0;
  const int64_t step = tile(channels);
  for (int64_t first = 0; first < positions; first += step) {
    const MomentsTile work{x + first * channels, x, sums, smaller(step, positions - first), channels};
    for_channels<FFEM_WIDTH>(0, channels, work);
  }
  for (int64_t i = 0; i < channels; ++i) {
    const double count = static_cast<double>(positions), distance = sums[i] / count;
    const double spread = sums[channels + i] / count - distance * distance;
    mean[i] = static_cast<float>(static_cast<double>(x[i]) + distance);
    variance[i] = static_cast<float>(spread < 0 ? 0 : spread);  // NaN stays
  }
}

// Comparisons are written so that NaN stays NaN: a training that has diverged must be seen.
template <int N, Activation kActivation>
INLINE typename Lanes<N>::Float activate(typename Lanes<N>::Float z, typename Lanes<N>::Float slope) {
  using L = Lanes<N>;
  const typename L::Float zero{}, six = L::fill(6);
  if constexpr (kActivation == kRelu) return z < zero ? zero : z;
  if constexpr (kActivation == kRelu6) {
    const typename L::Float low = z < zero ? zero : z;
    return low > six ? six : low;
  }
  if constexpr (kActivation == kPRelu) return z > zero ? z : z * slope;
  if constexpr (kActivation == kHardSwish) {
    const typename L::Float up = z + L::fill(3), low = up < zero ? zero : up;
    return z * (low > six ? six : low) * L::fill(1.0f / 6);
  }
  return z;
}

// The gradient before the activation, from the one behind it.
template <int N, Activation kActivation>
INLINE typename Lanes<N>::Float deactivate(typename Lanes<N>::Float z, typename Lanes<N>::Float slope,
                                           typename Lanes<N>::Float grad) {
  using L = Lanes<N>;
  const typename L::Float zero{}, six = L::fill(6), three = L::fill(3);
  if constexpr (kActivation == kRelu) return z > zero ? grad : zero;
  if constexpr (kActivation == kRelu6) return (z > zero) & (z < six) ? grad : zero;
  if constexpr (kActivation == kPRelu) return z > zero ? grad : grad * slope;
  if constexpr (kActivation == kHardSwish) {
    const typename L::Float up = z + three, low = up < zero ? zero : up;
    const typename L::Float bend = (up > zero) & (up < six) ? z : zero;
    return grad * ((low > six ? six : low) + bend) * L::fill(1.0f / 6);
  }
  return grad;
}

// gain and offset: with them BatchNorm is x * gain + offset.
void fold(int64_t channels, const Norm& norm, float* gain, float* offset) {
  for (int64_t i = 0; i < channels; ++i) {
    gain[i] = norm.scale[i] / __builtin_sqrtf(norm.variance[i] + norm.epsilon);
    offset[i] = norm.bias[i] - norm.mean[i] * gain[i];
  }
}

template <Activation kActivation>
struct NormalizeTile {
  const float *x, *gain, *offset, *slope;
  float* y;
  int64_t positions, channels;

  template <int N>
  INLINE void run(int64_t channel) const {
    using L = Lanes<N>;
    const typename L::Float g = L::load(gain + channel), o = L::load(offset + channel);
    const typename L::Float s = kActivation == kPRelu ? L::load(slope + channel) : typename L::Float{};
    for (int64_t p = 0; p < positions; ++p) {
      const int64_t at = p * channels + channel;
      L::store(y + at, activate<N, kActivation>(L::load(x + at) * g + o, s));
    }
  }
};

template <Activation kActivation>
void normalize_as(int64_t positions, int64_t channels, const Norm& norm, const float* x, float* scratch, float* y) {
  fold(channels, norm, scratch, scratch + channels);
  const int64_t step = tile(channels);
  for (int64_t first = 0; first < positions; first += step) {
    const int64_t at = first * channels, count = smaller(step, positions - first);
    const NormalizeTile<kActivation> work{x + at, scratch, scratch + channels, norm.slope, y + at, count, channels};
    for_channels<FFEM_WIDTH>(0, channels, work);
  }
}

template <Activation kActivation>
struct SumsTile {
  const float *x, *grad, *mean, *gain, *offset, *slope;
  double* totals;
  int64_t positions, channels;

  template <int N>
  INLINE void run(int64_t channel) const {
    using L = Lanes<N>;
    const typename L::Float g = L::load(gain + channel), o = L::load(offset + channel), m = L::load(mean + channel);
    const typename L::Float s = kActivation == kPRelu ? L::load(slope + channel) : typename L::Float{};
    typename L::Float plain{}, product{}, bent{};
    for (int64_t p = 0; p < positions; ++p) {
      const int64_t at = p * channels + channel;
      const typename L::Float value = L::load(x + at), behind = L::load(grad + at), z = value * g + o;
      const typename L::Float before = deactivate<N, kActivation>(z, s, behind);
      plain += before;
      product += before * (value - m);
      if constexpr (kActivation == kPRelu) bent += z > typename L::Float{} ? typename L::Float{} : behind * z;
    }
    L::add(totals + channel, plain);
    L::add(totals + channels + channel, product);
    L::add(totals + 2 * channels + channel, bent);
  }
};

template <Activation kActivation>
void sums_as(int64_t positions, int64_t channels, const Norm& norm, const float* x, const float* grad, float* scratch,
             double* totals, float* sums) {
  fold(channels, norm, scratch, scratch + channels);
  for (int64_t i = 0; i < 3 * channels; ++i) totals[i] = 0;
  const int64_t step = tile(2 * channels);
  for (int64_t first = 0; first < positions; first += step) {
    const int64_t at = first * channels;
    const SumsTile<kActivation> work{x + at,     grad + at, norm.mean, scratch, scratch + channels,
                                     norm.slope, totals,    smaller(step, positions - first), channels};
    for_channels<FFEM_WIDTH>(0, channels, work);
  }
  for (int64_t i = 0; i < channels; ++i) {
    totals[channels + i] /= __builtin_sqrt(static_cast<double>(norm.variance[i] + norm.epsilon));
  }
  for (int64_t i = 0; i < 3 * channels; ++i) sums[i] = static_cast<float>(totals[i]);
}

template <Activation kActivation>
struct GradientTile {
  const float *x, *grad, *gain, *offset, *slope, *constant, *factor;
  float* grad_x;
  int64_t positions, channels;

  template <int N>
  INLINE void run(int64_t channel) const {
    using L = Lanes<N>;
    const typename L::Float g = L::load(gain + channel), o = L::load(offset + channel);
    const typename L::Float c = L::load(constant + channel), f = L::load(factor + channel);
    const typename L::Float s = kActivation == kPRelu ? L::load(slope + channel) : typename L::Float{};
    for (int64_t p = 0; p < positions; ++p) {
      const int64_t at = p * channels + channel;
      const typename L::Float value = L::load(x + at);
      const typename L::Float before = deactivate<N, kActivation>(value * g + o, s, L::load(grad + at));
      L::store(grad_x + at, before * g + (value * f + c));
    }
  }
};

template <Activation kActivation>
void gradient_as(int64_t positions, int64_t channels, const Norm& norm, const float* x, const float* grad,
                 const float* sums, int64_t count, float* scratch, float* grad_x) {
  float *gain = scratch, *offset = gain + channels, *constant = offset + channels, *factor = constant + channels;
  fold(channels, norm, gain, offset);
  for (int64_t i = 0; i < channels; ++i) {
    // gain * (g - mean of g - normalized x * mean of g * normalized x), the last two as x * factor + constant.
    const float share = count ? gain[i] / static_cast<float>(count) : 0;
    factor[i] = -share * sums[channels + i] / __builtin_sqrtf(norm.variance[i] + norm.epsilon);
    constant[i] = -share * sums[i] - factor[i] * norm.mean[i];
  }
  const int64_t step = tile(2 * channels);
  for (int64_t first = 0; first < positions; first += step) {
    const int64_t at = first * channels;
    const GradientTile<kActivation> work{x + at,   grad + at, gain,        offset,
                                         norm.slope, constant, factor, grad_x + at,
                                         smaller(step, positions - first), channels};
    for_channels<FFEM_WIDTH>(0, channels, work);
  }
}

// Call FUNCTION_as<activation>(...).
#define BY_ACTIVATION(FUNCTION, ...)                              \
  switch (norm.activation) {                                      \
    case kLinear: return FUNCTION##_as<kLinear>(__VA_ARGS__);     \
    case kRelu: return FUNCTION##_as<kRelu>(__VA_ARGS__);         \
    case kRelu6: return FUNCTION##_as<kRelu6>(__VA_ARGS__);       \
    case kPRelu: return FUNCTION##_as<kPRelu>(__VA_ARGS__);       \
    case kHardSwish: return FUNCTION##_as<kHardSwish>(__VA_ARGS__); \
  }

void normalize(int64_t positions, int64_t channels, const Norm& norm, const float* x, float* scratch, float* y) {
  BY_ACTIVATION(normalize, positions, channels, norm, x, scratch, y)
}

void normalize_sums(int64_t positions, int64_t channels, const Norm& norm, const float* x, const float* grad,
                    float* scratch, double* totals, float* sums) {
  BY_ACTIVATION(sums, positions, channels, norm, x, grad, scratch, totals, sums)
}

void normalize_gradient(int64_t positions, int64_t channels, const Norm& norm, const float* x, const float* grad,
                        const float* sums, int64_t count, float* scratch, float* grad_x) {
  BY_ACTIVATION(gradient, positions, channels, norm, x, grad, sums, count, scratch, grad_x)
}


}  // namespace

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
};

}  // namespace ffem
