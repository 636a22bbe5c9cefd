#pragma once

#include <cstdint>
#include <unordered_map>
#include <vector>

#include "base/bytes.h"
#include "base/files.h"
#include "base/hash.h"
#include "base/result.h"
#include "controlplane/cli/image_chunks.h"
#include "imaged/chunk_wire.h"

namespace controlplane::cli {

// Writes a download in order from `offset` on, leaving holes where there are zeros: the file has
// none but zeros there. Borrows the file. One thread.
class SparseWriter {
 public:
  SparseWriter(base::File& file, uint64_t offset) : file_(file), offset_(offset) {}

  base::Result<void> Write(base::ByteView bytes);
  uint64_t offset() const { return offset_; }

 private:
  base::File& file_;
  uint64_t offset_;
};

// A file on its way to be an image: knows which of the image's chunks it lacks, and puts each one
// that is found anywhere to all the places where it belongs. One thread; borrows the file and the
// image's chunks.
class ChunkAssembly {
 public:
  // `there` are the chunks that lie in the file now; it has the image's size.
  ChunkAssembly(base::File& file, const FileChunks& image, const FileChunks& there);

  // Makes zeros where zeros belong. Once, before anything else.
  base::Result<void> ClearHoles();

  bool Lacks(const base::Digest256& id) const { return lacking_.contains(id); }
  // Where the file lacks it: a chunk of this id, which the caller has verified.
  base::Result<void> Put(const base::Digest256& id, base::ByteView bytes);

  // What is lacking, each chunk once, by the lowest of its numbers: runs of at most `limit` chunks
  // together.
  std::vector<imaged::ChunkRun> Missing(size_t limit) const;

  // Of the image, in the file: with its zeros.
  uint64_t complete_bytes() const { return image_.size_bytes - lacking_bytes_; }

 private:
  base::Result<void> Write(uint64_t number, base::ByteView bytes);

  base::File& file_;
  const FileChunks& image_;
  std::vector<bool> dirty_;  // places where something else than zeros lies that is wrong
  std::unordered_map<base::Digest256, std::vector<uint64_t>> lacking_;  // numbers, ascending
  uint64_t lacking_bytes_ = 0;
};

}  // namespace controlplane::cli
