#pragma once

#include <cstdint>

#include "base/bytes.h"
#include "blockd/nbd/protocol.h"

namespace blockd::nbd {

// A request's header as the client sent it. The payload of a WRITE follows it on the wire.
struct Request {
  Command command = Command::kRead;
  uint16_t flags = 0;
  uint64_t cookie = 0;  // the client's, opaque
  uint64_t offset = 0;
  uint32_t length = 0;

  bool fua() const { return (flags & kCommandFua) != 0; }
  uint32_t payload_bytes() const { return command == Command::kWrite ? length : 0; }
};

// What a header is held against.
struct Shape {
  uint64_t size_bytes = 0;
  bool read_only = false;
  bool structured_replies = false;
  bool contexts = false;  // BLOCK_STATUS was negotiated
};

// Reads kRequestBytes. False when the stream is broken and the connection has to go: no magic, or a
// payload longer than kMaxIoBytes (what follows it can't be found without taking it all).
bool ParseRequest(const uint8_t* header, Request* request);

// kOk, or what the request is answered with without running it. Its payload is to be skipped then.
WireError Validate(const Request& request, const Shape& shape);

}  // namespace blockd::nbd
