// Vectors of FFEM_WIDTH floats and narrower, and how work is cut into pieces for them.
// No standard library here: an inline function of it, compiled for AVX-512, could be the copy that the linker keeps.
#pragma once

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
INLINE int64_t tile(int64_t floats_each) { return larger(1, kTileFloats / larger(1, floats_each)); }

}  // namespace
}  // namespace ffem
