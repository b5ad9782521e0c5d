// What XLA calls: each handler checks types and shapes, refuses what does not fit with its name and the shapes, and runs
// a loop for each seed. Arguments may have leading axes, the same for all of a call: seeds side by side.
#include <algorithm>
#include <atomic>
#include <cstring>
#include <string>
#include <vector>

#include "call.h"
#include "loops.h"

#ifndef FFEM_SOURCES
#define FFEM_SOURCES ""
#endif

namespace ffem {
namespace {

// ------------------------------------------------------------------------------------ instruction sets

// The best table of loops that this processor runs, or the one called `name`; null where it does not run it.
const Loops* select_loops(const std::string& name) {
#ifdef FFEM_X86
  __builtin_cpu_init();
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  const bool avx512 = avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") &&
                      __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq");
  if (avx512 && (name.empty() || name == kAvx512.instructions)) return &kAvx512;
  if (avx2 && (name.empty() || name == kAvx2.instructions)) return &kAvx2;
#endif
  return name.empty() || name == kBaseline.instructions ? &kBaseline : nullptr;
}

std::atomic<const Loops*> chosen{nullptr};

const Loops& loops() {
  if (chosen.load() == nullptr) chosen.store(select_loops(""));
  return *chosen.load();
}

// ------------------------------------------------------------------------------------------- the calls

// x [batch, height, width, channels], kernel [3, 3, 1, channels], y [batch, rows, columns, channels], by their places.
Convolution read_convolution(Call& call, int64_t x, int64_t kernel, int64_t y) {
  const auto from = call.shape(x, 4), taps = call.shape(kernel, 4), to = call.shape(y, 4);
  const int64_t stride = call.integer("stride");
  call.require(stride == 1 || stride == 2, "takes a stride of 1 or 2, not " + std::to_string(stride));
  const Convolution c{from[0], from[1], from[2], from[3], to[1], to[2], stride};
  call.require(c.height > 0 && c.width > 0, "takes maps of at least a pixel");
  call.require(taps == std::vector<int64_t>{3, 3, 1, c.channels}, "takes a kernel [3, 3, 1, channels]");
  const int64_t rows = (c.height + stride - 1) / stride, columns = (c.width + stride - 1) / stride;
  call.require(to == std::vector<int64_t>{c.batch, rows, columns, c.channels},
               "makes [batch, height / stride, width / stride, channels] of [batch, height, width, channels]");
  return c;
}

// Memory, of zeros, that begins where a cache line does: to read a vector across two lines takes twice the time.
class Lines {
 public:
  explicit Lines(int64_t floats) : lines_(static_cast<size_t>(floats / 16 + 1)) {}
  float* data() { return lines_.data()->numbers; }

 private:
  struct alignas(64) Line {
    float numbers[16];
  };
  std::vector<Line> lines_;
};

// Run `body(x, kernel, y, zeros)` for each seed.
template <class Body>
void for_seeds(Call& call, const Convolution& c, int64_t x, int64_t kernel, int64_t y, Body body) {
  Lines zeros(c.width * c.channels);
  const int64_t seeds = call.count_seeds(x, 4), map = c.batch * c.channels;
  for (int64_t s = 0; s < seeds; ++s) {
    body(call.data(x) + s * map * c.height * c.width, call.data(kernel) + s * 9 * c.channels,
         call.data(y) + s * map * c.rows * c.columns, zeros.data());
  }
}

struct Pooling {
  int64_t seeds, batch, positions, channels;
};

// x [batch, height, width, channels], kernel [height, width, 1, channels], y [batch, channels], by their places.
Pooling read_pooling(Call& call, int64_t x, int64_t kernel, int64_t y) {
  const auto from = call.shape(x, 4);
  call.require(call.shape(kernel, 4) == std::vector<int64_t>{from[1], from[2], 1, from[3]},
               "takes a kernel [height, width, 1, channels]");
  call.require(call.shape(y, 2) == std::vector<int64_t>{from[0], from[3]}, "makes [batch, channels]");
  return {call.count_seeds(x, 4), from[0], from[1] * from[2], from[3]};
}

// An array [..., channels] and vectors [channels] of it.
struct Map {
  int64_t seeds, positions, channels;
};

// x and the arrays of its shape, and the vectors [channels], by their places.
Map read_map(Call& call, const std::vector<int64_t>& arrays, const std::vector<int64_t>& vectors) {
  Map map{call.count_seeds(vectors[0], 1), 1, call.shape(vectors[0], 1)[0]};
  const Buffer &x = call.get(arrays[0]), &vector = call.get(vectors[0]);
  call.require(x.rank >= vector.rank + 1, "takes an array of more axes than its vectors have");
  call.count_seeds(arrays[0], x.rank - vector.rank + 1);
  for (int64_t i = vector.rank - 1; i < x.rank - 1; ++i) map.positions *= x.dims[i];
  const std::string wanted = "takes arrays [..., channels] of one shape and vectors [channels]";
  call.require(x.dims[x.rank - 1] == map.channels, wanted);
  for (const int64_t i : arrays) {
    const Buffer& other = call.get(i);
    call.require(other.rank == x.rank && std::memcmp(other.dims, x.dims, sizeof(int64_t) * x.rank) == 0, wanted);
  }
  for (const int64_t i : vectors) call.require(call.shape(i, 1)[0] == map.channels, wanted);
  call.require(map.positions > 0, "takes arrays with at least one position");
  return map;
}

// The five vectors from place `first` on, for one seed.
Norm read_norm(const Call& call, int64_t first, int64_t seed, int64_t channels) {
  const int64_t activation = call.integer("activation");
  call.require(activation >= kLinear && activation <= kHardSwish, "takes an activation from 0 to 4");
  const auto vector = [&](int64_t i) { return call.data(first + i) + seed * channels; };
  return {vector(0), vector(1), vector(2),
          vector(3), vector(4), call.number("epsilon"), static_cast<Activation>(activation)};
}

// The running mean and variance from place `running` on, moved on by those from place 1 on into results from `moved` on.
void move_statistics(const Call& call, int64_t running, int64_t moved, int64_t count) {
  const float momentum = call.number("momentum");
  for (int64_t i = 0; i < 2; ++i) {
    const float *now = call.data(1 + i), *before = call.data(running + i);
    float* after = call.data(moved + i);
    for (int64_t j = 0; j < count; ++j) after[j] = momentum * before[j] + (1 - momentum) * now[j];
  }
}

// What the fused calls have in common: x, mean, variance, scale, bias, slope, kernel as the first arguments, and an array
// of the shape of the convolution's output. Run `body` for each seed, with what it works on.
struct Fused {
  const Convolution& c;
  Norm norm;
  const float *x, *kernel, *zeros;
  float *output, *scratch;
  int64_t seed;
};

template <class Body>
void for_fused_seeds(Call& call, int64_t output, const std::vector<int64_t>& arrays,
                     const std::vector<int64_t>& vectors, Body body) {
  const Convolution c = read_convolution(call, 0, 6, output);
  const Map m = read_map(call, arrays, vectors);
  Lines scratch(count_fused(c));
  for_seeds(call, c, 0, 6, output, [&, seed = int64_t{0}](float* x, float* kernel, float* y, const float* zeros) mutable {
    body(Fused{c, read_norm(call, 1, seed, m.channels), x, kernel, zeros, y, scratch.data(), seed});
    ++seed;
  });
}

// Arrays and the vector of all their numbers, one array after another: copied from the arrays, or to them.
void copy_parts(Call& call, int64_t vector, int64_t first, int64_t last, bool joins) {
  const int64_t seeds = call.count_seeds(vector, 1), length = call.shape(vector, 1)[0];
  const int64_t leading = call.get(vector).rank - 1;
  int64_t at = 0;
  for (int64_t i = first; i < last; ++i) {
    const Buffer& part = call.get(i);
    call.require(part.rank >= leading, "takes arrays with the same leading axes");
    int64_t count = 1;
    for (const int64_t size : call.shape(i, part.rank - leading)) count *= size;
    call.require(at + count <= length, "takes a vector as long as its parts are together");
    for (int64_t s = 0; s < seeds; ++s) {
      float *own = call.data(i) + s * count, *place = call.data(vector) + s * length + at;
      std::copy_n(joins ? own : place, count, joins ? place : own);
    }
    at += count;
  }
  call.require(at == length, "takes a vector as long as its parts are together");
}

}  // namespace
}  // namespace ffem

using ffem::Call;
using ffem::handle;
using ffem::loops;

#define FFEM_HANDLER(NAME, ARGUMENTS, RESULTS, ...)                                                \
  extern "C" __attribute__((visibility("default"))) ffem::Error* ffem_##NAME(ffem::Frame* frame) { \
    return handle(#NAME, frame, ARGUMENTS, RESULTS, __VA_ARGS__);                                          \
  }

// x, kernel -> y
FFEM_HANDLER(depthwise, 2, 1, [](Call& call) {
  const auto c = ffem::read_convolution(call, 0, 1, 2);
  for_seeds(call, c, 0, 1, 2, [&](float* x, float* kernel, float* y, const float* zeros) {
    loops().depthwise(c, x, kernel, zeros, y);
  });
})

// gradient of y, kernel -> gradient of x
FFEM_HANDLER(depthwise_input_gradient, 2, 1, [](Call& call) {
  const auto c = ffem::read_convolution(call, 2, 1, 0);
  for_seeds(call, c, 2, 1, 0, [&](float* x, float* kernel, float* y, const float* zeros) {
    loops().depthwise_input_gradient(c, y, kernel, zeros, x);
  });
})

// x, gradient of y -> gradient of the kernel
FFEM_HANDLER(depthwise_kernel_gradient, 2, 1, [](Call& call) {
  const auto c = ffem::read_convolution(call, 0, 2, 1);
  for_seeds(call, c, 0, 2, 1, [&](float* x, float* kernel, float* y, const float* zeros) {
    loops().depthwise_kernel_gradient(c, x, y, zeros, kernel);
  });
})

// x, kernel -> y
FFEM_HANDLER(global_depthwise, 2, 1, [](Call& call) {
  const auto p = ffem::read_pooling(call, 0, 1, 2);
  for (int64_t s = 0; s < p.seeds; ++s) {
    loops().global_depthwise(p.batch, p.positions, p.channels, call.data(0) + s * p.batch * p.positions * p.channels,
                             call.data(1) + s * p.positions * p.channels, call.data(2) + s * p.batch * p.channels);
  }
})

// gradient of y, kernel -> gradient of x
FFEM_HANDLER(global_depthwise_input_gradient, 2, 1, [](Call& call) {
  const auto p = ffem::read_pooling(call, 2, 1, 0);
  for (int64_t s = 0; s < p.seeds; ++s) {
    loops().global_depthwise_input_gradient(
        p.batch, p.positions, p.channels, call.data(0) + s * p.batch * p.channels,
        call.data(1) + s * p.positions * p.channels, call.data(2) + s * p.batch * p.positions * p.channels);
  }
})

// x, gradient of y -> gradient of the kernel
FFEM_HANDLER(global_depthwise_kernel_gradient, 2, 1, [](Call& call) {
  const auto p = ffem::read_pooling(call, 0, 2, 1);
  for (int64_t s = 0; s < p.seeds; ++s) {
    loops().global_depthwise_kernel_gradient(
        p.batch, p.positions, p.channels, call.data(0) + s * p.batch * p.positions * p.channels,
        call.data(1) + s * p.batch * p.channels, call.data(2) + s * p.positions * p.channels);
  }
})

// x, gradient of y -> gradient of the kernel
FFEM_HANDLER(pointwise_kernel_gradient, 2, 1, [](Call& call) {
  const auto kernel = call.shape(2, 2);
  const int64_t seeds = call.count_seeds(2, 2), leading = call.get(2).rank - 2;
  const auto x = call.shape(0, call.get(0).rank - leading), grad = call.shape(1, call.get(1).rank - leading);
  call.require(!x.empty() && x.size() == grad.size() && std::equal(x.begin(), x.end() - 1, grad.begin()) &&
                   kernel == std::vector<int64_t>{x.back(), grad.back()},
               "takes x [..., inputs] and a gradient [..., outputs] and makes [inputs, outputs]");
  int64_t positions = 1;
  for (size_t i = 0; i + 1 < x.size(); ++i) positions *= x[i];
  for (int64_t s = 0; s < seeds; ++s) {
    loops().pointwise_kernel_gradient(positions, x.back(), grad.back(), call.data(0) + s * positions * x.back(),
                                      call.data(1) + s * positions * grad.back(),
                                      call.data(2) + s * x.back() * grad.back());
  }
})

// x -> mean, variance
FFEM_HANDLER(moments, 1, 2, [](Call& call) {
  const auto m = ffem::read_map(call, {0}, {1, 2});
  std::vector<double> sums(static_cast<size_t>(2 * m.channels));
  for (int64_t s = 0; s < m.seeds; ++s) {
    loops().moments(m.positions, m.channels, call.data(0) + s * m.positions * m.channels, sums.data(),
                    call.data(1) + s * m.channels, call.data(2) + s * m.channels);
  }
})

// x, mean, variance, scale, bias, slope -> y
FFEM_HANDLER(normalize, 6, 1, [](Call& call) {
  const auto m = ffem::read_map(call, {0, 6}, {1, 2, 3, 4, 5});
  std::vector<float> scratch(static_cast<size_t>(m.channels));
  for (int64_t s = 0; s < m.seeds; ++s) {
    const int64_t at = s * m.positions * m.channels;
    loops().normalize(m.positions, m.channels, ffem::read_norm(call, 1, s, m.channels), call.data(0) + at,
                      scratch.data(), call.data(6) + at);
  }
})

// x, mean, variance, scale, bias, slope, running mean, running variance -> y, the running ones moved on
FFEM_HANDLER(batch_norm, 8, 3, [](Call& call) {
  const auto m = ffem::read_map(call, {0, 8}, {1, 2, 3, 4, 5, 6, 7, 9, 10});
  std::vector<float> scratch(static_cast<size_t>(m.channels));
  for (int64_t s = 0; s < m.seeds; ++s) {
    const int64_t at = s * m.positions * m.channels;
    loops().normalize(m.positions, m.channels, ffem::read_norm(call, 1, s, m.channels), call.data(0) + at,
                      scratch.data(), call.data(8) + at);
  }
  ffem::move_statistics(call, 6, 9, m.seeds * m.channels);
})

// x, mean, variance, scale, bias, slope, gradient of y -> gradients of bias, scale and slope
FFEM_HANDLER(normalize_sums, 7, 3, [](Call& call) {
  const auto m = ffem::read_map(call, {0, 6}, {1, 2, 3, 4, 5, 7, 8, 9});
  std::vector<float> scratch(static_cast<size_t>(m.channels)), sums(static_cast<size_t>(3 * m.channels));
  std::vector<double> totals(static_cast<size_t>(3 * m.channels));
  for (int64_t s = 0; s < m.seeds; ++s) {
    const int64_t at = s * m.positions * m.channels;
    loops().normalize_sums(m.positions, m.channels, ffem::read_norm(call, 1, s, m.channels), call.data(0) + at,
                           call.data(6) + at, scratch.data(), totals.data(), sums.data());
    for (int64_t i = 0; i < 3; ++i) {
      std::copy_n(sums.data() + i * m.channels, m.channels, call.data(7 + i) + s * m.channels);
    }
  }
})

// x, mean, variance, scale, bias, slope, gradient of y, gradients of bias and scale over all `count` positions ->
// gradient of x
FFEM_HANDLER(normalize_gradient, 9, 1, [](Call& call) {
  const auto m = ffem::read_map(call, {0, 6, 9}, {1, 2, 3, 4, 5, 7, 8});
  const int64_t count = call.integer("count");
  std::vector<float> scratch(static_cast<size_t>(3 * m.channels)), sums(static_cast<size_t>(2 * m.channels));
  for (int64_t s = 0; s < m.seeds; ++s) {
    const int64_t at = s * m.positions * m.channels;
    for (int64_t i = 0; i < 2; ++i) {
      std::copy_n(call.data(7 + i) + s * m.channels, m.channels, sums.data() + i * m.channels);
    }
    loops().normalize_gradient(m.positions, m.channels, ffem::read_norm(call, 1, s, m.channels), call.data(0) + at,
                               call.data(6) + at, sums.data(), count, scratch.data(), call.data(9) + at);
  }
})

// x, mean, variance, scale, bias, slope, kernel -> y
FFEM_HANDLER(normalize_depthwise, 7, 1, [](Call& call) {
  for_fused_seeds(call, 7, {0}, {1, 2, 3, 4, 5}, [](const ffem::Fused& f) {
    loops().normalize_depthwise(f.c, f.norm, f.x, f.kernel, f.zeros, f.scratch, f.output);
  });
})

// x, mean, variance, scale, bias, slope, kernel, running mean, running variance -> y, the running ones moved on
FFEM_HANDLER(batch_norm_depthwise, 9, 3, [](Call& call) {
  for_fused_seeds(call, 9, {0}, {1, 2, 3, 4, 5, 7, 8, 10, 11}, [](const ffem::Fused& f) {
    loops().normalize_depthwise(f.c, f.norm, f.x, f.kernel, f.zeros, f.scratch, f.output);
  });
  ffem::move_statistics(call, 7, 10, call.count_seeds(0, 4) * call.shape(0, 4)[3]);
})

// x, mean, variance, scale, bias, slope, kernel, gradient of y -> gradients of kernel, bias, scale and slope
FFEM_HANDLER(normalize_depthwise_sums, 8, 4, [](Call& call) {
  const int64_t channels = call.shape(0, 4)[3];
  call.require(call.shape(8, 4) == call.shape(6, 4), "makes a kernel's gradient of the kernel's shape");
  std::vector<float> sums(static_cast<size_t>(3 * channels));
  std::vector<double> totals(static_cast<size_t>(3 * channels));
  for_fused_seeds(call, 7, {0}, {1, 2, 3, 4, 5, 9, 10, 11}, [&](const ffem::Fused& f) {
    loops().normalize_depthwise_sums(f.c, f.norm, f.x, f.kernel, f.output, f.zeros, f.scratch, totals.data(),
                                     call.data(8) + f.seed * 9 * channels, sums.data());
    for (int64_t i = 0; i < 3; ++i) {
      std::copy_n(sums.data() + i * channels, channels, call.data(9 + i) + f.seed * channels);
    }
  });
})

// x, mean, variance, scale, bias, slope, kernel, gradient of y, gradients of bias and scale over all `count` positions
// -> gradient of x
FFEM_HANDLER(normalize_depthwise_gradient, 10, 1, [](Call& call) {
  const int64_t channels = call.shape(0, 4)[3], count = call.integer("count");
  std::vector<float> sums(static_cast<size_t>(2 * channels));
  for_fused_seeds(call, 7, {0, 10}, {1, 2, 3, 4, 5, 8, 9}, [&](const ffem::Fused& f) {
    for (int64_t i = 0; i < 2; ++i) {
      std::copy_n(call.data(8 + i) + f.seed * channels, channels, sums.data() + i * channels);
    }
    loops().normalize_depthwise_gradient(f.c, f.norm, f.x, f.kernel, f.output, f.zeros, sums.data(), count, f.scratch,
                                         call.data(10) + f.seed * f.c.batch * f.c.height * f.c.width * channels);
  });
})

// arrays -> vector
FFEM_HANDLER(join, -1, 1, [](Call& call) {
  ffem::copy_parts(call, call.count_arrays() - 1, 0, call.count_arrays() - 1, true);
})

// vector -> arrays
FFEM_HANDLER(split, 1, -1, [](Call& call) { ffem::copy_parts(call, 0, 1, call.count_arrays(), false); })

// Use the instruction set `name`, the best one where it is empty. Gives the one in use, or null where this processor
// does not have it.
extern "C" __attribute__((visibility("default"))) const char* ffem_use_instructions(const char* name) {
  const ffem::Loops* wanted = ffem::select_loops(name);
  if (wanted == nullptr) return nullptr;
  ffem::chosen.store(wanted);
  return wanted->instructions;
}

// The digest of the sources that this was made of.
extern "C" __attribute__((visibility("default"))) const char* ffem_sources() { return FFEM_SOURCES; }
