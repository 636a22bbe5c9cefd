#include "blockd/nbd/protocol.h"

namespace blockd::nbd {

WireError ToWire(base::Code code) {
  switch (code) {
    case base::Code::kOutOfSpace:
    case base::Code::kQuotaExceeded:
      return WireError::kNoSpc;
    case base::Code::kInvalidArgument:
    case base::Code::kTooLarge:
      return WireError::kInval;
    case base::Code::kPermissionDenied:
    case base::Code::kUnauthenticated:
      return WireError::kPerm;
    case base::Code::kCancelled:
      return WireError::kShutdown;
    case base::Code::kNotFound:
    case base::Code::kAlreadyExists:
    case base::Code::kConflict:
    case base::Code::kUnavailable:
    case base::Code::kCorruption:
    case base::Code::kIo:
      return WireError::kIo;
  }
  return WireError::kIo;
}

std::string_view CommandName(Command command) {
  switch (command) {
    case Command::kRead:
      return "READ";
    case Command::kWrite:
      return "WRITE";
    case Command::kDisconnect:
      return "DISCONNECT";
    case Command::kFlush:
      return "FLUSH";
    case Command::kTrim:
      return "TRIM";
    case Command::kCache:
      return "CACHE";
    case Command::kWriteZeroes:
      return "WRITE_ZEROES";
    case Command::kBlockStatus:
      return "BLOCK_STATUS";
  }
  return "OTHER";
}

}  // namespace blockd::nbd
