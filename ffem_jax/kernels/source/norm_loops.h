// BatchNorm and its activation.
// A part of loops.cpp, which is compiled once for each instruction set.
#pragma once

#include "lanes.h"

namespace ffem {
namespace {

struct MomentsTile {
  const float *x, *shift;
  double* sums;
  int64_t positions, channels;

  template <int N>
  INLINE void run(int64_t channel) const {
    using L = Lanes<N>;
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

// Distances are taken from about the mean: the variance is then no small difference of two large numbers. One pixel is
// not near enough. At two deviations it loses a digit, and the corner, where the map is padded, is often that far.
constexpr int64_t kSampled = 16;
// What float32 adds up before float64 takes it.
constexpr int64_t kSummed = 256;

void moments(int64_t positions, int64_t channels, const float* x, double* sums, float* mean, float* variance) {
  const int64_t sampled = smaller(kSampled, positions);
  for (int64_t i = 0; i < channels; ++i) {
    double sum = 0;
    for (int64_t k = 0; k < sampled; ++k) sum += static_cast<double>(x[k * positions / sampled * channels + i]);
    mean[i] = static_cast<float>(sum / static_cast<double>(larger(1, sampled)));
  }
  for (int64_t i = 0; i < 2 * channels; ++i) sums[i] = 0;
  const int64_t step = smaller(kSummed, tile(channels));
  for (int64_t first = 0; first < positions; first += step) {
    const MomentsTile work{x + first * channels, mean, sums, smaller(step, positions - first), channels};
    for_channels<FFEM_WIDTH>(0, channels, work);
  }
  for (int64_t i = 0; i < channels; ++i) {
    const double count = static_cast<double>(positions), distance = sums[i] / count;
    const double spread = sums[channels + i] / count - distance * distance;
    mean[i] = static_cast<float>(static_cast<double>(mean[i]) + distance);
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
  if constexpr (kActivation == kRelu6) return ((z > zero) & (z < six)) ? grad : zero;
  if constexpr (kActivation == kPRelu) return z > zero ? grad : grad * slope;
  if constexpr (kActivation == kHardSwish) {
    const typename L::Float up = z + three, low = up < zero ? zero : up;
    const typename L::Float bend = ((up > zero) & (up < six)) ? z : zero;
    return grad * ((low > six ? six : low) + bend) * L::fill(1.0f / 6);
  }
  return grad;
}

// BatchNorm is (x - mean) * gain + bias. Folded into x * gain + offset it would be the small difference of two large
// numbers wherever the mean is far larger than the deviation.
void compute_gain(int64_t channels, const Norm& norm, float* gain) {
  for (int64_t i = 0; i < channels; ++i) gain[i] = norm.scale[i] / __builtin_sqrtf(norm.variance[i] + norm.epsilon);
}

// What the loops below hold in registers for the channels from `channel` on.
template <int N, Activation kActivation>
struct NormLanes {
  using L = Lanes<N>;
  typename L::Float mean, gain, bias, slope;

  INLINE NormLanes(const Norm& norm, const float* gains, int64_t channel)
      : mean(L::load(norm.mean + channel)),
        gain(L::load(gains + channel)),
        bias(L::load(norm.bias + channel)),
        slope(kActivation == kPRelu ? L::load(norm.slope + channel) : typename L::Float{}) {}
};

template <Activation kActivation>
struct NormalizeTile {
  const Norm& norm;
  const float *gain, *x;
  float* y;
  int64_t positions, channels;

  template <int N>
  INLINE void run(int64_t channel) const {
    using L = Lanes<N>;
    const NormLanes<N, kActivation> n(norm, gain, channel);
    for (int64_t p = 0; p < positions; ++p) {
      const int64_t at = p * channels + channel;
      L::store(y + at, activate<N, kActivation>((L::load(x + at) - n.mean) * n.gain + n.bias, n.slope));
    }
  }
};

template <Activation kActivation>
void normalize_positions(int64_t positions, int64_t channels, const Norm& norm, const float* gain, const float* x,
                         float* y) {
  const int64_t step = tile(channels);
  for (int64_t first = 0; first < positions; first += step) {
    const int64_t at = first * channels;
    const NormalizeTile<kActivation> work{norm, gain, x + at, y + at, smaller(step, positions - first), channels};
    for_channels<FFEM_WIDTH>(0, channels, work);
  }
}

template <Activation kActivation>
void normalize_as(int64_t positions, int64_t channels, const Norm& norm, const float* x, float* scratch, float* y) {
  compute_gain(channels, norm, scratch);
  normalize_positions<kActivation>(positions, channels, norm, scratch, x, y);
}

template <Activation kActivation>
struct SumsTile {
  const Norm& norm;
  const float *gain, *x, *grad;
  double* totals;
  int64_t positions, channels;

  template <int N>
  INLINE void run(int64_t channel) const {
    using L = Lanes<N>;
    const NormLanes<N, kActivation> n(norm, gain, channel);
    typename L::Float plain{}, product{}, bent{};
    for (int64_t p = 0; p < positions; ++p) {
      const int64_t at = p * channels + channel;
      const typename L::Float distance = L::load(x + at) - n.mean, behind = L::load(grad + at);
      const typename L::Float z = distance * n.gain + n.bias;
      const typename L::Float before = deactivate<N, kActivation>(z, n.slope, behind);
      plain += before;
      product += before * distance;
      if constexpr (kActivation == kPRelu) bent += z > typename L::Float{} ? typename L::Float{} : behind * z;
    }
    L::add(totals + channel, plain);
    L::add(totals + channels + channel, product);
    L::add(totals + 2 * channels + channel, bent);
  }
};

template <Activation kActivation>
void add_sums(int64_t positions, int64_t channels, const Norm& norm, const float* gain, const float* x,
              const float* grad, double* totals) {
  const int64_t step = smaller(kSummed, tile(2 * channels));
  for (int64_t first = 0; first < positions; first += step) {
    const int64_t at = first * channels;
    const SumsTile<kActivation> work{norm, gain, x + at, grad + at, totals, smaller(step, positions - first), channels};
    for_channels<FFEM_WIDTH>(0, channels, work);
  }
}

void finish_sums(int64_t channels, const Norm& norm, double* totals, float* sums) {
  for (int64_t i = 0; i < channels; ++i) {
    totals[channels + i] /= __builtin_sqrt(static_cast<double>(norm.variance[i] + norm.epsilon));
  }
  for (int64_t i = 0; i < 3 * channels; ++i) sums[i] = static_cast<float>(totals[i]);
}

template <Activation kActivation>
void sums_as(int64_t positions, int64_t channels, const Norm& norm, const float* x, const float* grad, float* scratch,
             double* totals, float* sums) {
  compute_gain(channels, norm, scratch);
  for (int64_t i = 0; i < 3 * channels; ++i) totals[i] = 0;
  add_sums<kActivation>(positions, channels, norm, scratch, x, grad, totals);
  finish_sums(channels, norm, totals, sums);
}

template <Activation kActivation>
struct GradientTile {
  const Norm& norm;
  const float *gain, *constant, *factor, *x, *grad;
  float* grad_x;
  int64_t positions, channels;

  template <int N>
  INLINE void run(int64_t channel) const {
    using L = Lanes<N>;
    const NormLanes<N, kActivation> n(norm, gain, channel);
    const typename L::Float c = L::load(constant + channel), f = L::load(factor + channel);
    for (int64_t p = 0; p < positions; ++p) {
      const int64_t at = p * channels + channel;
      const typename L::Float distance = L::load(x + at) - n.mean;
      const typename L::Float before =
          deactivate<N, kActivation>(distance * n.gain + n.bias, n.slope, L::load(grad + at));
      L::store(grad_x + at, before * n.gain + (distance * f + c));
    }
  }
};

// Gains, constants and factors, [channels] each: gain * (g - mean of g - normalized x * mean of g * normalized x), the
// last two as (x - mean) * factor + constant.
void compute_factors(int64_t channels, const Norm& norm, const float* sums, int64_t count, float* factors) {
  float *gain = factors, *constant = gain + channels, *factor = constant + channels;
  compute_gain(channels, norm, gain);
  for (int64_t i = 0; i < channels; ++i) {
    const float share = count ? gain[i] / static_cast<float>(count) : 0;
    factor[i] = -share * sums[channels + i] / __builtin_sqrtf(norm.variance[i] + norm.epsilon);
    constant[i] = -share * sums[i];
  }
}

template <Activation kActivation>
void gradient_positions(int64_t positions, int64_t channels, const Norm& norm, const float* factors, const float* x,
                        const float* grad, float* grad_x) {
  const float *constant = factors + channels, *factor = constant + channels;
  const int64_t step = tile(2 * channels);
  for (int64_t first = 0; first < positions; first += step) {
    const int64_t at = first * channels;
    const GradientTile<kActivation> work{
        norm, factors, constant, factor, x + at, grad + at, grad_x + at, smaller(step, positions - first), channels};
    for_channels<FFEM_WIDTH>(0, channels, work);
  }
}

template <Activation kActivation>
void gradient_as(int64_t positions, int64_t channels, const Norm& norm, const float* x, const float* grad,
                 const float* sums, int64_t count, float* scratch, float* grad_x) {
  compute_factors(channels, norm, sums, count, scratch);
  gradient_positions<kActivation>(positions, channels, norm, scratch, x, grad, grad_x);
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
}  // namespace ffem
