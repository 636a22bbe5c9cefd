#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/bytes.h"
#include "base/result.h"
#include "controlplane/cli/image_blocks.h"
#include "controlplane/cli/image_chunks.h"
#include "controlplane/cli/image_source.h"
#include "imaged/sent_frames.h"

namespace controlplane::cli {

// What is sent of a file's chunks; all others are named. One flag and one recipe a chunk. With a
// recipe, of a chunk that is wanted, only what that says.
struct SendPlan {
  std::vector<bool> wanted;
  std::vector<std::optional<ChunkRecipe>> recipes;  // may be empty: none
  bool frames = false;                              // what is sent is compressed

  const ChunkRecipe* RecipeOf(size_t chunk) const;
  bool has_recipes() const;
  uint16_t version() const;                            // of the stream
  uint64_t FileBytes(const FileChunks& chunks) const;  // that are sent
  uint64_t ZeroBytes() const;                          // of chunks that are assembled
};

// The body of PUT .../file, of version 2 if there are recipes or frames. Checks that what it sends
// is what was hashed, and at its end that the file is as it was: kCancelled. One thread; borrows
// all three.
class ChunkStreamBody {
 public:
  ChunkStreamBody(const ImageSource& source, const FileChunks& chunks, const SendPlan& plan);

  // Nothing: with frames it is known at the end.
  std::optional<uint64_t> size_bytes() const { return size_bytes_; }
  uint64_t file_bytes() const { return file_bytes_; }  // of the file, in what came out so far
  // 0 at the end.
  base::Result<size_t> Fill(base::MutableByteView into);

 private:
  base::Result<void> Refill();
  base::Result<void> LoadChunk();
  void AppendBatch();
  static base::ByteView GatherSent(const ChunkRecipe& recipe, base::MutableByteView bytes);
  std::string RecipesOf(uint64_t first, uint64_t end) const;

  const ImageSource& source_;
  const FileChunks& chunks_;
  const SendPlan& plan_;
  const uint16_t version_;
  std::optional<uint64_t> size_bytes_;
  uint64_t out_bytes_ = 0;
  uint64_t file_bytes_ = 0;
  uint64_t next_ = 0;  // chunk
  uint64_t entries_end_ = 0;
  std::string text_;
  base::Buffer chunk_;
  imaged::SentFramesWriter frames_;
  std::string framed_;
  base::ByteView piece_;  // of text_, chunk_ or framed_: what comes out next
};

}  // namespace controlplane::cli
