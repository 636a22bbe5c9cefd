#pragma once

#include <string>
#include <string_view>
#include <utility>

#include <tl/expected.hpp>

#include "base/check.h"

// How every fallible call in Quarry answers: Result<T> holds a T or an Error. We never throw; an
// exception of a third party's library becomes an Error in the file that wraps it. The names are
// those of std::expected (Debian's libexpected-dev stands in until the standard library has it);
// the type is [[nodiscard]], so a result that nobody looks at does not compile.
//
//   Result<Header> ReadHeader(File& file) {
//     ASSIGN_OR_RETURN(std::string bytes, file.Read(0, kHeaderBytes));
//     if (bytes.size() < kHeaderBytes) return Error(Code::kCorruption, "header is cut short");
//     ...
//   }
//
// An error gains context once a layer (Error::Annotate) and is logged once, where it is consumed.

namespace base {

// A closed set: a caller decides by code, a person by message. base/http/errors.h maps a code to an
// HTTP status: adding one means adding a row there.
enum class Code {
  kNotFound,          // the thing named does not exist, or the caller may not know that it does
  kAlreadyExists,     // creating what is there
  kConflict,          // the thing's state, or another writer, forbids it now
  kInvalidArgument,   // the request can never succeed as it stands
  kUnauthenticated,   // who is calling is not known
  kPermissionDenied,  // who is calling is known, and may not
  kQuotaExceeded,     // a limit that an operator set for a tenant
  kTooLarge,          // a limit of the service itself
  kUnavailable,       // not now: try again (overload, shutting down, a peer that does not answer)
  kOutOfSpace,        // the disk or pool is full
  kCorruption,        // stored bytes are not what was written
  kIo,                // the operating system or a device failed
  kCancelled,         // the caller went away, or the work was called off
};

// "NOT_FOUND" and the like: for logs and metrics labels.
std::string_view CodeName(Code code);

// Value type. The message is a sentence for a person: what was wrong and what to do. It never holds
// a secret.
class [[nodiscard]] Error {
 public:
  Error(Code code, std::string message) : code_(code), message_(std::move(message)) {}

  Code code() const { return code_; }
  const std::string& message() const { return message_; }

  // The same code, with "context: " in front of the message.
  Error Annotate(std::string_view context) const;

  // "NOT_FOUND: no such image".
  std::string ToString() const;

 private:
  Code code_;
  std::string message_;
};

template <typename T>
class [[nodiscard]] Result : public tl::expected<T, Error> {
 public:
  using Base = tl::expected<T, Error>;
  using Base::Base;
  Result() = default;
  // NOLINTNEXTLINE(google-explicit-constructor): `return Error(...)` is the point of the type
  Result(Error error) : Base(tl::unexpect, std::move(error)) {}

  // Annotates the error, if it is one; for the last line of a layer.
  Result Annotate(std::string_view context) && {
    if (this->has_value()) return std::move(*this);
    return this->error().Annotate(context);
  }
};

// An Error from errno (or any errno value): ENOSPC and EDQUOT are kOutOfSpace, ENOENT kNotFound,
// EEXIST kAlreadyExists, all else kIo. "what" names the operation and the object: "open blobs/ab".
Error ErrnoError(int error_number, std::string_view what);

}  // namespace base

#define QUARRY_CONCAT_INNER(a, b) a##b
#define QUARRY_CONCAT(a, b) QUARRY_CONCAT_INNER(a, b)

// RETURN_IF_ERROR(expr): returns the error of a Result from the function around it.
#define RETURN_IF_ERROR(expr)                                                   \
  do {                                                                          \
    if (auto&& quarry_result = (expr); !quarry_result.has_value()) [[unlikely]] \
      return std::move(quarry_result).error();                                  \
  } while (false)

// ASSIGN_OR_RETURN(auto x, expr): x is the value, or the function returns the error.
#define ASSIGN_OR_RETURN(lhs, expr) \
  ASSIGN_OR_RETURN_IMPL(QUARRY_CONCAT(quarry_result_, __LINE__), lhs, expr)
#define ASSIGN_OR_RETURN_IMPL(temp, lhs, expr) \
  auto temp = (expr);                          \
  if (!temp.has_value()) [[unlikely]]          \
    return std::move(temp).error();            \
  lhs = std::move(temp).value()

// The same for coroutines.
#define CO_RETURN_IF_ERROR(expr)                                                \
  do {                                                                          \
    if (auto&& quarry_result = (expr); !quarry_result.has_value()) [[unlikely]] \
      co_return std::move(quarry_result).error();                               \
  } while (false)
#define CO_ASSIGN_OR_RETURN(lhs, expr) \
  CO_ASSIGN_OR_RETURN_IMPL(QUARRY_CONCAT(quarry_result_, __LINE__), lhs, expr)
#define CO_ASSIGN_OR_RETURN_IMPL(temp, lhs, expr) \
  auto temp = (expr);                             \
  if (!temp.has_value()) [[unlikely]]             \
    co_return std::move(temp).error();            \
  lhs = std::move(temp).value()
