#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/clock.h"
#include "base/result.h"
#include "base/thread_annotations.h"
#include "blockd/quota.h"
#include "blockd/records.h"
#include "chunkstore/jobs/journal.h"
#include "chunkstore/meta_store.h"

namespace blockd {

// Everything that the Block Storage API keeps lies in this one partition, so that a record, its
// index entries, the project's usage and the job that will act on it commit together:
//   v/<id>  s/<id>  a/<id>  b/<id>   volumes, snapshots, attachments, backups
//   i/v/<scope>/<created><id>   volumes by creation; scopes: "a" (all) and "p:<project>"; i/s/ the
//                               same of snapshots, i/t/ of attachments, i/b/ of backups
//   i/o/<volume>/<snapshot>     the snapshots of a volume
//   U/<project>                 usage; Q/<project>: limits that were set; C/default: of the class
//   P/<project>                 limits of I/O (project_qos.h)
//   j/<job>                     the journal (jobs.h)
//   N/<process>                 a process that serves attachments; W/<process>/<attachment>: what
//   it
//                               is to end (serving.h)
//   t/ q/ x/ m/                 types, qos-specs, transfers, messages: of their own folders
constexpr std::string_view kPartition = "blockd";

class Catalog;

// One change in the making: reads what it needs, writes what shall be, and all of it is committed
// at once if nothing that was read has changed meanwhile. Made by Catalog::Transact. One thread.
class Transaction {
 public:
  // kNotFound in Cinder's words ("Volume <id> could not be found."). What was written in this
  // transaction is read back.
  base::Result<VolumeRecord> GetVolume(std::string_view id);
  base::Result<SnapshotRecord> GetSnapshot(std::string_view id);
  base::Result<AttachmentRecord> GetAttachment(std::string_view id);
  base::Result<BackupRecord> GetBackup(std::string_view id);

  // Added or replaced, with index entries and the usage of the project that they count for (to move
  // a volume is to Put it with another project_id). Sets created_at_us of a new one, updated_at_us
  // of another. kAlreadyExists for what was not read before and is there. `snapshots`,
  // `attachment_ids` and `holds` are kept by Put and Remove of those that they count: whatever a
  // Put of the volume or snapshot says of them is passed over.
  base::Result<void> Put(const VolumeRecord& volume);
  base::Result<void> Put(const SnapshotRecord& snapshot);
  base::Result<void> Put(const AttachmentRecord& attachment);
  base::Result<void> Put(const BackupRecord& backup);
  base::Result<void> Remove(const VolumeRecord& volume);
  base::Result<void> Remove(const SnapshotRecord& snapshot);
  base::Result<void> Remove(const AttachmentRecord& attachment);
  base::Result<void> Remove(const BackupRecord& backup);

  // Any other key of the partition. Nothing: it is absent (and must still be at the commit).
  base::Result<std::optional<std::string>> GetKey(const std::string& key);
  void PutKey(const std::string& key, std::string value);
  void RemoveKey(const std::string& key);
  // What else a project takes, or gives back. Limits are checked as for volumes.
  void ChangeUsage(const std::string& project_id, const Amounts& change);

  // A job that is due once this is committed; projects take turns. kTooLarge.
  base::Result<void> AddJob(std::string_view kind, std::string payload,
                            std::string_view project_id);
  size_t jobs_added() const { return jobs_added_; }

 private:
  friend class Catalog;
  explicit Transaction(Catalog& catalog) : catalog_(catalog) {}

  struct Entry {
    std::optional<std::string> before;  // as read; nothing: absent
    std::optional<std::string> after;
    bool blind = false;  // written without being read: nothing is expected of it
  };
  base::Result<Entry*> Load(const std::string& key);
  template <typename Record>
  base::Result<Record> GetRecord(std::string_view id);
  template <typename Record>
  base::Result<void> PutRecord(Record record);
  template <typename Record>
  base::Result<void> RemoveRecord(const Record& record);
  template <typename Record>
  base::Result<void> CountInVolume(const Record& record, bool is_there);
  template <typename Record>
  base::Result<void> ChangeHold(std::string_view id, bool more);
  base::Result<void> MoveHold(const std::optional<SourceHold>& from,
                              const std::optional<SourceHold>& to);
  void Index(const std::vector<std::string>& before, const std::vector<std::string>& after);
  base::Result<void> SettleUsage();
  chunkstore::MetaBatch Batch() const;

  Catalog& catalog_;
  std::map<std::string, Entry, std::less<>> entries_;
  std::map<std::string, bool, std::less<>> index_;     // key: put, or delete
  std::map<std::string, Amounts, std::less<>> usage_;  // by project: what is added
  chunkstore::MetaBatch jobs_;
  size_t jobs_added_ = 0;
};

// One page of records.
struct ListQuery {
  // Nothing: of all projects.
  std::optional<std::string> project_id;
  enum class Key : uint8_t {
    kCreated,
    kUpdated,
    kName,
    kId,
    kStatus,
    kSize,
    kZone,
    kBootable,
    kSourceId,
    kType,
    kVolumeId  // snapshots and backups; as kSourceId where there is none
  };
  // In order of weight; ties by id, as the last direction says. Empty: newest first.
  std::vector<std::pair<Key, bool>> sort;  // true: descending
  // The page begins after this one. kInvalidArgument if it isn't there.
  std::string marker;
  uint64_t offset = 0;
  uint64_t limit = 1000;
};

// Records and their rules, over one partition of a MetaStore. Knows nothing of HTTP and of who may
// do what. Thread-safe; several processes may share the store.
class Catalog {
 public:
  // Borrowed; they outlive the catalog.
  Catalog(chunkstore::MetaStore& meta, const base::Clock& clock, chunkstore::jobs::Journal& journal)
      : meta_(meta), clock_(clock), journal_(journal) {}

  // The same records for who works on a job: a transaction commits only while the job is held by
  // the claim that gave it; kCancelled otherwise. So a process that stood still until another one
  // took the job over, and wakes in the middle of it, changes nothing any more.
  Catalog ForJob(const chunkstore::jobs::Job& job) const {
    return Catalog(meta_, clock_, journal_, job);
  }
  // Of such a catalog: whether the job is held now. Before what is done elsewhere, and not twice.
  base::Result<void> CheckHeld();

  // Runs `body` and commits what it wrote: all or nothing, durable when this returns. A lost race
  // runs it again on fresh records, so it must do nothing but read, decide and write through the
  // transaction. Its error is returned as it is, and nothing was written. kQuotaExceeded; kConflict
  // under endless contention.
  using Body = std::function<base::Result<void>(Transaction&)>;
  base::Result<void> Transact(const Body& body);

  base::Result<VolumeRecord> GetVolume(std::string_view id);
  base::Result<SnapshotRecord> GetSnapshot(std::string_view id);
  base::Result<AttachmentRecord> GetAttachment(std::string_view id);
  base::Result<BackupRecord> GetBackup(std::string_view id);
  // Of a volume, by id.
  base::Result<std::vector<SnapshotRecord>> SnapshotsOf(std::string_view volume_id);

  // A page of what `accept` passes (null: all).
  base::Result<std::vector<VolumeRecord>> ListVolumes(
      const ListQuery& query, const std::function<bool(const VolumeRecord&)>& accept = nullptr);
  base::Result<std::vector<SnapshotRecord>> ListSnapshots(
      const ListQuery& query, const std::function<bool(const SnapshotRecord&)>& accept = nullptr);
  base::Result<std::vector<AttachmentRecord>> ListAttachments(
      const ListQuery& query, const std::function<bool(const AttachmentRecord&)>& accept = nullptr);
  base::Result<std::vector<BackupRecord>> ListBackups(
      const ListQuery& query, const std::function<bool(const BackupRecord&)>& accept = nullptr);

  // Any other key; nothing: absent. And those below a prefix, in order.
  base::Result<std::optional<std::string>> GetKey(std::string_view key);
  base::Result<void> ScanKeys(std::string_view prefix, const chunkstore::MetaStore::Visitor& visit);
  // The records below a prefix, in order, as `decode` (bytes -> Result<Record>) reads them; its
  // first error ends it.
  template <typename Record>
  base::Result<std::vector<Record>> ReadAll(std::string_view prefix,
                                            base::Result<Record> (*decode)(std::string_view));

  // --- quotas ---
  base::Result<Amounts> UsageOf(std::string_view project_id);
  // What was set for the project, or for the class "default".
  base::Result<Amounts> LimitsSetFor(std::string_view project_id);
  base::Result<Amounts> ClassLimits();
  // The one that counts: the project's, else the class's, else the built-in one.
  base::Result<int64_t> LimitOf(std::string_view project_id, std::string_view resource);
  // Nothing as amount: back to the class's. Durable.
  using LimitChanges = std::map<std::string, std::optional<int64_t>, std::less<>>;
  base::Result<void> SetLimits(std::string_view project_id, const LimitChanges& changes);
  base::Result<void> SetClassLimits(const LimitChanges& changes);
  base::Result<void> ForgetLimits(std::string_view project_id);

  int64_t NowUs() const { return clock_.NowUs(); }
  const base::Clock& clock() const { return clock_; }
  chunkstore::jobs::Journal& journal() { return journal_; }

 private:
  friend class Transaction;
  static constexpr int kMaxAttempts = 200;

  Catalog(chunkstore::MetaStore& meta, const base::Clock& clock, chunkstore::jobs::Journal& journal,
          const chunkstore::jobs::Job& job)
      : meta_(meta), clock_(clock), journal_(journal), job_(job) {}

  // False: lost a race.
  base::Result<bool> TryOnce(const Body& body);
  template <typename Record>
  base::Result<Record> GetRecord(std::string_view id);
  base::Result<Amounts> AmountsAt(const std::string& key);
  // The records that a range of index keys names, backwards; false: `visit` had enough.
  template <typename Record>
  base::Result<bool> Walk(const std::string& prefix, std::string to,
                          const std::function<bool(Record)>& visit);
  base::Result<void> ChangeLimits(const std::string& key, const LimitChanges& changes);
  template <typename Record>
  base::Result<std::vector<Record>> List(const ListQuery& query,
                                         const std::function<bool(const Record&)>& accept);

  chunkstore::MetaStore& meta_;
  const base::Clock& clock_;
  chunkstore::jobs::Journal& journal_;
  const std::optional<chunkstore::jobs::Job> job_;  // nothing: anybody's
  // A transaction that lost a race takes turns with others like it, so that they don't starve each
  // other; the expectations alone decide.
  base::Mutex turn_;
};

// --- implementation ---

template <typename Record>
base::Result<std::vector<Record>> Catalog::ReadAll(
    std::string_view prefix, base::Result<Record> (*decode)(std::string_view)) {
  std::vector<Record> records;
  base::Result<void> damage;
  RETURN_IF_ERROR(ScanKeys(prefix, [&](std::string_view, std::string_view value) {
    base::Result<Record> record = decode(value);
    if (record.has_value()) {
      records.push_back(*std::move(record));
    } else {
      damage = std::move(record).error();
    }
    return damage.has_value();
  }));
  RETURN_IF_ERROR(damage);
  return records;
}

}  // namespace blockd
