// Our layout of what XLA hands over, held against the header of the installed JAX. Compiling it is the test.
#include "call_interface.h"
#include "xla/ffi/api/c_api.h"

#define SAME_SIZE(OURS, THEIRS) static_assert(sizeof(ffem::OURS) == sizeof(THEIRS), #OURS)
#define SAME_PLACE(OURS, OUR_FIELD, THEIRS, THEIR_FIELD)                                            \
  static_assert(offsetof(ffem::OURS, OUR_FIELD) == offsetof(THEIRS, THEIR_FIELD) &&                 \
                    sizeof(ffem::OURS::OUR_FIELD) == sizeof(((THEIRS*)nullptr)->THEIR_FIELD),       \
                #OURS "." #OUR_FIELD)

SAME_SIZE(Extension, XLA_FFI_Extension_Base);
SAME_PLACE(Extension, kind, XLA_FFI_Extension_Base, type);
SAME_PLACE(Extension, next, XLA_FFI_Extension_Base, next);
SAME_SIZE(Version, XLA_FFI_Api_Version);
SAME_PLACE(Version, major_number, XLA_FFI_Api_Version, major_version);
SAME_PLACE(Version, minor_number, XLA_FFI_Api_Version, minor_version);
SAME_SIZE(Metadata, XLA_FFI_Metadata);
SAME_PLACE(Metadata, version, XLA_FFI_Metadata, api_version);
SAME_PLACE(Metadata, traits, XLA_FFI_Metadata, traits);
SAME_SIZE(MetadataQuestion, XLA_FFI_Metadata_Extension);
SAME_PLACE(MetadataQuestion, metadata, XLA_FFI_Metadata_Extension, metadata);
SAME_SIZE(Buffer, XLA_FFI_Buffer);
SAME_PLACE(Buffer, dtype, XLA_FFI_Buffer, dtype);
SAME_PLACE(Buffer, data, XLA_FFI_Buffer, data);
SAME_PLACE(Buffer, rank, XLA_FFI_Buffer, rank);
SAME_PLACE(Buffer, dims, XLA_FFI_Buffer, dims);
SAME_SIZE(Text, XLA_FFI_ByteSpan);
SAME_PLACE(Text, start, XLA_FFI_ByteSpan, ptr);
SAME_PLACE(Text, length, XLA_FFI_ByteSpan, len);
SAME_SIZE(Scalar, XLA_FFI_Scalar);
SAME_PLACE(Scalar, dtype, XLA_FFI_Scalar, dtype);
SAME_PLACE(Scalar, value, XLA_FFI_Scalar, value);
SAME_SIZE(Arrays, XLA_FFI_Args);
SAME_PLACE(Arrays, size, XLA_FFI_Args, size);
SAME_PLACE(Arrays, kinds, XLA_FFI_Args, types);
SAME_PLACE(Arrays, values, XLA_FFI_Args, args);
SAME_SIZE(Arrays, XLA_FFI_Rets);
SAME_PLACE(Arrays, size, XLA_FFI_Rets, size);
SAME_PLACE(Arrays, values, XLA_FFI_Rets, rets);
SAME_SIZE(Attributes, XLA_FFI_Attrs);
SAME_PLACE(Attributes, size, XLA_FFI_Attrs, size);
SAME_PLACE(Attributes, kinds, XLA_FFI_Attrs, types);
SAME_PLACE(Attributes, names, XLA_FFI_Attrs, names);
SAME_PLACE(Attributes, values, XLA_FFI_Attrs, attrs);
SAME_SIZE(ErrorRequest, XLA_FFI_Error_Create_Args);
SAME_PLACE(ErrorRequest, message, XLA_FFI_Error_Create_Args, message);
SAME_PLACE(ErrorRequest, code, XLA_FFI_Error_Create_Args, errc);
static_assert(ffem::kErrorRequestSize == XLA_FFI_Error_Create_Args_STRUCT_SIZE, "kErrorRequestSize");
SAME_PLACE(Functions, version, XLA_FFI_Api, api_version);
SAME_PLACE(Functions, create_error, XLA_FFI_Api, XLA_FFI_Error_Create);
SAME_SIZE(Frame, XLA_FFI_CallFrame);
SAME_PLACE(Frame, extensions, XLA_FFI_CallFrame, extension_start);
SAME_PLACE(Frame, functions, XLA_FFI_CallFrame, api);
SAME_PLACE(Frame, arguments, XLA_FFI_CallFrame, args);
SAME_PLACE(Frame, results, XLA_FFI_CallFrame, rets);
SAME_PLACE(Frame, attributes, XLA_FFI_CallFrame, attrs);

static_assert(static_cast<int>(ffem::Type::kInt64) == XLA_FFI_DataType_S64, "kInt64");
static_assert(static_cast<int>(ffem::Type::kFloat32) == XLA_FFI_DataType_F32, "kFloat32");
static_assert(static_cast<int>(ffem::AttributeKind::kScalar) == XLA_FFI_AttrType_SCALAR, "kScalar");
static_assert(static_cast<int>(ffem::Code::kInvalidArgument) == XLA_FFI_Error_Code_INVALID_ARGUMENT, "kInvalidArgument");
static_assert(static_cast<int>(ffem::Code::kInternal) == XLA_FFI_Error_Code_INTERNAL, "kInternal");
static_assert(ffem::kAsksForMetadata == XLA_FFI_Extension_Metadata, "kAsksForMetadata");
static_assert(ffem::kMajor == XLA_FFI_API_MAJOR && ffem::kMinor == XLA_FFI_API_MINOR, "the version");
