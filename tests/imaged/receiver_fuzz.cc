#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/check.h"
#include "imaged/chunk_receiver.h"

// The answer to a client that fetches the one chunk of a small image, in pieces: only the chunk's
// bytes are handed on, once, and only they are an end.

namespace {

constexpr std::string_view kChunk = "the bytes of a small image";

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size < 2) return 0;
  const std::vector<base::Digest256> ids = {base::Sha256(base::AsBytes(kChunk))};
  int chunks = 0;
  imaged::ChunkReceiver receiver(kChunk.size(), ids, {{0, 1}},
                                 [&](uint64_t number, base::ByteView bytes) -> base::Result<void> {
                                   CHECK(number == 0 && base::AsText(bytes) == kChunk);
                                   ++chunks;
                                   return {};
                                 });
  base::http::Headers headers;
  headers.Set("Content-Type", imaged::kChunkBytesType);
  if (data[0] % 2 == 1) headers.Set("Content-Encoding", "zstd");
  CHECK(receiver.Begin(headers).has_value());
  const size_t piece = data[1] + size_t{1};
  base::Result<void> taken;
  for (size_t at = 2; at < size && taken.has_value(); at += piece) {
    taken = receiver.Take(base::ByteView(data, size).subspan(at, std::min(piece, size - at)));
  }
  CHECK(chunks <= 1);
  if (taken.has_value()) CHECK(receiver.End().has_value() == (chunks == 1));
  if (!taken.has_value()) CHECK(!taken.error().message().empty());
  return 0;
}
