#pragma once

#include <cstdint>
#include <string>

#include "base/hash.h"
#include "base/result.h"
#include "chunkstore/chunk_store.h"
#include "chunkstore/meta_store.h"
#include "imaged/block_wire.h"

namespace imaged {

// What this service calls blocks and the bytes of images where others keep them: HMAC-SHA-256 under
// a secret of the service, 16 bytes of it (of a block: SHA-256 under the chunk's HMAC). The secret
// is made once and kept in the MetaStore: all processes say the same, after every restart. Who does
// not know it can't make a name from bytes, nor see from one what it names. Thread-safe.
//
// A block is named by the chunk that it lies in, its place and its length there: a chunk's id is
// the SHA-256 of its bytes, so equal names are equal bytes, whatever somebody uploads. (A name made
// of the block's XXH3 would not do: that can be made to collide.)
class BlockNames {
 public:
  // Makes the secret if there is none. As the MetaStore for errors; kCorruption.
  static base::Result<BlockNames> Open(chunkstore::MetaStore& meta);

  BlockName OfBlock(const base::Digest256& chunk, uint32_t offset, uint32_t plain_length) const;
  DataName OfData(const chunkstore::Root& root) const;

 private:
  explicit BlockNames(std::string secret) : secret_(std::move(secret)) {}

  std::string secret_;
};

}  // namespace imaged
