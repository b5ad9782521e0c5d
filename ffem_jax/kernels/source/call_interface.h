// What XLA hands to a function that it calls, version 0.3 of its foreign function interface: the memory layout of the
// parts that are read here, in their order, and the codes that they hold. tests/kernels/test_library.py holds each size,
// offset and code equal to those of the header that the installed JAX ships (jax.ffi.include_dir()).
#pragma once

#include <cstddef>
#include <cstdint>

namespace ffem {

enum class Type : int { kInt64 = 5, kFloat32 = 11 };
enum class AttributeKind : int { kScalar = 3 };
enum class Code : int { kInvalidArgument = 3, kInternal = 13 };

// Whatever else a struct brings along: a question, at times, that stands for a call.
struct Extension {
  std::size_t struct_size;
  int kind;
  Extension* next;
};
constexpr int kAsksForMetadata = 1;

struct Version {
  std::size_t struct_size;
  Extension* extensions;
  int major_number;
  int minor_number;
};
constexpr int kMajor = 0, kMinor = 3;

struct Metadata {
  std::size_t struct_size;
  Version version;
  std::uint32_t traits;
  std::int64_t state_type;
};

struct MetadataQuestion {
  Extension extension;
  Metadata* metadata;
};

struct Buffer {
  std::size_t struct_size;
  Extension* extensions;
  Type dtype;
  void* data;
  std::int64_t rank;
  std::int64_t* dims;
};

struct Text {
  const char* start;
  std::size_t length;
};

struct Scalar {
  Type dtype;
  void* value;
};

// Arguments, and results likewise: pointers to buffers.
struct Arrays {
  std::size_t struct_size;
  Extension* extensions;
  std::int64_t size;
  int* kinds;
  void** values;
};

struct Attributes {
  std::size_t struct_size;
  Extension* extensions;
  std::int64_t size;
  AttributeKind* kinds;
  Text** names;
  void** values;
};

struct Error;  // XLA's own

struct ErrorRequest {
  std::size_t struct_size;
  Extension* extensions;
  const char* message;
  Code code;
};

// XLA's functions: many more follow the one that is called here.
struct Functions {
  std::size_t struct_size;
  Extension* extensions;
  Version version;
  const void* internal;
  Error* (*create_error)(ErrorRequest*);
};

struct Frame {
  std::size_t struct_size;
  Extension* extensions;
  const Functions* functions;
  void* context;
  int stage;
  Arrays arguments;
  Arrays results;
  Attributes attributes;
  void* future;
};

// XLA checks sizes up to the last field, without what the compiler pads behind it.
constexpr std::size_t kErrorRequestSize = offsetof(ErrorRequest, code) + sizeof(Code);

}  // namespace ffem
