#pragma once

#include <string>

#include "base/bytes.h"
#include "base/hash.h"
#include "base/result.h"
#include "chunkstore/blob_format.h"

// What a reader elsewhere makes of a block that was given to it as it is stored.

namespace chunkstore::testing {

// `info` is a StoredBlock or a layers::BlockInfo. kCorruption.
template <typename Info>
base::Result<std::string> DecodeStored(const Info& info, base::ByteView stored) {
  Block block;
  block.plain_length = info.plain_length;
  block.stored_length = info.stored_length;
  block.form = info.compressed ? Block::Form::kZstd : Block::Form::kRaw;
  block.hash = info.hash;
  block.stored_check = base::Xxh3(stored).low;  // nobody tells it: the hash decides
  std::string plain(info.plain_length, '?');
  RETURN_IF_ERROR(
      DecodeBlock(block, stored, {reinterpret_cast<uint8_t*>(plain.data()), plain.size()}));
  return plain;
}

}  // namespace chunkstore::testing
