#include "controlplane/cli/chunk_assembly.h"

#include <algorithm>

#include "base/check.h"
#include "chunkstore/blob_format.h"
#include "chunkstore/map.h"

namespace controlplane::cli {
namespace {

using base::ByteView;
using base::Digest256;
using base::Result;
using chunkstore::kChunkBytes;
using imaged::ChunkRun;

constexpr size_t kHoleBytes = 64 * base::kKiB;  // zeros of this length, aligned, become a hole

}  // namespace

Result<void> SparseWriter::Write(ByteView bytes) {
  while (!bytes.empty()) {
    const size_t to_boundary = kHoleBytes - offset_ % kHoleBytes;
    const ByteView run = bytes.first(std::min(bytes.size(), to_boundary));
    if (!base::IsZero(run)) {
      const ByteView pieces[] = {run};
      RETURN_IF_ERROR(file_.WriteAt(offset_, pieces));
    }
    offset_ += run.size();
    bytes = bytes.subspan(run.size());
  }
  return {};
}

ChunkAssembly::ChunkAssembly(base::File& file, const FileChunks& image, const FileChunks& there)
    : file_(file), image_(image), dirty_(image.ids.size()) {
  CHECK(there.size_bytes == image.size_bytes && there.ids.size() == image.ids.size());
  for (uint64_t i = 0; i < image.ids.size(); ++i) {
    if (image.ids[i] == there.ids[i]) continue;
    dirty_[i] = !imaged::IsHole(there.ids[i]);
    if (imaged::IsHole(image.ids[i])) continue;
    lacking_[image.ids[i]].push_back(i);
    lacking_bytes_ += chunkstore::ChunkLength(i, image.size_bytes);
  }
}

Result<void> ChunkAssembly::ClearHoles() {
  std::vector<uint8_t> zeros;
  for (uint64_t i = 0; i < image_.ids.size(); ++i) {
    if (!dirty_[i] || !imaged::IsHole(image_.ids[i])) continue;
    const uint64_t offset = i * kChunkBytes;
    const uint32_t length = chunkstore::ChunkLength(i, image_.size_bytes);
    if (file_.PunchHole(offset, length).has_value()) continue;
    zeros.resize(kChunkBytes);  // a file system without holes
    const ByteView pieces[] = {ByteView(zeros).first(length)};
    RETURN_IF_ERROR(file_.WriteAt(offset, pieces));
  }
  return {};
}

Result<void> ChunkAssembly::Put(const Digest256& id, ByteView bytes) {
  const auto found = lacking_.find(id);
  if (found == lacking_.end()) return {};
  std::vector<uint64_t>& places = found->second;
  std::vector<uint64_t> left;
  for (const uint64_t number : places) {
    // A list may name one id for places of two lengths; that is right for one of them at most.
    if (chunkstore::ChunkLength(number, image_.size_bytes) != bytes.size()) {
      left.push_back(number);
      continue;
    }
    RETURN_IF_ERROR(Write(number, bytes));
    lacking_bytes_ -= bytes.size();
  }
  places = std::move(left);
  if (places.empty()) lacking_.erase(found);
  return {};
}

Result<void> ChunkAssembly::Write(uint64_t number, ByteView bytes) {
  const uint64_t offset = number * kChunkBytes;
  if (!dirty_[number]) return SparseWriter(file_, offset).Write(bytes);
  const ByteView pieces[] = {bytes};
  return file_.WriteAt(offset, pieces);
}

std::vector<ChunkRun> ChunkAssembly::Missing(size_t limit) const {
  std::vector<ChunkRun> runs;
  for (uint64_t i = 0; i < image_.ids.size() && limit > 0; ++i) {
    const auto found = lacking_.find(image_.ids[i]);
    if (found == lacking_.end() || found->second.front() != i) continue;
    if (runs.empty() || runs.back().first + runs.back().count != i) runs.push_back({i, 0});
    ++runs.back().count;
    --limit;
  }
  return runs;
}

}  // namespace controlplane::cli
