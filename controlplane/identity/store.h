#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <utility>

#include "base/clock.h"
#include "base/result.h"
#include "base/thread_annotations.h"
#include "chunkstore/meta_store.h"
#include "controlplane/identity/snapshot.h"

namespace controlplane::identity {

// The partition of the MetaStore that identity lives in:
//   r/<kind>/<id>          a record, as JSON
//   version                how many transactions there were, in decimal
//   log/<version, 8 bytes big-endian>   the keys that this transaction changed, length-prefixed
constexpr char kPartition[] = "identity";
// Whoever has fallen behind further than this reads everything again.
constexpr uint64_t kLogEntries = 1024;
constexpr int kMaxAttempts = 64;  // of a transaction that others keep overtaking; then kUnavailable

struct StoreOptions {
  // How old the snapshot may be before anyone looks for other writers, where a read does not ask
  // for less.
  int64_t refresh_ms = 200;
  int64_t max_staleness_ms =
      900;  // a read waits for the refresh beyond this, and fails if that fails
  size_t max_records = 100'000;  // the whole data set is in memory: this bounds it
};

// The changes that one transaction makes. One thread.
class Transaction {
 public:
  explicit Transaction(const Snapshot& now) : now_(now) {}

  // The world before this transaction.
  const Snapshot& now() const { return now_; }
  void Put(Kind kind, std::string id, base::JsonObject body);
  void Remove(Kind kind, std::string_view id);

 private:
  friend class Store;
  const Snapshot& now_;
  // Null: removed. A later change of the same record replaces an earlier one.
  std::map<std::pair<Kind, std::string>, RecordPtr> changes_;
};

// Identity's records in a MetaStore, with all of them in memory as a Snapshot.
//
// Every transaction expects the version it read and writes the next one, so transactions on the
// partition are serial, also between processes: what a transaction checked (a name is free, a
// parent exists) still holds when it commits. A commit that lost the race is run again. Readers in
// other processes see a change after at most refresh_ms, or at once where they ask for kLatest: the
// price of that is one read of the version. Thread-safe.
class Store {
 public:
  static base::Result<std::unique_ptr<Store>> Open(StoreOptions options,
                                                   chunkstore::MetaStore& meta,
                                                   const base::Clock& clock);

  // With whatever was acknowledged, by any process, before the call.
  static constexpr int64_t kLatest = 0;

  // At most refresh_ms old, or `max_age_ms` if that is less. kUnavailable when other writers could
  // not be looked for within max_staleness_ms: then a revocation might have been missed.
  base::Result<SnapshotPtr> Read(int64_t max_age_ms = kDefaultAge);

  // Runs `body` on the current state (several times, if others write), commits what it asked for,
  // durably, and answers its error if it has one. A body without changes commits nothing.
  using Body = std::function<base::Result<void>(Transaction&)>;
  base::Result<void> Transact(const Body& body);

 private:
  static constexpr int64_t kDefaultAge = -1;

  Store(StoreOptions options, chunkstore::MetaStore& meta, const base::Clock& clock)
      : options_(options), meta_(meta), clock_(clock) {}

  SnapshotPtr Current() EXCLUDES(mutex_);
  int64_t AsOfNs() EXCLUDES(mutex_);
  void Publish(SnapshotPtr snapshot, int64_t as_of_ns) EXCLUDES(mutex_);
  base::Result<bool> TryCommit(const Transaction& transaction, const Snapshot& base)
      REQUIRES(write_mutex_);
  base::Result<void> Refresh() REQUIRES(write_mutex_);
  base::Result<uint64_t> StoredVersion();
  base::Result<SnapshotPtr> LoadAll();
  // Nothing: the log does not reach back far enough.
  base::Result<SnapshotPtr> CatchUp(const Snapshot& from, uint64_t to);

  const StoreOptions options_;
  chunkstore::MetaStore& meta_;
  const base::Clock& clock_;
  base::Mutex write_mutex_;  // one transaction or refresh at a time; taken before mutex_
  base::Mutex mutex_;
  SnapshotPtr snapshot_ GUARDED_BY(mutex_);
  int64_t as_of_ns_ GUARDED_BY(mutex_) = 0;  // MonotonicNs when it was certainly current
};

}  // namespace controlplane::identity
