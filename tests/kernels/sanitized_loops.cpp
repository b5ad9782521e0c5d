// Runs every loop on arrays of exactly its sizes, for all small maps and channels: for the sanitizers, not for results.
#include <cstdio>
#include <initializer_list>
#include <memory>

#include "loops.h"

namespace {

// Memory of exactly `count` numbers: one beyond it is an error that the sanitizer sees.
template <class T>
std::unique_ptr<T[]> make(int64_t count) {
  std::unique_ptr<T[]> array(new T[static_cast<size_t>(count)]);
  for (int64_t i = 0; i < count; ++i) array[i] = static_cast<T>(i % 7) - 3;
  return array;
}

const ffem::Loops& loops = ffem::kBaseline;

// BatchNorm and a depthwise convolution together.
void run_fused(const ffem::Convolution& c, ffem::Activation activation) {
  auto x = make<float>(c.batch * c.height * c.width * c.channels), kernel = make<float>(9 * c.channels);
  auto y = make<float>(c.batch * c.rows * c.columns * c.channels), zeros = make<float>(c.width * c.channels);
  auto vectors = make<float>(5 * c.channels), scratch = make<float>(ffem::count_fused(c));
  auto sums = make<float>(3 * c.channels);
  auto totals = make<double>(3 * c.channels);
  const float *v = vectors.get(), epsilon = 10;
  const ffem::Norm norm{v, v + c.channels, v + 2 * c.channels, v + 3 * c.channels, v + 4 * c.channels, epsilon,
                        activation};
  loops.normalize_depthwise(c, norm, x.get(), kernel.get(), zeros.get(), scratch.get(), y.get());
  auto grad_kernel = make<float>(9 * c.channels);
  loops.normalize_depthwise_sums(c, norm, x.get(), kernel.get(), y.get(), zeros.get(), scratch.get(), totals.get(),
                                 grad_kernel.get(), sums.get());
  auto grad_x = make<float>(c.batch * c.height * c.width * c.channels);
  loops.normalize_depthwise_gradient(c, norm, x.get(), kernel.get(), y.get(), zeros.get(), sums.get(), 9,
                                     scratch.get(), grad_x.get());
}

}  // namespace

int main() {
  long calls = 0;
  for (int64_t channels : {1, 3, 4, 7, 8, 15, 16, 17, 31, 33, 65}) {
    for (int64_t height : {1, 2, 3, 4, 5}) {
      for (int64_t width : {1, 2, 3, 4, 5}) {
        for (int64_t stride : {1, 2}) {
          const int64_t batch = 2, rows = (height + stride - 1) / stride, columns = (width + stride - 1) / stride;
          const ffem::Convolution c{batch, height, width, channels, rows, columns, stride};
          auto x = make<float>(batch * height * width * channels), y = make<float>(batch * rows * columns * channels);
          auto kernel = make<float>(9 * channels), zeros = make<float>(width * channels);
          loops.depthwise(c, x.get(), kernel.get(), zeros.get(), y.get());
          loops.depthwise_input_gradient(c, y.get(), kernel.get(), zeros.get(), x.get());
          loops.depthwise_kernel_gradient(c, x.get(), y.get(), zeros.get(), kernel.get());
          for (int64_t activation = 0; activation < 5; ++activation) {
            run_fused(c, static_cast<ffem::Activation>(activation));
          }
          calls += 18;
        }
        const int64_t batch = 2, positions = height * width;
        auto x = make<float>(batch * positions * channels), kernel = make<float>(positions * channels);
        auto y = make<float>(batch * channels);
        loops.global_depthwise(batch, positions, channels, x.get(), kernel.get(), y.get());
        loops.global_depthwise_input_gradient(batch, positions, channels, y.get(), kernel.get(), x.get());
        loops.global_depthwise_kernel_gradient(batch, positions, channels, x.get(), y.get(), kernel.get());
        calls += 3;
      }
    }
    for (int64_t positions : {1, 2, 3, 17, 300}) {
      for (int64_t outputs : {1, 2, 16, 33, 40}) {
        auto x = make<float>(positions * channels), grad = make<float>(positions * outputs);
        auto kernel = make<float>(channels * outputs);
        loops.pointwise_kernel_gradient(positions, channels, outputs, x.get(), grad.get(), kernel.get());
        ++calls;
      }
      for (int64_t activation = 0; activation < 5; ++activation) {
        auto x = make<float>(positions * channels), y = make<float>(positions * channels);
        auto vectors = make<float>(5 * channels), scratch = make<float>(4 * channels), sums = make<float>(3 * channels);
        auto totals = make<double>(3 * channels), twice = make<double>(2 * channels);
        float* v = vectors.get();
        loops.moments(positions, channels, x.get(), twice.get(), v, v + channels);
        const ffem::Norm norm{v, v + channels, v + 2 * channels, v + 3 * channels, v + 4 * channels, 1e-3F,
                              static_cast<ffem::Activation>(activation)};
        loops.normalize(positions, channels, norm, x.get(), scratch.get(), y.get());
        loops.normalize_sums(positions, channels, norm, x.get(), y.get(), scratch.get(), totals.get(), sums.get());
        loops.normalize_gradient(positions, channels, norm, x.get(), y.get(), sums.get(), positions, scratch.get(),
                                 x.get());
        calls += 4;
      }
    }
  }
  // In several parts, and of rows that are longer than a part.
  for (int64_t stride : {1, 2}) {
    for (int64_t width : {23, 61}) {
      const int64_t height = 7, channels = 300;
      const int64_t rows = (height + stride - 1) / stride, columns = (width + stride - 1) / stride;
      run_fused({2, height, width, channels, rows, columns, stride}, ffem::kPRelu);
      calls += 3;
    }
  }
  std::printf("%ld\n", calls);
  return 0;
}
