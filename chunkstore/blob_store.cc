#include "chunkstore/blob_store.h"

#include <fmt/format.h>

namespace chunkstore {

base::Result<void> CheckBlobName(std::string_view name) {
  bool fits = !name.empty() && name.size() <= BlobStore::kMaxNameBytes;
  if (!fits || name.find_first_not_of("0123456789abcdef-") != std::string_view::npos) {
    return base::Error(
        base::Code::kInvalidArgument,
        fmt::format("a blob's name is 1 to {} of 0-9, a-f and -", BlobStore::kMaxNameBytes));
  }
  return {};
}

base::Result<uint64_t> CheckedBlobSize(std::span<const base::ByteView> pieces) {
  uint64_t size = 0;
  for (base::ByteView piece : pieces) size += piece.size();
  if (size > BlobStore::kMaxBlobBytes) {
    return base::Error(
        base::Code::kTooLarge,
        fmt::format("a blob of {} bytes is over the limit of {}", size, BlobStore::kMaxBlobBytes));
  }
  return size;
}

}  // namespace chunkstore
