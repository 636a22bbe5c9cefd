#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace chunkstore {

// A batch of changes to ONE partition: all or nothing. Value type.
class MetaBatch {
 public:
  struct Expectation {
    std::string key;
    std::optional<std::string> value;  // nothing: the key must be absent
  };
  struct Change {
    std::string key;
    std::optional<std::string> value;  // nothing: remove the key
  };

  MetaBatch& ExpectAbsent(std::string key) {
    expectations_.push_back({std::move(key), std::nullopt});
    return *this;
  }
  MetaBatch& ExpectValue(std::string key, std::string value) {
    expectations_.push_back({std::move(key), std::move(value)});
    return *this;
  }
  MetaBatch& Put(std::string key, std::string value) {
    changes_.push_back({std::move(key), std::move(value)});
    return *this;
  }
  MetaBatch& Delete(std::string key) {  // fine if it is absent
    changes_.push_back({std::move(key), std::nullopt});
    return *this;
  }

  const std::vector<Expectation>& expectations() const { return expectations_; }
  const std::vector<Change>& changes() const { return changes_; }
  bool empty() const { return changes_.empty() && expectations_.empty(); }

 private:
  std::vector<Expectation> expectations_;
  std::vector<Change> changes_;
};

// Ordered keys in partitions: the one place for everything that is not bulk data (chunk index,
// references, catalogs, identity, jobs). Implementations: RocksDB (local/) and memory/; the
// contract leaves room for RADOS omap.
//
// The contract is the weaker of the two: a Commit is atomic within its partition and nothing spans
// partitions, because one RADOS write operation is atomic on one object. Whoever needs more orders
// its commits so that every state between them is a right one.
//
// Visible is not durable: a Commit is seen by everyone at once, and survives a crash of the machine
// only after a Sync that began after it. A crash may drop, from each partition independently, a
// suffix of what was committed since. (A crash of the process alone drops nothing that RocksDB has
// written to its log.)
//
// Keys and values are any bytes; keys sort as unsigned bytes. Thread-safe.
class MetaStore {
 public:
  virtual ~MetaStore() = default;

  static constexpr size_t kMaxPartitionBytes = 128;
  static constexpr size_t kMaxKeyBytes = 1024;
  static constexpr size_t kMaxValueBytes = 4 * 1024 * 1024;

  // kNotFound.
  virtual base::Result<std::string> Get(std::string_view partition, std::string_view key) = 0;

  // Keys in [from, to) in order, at most `limit` of them; an empty `to` means to the end. `visit`
  // returns false to stop early. Sees each key that was there all the time exactly once; a key that
  // comes or goes meanwhile may be seen or not.
  using Visitor = std::function<bool(std::string_view key, std::string_view value)>;
  virtual base::Result<void> Scan(std::string_view partition, std::string_view from,
                                  std::string_view to, size_t limit, const Visitor& visit) = 0;

  // The same, from the last key of [from, to) to the first.
  virtual base::Result<void> ScanReverse(std::string_view partition, std::string_view from,
                                         std::string_view to, size_t limit,
                                         const Visitor& visit) = 0;

  // Applies the batch if every expectation holds, or else changes nothing: kConflict. kTooLarge
  // over the limits.
  virtual base::Result<void> Commit(std::string_view partition, const MetaBatch& batch) = 0;

  // Makes every commit that returned before this call durable. Concurrent calls share one sync of
  // the disk.
  virtual base::Result<void> Sync() = 0;

  // Names of partitions that hold at least one key, in order, beginning with `prefix`.
  virtual base::Result<std::vector<std::string>> Partitions(std::string_view prefix) = 0;
};

// Commit, then Sync: for what is acknowledged as it stands.
base::Result<void> CommitDurably(MetaStore& meta, std::string_view partition,
                                 const MetaBatch& batch);

// For implementations: kInvalidArgument for an empty or overlong partition name, kTooLarge for a
// key or value over the limits.
base::Result<void> CheckBatch(std::string_view partition, const MetaBatch& batch);

// The end of the keys that begin with `prefix`: for Scan(prefix, PrefixEnd(prefix)). Empty: no end.
std::string PrefixEnd(std::string_view prefix);

}  // namespace chunkstore
