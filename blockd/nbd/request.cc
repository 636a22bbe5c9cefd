#include "blockd/nbd/request.h"

#include "blockd/volume.h"

namespace blockd::nbd {
namespace {

// The flags a command may carry; FUA is fine with any.
uint16_t AllowedFlags(Command command) {
  switch (command) {
    case Command::kRead:
      return kCommandFua | kCommandDf;
    case Command::kWriteZeroes:
      return kCommandFua | kCommandNoHole | kCommandFastZero;
    case Command::kBlockStatus:
      return kCommandFua | kCommandReqOne;
    default:
      return kCommandFua;
  }
}

bool Changes(Command command) {
  return command == Command::kWrite || command == Command::kTrim ||
         command == Command::kWriteZeroes;
}

WireError ValidateRange(const Request& request, const Shape& shape) {
  if ((request.offset | request.length) % kSectorBytes != 0) return WireError::kInval;
  if (request.offset > shape.size_bytes || request.length > shape.size_bytes - request.offset) {
    const bool fills =
        request.command == Command::kWrite || request.command == Command::kWriteZeroes;
    return fills ? WireError::kNoSpc : WireError::kInval;
  }
  return WireError::kOk;
}

}  // namespace

bool ParseRequest(const uint8_t* header, Request* request) {
  if (LoadBig<uint32_t>(header) != kRequestMagic) return false;
  request->flags = LoadBig<uint16_t>(header + 4);
  request->command = static_cast<Command>(LoadBig<uint16_t>(header + 6));
  request->cookie = LoadBig<uint64_t>(header + 8);
  request->offset = LoadBig<uint64_t>(header + 16);
  request->length = LoadBig<uint32_t>(header + 24);
  return request->payload_bytes() <= kMaxIoBytes;
}

WireError Validate(const Request& request, const Shape& shape) {
  if ((request.flags & ~AllowedFlags(request.command)) != 0) return WireError::kInval;
  if (shape.read_only && Changes(request.command)) return WireError::kPerm;
  switch (request.command) {
    case Command::kRead:
      if ((request.flags & kCommandDf) != 0 && !shape.structured_replies) return WireError::kInval;
      if (request.length > kMaxIoBytes) return WireError::kInval;
      return ValidateRange(request, shape);
    case Command::kWrite:
    case Command::kTrim:
    case Command::kCache:
    case Command::kWriteZeroes:
      return ValidateRange(request, shape);
    case Command::kFlush:
      return request.offset == 0 && request.length == 0 ? WireError::kOk : WireError::kInval;
    case Command::kBlockStatus:
      if (!shape.contexts || request.length == 0) return WireError::kInval;
      return ValidateRange(request, shape);
    case Command::kDisconnect:
      return WireError::kOk;
  }
  return WireError::kInval;
}

}  // namespace blockd::nbd
