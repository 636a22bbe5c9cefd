#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "base/bytes.h"
#include "blockd/nbd/protocol.h"
#include "blockd/nbd/request.h"

namespace blockd::nbd {

// The bytes in front of a successful READ's data.
constexpr size_t kMaxReadHeadBytes = kChunkHeaderBytes + 8;

// What a connection has agreed on decides how it is answered: with structured replies, READ and
// BLOCK_STATUS are chunks, and all else is simple, as the protocol allows.

// Writes the head of a READ's answer to `at` (room for kMaxReadHeadBytes); returns its size.
size_t WriteReadHead(const Request& request, bool structured, uint8_t* at);

// An answer to READ that says "zeros" without sending them. Structured replies only.
std::string ReadHoleReply(const Request& request);

// Success or failure of a command without data, and failure of any. `message` is for the client's
// log; it travels only where the protocol has room for it.
std::string StatusReply(const Request& request, bool structured, WireError error,
                        std::string_view message = {});

// The head of one chunk, in front of `length` bytes.
std::string ChunkHead(const Request& request, uint16_t flags, uint16_t type, uint32_t length);

}  // namespace blockd::nbd
