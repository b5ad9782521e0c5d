// One call by XLA: its arguments and results with their checks, and errors as XLA takes them.
#pragma once

#include <exception>
#include <stdexcept>
#include <string>
#include <vector>

#include "call_interface.h"

namespace ffem {
namespace {

std::string write_shape(const Buffer& buffer) {
  std::string text = buffer.dtype == Type::kFloat32 ? "float32[" : "other type[";
  for (int64_t i = 0; i < buffer.rank; ++i) text += (i ? "," : "") + std::to_string(buffer.dims[i]);
  return text + "]";
}

// One call's arguments and results. Whatever `require` misses ends the call with an error that shows all shapes.
class Call {
 public:
  // With -1 there may be any number of arguments, or of results.
  Call(const char* name, const Frame& frame, int64_t arguments, int64_t results)
      : name_(name), frame_(frame) {
    require(arguments < 0 || frame.arguments.size == arguments, "takes " + std::to_string(arguments) + " arguments");
    require(results < 0 || frame.results.size == results, "gives " + std::to_string(results) + " results");
    for (int64_t i = 0; i < count_arrays(); ++i) {
      require(get(i).dtype == Type::kFloat32, "takes and gives float32 alone");
    }
  }

  int64_t count_arrays() const { return frame_.arguments.size + frame_.results.size; }

  // Argument i, or, counted on, a result.
  const Buffer& get(int64_t i) const {
    const bool is_argument = i < frame_.arguments.size;
    return *static_cast<Buffer*>(is_argument ? frame_.arguments.values[i] : frame_.results.values[i - frame_.arguments.size]);
  }

  float* data(int64_t i) const { return static_cast<float*>(get(i).data); }

  void require(bool fits, const std::string& what) const {
    if (fits) return;
    std::string shapes;
    for (int64_t i = 0; i < count_arrays(); ++i) {
      shapes += (i == 0 ? "" : i == frame_.arguments.size ? " -> " : ", ") + write_shape(get(i));
    }
    throw std::invalid_argument("ffem kernel " + name_ + " " + what + "; it got " + shapes);
  }

  // The leading axes of an array whose own axes are `own`: how many seeds. All arrays of a call have the same.
  int64_t count_seeds(int64_t i, int64_t own) {
    const Buffer& buffer = get(i);
    require(buffer.rank >= own, "takes an array of at least " + std::to_string(own) + " axes");
    const std::vector<int64_t> leading(buffer.dims, buffer.dims + buffer.rank - own);
    if (!known_) leading_ = leading;
    known_ = true;
    require(leading == leading_, "takes arrays with the same leading axes");
    int64_t seeds = 1;
    for (const int64_t size : leading) seeds *= size;
    return seeds;
  }

  // The own axes of an array, after those of seeds.
  std::vector<int64_t> shape(int64_t i, int64_t own) {
    count_seeds(i, own);
    const Buffer& buffer = get(i);
    return {buffer.dims + buffer.rank - own, buffer.dims + buffer.rank};
  }

  int64_t integer(const char* name) const {
    return *static_cast<const int64_t*>(attribute(name, Type::kInt64));
  }

  float number(const char* name) const { return *static_cast<const float*>(attribute(name, Type::kFloat32)); }

 private:
  const void* attribute(const char* name, Type type) const {
    for (int64_t i = 0; i < frame_.attributes.size; ++i) {
      const Text& span = *frame_.attributes.names[i];
      if (std::string(span.start, span.length) != name || frame_.attributes.kinds[i] != AttributeKind::kScalar) continue;
      const auto& scalar = *static_cast<Scalar*>(frame_.attributes.values[i]);
      if (scalar.dtype == type) return scalar.value;
    }
    throw std::invalid_argument("ffem kernel " + name_ + " takes an attribute " + name);
  }

  std::string name_;
  const Frame& frame_;
  std::vector<int64_t> leading_;
  bool known_ = false;
};

Error* make_error(const Frame* frame, Code code, const char* message) {
  ErrorRequest args{};
  args.struct_size = kErrorRequestSize;
  args.message = message;
  args.code = code;
  return frame->functions->create_error(&args);
}

// Answer XLA's question for the version, or run `body`; what it throws becomes XLA's error.
template <class Body>
Error* handle(const char* name, Frame* frame, int64_t arguments, int64_t results, Body body) {
  auto* extension = frame->extensions;
  if (extension != nullptr && extension->kind == kAsksForMetadata) {
    Metadata& metadata = *reinterpret_cast<MetadataQuestion*>(extension)->metadata;
    metadata.version.major_number = kMajor;
    metadata.version.minor_number = kMinor;
    return nullptr;
  }
  try {
    Call call(name, *frame, arguments, results);
    body(call);
    return nullptr;
  } catch (const std::invalid_argument& error) {
    return make_error(frame, Code::kInvalidArgument, error.what());
  } catch (const std::exception& error) {
    return make_error(frame, Code::kInternal, error.what());
  }
}

}  // namespace
}  // namespace ffem
