#include "chunkstore/local/local_meta_store.h"

#include <algorithm>
#include <array>
#include <optional>
#include <utility>

#include <fmt/format.h>
#include <rocksdb/cache.h>
#include <rocksdb/db.h>
#include <rocksdb/filter_policy.h>
#include <rocksdb/sst_file_manager.h>
#include <rocksdb/table.h>
#include <rocksdb/write_batch.h>
#include <rocksdb/write_buffer_manager.h>

#include "base/files.h"
#include "base/log.h"
#include "base/thread_annotations.h"
#include "chunkstore/local/partition_keys.h"
#include "chunkstore/local/store_lock.h"
#include "chunkstore/local/sync_mark.h"

#if defined(__has_feature)
#if __has_feature(thread_sanitizer)
// The library is not instrumented, so the sanitizer does not see how it synchronises inside.
extern "C" const char* __tsan_default_suppressions() { return "race:rocksdb::\n"; }
#endif
#endif

namespace chunkstore::local {

using base::Code;
using base::Error;
using base::MutexLock;
using base::Result;

namespace {

// Partitions share these: an expectation is checked and its batch written under the lock of its
// stripe.
constexpr size_t kStripes = 64;

Error ToError(const rocksdb::Status& status, std::string_view what) {
  Code code = Code::kIo;
  if (status.IsCorruption()) code = Code::kCorruption;
  if (status.IsNoSpace()) code = Code::kOutOfSpace;
  if (status.IsBusy() || status.IsTryAgain() || status.IsTimedOut()) code = Code::kUnavailable;
  return Error(code, fmt::format("{}: {}", what, status.ToString()));
}

std::string_view ToText(const rocksdb::Slice& slice) { return {slice.data(), slice.size()}; }

rocksdb::Options StoreOptions(const LocalMetaStoreOptions& options) {
  rocksdb::BlockBasedTableOptions table;
  // Half of the memory may hold writes; they are charged to the cache, whose limit is the limit of
  // all.
  table.block_cache = rocksdb::NewLRUCache(options.memory_bytes);
  table.cache_index_and_filter_blocks = true;
  table.pin_l0_filter_and_index_blocks_in_cache = true;
  // A table's filter and index, whole, are bigger than a shard of the cache and would be read again
  // for every Get: they are kept in parts, and the parts come before data.
  table.partition_filters = true;
  table.index_type = rocksdb::BlockBasedTableOptions::kTwoLevelIndexSearch;
  table.pin_top_level_index_and_filter = true;
  table.cache_index_and_filter_blocks_with_high_priority = true;
  table.filter_policy.reset(rocksdb::NewBloomFilterPolicy(10));
  table.checksum = rocksdb::kXXH3;
  table.format_version = 5;

  rocksdb::Options result;
  result.create_if_missing = true;
  result.paranoid_checks = true;
  result.table_factory.reset(rocksdb::NewBlockBasedTableFactory(table));
  result.write_buffer_manager =
      std::make_shared<rocksdb::WriteBufferManager>(options.memory_bytes / 2, table.block_cache);
  result.write_buffer_size = options.memory_bytes / 8;
  result.max_total_wal_size = options.memory_bytes;
  result.max_open_files = 256;
  result.max_background_jobs = 2;
  // When a flush or compaction finds the disk full, this looks for space every few seconds and goes
  // on by itself.
  result.sst_file_manager.reset(rocksdb::NewSstFileManager(rocksdb::Env::Default()));
  result.compression = rocksdb::kNoCompression;  // hashes and numbers; big things are blobs
  // A torn end is what power loss leaves; SyncMark tells it from damage.
  result.wal_recovery_mode = rocksdb::WALRecoveryMode::kPointInTimeRecovery;
  result.max_log_file_size = base::kMiB;
  result.keep_log_file_num = 4;
  result.info_log_level = rocksdb::InfoLogLevel::WARN_LEVEL;
  result.stats_dump_period_sec = 0;
  result.stats_persist_period_sec = 0;
  return result;
}

class LocalMetaStore : public MetaStore {
 public:
  LocalMetaStore(const std::string& dir, uint64_t headroom_bytes, StoreLock lock,
                 std::unique_ptr<rocksdb::DB> db, SyncMark mark)
      : lock_(std::move(lock)),
        dir_(dir),
        headroom_bytes_(headroom_bytes),
        db_(std::move(db)),
        mark_(std::move(mark)) {}
  ~LocalMetaStore() override;

  Result<std::string> Get(std::string_view partition, std::string_view key) override;
  Result<void> Scan(std::string_view partition, std::string_view from, std::string_view to,
                    size_t limit, const Visitor& visit) override;
  Result<void> ScanReverse(std::string_view partition, std::string_view from, std::string_view to,
                           size_t limit, const Visitor& visit) override;
  Result<void> Commit(std::string_view partition, const MetaBatch& batch) override;
  Result<void> Sync() override;
  Result<std::vector<std::string>> Partitions(std::string_view prefix) override;

 private:
  // Nothing if there is no such key.
  Result<std::optional<rocksdb::PinnableSlice>> Find(const std::string& stored_key);
  Result<void> CheckExpectations(const std::string& prefix, const MetaBatch& batch);
  // RocksDB does not get over a log that it could not write to (some builds abort), so the last
  // bytes of the disk are not for the log.
  Result<void> CheckSpace() const;
  Result<void> SyncLog();

  const StoreLock lock_;
  const std::string dir_;
  const uint64_t headroom_bytes_;
  std::unique_ptr<rocksdb::DB> db_;
  std::array<base::Mutex, kStripes> stripes_;

  // One sync of the disk and all who wait for it.
  struct SyncRound {
    Result<void> result;
    bool done = false;
  };
  base::Mutex sync_mutex_;
  base::CondVar sync_changed_;
  std::shared_ptr<SyncRound> next_round_ GUARDED_BY(sync_mutex_) = std::make_shared<SyncRound>();
  bool has_leader_ GUARDED_BY(sync_mutex_) = false;
  SyncMark mark_;  // the leader's
};

LocalMetaStore::~LocalMetaStore() {
  if (auto synced = SyncLog(); !synced) {
    LOG(kError, "chunkstore", "closing the metadata: {}", synced.error().message());
  }
  if (rocksdb::Status closed = db_->Close(); !closed.ok()) {
    LOG(kError, "chunkstore", "closing the metadata: {}", closed.ToString());
  }
}

Result<std::optional<rocksdb::PinnableSlice>> LocalMetaStore::Find(const std::string& stored_key) {
  rocksdb::PinnableSlice value;
  rocksdb::Status status =
      db_->Get(rocksdb::ReadOptions(), db_->DefaultColumnFamily(), stored_key, &value);
  if (status.IsNotFound()) return std::nullopt;
  if (!status.ok()) return ToError(status, "read the metadata");
  return std::optional<rocksdb::PinnableSlice>(std::move(value));
}

Result<std::string> LocalMetaStore::Get(std::string_view partition, std::string_view key) {
  ASSIGN_OR_RETURN(auto value, Find(PartitionPrefix(partition).append(key)));
  if (value) return value->ToString();
  return Error(Code::kNotFound, fmt::format("no such key in partition {}", partition));
}

// What an iterator needs to stay within [from, to) of a partition. RocksDB borrows the bounds.
struct ScanRange {
  ScanRange(std::string_view partition, std::string_view from, std::string_view to)
      : prefix(PartitionPrefix(partition)),
        begin(prefix + std::string(from)),
        end(to.empty() ? PartitionEnd(prefix) : prefix + std::string(to)),
        begin_slice(begin),
        end_slice(end) {
    options.iterate_lower_bound = &begin_slice;
    options.iterate_upper_bound = &end_slice;
  }
  ScanRange(const ScanRange&) = delete;
  ScanRange& operator=(const ScanRange&) = delete;

  bool empty() const { return begin >= end; }
  std::string_view KeyOf(const rocksdb::Iterator& at) const {
    return ToText(at.key()).substr(prefix.size());
  }

  const std::string prefix, begin, end;
  const rocksdb::Slice begin_slice, end_slice;
  rocksdb::ReadOptions options;
};

Result<void> LocalMetaStore::Scan(std::string_view partition, std::string_view from,
                                  std::string_view to, size_t limit, const Visitor& visit) {
  ScanRange range(partition, from, to);
  if (range.empty() || limit == 0) return {};
  std::unique_ptr<rocksdb::Iterator> at(db_->NewIterator(range.options));
  for (at->SeekToFirst(); at->Valid(); at->Next()) {
    if (!visit(range.KeyOf(*at), ToText(at->value())) || --limit == 0) return {};
  }
  if (!at->status().ok()) return ToError(at->status(), "scan the metadata");
  return {};
}

Result<void> LocalMetaStore::ScanReverse(std::string_view partition, std::string_view from,
                                         std::string_view to, size_t limit, const Visitor& visit) {
  ScanRange range(partition, from, to);
  if (range.empty() || limit == 0) return {};
  std::unique_ptr<rocksdb::Iterator> at(db_->NewIterator(range.options));
  for (at->SeekToLast(); at->Valid(); at->Prev()) {
    if (!visit(range.KeyOf(*at), ToText(at->value())) || --limit == 0) return {};
  }
  if (!at->status().ok()) return ToError(at->status(), "scan the metadata");
  return {};
}

Result<void> LocalMetaStore::CheckExpectations(const std::string& prefix, const MetaBatch& batch) {
  for (const auto& expected : batch.expectations()) {
    ASSIGN_OR_RETURN(auto found, Find(prefix + expected.key));
    bool holds = expected.value ? found && ToText(*found) == *expected.value : !found;
    if (!holds) return Error(Code::kConflict, "a key is not what was expected");
  }
  return {};
}

Result<void> LocalMetaStore::Commit(std::string_view partition, const MetaBatch& batch) {
  RETURN_IF_ERROR(CheckBatch(partition, batch));
  std::string prefix = PartitionPrefix(partition);
  rocksdb::WriteBatch write;
  for (const auto& change : batch.changes()) {
    rocksdb::Status status = change.value ? write.Put(prefix + change.key, *change.value)
                                          : write.Delete(prefix + change.key);
    if (!status.ok()) return ToError(status, "prepare a commit");
  }
  MutexLock lock(stripes_[std::hash<std::string_view>{}(partition) % kStripes]);
  RETURN_IF_ERROR(CheckExpectations(prefix, batch).Annotate(partition));
  if (batch.changes().empty()) return {};
  RETURN_IF_ERROR(CheckSpace());
  rocksdb::Status status = db_->Write(rocksdb::WriteOptions(), &write);
  if (!status.ok()) return ToError(status, fmt::format("commit to partition {}", partition));
  return {};
}

Result<void> LocalMetaStore::CheckSpace() const {
  ASSIGN_OR_RETURN(base::SpaceInfo space, base::SystemFiles().Space(dir_));
  if (space.available_bytes >= headroom_bytes_) return {};
  return Error(Code::kOutOfSpace,
               fmt::format("{} bytes are left on the disk of {}; the metadata needs {}: free some",
                           space.available_bytes, dir_, headroom_bytes_));
}

Result<void> LocalMetaStore::SyncLog() {
  uint64_t reached = db_->GetLatestSequenceNumber();
  rocksdb::Status status = db_->SyncWAL();
  if (!status.ok()) return ToError(status, "sync the metadata");
  mark_.Set(reached);
  return {};
}

Result<void> LocalMetaStore::Sync() {
  std::shared_ptr<SyncRound> round;
  {
    MutexLock lock(sync_mutex_);
    round = next_round_;
    while (has_leader_ && !round->done) sync_changed_.Wait(sync_mutex_);
    if (round->done) return round->result;
    // The first of its round to find no leader leads: who comes from now on may have committed too
    // late for it.
    has_leader_ = true;
    next_round_ = std::make_shared<SyncRound>();
  }
  Result<void> result = SyncLog();
  MutexLock lock(sync_mutex_);
  has_leader_ = false;
  round->result = result;
  round->done = true;
  sync_changed_.NotifyAll();
  return result;
}

Result<std::vector<std::string>> LocalMetaStore::Partitions(std::string_view prefix) {
  std::vector<std::string> names;
  std::string begin = EscapePartition(prefix);
  std::unique_ptr<rocksdb::Iterator> at(db_->NewIterator(rocksdb::ReadOptions()));
  at->Seek(begin);
  while (at->Valid() && at->key().starts_with(begin)) {
    std::optional<std::string> name = PartitionOf(ToText(at->key()));
    if (!name) return Error(Code::kCorruption, "a key in the metadata belongs to no partition");
    at->Seek(PartitionEnd(PartitionPrefix(*name)));
    names.push_back(std::move(*name));
  }
  if (!at->status().ok()) return ToError(at->status(), "list partitions");
  return names;
}

// RocksDB gives up what lies behind the first damage in its log when it opens for writing, so we
// look first: a store that lost what it acknowledged is refused as it is, with all that might help
// to restore it.
Result<void> CheckLog(const rocksdb::Options& options, const std::string& dir,
                      const SyncMark& mark) {
  if (mark.synced() == 0) return {};
  rocksdb::DB* opened = nullptr;
  rocksdb::Status status = rocksdb::DB::OpenForReadOnly(options, dir, &opened);
  if (!status.ok()) return ToError(status, "open the metadata in " + dir);
  std::unique_ptr<rocksdb::DB> db(opened);
  return mark.Check(db->GetLatestSequenceNumber());
}

}  // namespace

Result<std::unique_ptr<MetaStore>> OpenLocalMetaStore(const std::string& dir,
                                                      const LocalMetaStoreOptions& options) {
  RETURN_IF_ERROR(base::SystemFiles().CreateDirs(dir));
  // Not RocksDB's own file LOCK: closing any descriptor of that would drop its lock.
  ASSIGN_OR_RETURN(StoreLock lock, StoreLock::Acquire(base::SystemFiles(), dir + "/OWNER"));
  ASSIGN_OR_RETURN(SyncMark mark, SyncMark::Open(dir));
  rocksdb::Options db_options = StoreOptions(options);
  RETURN_IF_ERROR(CheckLog(db_options, dir, mark));
  rocksdb::DB* opened = nullptr;
  rocksdb::Status status = rocksdb::DB::Open(db_options, dir, &opened);
  if (!status.ok()) return ToError(status, "open the metadata in " + dir);
  std::unique_ptr<rocksdb::DB> db(opened);
  // Room for a flush of what waits in memory, and for the log meanwhile.
  uint64_t headroom_bytes = 2 * db_options.write_buffer_size;
  return std::unique_ptr<MetaStore>(std::make_unique<LocalMetaStore>(
      dir, headroom_bytes, std::move(lock), std::move(db), std::move(mark)));
}

}  // namespace chunkstore::local
