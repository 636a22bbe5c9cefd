#include "imaged/block_names.h"

#include <algorithm>
#include <array>
#include <string_view>
#include <utility>

#include "base/coding.h"

namespace imaged {

using base::Code;
using base::Error;
using base::Result;

namespace {

constexpr std::string_view kPartition = "block-names";
constexpr std::string_view kSecretKey = "secret";
constexpr size_t kSecretBytes = 32;

using Key = std::array<uint8_t, 32>;

template <typename Name>
Name Short(const std::array<uint8_t, 32>& whole) {
  Name name;
  std::copy_n(whole.begin(), name.bytes.size(), name.bytes.begin());
  return name;
}

// An HMAC costs ten times a hash, and blocks come chunk by chunk: each thread keeps the last
// chunk's.
const Key& KeyOfChunk(std::string_view secret, const base::Digest256& chunk) {
  struct Last {
    std::string secret;
    base::Digest256 chunk;
    Key key{};
  };
  thread_local Last last;
  if (last.chunk != chunk || last.secret != secret) {
    last = {std::string(secret), chunk,
            base::HmacSha256(secret, "block" + std::string(chunk.view()))};
  }
  return last.key;
}

}  // namespace

Result<BlockNames> BlockNames::Open(chunkstore::MetaStore& meta) {
  Result<std::string> secret = meta.Get(kPartition, kSecretKey);
  if (!secret.has_value() && secret.error().code() == Code::kNotFound) {
    chunkstore::MetaBatch batch;
    batch.ExpectAbsent(std::string(kSecretKey))
        .Put(std::string(kSecretKey), base::RandomBytes(kSecretBytes));
    const Result<void> made = chunkstore::CommitDurably(meta, kPartition, batch);
    // Another process may have been faster.
    if (!made.has_value() && made.error().code() != Code::kConflict) return made.error();
    secret = meta.Get(kPartition, kSecretKey);
  }
  if (!secret.has_value()) return secret.error().Annotate("the secret of block names");
  if (secret->size() == kSecretBytes) return BlockNames(*std::move(secret));
  return Error(Code::kCorruption, "the secret of block names has not its length");
}

// The message has one length only, so nothing can be appended to it.
BlockName BlockNames::OfBlock(const base::Digest256& chunk, uint32_t offset,
                              uint32_t plain_length) const {
  const Key& key = KeyOfChunk(secret_, chunk);
  std::string message(key.begin(), key.end());
  base::PutFixed<uint32_t>(&message, offset);
  base::PutFixed<uint32_t>(&message, plain_length);
  return Short<BlockName>(base::Sha256(base::AsBytes(message)).bytes);
}

DataName BlockNames::OfData(const chunkstore::Root& root) const {
  std::string message = "data";
  message += root.id.view();
  base::PutFixed<uint64_t>(&message, root.size_bytes);
  return Short<DataName>(base::HmacSha256(secret_, message));
}

}  // namespace imaged
