#include "base/result.h"

#include <cerrno>
#include <system_error>

namespace base {

std::string_view CodeName(Code code) {
  switch (code) {
    case Code::kNotFound:
      return "NOT_FOUND";
    case Code::kAlreadyExists:
      return "ALREADY_EXISTS";
    case Code::kConflict:
      return "CONFLICT";
    case Code::kInvalidArgument:
      return "INVALID_ARGUMENT";
    case Code::kUnauthenticated:
      return "UNAUTHENTICATED";
    case Code::kPermissionDenied:
      return "PERMISSION_DENIED";
    case Code::kQuotaExceeded:
      return "QUOTA_EXCEEDED";
    case Code::kTooLarge:
      return "TOO_LARGE";
    case Code::kUnavailable:
      return "UNAVAILABLE";
    case Code::kOutOfSpace:
      return "OUT_OF_SPACE";
    case Code::kCorruption:
      return "CORRUPTION";
    case Code::kIo:
      return "IO";
    case Code::kCancelled:
      return "CANCELLED";
  }
  CheckFailed(__FILE__, __LINE__, "a code outside its enum");
}

Error Error::Annotate(std::string_view context) const {
  std::string message(context);
  message += ": ";
  message += message_;
  return Error(code_, std::move(message));
}

std::string Error::ToString() const {
  std::string text(CodeName(code_));
  text += ": ";
  text += message_;
  return text;
}

Error ErrnoError(int error_number, std::string_view what) {
  Code code = Code::kIo;
  if (error_number == ENOSPC || error_number == EDQUOT) code = Code::kOutOfSpace;
  if (error_number == ENOENT) code = Code::kNotFound;
  if (error_number == EEXIST) code = Code::kAlreadyExists;
  // std::strerror shares a buffer between threads; this does not.
  return Error(code, std::generic_category().message(error_number)).Annotate(what);
}

}  // namespace base
