#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <unordered_map>
#include <vector>

#include "base/hash.h"
#include "base/result.h"
#include "chunkstore/blob_format.h"
#include "controlplane/cli/cloud.h"
#include "controlplane/cli/image_chunks.h"
#include "controlplane/cli/image_source.h"
#include "imaged/recipe_wire.h"

// Of chunks that a service wants, what lies in other chunks there: blocks of images that the caller
// could download, whose tables the service tells (imaged/API.md, "Blocks"). A chunk is then
// assembled there of these and of what is sent (recipe_wire.h).

namespace controlplane::cli {

// Blocks of chunks that the service has. Two blocks of one XXH3-128 and length count as equal: the
// service compares the whole chunk with its id. One thread.
class ServiceBlocks {
 public:
  struct Place {
    base::Digest256 chunk;
    uint32_t offset = 0;
  };
  void Add(const base::Digest256& chunk, uint32_t offset, uint32_t length,
           const base::Hash128& hash);
  std::optional<Place> Find(const chunkstore::Block& block) const;
  bool empty() const { return entries_.empty(); }

 private:
  struct Entry {
    uint64_t hash_high = 0;
    uint32_t length = 0;
    uint32_t chunk = 0;
    uint32_t offset = 0;
  };
  std::unordered_map<uint64_t, Entry> entries_;  // by the low half of the hash
  std::vector<base::Digest256> chunks_;
};

// Reads tables of these images, and of a few of the newest ones: as many as are likely to pay for
// the `wanted` chunks, those first that stand where a wanted one does. What can't be read is passed
// over; only an interrupt is an error.
base::Result<ServiceBlocks> FindServiceBlocks(ApiClient& client, const std::string& images_url,
                                              const std::vector<std::string>& alike,
                                              const std::vector<bool>& wanted);

// How a chunk is made of such blocks, zeros and what is sent; nothing if it may as well be sent.
struct ChunkRecipe {
  std::vector<base::Digest256> owners;  // that its pieces name
  imaged::Recipe pieces;
  uint64_t zero_bytes = 0;
  uint64_t named_bytes = 0;
  uint64_t sent_bytes = 0;
};
std::optional<ChunkRecipe> CookChunk(base::ByteView chunk, const ServiceBlocks& blocks);

// One a chunk of the file; only `wanted` ones are read. An interrupt is an error; what the file has
// become meanwhile is looked at when it is sent.
base::Result<std::vector<std::optional<ChunkRecipe>>> CookChunks(const ImageSource& source,
                                                                 const FileChunks& chunks,
                                                                 const std::vector<bool>& wanted,
                                                                 const ServiceBlocks& blocks);

}  // namespace controlplane::cli
