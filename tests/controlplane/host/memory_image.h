#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "base/hash.h"
#include "base/thread_annotations.h"
#include "chunkstore/blob_format.h"
#include "controlplane/host/remote_image.h"

namespace controlplane::host {

// An image in memory, cut and compressed as a service has it, that can be down. Thread-safe.
class MemoryImage : public RemoteImage {
 public:
  explicit MemoryImage(std::string bytes) : bytes_(std::move(bytes)) {
    shape_.size_bytes = bytes_.size();
    chunkstore::BlobEncoder encoder({});
    const base::ByteView all = base::AsBytes(bytes_);
    for (size_t at = 0; at < all.size(); at += chunkstore::kChunkBytes) {
      const auto chunk =
          all.subspan(at, std::min<size_t>(chunkstore::kChunkBytes, all.size() - at));
      shape_.holes.push_back(base::IsZero(chunk));
      chunks_.push_back(Encode(encoder, chunk));
    }
  }

  base::Result<Shape> ReadShape() override {
    RETURN_IF_ERROR(Answer());
    return shape_;
  }
  base::Result<std::vector<chunkstore::layers::BlockInfo>> Table(uint64_t index) override {
    RETURN_IF_ERROR(Answer());
    return chunks_[index].table;
  }
  base::Result<std::vector<RemoteImage::Table>> Tables(std::span<const uint64_t> chunks) override {
    ++table_calls;
    RETURN_IF_ERROR(Answer());
    std::vector<RemoteImage::Table> tables;
    for (const uint64_t chunk : chunks) tables.push_back(chunks_[chunk].table);
    return tables;
  }
  base::Result<void> Fetch(uint64_t index, std::span<const size_t> numbers,
                           const Sink& sink) override {
    ++fetches;
    RETURN_IF_ERROR(Answer());
    const Chunk& chunk = chunks_[index];
    for (const size_t number : numbers) {
      const std::string& stored = chunk.stored[number];
      ++fetched_blocks;
      fetched_bytes += stored.size();
      RETURN_IF_ERROR(sink(number, base::AsBytes(stored)));
    }
    return {};
  }
  base::Result<std::optional<BootTrace>> ReadTrace() override {
    RETURN_IF_ERROR(Answer());
    base::MutexLock lock(mutex_);
    return trace_;
  }
  base::Result<void> WriteTrace(const BootTrace& trace) override {
    RETURN_IF_ERROR(Answer());
    base::MutexLock lock(mutex_);
    trace_ = trace;
    return {};
  }

  // From now on every call is answered so; nothing: as it should be.
  void Fail(std::optional<base::Error> error) {
    base::MutexLock lock(mutex_);
    error_ = std::move(error);
  }
  // Called before each answer, from the caller's thread.
  void SetBefore(std::function<void()> before) {
    base::MutexLock lock(mutex_);
    before_ = std::move(before);
  }

  const std::string& bytes() const { return bytes_; }
  const Shape& shape() const { return shape_; }
  size_t blocks() const {
    size_t count = 0;
    for (size_t i = 0; i < chunks_.size(); ++i)
      if (!shape_.holes[i]) count += chunks_[i].table.size();
    return count;
  }
  const RemoteImage::Table& table(size_t chunk) const { return chunks_[chunk].table; }

  std::atomic<int> table_calls{0};
  std::atomic<int> fetches{0};
  std::atomic<uint64_t> fetched_blocks{0};
  std::atomic<uint64_t> fetched_bytes{0};

 private:
  struct Chunk {
    RemoteImage::Table table;
    std::vector<std::string> stored;
  };

  static Chunk Encode(chunkstore::BlobEncoder& encoder, base::ByteView plain) {
    const chunkstore::EncodedBlob blob =
        encoder.Encode(chunkstore::BlobKind::kChunk, base::Sha256(plain), plain);
    std::string whole;
    for (const base::ByteView piece : blob.pieces()) whole += base::AsText(piece);
    Chunk chunk;
    for (const chunkstore::Block& block : blob.table().blocks) {
      chunkstore::layers::BlockInfo info;
      const auto bytes = plain.subspan(block.plain_offset, block.plain_length);
      const base::Digest256 digest = base::Sha256(bytes);
      std::copy_n(digest.bytes.begin(), info.name.bytes.size(), info.name.bytes.begin());
      info.plain_length = block.plain_length;
      info.stored_length = block.stored_length;
      info.compressed = block.form == chunkstore::Block::Form::kZstd;
      info.hash = block.hash;
      chunk.table.push_back(info);
      chunk.stored.push_back(whole.substr(block.stored_offset, block.stored_length));
    }
    return chunk;
  }

  base::Result<void> Answer() {
    std::function<void()> before;
    {
      base::MutexLock lock(mutex_);
      before = before_;
    }
    if (before) before();
    base::MutexLock lock(mutex_);
    if (error_.has_value()) return *error_;
    return {};
  }

  const std::string bytes_;
  Shape shape_;
  std::vector<Chunk> chunks_;
  base::Mutex mutex_;
  std::optional<base::Error> error_ GUARDED_BY(mutex_);
  std::optional<BootTrace> trace_ GUARDED_BY(mutex_);
  std::function<void()> before_ GUARDED_BY(mutex_);
};

// Bytes of which some compress, some don't, and some are holes: `chunks` of them and `more` bytes.
inline std::string SomeBytes(size_t chunks, size_t more = 0, uint32_t seed = 1) {
  std::string bytes(chunks * chunkstore::kChunkBytes + more, '\0');
  uint64_t state = seed;
  for (size_t at = 0; at < bytes.size(); ++at) {
    if (at / chunkstore::kChunkBytes % 3 == 1) continue;  // a hole
    state = state * 6364136223846793005u + 1442695040888963407u;
    const bool text = at / (64 * base::kKiB) % 2 == 0;
    bytes[at] = static_cast<char>(text ? 'a' + (state >> 60) : state >> 56);
  }
  return bytes;
}

}  // namespace controlplane::host
