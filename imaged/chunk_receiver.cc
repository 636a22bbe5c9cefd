#include "imaged/chunk_receiver.h"

#include <algorithm>
#include <string_view>
#include <utility>

#include <fmt/format.h>

#include "base/http/target.h"
#include "chunkstore/blob_format.h"
#include "chunkstore/map.h"

namespace imaged {

using base::ByteView;
using base::Code;
using base::Error;
using base::MutableByteView;
using base::Result;

namespace {

// A stream may be longer than what is in it by the heads of its frames. One that has nothing in it
// could go on for ever.
constexpr uint64_t kWireSpareDivisor = 64;
constexpr uint64_t kWireSpareBytes = 64 * base::kKiB;

uint64_t PlainBytes(const std::vector<ChunkRun>& runs, uint64_t size_bytes) {
  uint64_t bytes = 0;
  for (const ChunkRun& run : runs) {
    for (uint64_t i = 0; i < run.count; ++i) {
      bytes += chunkstore::ChunkLength(run.first + i, size_bytes);
    }
  }
  return bytes;
}

}  // namespace

ChunkReceiver::ChunkReceiver(uint64_t size_bytes, std::span<const base::Digest256> ids,
                             std::vector<ChunkRun> asked, Put put)
    : size_bytes_(size_bytes),
      ids_(ids),
      asked_(std::move(asked)),
      put_(std::move(put)),
      chunk_(std::min<uint64_t>(chunkstore::kChunkBytes, std::max<uint64_t>(1, size_bytes))) {
  const uint64_t plain = PlainBytes(asked_, size_bytes_);
  max_wire_bytes_ = plain + plain / kWireSpareDivisor + kWireSpareBytes;
}

Result<void> ChunkReceiver::Begin(const base::http::Headers& headers) {
  std::string_view type = headers.Get("Content-Type");
  type = type.substr(0, type.find_first_of("; "));
  if (!base::http::EqualsNoCase(type, kChunkBytesType)) {
    return Error(Code::kIo, fmt::format("asked for chunks, the service answered {}", type));
  }
  const std::string_view coding = headers.Get("Content-Encoding");
  if (coding.empty() || base::http::EqualsNoCase(coding, "identity")) return {};
  if (base::http::EqualsNoCase(coding, "zstd")) {
    zstd_.emplace();
    return {};
  }
  return Error(Code::kIo, fmt::format("the service encoded its answer as {}, which was not asked "
                                      "for",
                                      coding));
}

Result<void> ChunkReceiver::Take(ByteView bytes) {
  wire_bytes_ += bytes.size();
  if (wire_bytes_ > max_wire_bytes_) {
    return Error(Code::kCorruption, "the service sends more than the chunks that were asked for");
  }
  while (!zstd_.has_value() && !bytes.empty()) {
    const MutableByteView room = Room();
    const size_t count = std::min(room.size(), bytes.size());
    std::copy_n(bytes.begin(), count, room.begin());
    bytes = bytes.subspan(count);
    RETURN_IF_ERROR(Filled(count));
  }
  while (zstd_.has_value()) {
    const MutableByteView room = Room();
    const Result<size_t> count = zstd_->Read(&bytes, room);
    if (!count.has_value()) return Error(Code::kCorruption, count.error().message());
    const bool drained = *count < room.size();
    RETURN_IF_ERROR(Filled(*count));
    if (drained) break;
  }
  return {};
}

Result<void> ChunkReceiver::End() {
  if (done()) return {};
  return Error(Code::kCorruption,
               fmt::format("the service's answer ends within chunk {}", number()));
}

MutableByteView ChunkReceiver::Room() {
  if (done()) return {&surplus_, 1};
  return chunk_.view().first(chunkstore::ChunkLength(number(), size_bytes_)).subspan(filled_);
}

Result<void> ChunkReceiver::Filled(size_t count) {
  if (count == 0) return {};
  if (done()) {
    return Error(Code::kCorruption, "the service sends more than the chunks that were asked for");
  }
  filled_ += count;
  const uint32_t length = chunkstore::ChunkLength(number(), size_bytes_);
  if (filled_ < length) return {};
  const ByteView bytes = chunk_.view().first(length);
  if (base::Sha256(bytes) != ids_[number()]) {
    return Error(Code::kCorruption,
                 fmt::format("what the service sent as chunk {} is not what its id {} names",
                             number(), ids_[number()].hex()));
  }
  RETURN_IF_ERROR(put_(number(), bytes));
  plain_bytes_ += length;
  filled_ = 0;
  if (++in_run_ == asked_[run_].count) {
    ++run_;
    in_run_ = 0;
  }
  return {};
}

}  // namespace imaged
