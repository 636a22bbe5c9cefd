#include "chunkstore/meta_store.h"

#include <fmt/format.h>

namespace chunkstore {

base::Result<void> CommitDurably(MetaStore& meta, std::string_view partition,
                                 const MetaBatch& batch) {
  RETURN_IF_ERROR(meta.Commit(partition, batch));
  return meta.Sync();
}

base::Result<void> CheckBatch(std::string_view partition, const MetaBatch& batch) {
  if (partition.empty() || partition.size() > MetaStore::kMaxPartitionBytes) {
    return base::Error(base::Code::kInvalidArgument,
                       fmt::format("the name of a partition has 1 to {} bytes, not {}",
                                   MetaStore::kMaxPartitionBytes, partition.size()));
  }
  auto check = [](std::string_view key,
                  const std::optional<std::string>& value) -> base::Result<void> {
    if (key.size() > MetaStore::kMaxKeyBytes) {
      return base::Error(base::Code::kTooLarge,
                         fmt::format("a key of {} bytes is over the limit of {}", key.size(),
                                     MetaStore::kMaxKeyBytes));
    }
    if (value && value->size() > MetaStore::kMaxValueBytes) {
      return base::Error(base::Code::kTooLarge,
                         fmt::format("a value of {} bytes is over the limit of {}", value->size(),
                                     MetaStore::kMaxValueBytes));
    }
    return {};
  };
  for (const auto& change : batch.changes()) RETURN_IF_ERROR(check(change.key, change.value));
  for (const auto& expected : batch.expectations()) {
    RETURN_IF_ERROR(check(expected.key, expected.value));
  }
  return {};
}

std::string PrefixEnd(std::string_view prefix) {
  std::string end(prefix);
  while (!end.empty() && static_cast<uint8_t>(end.back()) == 0xff) end.pop_back();
  if (!end.empty()) end.back() = static_cast<char>(static_cast<uint8_t>(end.back()) + 1);
  return end;
}

}  // namespace chunkstore
