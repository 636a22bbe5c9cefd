#include "controlplane/identity/store.h"

#include <optional>
#include <set>
#include <vector>

#include "base/coding.h"
#include "base/log.h"
#include "base/text.h"

namespace controlplane::identity {

using base::Code;
using base::Error;
using base::Result;

namespace {

constexpr std::string_view kVersionKey = "version";
constexpr std::string_view kRecordPrefix = "r/";
constexpr std::string_view kLogPrefix = "log/";

std::string RecordKey(Kind kind, std::string_view id) {
  std::string key(kRecordPrefix);
  key += KindName(kind);
  key += '/';
  key += id;
  return key;
}

std::string LogKey(uint64_t version) {
  std::string key(kLogPrefix);
  base::PutOrdered64(&key, version);
  return key;
}

// The kind and id in a record's key.
Result<std::pair<Kind, std::string>> SplitKey(std::string_view key) {
  std::string_view rest = key.substr(std::min(key.size(), kRecordPrefix.size()));
  size_t slash = rest.find('/');
  if (slash != std::string_view::npos) {
    for (size_t i = 0; i < kKinds; ++i)
      if (KindName(static_cast<Kind>(i)) == rest.substr(0, slash))
        return std::pair(static_cast<Kind>(i), std::string(rest.substr(slash + 1)));
  }
  return Error(Code::kCorruption,
               "identity has a record of an unknown kind; was this store written "
               "by a newer version?");
}

Result<RecordPtr> DecodeRecord(std::string_view key, std::string_view value) {
  ASSIGN_OR_RETURN(auto name, SplitKey(key));
  auto parsed = base::ParseJson(value);
  if (!parsed.has_value() || !parsed->is_object())
    return Error(Code::kCorruption,
                 "identity record " + std::string(KindName(name.first)) + " is no JSON object");
  return std::make_shared<const Record>(
      Record{name.first, std::move(name.second), std::move(parsed->get_object())});
}

}  // namespace

void Transaction::Put(Kind kind, std::string id, base::JsonObject body) {
  auto record = std::make_shared<const Record>(Record{kind, id, std::move(body)});
  changes_[{kind, std::move(id)}] = std::move(record);
}

void Transaction::Remove(Kind kind, std::string_view id) {
  changes_[{kind, std::string(id)}] = nullptr;
}

Result<std::unique_ptr<Store>> Store::Open(StoreOptions options, chunkstore::MetaStore& meta,
                                           const base::Clock& clock) {
  std::unique_ptr<Store> store(new Store(options, meta, clock));
  int64_t as_of_ns = clock.MonotonicNs();
  ASSIGN_OR_RETURN(SnapshotPtr all, store->LoadAll());
  store->Publish(std::move(all), as_of_ns);
  return store;
}

SnapshotPtr Store::Current() {
  base::MutexLock lock(mutex_);
  return snapshot_;
}

int64_t Store::AsOfNs() {
  base::MutexLock lock(mutex_);
  return as_of_ns_;
}

void Store::Publish(SnapshotPtr snapshot, int64_t as_of_ns) {
  base::MutexLock lock(mutex_);
  snapshot_ = std::move(snapshot);
  as_of_ns_ = as_of_ns;
}

Result<SnapshotPtr> Store::Read(int64_t max_age_ms) {
  constexpr int64_t kNsPerMs = 1'000'000;
  const int64_t wanted_ms = max_age_ms == kDefaultAge ? options_.refresh_ms : max_age_ms;
  const int64_t called_ns = clock_.MonotonicNs();
  const int64_t oldest_ns = called_ns - wanted_ms * kNsPerMs;
  if (AsOfNs() > oldest_ns) return Current();
  base::MutexLock lock(write_mutex_);
  // Another thread may have looked meanwhile: so a crowd of readers costs two looks.
  if (AsOfNs() > oldest_ns) return Current();
  auto refreshed = Refresh();
  if (!refreshed.has_value())
    LOG(kWarn, "identity", "cannot look for changes: {}", refreshed.error().ToString());
  if (!refreshed.has_value() && called_ns - AsOfNs() > options_.max_staleness_ms * kNsPerMs)
    return Error(Code::kUnavailable, "the identity store does not answer; try again");
  return Current();
}

Result<void> Store::Transact(const Body& body) {
  for (int attempt = 0; attempt < kMaxAttempts; ++attempt) {
    base::MutexLock lock(write_mutex_);
    if (attempt > 0) RETURN_IF_ERROR(Refresh());
    SnapshotPtr base = Current();
    Transaction transaction(*base);
    auto outcome = body(transaction);
    if (!outcome.has_value()) {
      // It may have failed because of what another process did since we looked: look, and judge
      // again.
      if (attempt > 0) return outcome;
      RETURN_IF_ERROR(Refresh());
      if (Current()->version() == base->version()) return outcome;
      continue;
    }
    if (transaction.changes_.empty()) return {};
    ASSIGN_OR_RETURN(bool committed, TryCommit(transaction, *base));
    if (committed) break;
    if (attempt + 1 == kMaxAttempts)
      return Error(Code::kUnavailable, "too many writers at once; try again");
  }
  return meta_.Sync();
}

Result<bool> Store::TryCommit(const Transaction& transaction, const Snapshot& base) {
  uint64_t next = base.version() + 1;
  chunkstore::MetaBatch batch;
  if (base.version() == 0)
    batch.ExpectAbsent(std::string(kVersionKey));
  else
    batch.ExpectValue(std::string(kVersionKey), std::to_string(base.version()));
  batch.Put(std::string(kVersionKey), std::to_string(next));
  auto after = std::make_shared<Snapshot>(base);
  std::string log;
  for (const auto& [name, record] : transaction.changes_) {
    std::string key = RecordKey(name.first, name.second);
    base::PutString(&log, key);
    if (record == nullptr) {
      after->Remove(name.first, name.second);
      batch.Delete(std::move(key));
    } else {
      after->Put(record);
      batch.Put(std::move(key), boost::json::serialize(record->body));
    }
  }
  if (after->size() > options_.max_records && after->size() > base.size())
    return Error(Code::kTooLarge, "identity holds as many records as it may (" +
                                      std::to_string(options_.max_records) +
                                      "); delete some first");
  batch.Put(LogKey(next), std::move(log));
  if (next > kLogEntries) batch.Delete(LogKey(next - kLogEntries));
  after->set_version(next);
  int64_t as_of_ns = clock_.MonotonicNs();
  auto committed = meta_.Commit(kPartition, batch);
  if (!committed.has_value()) {
    if (committed.error().code() == Code::kConflict) return false;
    return std::move(committed).error();
  }
  Publish(std::move(after), as_of_ns);
  return true;
}

Result<uint64_t> Store::StoredVersion() {
  auto text = meta_.Get(kPartition, kVersionKey);
  if (!text.has_value()) {
    if (text.error().code() == Code::kNotFound) return uint64_t{0};
    return std::move(text).error();
  }
  const std::optional<uint64_t> version = base::ParseNumber<uint64_t>(*text);
  if (!version.has_value()) return Error(Code::kCorruption, "identity's version is no number");
  return *version;
}

Result<void> Store::Refresh() {
  int64_t as_of_ns = clock_.MonotonicNs();
  ASSIGN_OR_RETURN(uint64_t version, StoredVersion());
  SnapshotPtr current = Current();
  if (version == current->version()) {
    Publish(std::move(current), as_of_ns);
    return {};
  }
  ASSIGN_OR_RETURN(SnapshotPtr next, CatchUp(*current, version));
  if (next == nullptr) {
    ASSIGN_OR_RETURN(next, LoadAll());
  }
  Publish(std::move(next), as_of_ns);
  return {};
}

// Reads the records that changed, then looks at the version again: if it moved, what was read may
// be of different versions, and what the newer transactions changed is read once more.
Result<SnapshotPtr> Store::CatchUp(const Snapshot& from, uint64_t to) {
  auto next = std::make_shared<Snapshot>(from);
  uint64_t done = from.version();
  for (int attempt = 0; attempt < kMaxAttempts; ++attempt) {
    if (to < done || to - done >= kLogEntries) return SnapshotPtr();
    std::set<std::string> changed;
    for (uint64_t version = done + 1; version <= to; ++version) {
      auto log = meta_.Get(kPartition, LogKey(version));
      if (!log.has_value() && log.error().code() == Code::kNotFound) return SnapshotPtr();
      RETURN_IF_ERROR(log);
      base::Decoder decoder(*log);
      while (decoder.remaining() > 0) {
        ASSIGN_OR_RETURN(std::string_view key, decoder.String());
        changed.emplace(key);
      }
    }
    for (const std::string& key : changed) {
      auto value = meta_.Get(kPartition, key);
      if (value.has_value()) {
        ASSIGN_OR_RETURN(RecordPtr record, DecodeRecord(key, *value));
        next->Put(std::move(record));
      } else if (value.error().code() == Code::kNotFound) {
        ASSIGN_OR_RETURN(auto name, SplitKey(key));
        next->Remove(name.first, name.second);
      } else {
        return std::move(value).error();
      }
    }
    done = to;
    ASSIGN_OR_RETURN(to, StoredVersion());
    if (to == done) {
      next->set_version(done);
      return SnapshotPtr(std::move(next));
    }
  }
  return Error(Code::kUnavailable, "identity changes faster than it can be read; try again");
}

Result<SnapshotPtr> Store::LoadAll() {
  for (int attempt = 0; attempt < kMaxAttempts; ++attempt) {
    ASSIGN_OR_RETURN(uint64_t before, StoredVersion());
    auto all = std::make_shared<Snapshot>();
    Result<void> decoded;
    RETURN_IF_ERROR(meta_.Scan(kPartition, kRecordPrefix, chunkstore::PrefixEnd(kRecordPrefix),
                               options_.max_records + 1,
                               [&](std::string_view key, std::string_view value) {
                                 auto record = DecodeRecord(key, value);
                                 if (record.has_value())
                                   all->Put(*std::move(record));
                                 else
                                   decoded = std::move(record).error();
                                 return decoded.has_value();
                               }));
    RETURN_IF_ERROR(decoded);
    ASSIGN_OR_RETURN(uint64_t after, StoredVersion());
    if (after != before) continue;
    all->set_version(after);
    return SnapshotPtr(std::move(all));
  }
  return Error(Code::kUnavailable, "identity changes faster than it can be read; try again");
}

}  // namespace controlplane::identity
