#include "blockd/catalog.h"

#include <algorithm>
#include <optional>

#include "base/coding.h"
#include "base/hash.h"
#include "blockd/catalog_keys.h"

namespace blockd {

using base::Code;
using base::Error;
using base::Result;
using chunkstore::MetaBatch;

namespace {

// What a project takes by one record.
Amounts UsageOfRecord(const VolumeRecord& volume) { return AmountsOf(volume); }
Amounts UsageOfRecord(const SnapshotRecord& snapshot) { return AmountsOf(snapshot); }
Amounts UsageOfRecord(const AttachmentRecord&) { return {}; }
Amounts UsageOfRecord(const BackupRecord& backup) { return AmountsOf(backup); }

void Touch(bool is_new, int64_t now_us, VolumeRecord* volume) {
  (is_new ? volume->created_at_us : volume->updated_at_us) = now_us;
}
void Touch(bool is_new, int64_t now_us, SnapshotRecord* snapshot) {
  (is_new ? snapshot->created_at_us : snapshot->updated_at_us) = now_us;
}
void Touch(bool is_new, int64_t now_us, BackupRecord* backup) {
  (is_new ? backup->created_at_us : backup->updated_at_us) = now_us;
}
void Touch(bool is_new, int64_t now_us, AttachmentRecord* attachment) {
  if (is_new) attachment->created_at_us = now_us;
}

// The catalog's own fields stay as they are.
void KeepCounts(const VolumeRecord* present, VolumeRecord* volume) {
  volume->snapshots = present == nullptr ? 0 : present->snapshots;
  volume->attachment_ids =
      present == nullptr ? std::vector<std::string>() : present->attachment_ids;
  volume->holds = present == nullptr ? 0 : present->holds;
}
void KeepCounts(const SnapshotRecord* present, SnapshotRecord* snapshot) {
  snapshot->holds = present == nullptr ? 0 : present->holds;
}
template <typename Record>
void KeepCounts(const Record*, Record*) {}

// What a record that comes or goes changes in its volume.
void CountIn(const SnapshotRecord&, bool is_there, VolumeRecord* volume) {
  if (is_there) {
    ++volume->snapshots;
  } else if (volume->snapshots > 0) {
    --volume->snapshots;
  }
}
void CountIn(const AttachmentRecord& attachment, bool is_there, VolumeRecord* volume) {
  std::erase(volume->attachment_ids, attachment.id);
  if (is_there) volume->attachment_ids.push_back(attachment.id);
}

}  // namespace

std::string ProjectPart(std::string_view project_id) {
  constexpr size_t kMaxPlainBytes = 64;
  const bool plain = !project_id.empty() && project_id.size() <= kMaxPlainBytes &&
                     std::all_of(project_id.begin(), project_id.end(), [](unsigned char c) {
                       return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') ||
                              (c >= 'A' && c <= 'Z') || c == '-' || c == '_';
                     });
  if (plain) return std::string(project_id);
  return "#" + base::Sha256(base::AsBytes(project_id)).hex();
}

Result<Transaction::Entry*> Transaction::Load(const std::string& key) {
  const auto found = entries_.find(key);
  if (found != entries_.end()) return &found->second;
  Entry entry;
  ASSIGN_OR_RETURN(entry.before, catalog_.GetKey(key));
  entry.after = entry.before;
  return &entries_.emplace(key, std::move(entry)).first->second;
}

template <typename Record>
Result<Record> Transaction::GetRecord(std::string_view id) {
  if (!IsRecordId(id)) return NotThere<Record>(id);
  ASSIGN_OR_RETURN(Entry * entry, Load(KeyFor<Record>(id)));
  if (!entry->after.has_value()) return NotThere<Record>(id);
  return KindOf<Record>::Decode(*entry->after);
}

void Transaction::Index(const std::vector<std::string>& before,
                        const std::vector<std::string>& after) {
  for (const std::string& key : before) index_[key] = false;
  for (const std::string& key : after) index_[key] = true;
}

template <typename Record>
Result<void> Transaction::PutRecord(Record record) {
  const std::string key = KeyFor<Record>(record.id);
  const bool known = entries_.contains(key);
  ASSIGN_OR_RETURN(Entry * entry, Load(key));
  std::optional<Record> present;
  if (entry->after.has_value()) {
    if (!known)
      return Error(Code::kAlreadyExists,
                   std::string(KindOf<Record>::kName) + " " + record.id + " is there already.");
    ASSIGN_OR_RETURN(present, KindOf<Record>::Decode(*entry->after));
  }
  const Record* old = present.has_value() ? &*present : nullptr;
  KeepCounts(old, &record);
  if (old != nullptr && *old == record) return {};
  Touch(old == nullptr, catalog_.NowUs(), &record);
  if (old != nullptr) AddAmounts(UsageOfRecord(*old), -1, &usage_[old->project_id]);
  AddAmounts(UsageOfRecord(record), 1, &usage_[record.project_id]);
  Index(old == nullptr ? std::vector<std::string>() : IndexKeys(*old), IndexKeys(record));
  entry->after = Encode(record);
  const std::optional<SourceHold> held = old == nullptr ? std::nullopt : HoldOf(*old);
  RETURN_IF_ERROR(MoveHold(held, HoldOf(record)));
  if constexpr (kStandsOnVolume<Record>) {
    if (old == nullptr) return CountInVolume(record, true);
  }
  return {};
}

template <typename Record>
Result<void> Transaction::RemoveRecord(const Record& record) {
  ASSIGN_OR_RETURN(Entry * entry, Load(KeyFor<Record>(record.id)));
  if (!entry->after.has_value()) return {};
  ASSIGN_OR_RETURN(const Record present, KindOf<Record>::Decode(*entry->after));
  AddAmounts(UsageOfRecord(present), -1, &usage_[present.project_id]);
  Index(IndexKeys(present), {});
  entry->after.reset();
  RETURN_IF_ERROR(MoveHold(HoldOf(present), std::nullopt));
  if constexpr (kStandsOnVolume<Record>) return CountInVolume(present, false);
  return {};
}

template <typename Record>
Result<void> Transaction::CountInVolume(const Record& record, bool is_there) {
  ASSIGN_OR_RETURN(Entry * entry, Load(KeyFor<VolumeRecord>(record.volume_id)));
  if (!entry->after.has_value()) return {};
  ASSIGN_OR_RETURN(VolumeRecord volume, DecodeVolume(*entry->after));
  CountIn(record, is_there, &volume);
  entry->after = Encode(volume);
  return {};
}

// What is held may be gone all the same: forced away.
template <typename Record>
Result<void> Transaction::ChangeHold(std::string_view id, bool more) {
  ASSIGN_OR_RETURN(Entry * entry, Load(KeyFor<Record>(id)));
  if (!entry->after.has_value()) return {};
  ASSIGN_OR_RETURN(Record record, KindOf<Record>::Decode(*entry->after));
  if (more) {
    ++record.holds;
  } else if (record.holds > 0) {
    --record.holds;
  }
  entry->after = Encode(record);
  return {};
}

Result<void> Transaction::MoveHold(const std::optional<SourceHold>& from,
                                   const std::optional<SourceHold>& to) {
  if (from == to) return {};
  for (const bool more : {false, true}) {
    const std::optional<SourceHold>& hold = more ? to : from;
    if (!hold.has_value()) continue;
    RETURN_IF_ERROR(hold->kind == SourceKind::kSnapshot ? ChangeHold<SnapshotRecord>(hold->id, more)
                                                        : ChangeHold<VolumeRecord>(hold->id, more));
  }
  return {};
}

Result<VolumeRecord> Transaction::GetVolume(std::string_view id) {
  return GetRecord<VolumeRecord>(id);
}
Result<SnapshotRecord> Transaction::GetSnapshot(std::string_view id) {
  return GetRecord<SnapshotRecord>(id);
}
Result<AttachmentRecord> Transaction::GetAttachment(std::string_view id) {
  return GetRecord<AttachmentRecord>(id);
}
Result<BackupRecord> Transaction::GetBackup(std::string_view id) {
  return GetRecord<BackupRecord>(id);
}
Result<void> Transaction::Put(const VolumeRecord& volume) { return PutRecord(volume); }
Result<void> Transaction::Put(const SnapshotRecord& snapshot) { return PutRecord(snapshot); }
Result<void> Transaction::Put(const AttachmentRecord& attachment) { return PutRecord(attachment); }
Result<void> Transaction::Put(const BackupRecord& backup) { return PutRecord(backup); }
Result<void> Transaction::Remove(const VolumeRecord& volume) { return RemoveRecord(volume); }
Result<void> Transaction::Remove(const SnapshotRecord& snapshot) { return RemoveRecord(snapshot); }
Result<void> Transaction::Remove(const AttachmentRecord& attachment) {
  return RemoveRecord(attachment);
}

Result<void> Transaction::Remove(const BackupRecord& backup) { return RemoveRecord(backup); }

Result<std::optional<std::string>> Transaction::GetKey(const std::string& key) {
  ASSIGN_OR_RETURN(Entry * entry, Load(key));
  return entry->after;
}

void Transaction::PutKey(const std::string& key, std::string value) {
  Entry blind;
  blind.blind = true;
  entries_.try_emplace(key, std::move(blind)).first->second.after = std::move(value);
}

void Transaction::RemoveKey(const std::string& key) {
  Entry blind;
  blind.blind = true;
  entries_.try_emplace(key, std::move(blind)).first->second.after.reset();
}

void Transaction::ChangeUsage(const std::string& project_id, const Amounts& change) {
  AddAmounts(change, 1, &usage_[project_id]);
}

Result<void> Transaction::AddJob(std::string_view kind, std::string payload,
                                 std::string_view project_id) {
  RETURN_IF_ERROR(catalog_.journal_.Prepare(kind, payload, &jobs_, ProjectPart(project_id)));
  ++jobs_added_;
  return {};
}

Result<void> Transaction::SettleUsage() {
  for (const auto& [project_id, change] : usage_) {
    if (change.empty()) continue;
    const std::string key = UsageKey(project_id);
    ASSIGN_OR_RETURN(Entry * entry, Load(key));
    Amounts used;
    if (entry->after.has_value()) {
      ASSIGN_OR_RETURN(used, DecodeAmounts(*entry->after));
    }
    const auto limit_of = [&](std::string_view resource) {
      return catalog_.LimitOf(project_id, resource);
    };
    RETURN_IF_ERROR(CheckLimits(used, change, limit_of));
    AddAmounts(change, 1, &used);
    for (const auto& [resource, amount] : used)
      if (amount < 0)
        return Error(Code::kCorruption, "project " + project_id + " is said to use " +
                                            std::to_string(amount) + " " + resource);
    entry->after.reset();
    if (!used.empty()) entry->after = EncodeAmounts(used);
  }
  return {};
}

MetaBatch Transaction::Batch() const {
  MetaBatch batch = jobs_;
  for (const auto& [key, entry] : entries_) {
    if (!entry.blind) {
      if (entry.before.has_value())
        batch.ExpectValue(key, *entry.before);
      else
        batch.ExpectAbsent(key);
      if (entry.before == entry.after) continue;
    }
    if (entry.after.has_value())
      batch.Put(key, *entry.after);
    else
      batch.Delete(key);
  }
  for (const auto& [key, is_there] : index_) {
    if (is_there)
      batch.Put(key, "");
    else
      batch.Delete(key);
  }
  return batch;
}

Result<bool> Catalog::TryOnce(const Body& body) {
  Transaction transaction(*this);
  if (job_.has_value()) {
    ASSIGN_OR_RETURN(const auto record,
                     transaction.GetKey(chunkstore::jobs::Journal::KeyOf(*job_)));
    RETURN_IF_ERROR(journal_.CheckHeld(*job_, record));
  }
  RETURN_IF_ERROR(body(transaction));
  RETURN_IF_ERROR(transaction.SettleUsage());
  const MetaBatch batch = transaction.Batch();
  if (batch.changes().empty()) return true;
  Result<void> committed = meta_.Commit(kPartition, batch);
  if (committed.has_value()) return true;
  if (committed.error().code() == Code::kConflict) return false;
  return committed.error().Annotate("write the records of volumes");
}

Result<void> Catalog::CheckHeld() {
  if (!job_.has_value()) return {};
  ASSIGN_OR_RETURN(const auto record, GetKey(chunkstore::jobs::Journal::KeyOf(*job_)));
  return journal_.CheckHeld(*job_, record);
}

Result<void> Catalog::Transact(const Body& body) {
  ASSIGN_OR_RETURN(bool done, TryOnce(body));
  if (!done) {
    base::MutexLock lock(turn_);
    for (int attempt = 1; !done && attempt < kMaxAttempts; ++attempt) {
      ASSIGN_OR_RETURN(done, TryOnce(body));
    }
  }
  if (!done) return Error(Code::kConflict, "others keep changing the same records: try again");
  return meta_.Sync();
}

Result<std::optional<std::string>> Catalog::GetKey(std::string_view key) {
  Result<std::string> bytes = meta_.Get(kPartition, key);
  if (bytes.has_value()) return std::optional<std::string>(*std::move(bytes));
  if (bytes.error().code() == Code::kNotFound) return std::optional<std::string>();
  return bytes.error().Annotate("read a record of volumes");
}

Result<void> Catalog::ScanKeys(std::string_view prefix,
                               const chunkstore::MetaStore::Visitor& visit) {
  return meta_.Scan(kPartition, prefix, chunkstore::PrefixEnd(prefix), SIZE_MAX, visit);
}

template <typename Record>
Result<Record> Catalog::GetRecord(std::string_view id) {
  if (!IsRecordId(id)) return NotThere<Record>(id);
  ASSIGN_OR_RETURN(const std::optional<std::string> bytes, GetKey(KeyFor<Record>(id)));
  if (!bytes.has_value()) return NotThere<Record>(id);
  return KindOf<Record>::Decode(*bytes);
}
template Result<VolumeRecord> Catalog::GetRecord<VolumeRecord>(std::string_view id);
template Result<SnapshotRecord> Catalog::GetRecord<SnapshotRecord>(std::string_view id);
template Result<AttachmentRecord> Catalog::GetRecord<AttachmentRecord>(std::string_view id);
template Result<BackupRecord> Catalog::GetRecord<BackupRecord>(std::string_view id);

Result<VolumeRecord> Catalog::GetVolume(std::string_view id) { return GetRecord<VolumeRecord>(id); }
Result<SnapshotRecord> Catalog::GetSnapshot(std::string_view id) {
  return GetRecord<SnapshotRecord>(id);
}
Result<AttachmentRecord> Catalog::GetAttachment(std::string_view id) {
  return GetRecord<AttachmentRecord>(id);
}

Result<BackupRecord> Catalog::GetBackup(std::string_view id) { return GetRecord<BackupRecord>(id); }

Result<Amounts> Catalog::AmountsAt(const std::string& key) {
  ASSIGN_OR_RETURN(const std::optional<std::string> bytes, GetKey(key));
  if (!bytes.has_value()) return Amounts();
  return DecodeAmounts(*bytes);
}

Result<Amounts> Catalog::UsageOf(std::string_view project_id) {
  return AmountsAt(UsageKey(project_id));
}
Result<Amounts> Catalog::LimitsSetFor(std::string_view project_id) {
  return AmountsAt(LimitsKey(project_id));
}
Result<Amounts> Catalog::ClassLimits() { return AmountsAt(std::string(kClassKey)); }

Result<int64_t> Catalog::LimitOf(std::string_view project_id, std::string_view resource) {
  ASSIGN_OR_RETURN(const Amounts own, LimitsSetFor(project_id));
  const auto set = own.find(resource);
  if (set != own.end()) return set->second;
  ASSIGN_OR_RETURN(const Amounts of_class, ClassLimits());
  const auto by_class = of_class.find(resource);
  return by_class != of_class.end() ? by_class->second : BuiltInLimit(resource);
}

Result<void> Catalog::ChangeLimits(const std::string& key, const LimitChanges& changes) {
  return Transact([&](Transaction& transaction) -> Result<void> {
    ASSIGN_OR_RETURN(const std::optional<std::string> bytes, transaction.GetKey(key));
    Amounts limits;
    if (bytes.has_value()) {
      ASSIGN_OR_RETURN(limits, DecodeAmounts(*bytes));
    }
    for (const auto& [resource, limit] : changes) {
      limits.erase(resource);
      if (limit.has_value()) limits.emplace(resource, *limit);
    }
    if (limits.empty())
      transaction.RemoveKey(key);
    else
      transaction.PutKey(key, EncodeAmounts(limits));
    return {};
  });
}

Result<void> Catalog::SetLimits(std::string_view project_id, const LimitChanges& changes) {
  return ChangeLimits(LimitsKey(project_id), changes);
}
Result<void> Catalog::SetClassLimits(const LimitChanges& changes) {
  return ChangeLimits(std::string(kClassKey), changes);
}
Result<void> Catalog::ForgetLimits(std::string_view project_id) {
  return Transact([&](Transaction& transaction) -> Result<void> {
    transaction.RemoveKey(LimitsKey(project_id));
    return {};
  });
}

}  // namespace blockd
