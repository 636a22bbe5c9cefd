#include "blockd/rbd/ledger.h"

#include "base/uuid.h"

namespace blockd::rbd {

using base::Code;
using base::Error;
using base::Result;
using chunkstore::MetaBatch;

namespace {

// A change that others overtake so often meets more of them than there are processes.
constexpr int kMaxTries = 100;

std::string MarkKey(std::string_view kind, const std::string& id) { return std::string(kind) + id; }

}  // namespace

// ---- reading and setting

Result<Change::Entry*> Change::Read(const std::string& key) {
  Entry& entry = entries_[key];
  if (entry.read || entry.changed) return &entry;
  Result<std::string> value = ledger_.meta_.Get(ledger_.partition_, key);
  if (!value && value.error().code() != Code::kNotFound) return value.error();
  if (value) entry.was = std::move(*value);
  entry.is = entry.was;
  entry.read = true;
  return &entry;
}

void Change::Set(const std::string& key, std::optional<std::string> value) {
  Entry& entry = entries_[key];
  entry.is = std::move(value);
  entry.changed = true;
}

Error Change::Missing(const std::string& key) {
  return Error(Code::kCorruption, "the records of volumes on RBD lack " + key);
}

void Change::Mark(std::string_view kind, const std::string& id, const std::string& value) {
  Set(MarkKey(kind, id), value);
}
void Change::Unmark(std::string_view kind, const std::string& id) {
  Set(MarkKey(kind, id), std::nullopt);
}
void Change::MarkAnew(std::string_view kind, const std::string& id) {
  Mark(kind, id, base::NewUuidHex());
}

// ---- uses

Result<void> Change::AddUse(const std::string& point) {
  ASSIGN_OR_RETURN(PointRecord record, Get<PointRecord>(point));
  ++record.uses;
  Put(point, record);
  return {};
}

Result<void> Change::DropUse(const std::string& point) {
  ASSIGN_OR_RETURN(PointRecord record, Get<PointRecord>(point));
  if (record.uses <= 1) return DropPoint(point, record);
  --record.uses;
  Put(point, record);
  return {};
}

Result<void> Change::DropPoint(const std::string& point, const PointRecord& record) {
  Delete<PointRecord>(point);
  ASSIGN_OR_RETURN(const auto sealing, Find<SealingRecord>(point));
  if (sealing) {
    // What a sealing that is under way makes is released when it finds the point gone.
    Delete<SealingRecord>(point);
    if (!sealing->holder.empty()) Mark("h/", sealing->holder);
  }
  Unmark("t/", point);
  if (!record.holder.empty()) Mark("h/", record.holder);
  return record.snap ? LeavePointOn(record.image) : Result<void>();
}

Result<void> Change::DropSnap(const std::string& point) {
  ASSIGN_OR_RETURN(PointRecord record, Get<PointRecord>(point));
  if (!record.snap) return {};
  record.snap = false;
  Put(point, record);
  return LeavePointOn(record.image);
}

Result<void> Change::LeavePointOn(const std::string& image) {
  ASSIGN_OR_RETURN(ImageRecord record, Get<ImageRecord>(image));
  --record.points;
  MarkAnew("d/", image);
  return GoIfUnused(image, std::move(record));
}

Result<void> Change::LeaveImage(const std::string& image) {
  ASSIGN_OR_RETURN(ImageRecord record, Get<ImageRecord>(image));
  record.volume.clear();
  MarkAnew("d/", image);
  return GoIfUnused(image, std::move(record));
}

Result<void> Change::GoIfUnused(const std::string& id, ImageRecord image) {
  const bool used = !image.volume.empty() || image.points > 0;
  if (!used && image.state == ImageState::kReady) return Go(id, std::move(image));
  Put(id, image);
  return {};
}

Result<void> Change::GiveUpImage(const std::string& image) {
  ASSIGN_OR_RETURN(const auto record, Find<ImageRecord>(image));
  if (!record || record->state == ImageState::kGoing) return {};
  return Go(image, *record);
}

Result<void> Change::Go(const std::string& id, ImageRecord image) {
  const std::string base = std::exchange(image.base, "");
  const std::string tip = std::exchange(image.tip, "");
  image.state = ImageState::kGoing;
  image.volume.clear();
  Put(id, image);
  Unmark("d/", id);
  MarkAnew("g/", id);
  if (!tip.empty()) RETURN_IF_ERROR(DropUse(tip));
  if (!base.empty()) RETURN_IF_ERROR(DropUse(base));
  return {};
}

// ---- the ledger

Result<void> Ledger::Update(const Fill& fill) {
  for (int tries = 1;; ++tries) {
    Change change(*this);
    RETURN_IF_ERROR(fill(change));
    Result<void> committed = Commit(change);
    if (committed || committed.error().code() != Code::kConflict) return committed;
    if (tries == kMaxTries)
      return Error(Code::kUnavailable, "too many changes of the same volumes at once: try again");
  }
}

Result<void> Ledger::Commit(const Change& change) {
  MetaBatch batch;
  bool changes = false;
  for (const auto& [key, entry] : change.entries_) {
    if (entry.read && entry.was) batch.ExpectValue(key, *entry.was);
    if (entry.read && !entry.was) batch.ExpectAbsent(key);
    if (!entry.changed) continue;
    changes = true;
    entry.is ? batch.Put(key, *entry.is) : batch.Delete(key);
  }
  if (!changes) return {};
  return chunkstore::CommitDurably(meta_, partition_, batch);
}

Result<std::vector<Ledger::Named>> Ledger::List(std::string_view prefix, size_t limit) {
  std::vector<Named> listed;
  RETURN_IF_ERROR(meta_.Scan(partition_, prefix, chunkstore::PrefixEnd(prefix), limit,
                             [&](std::string_view key, std::string_view value) {
                               listed.push_back(
                                   {std::string(key.substr(prefix.size())), std::string(value)});
                               return true;
                             }));
  return listed;
}

void Ledger::TakeOff(std::string_view kind, const Named& mark) {
  MetaBatch batch;
  const std::string key = MarkKey(kind, mark.id);
  batch.ExpectValue(key, mark.value).Delete(key);
  (void)meta_.Commit(partition_, batch).has_value();
}

}  // namespace blockd::rbd
