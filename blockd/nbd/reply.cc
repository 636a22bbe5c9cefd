#include "blockd/nbd/reply.h"

#include "blockd/nbd/handshake.h"

namespace blockd::nbd {
namespace {

constexpr size_t kMaxMessageBytes = 512;

void StoreChunkHead(const Request& request, uint16_t flags, uint16_t type, uint32_t length,
                    uint8_t* at) {
  StoreBig(at, kStructuredReplyMagic);
  StoreBig(at + 4, flags);
  StoreBig(at + 6, type);
  StoreBig(at + 8, request.cookie);
  StoreBig(at + 16, length);
}

std::string SimpleReply(const Request& request, WireError error) {
  std::string out;
  PutBig(&out, kSimpleReplyMagic);
  PutBig(&out, static_cast<uint32_t>(error));
  PutBig(&out, request.cookie);
  return out;
}

}  // namespace

size_t WriteReadHead(const Request& request, bool structured, uint8_t* at) {
  if (!structured) {
    StoreBig(at, kSimpleReplyMagic);
    StoreBig(at + 4, uint32_t{0});
    StoreBig(at + 8, request.cookie);
    return kSimpleReplyBytes;
  }
  if (request.length == 0) {  // a chunk of data must have some
    StoreChunkHead(request, kChunkDone, kChunkNone, 0, at);
    return kChunkHeaderBytes;
  }
  StoreChunkHead(request, kChunkDone, kChunkOffsetData, 8 + request.length, at);
  StoreBig(at + kChunkHeaderBytes, request.offset);
  return kChunkHeaderBytes + 8;
}

std::string ReadHoleReply(const Request& request) {
  std::string out = ChunkHead(request, kChunkDone, kChunkOffsetHole, 12);
  PutBig(&out, request.offset);
  PutBig(&out, request.length);
  return out;
}

std::string StatusReply(const Request& request, bool structured, WireError error,
                        std::string_view message) {
  const bool chunked =
      request.command == Command::kRead || request.command == Command::kBlockStatus;
  if (!structured || !chunked || error == WireError::kOk) return SimpleReply(request, error);
  message = message.substr(0, kMaxMessageBytes);
  std::string out =
      ChunkHead(request, kChunkDone, kChunkError, static_cast<uint32_t>(6 + message.size()));
  PutBig(&out, static_cast<uint32_t>(error));
  PutBig(&out, static_cast<uint16_t>(message.size()));
  out.append(message);
  return out;
}

std::string ChunkHead(const Request& request, uint16_t flags, uint16_t type, uint32_t length) {
  std::string out(kChunkHeaderBytes, '\0');
  StoreChunkHead(request, flags, type, length, reinterpret_cast<uint8_t*>(out.data()));
  return out;
}

}  // namespace blockd::nbd
