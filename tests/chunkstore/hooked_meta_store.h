#pragma once

#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "chunkstore/meta_store.h"

// What happens between two steps of a process that another one takes.

namespace chunkstore::testing {

// Calls `before` with what is about to be done; then it is done. `before` may use the store below.
// Borrows what it wraps; one thread.
class HookedMetaStore : public MetaStore {
 public:
  enum class Operation { kGet, kScan, kCommit, kSync, kPartitions };
  using Hook = std::function<void(Operation operation, std::string_view key)>;

  explicit HookedMetaStore(MetaStore& inner) : inner_(inner) {}
  void SetHook(Hook before) { before_ = std::move(before); }

  base::Result<std::string> Get(std::string_view partition, std::string_view key) override {
    Tell(Operation::kGet, key);
    return inner_.Get(partition, key);
  }
  base::Result<void> Scan(std::string_view partition, std::string_view from, std::string_view to,
                          size_t limit, const Visitor& visit) override {
    Tell(Operation::kScan, from);
    return inner_.Scan(partition, from, to, limit, visit);
  }
  base::Result<void> ScanReverse(std::string_view partition, std::string_view from,
                                 std::string_view to, size_t limit, const Visitor& visit) override {
    Tell(Operation::kScan, from);
    return inner_.ScanReverse(partition, from, to, limit, visit);
  }
  base::Result<void> Commit(std::string_view partition, const MetaBatch& batch) override {
    Tell(Operation::kCommit, batch.changes().empty() ? "" : batch.changes().front().key);
    return inner_.Commit(partition, batch);
  }
  base::Result<void> Sync() override {
    Tell(Operation::kSync, "");
    return inner_.Sync();
  }
  base::Result<std::vector<std::string>> Partitions(std::string_view prefix) override {
    Tell(Operation::kPartitions, prefix);
    return inner_.Partitions(prefix);
  }

 private:
  // Not of what the hook itself does with a store over this one.
  void Tell(Operation operation, std::string_view key) {
    if (!before_ || telling_) return;
    telling_ = true;
    before_(operation, key);
    telling_ = false;
  }

  MetaStore& inner_;
  Hook before_;
  bool telling_ = false;
};

}  // namespace chunkstore::testing
