#include "blockd/backup/chunk_backups.h"

#include <optional>
#include <utility>

#include "base/log.h"
#include "base/uuid.h"

namespace blockd::backup {
namespace {

using base::Code;
using base::Error;
using base::Result;
using chunkstore::ChunkStore;

constexpr char kBackupHolders[] = "backup/";
constexpr char kFetchedHolders[] = "restore/";
constexpr size_t kHoldersAtOnce = 256;

std::string BackupPrefix(const std::string& id) { return kBackupHolders + id + "/"; }
std::string FetchedPrefix(const std::string& id) { return kFetchedHolders + id + "/"; }
std::string NewHolder(const std::string& prefix) { return prefix + base::NewUuidHex(); }

Result<std::vector<ChunkStore::Held>> HoldersUnder(ChunkStore& store, const std::string& prefix) {
  return store.Holders(prefix, "", kHoldersAtOnce);
}

// The first that holds something, whatever else was left by attempts that were cut off.
Result<std::optional<ChunkStore::Held>> FirstHeld(ChunkStore& store, const std::string& prefix) {
  ASSIGN_OR_RETURN(auto holders, HoldersUnder(store, prefix));
  for (ChunkStore::Held& held : holders)
    if (held.root.has_value()) return std::optional(std::move(held));
  return std::optional<ChunkStore::Held>();
}

Result<void> ReleaseAll(ChunkStore& store, const std::string& prefix) {
  ASSIGN_OR_RETURN(const auto holders, HoldersUnder(store, prefix));
  for (const ChunkStore::Held& held : holders) RETURN_IF_ERROR(store.Release(held.holder));
  return {};
}

// As it will be when it is whole. What is too large goes: the bytes are worth more.
std::string Attributes(BackupRecord backup) {
  backup.status = BackupStatus::kAvailable;
  backup.fail_reason.clear();
  for (Metadata* const notes :
       {&backup.image_metadata, &backup.volume_metadata, &backup.metadata}) {
    if (Encode(backup).size() <= chunkstore::kMaxAttributesBytes) break;
    notes->clear();
  }
  return Encode(backup);
}

Result<uint64_t> CountChunks(ChunkStore& store, const chunkstore::Root& root) {
  ASSIGN_OR_RETURN(const auto content, store.Open(root));
  uint64_t chunks = 0;
  RETURN_IF_ERROR(content->VisitChunks(0, UINT64_MAX, [&](uint64_t, const base::Digest256&) {
    ++chunks;
    return true;
  }));
  return chunks;
}

}  // namespace

ChunkBackups::ChunkBackups(ChunkBackupsOptions options, ChunkStore& volumes, ChunkStore& backups,
                           base::Metrics& metrics)
    : options_(options),
      volumes_(volumes),
      backups_(backups),
      pacer_(options.bytes_per_s),
      moved_bytes_(metrics.GetCounter("quarry_backup_moved_bytes_total",
                                      "Bytes that crossed for backups and restores.")),
      moved_chunks_(metrics.GetCounter("quarry_backup_moved_chunks_total",
                                       "Chunks that crossed for backups and restores.")),
      known_chunks_(metrics.GetCounter("quarry_backup_known_chunks_total",
                                       "Chunks that were on the other side already.")) {
  if (options_.collect_interval_ms > 0) collector_ = std::thread([this] { CollectNowAndThen(); });
}

ChunkBackups::~ChunkBackups() {
  {
    base::MutexLock lock(mutex_);
    stopping_ = true;
    wake_.NotifyAll();
  }
  if (collector_.joinable()) collector_.join();
}

Result<ChunkStore::Held> ChunkBackups::FindHeld(const std::string& backup_id) {
  ASSIGN_OR_RETURN(std::optional<Held> held, FirstHeld(backups_, BackupPrefix(backup_id)));
  if (held.has_value()) return *std::move(held);
  return Error(Code::kNotFound, "no backup " + backup_id + " is kept");
}

Result<BackupCopy> ChunkBackups::Save(const BackupRecord& backup, const std::string& holder,
                                      const Cancelled& cancelled) {
  ASSIGN_OR_RETURN(const auto kept, FirstHeld(backups_, BackupPrefix(backup.id)));
  if (kept.has_value()) return BackupCopy();
  ASSIGN_OR_RETURN(const Held source, volumes_.FindHolder(holder));
  if (!source.root.has_value()) return Error(Code::kNotFound, holder + " holds nothing");
  std::string parent;
  if (!backup.parent_id.empty()) {
    ASSIGN_OR_RETURN(const auto held, FirstHeld(backups_, BackupPrefix(backup.parent_id)));
    if (held.has_value()) parent = held->holder;
  }
  const Move move = {volumes_,           *source.root, backups_, NewHolder(BackupPrefix(backup.id)),
                     Attributes(backup), parent};
  ASSIGN_OR_RETURN(const BackupCopy copy, MoveContent(move, pacer_, cancelled));
  Count(copy);
  return copy;
}

Result<std::string> ChunkBackups::Fetch(const std::string& backup_id, const std::string& volume_id,
                                        const Cancelled& cancelled) {
  const std::string prefix = FetchedPrefix(volume_id);
  ASSIGN_OR_RETURN(const auto fetched, FirstHeld(volumes_, prefix));
  if (fetched.has_value() && fetched->attributes == backup_id) return fetched->holder;
  // Of another restore of this volume, that was cut off.
  if (fetched.has_value()) RETURN_IF_ERROR(DropFetched(volume_id));
  ASSIGN_OR_RETURN(const Held held, FindHeld(backup_id));
  const Move move = {backups_, *held.root, volumes_, NewHolder(prefix), backup_id, ""};
  ASSIGN_OR_RETURN(const BackupCopy copy, MoveContent(move, pacer_, cancelled));
  Count(copy);
  return move.holder;
}

Result<void> ChunkBackups::DropFetched(const std::string& volume_id) {
  return ReleaseAll(volumes_, FetchedPrefix(volume_id));
}

Result<void> ChunkBackups::Remove(const std::string& backup_id) {
  return ReleaseAll(backups_, BackupPrefix(backup_id));
}

Result<BackupRecord> ChunkBackups::Find(const std::string& backup_id) {
  ASSIGN_OR_RETURN(const Held held, FindHeld(backup_id));
  ASSIGN_OR_RETURN(BackupRecord backup, DecodeBackup(held.attributes));
  const bool fits = backup.id == backup_id && backup.status == BackupStatus::kAvailable &&
                    held.root->size_bytes <= backup.size_gb * base::kGiB;
  if (!fits)
    return Error(Code::kCorruption,
                 "the record beside backup " + backup_id + " does not fit its content");
  ASSIGN_OR_RETURN(backup.object_count, CountChunks(backups_, *held.root));
  return backup;
}

Result<std::vector<std::string>> ChunkBackups::Ids(const std::string& after, size_t limit) {
  std::vector<std::string> ids;
  std::string last = after.empty() ? std::string() : BackupPrefix(after) + "~";
  while (ids.size() < limit) {
    ASSIGN_OR_RETURN(const auto holders, backups_.Holders(kBackupHolders, last, kHoldersAtOnce));
    for (const Held& held : holders) {
      const std::string_view rest = std::string_view(held.holder).substr(sizeof kBackupHolders - 1);
      const std::string id(rest.substr(0, rest.find('/')));
      if (held.root.has_value() && (ids.empty() || ids.back() != id)) ids.push_back(id);
      if (ids.size() == limit) return ids;
    }
    if (holders.size() < kHoldersAtOnce) return ids;
    last = holders.back().holder;
  }
  return ids;
}

void ChunkBackups::Count(const BackupCopy& copy) {
  moved_bytes_.Add(static_cast<double>(copy.moved_bytes));
  moved_chunks_.Add(static_cast<double>(copy.moved_chunks));
  known_chunks_.Add(static_cast<double>(copy.chunks - copy.moved_chunks));
}

void ChunkBackups::CollectNowAndThen() {
  base::MutexLock lock(mutex_);
  while (!stopping_) {
    wake_.WaitForMs(mutex_, options_.collect_interval_ms);
    if (stopping_) return;
    mutex_.Unlock();
    const auto report =
        backups_.Collect(false, [this](const chunkstore::Progress&) { return !stopping_.load(); });
    if (!report.has_value())
      LOG(kWarn, "blockd", "collecting what deleted backups left: {}", report.error().ToString());
    mutex_.Lock();
  }
}

}  // namespace blockd::backup
