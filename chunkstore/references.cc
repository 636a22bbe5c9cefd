#include "chunkstore/references.h"

#include <algorithm>

#include "base/check.h"
#include "base/coding.h"

namespace chunkstore {
namespace {

using base::Code;
using base::Digest256;
using base::Error;
using base::MutexLock;
using base::Result;

constexpr int kMaxAttempts = 200;  // conflicts with other processes in a row
constexpr size_t kIdsPerCommit = 256;
constexpr size_t kScanBatch = 1024;
constexpr size_t kMaxLentPages = kChunkBytes / kBlockGridBytes;

void SortUnique(std::vector<uint16_t>* pages) {
  std::sort(pages->begin(), pages->end());
  pages->erase(std::unique(pages->begin(), pages->end()), pages->end());
}

Doomed BlobOnly(const BlobRef& blob, const Record& record) {
  return {.blob = blob,
          .kind = record.kind,
          .has_references = record.borrowed_bytes > 0,
          .incarnation = record.incarnation,
          .stored_length = record.stored_length};
}

void Doom(const Doomed& doomed, MetaBatch& batch) {
  batch.Put(DoomedKey(doomed.blob), EncodeDoomed(doomed));
}

}  // namespace

References::References(MetaStore& meta) : meta_(meta) {
  for (size_t i = 0; i < kRecordPartitions; ++i) names_.push_back(RecordPartition(i));
}

Result<void> References::Commit(size_t partition, const Build& build) {
  MutexLock lock(locks_[partition]);
  for (int attempt = 0; attempt < kMaxAttempts; ++attempt) {
    MetaBatch batch;
    RETURN_IF_ERROR(build(batch));
    if (batch.changes().empty()) return {};
    Result<void> committed = meta_.Commit(names_[partition], batch);
    if (committed.has_value() || committed.error().code() != Code::kConflict) return committed;
  }
  return Error(Code::kUnavailable,
               "the index partition " + names_[partition] + " changes faster than we can follow");
}

Result<std::optional<std::string>> References::Value(size_t partition, const std::string& key) {
  Result<std::string> value = meta_.Get(names_[partition], key);
  if (value.has_value()) return std::optional(std::move(value).value());
  if (value.error().code() == Code::kNotFound) return std::optional<std::string>();
  return value.error();
}

Result<std::optional<Record>> References::Find(const Digest256& id) {
  ASSIGN_OR_RETURN(const auto value, Value(PartitionOf(id), RecordKey(id)));
  if (!value) return std::optional<Record>();
  ASSIGN_OR_RETURN(Record record, DecodeRecord(*value));
  return std::optional(record);
}

// Reads the record and makes the batch hold only if it stays as read.
Result<std::optional<Record>> References::Expect(const Digest256& id, MetaBatch& batch) {
  ASSIGN_OR_RETURN(const auto value, Value(PartitionOf(id), RecordKey(id)));
  if (!value) {
    batch.ExpectAbsent(RecordKey(id));
    return std::optional<Record>();
  }
  ASSIGN_OR_RETURN(Record record, DecodeRecord(*value));
  batch.ExpectValue(RecordKey(id), *value);
  return std::optional(record);
}

namespace {

// Adds the tag in the batch. REQUIRES: it is not there, and the batch expects the record as read.
void AddTag(const Digest256& id, std::string_view tag, std::string value, Record& record,
            MetaBatch& batch) {
  batch.ExpectAbsent(TagKey(id, tag));
  batch.Put(TagKey(id, tag), std::move(value));
  if (record.count == 0) batch.Delete(GarbageKey(id));
  if (record.changes > 0 || IsBorrowerTag(tag)) ++record.changes;
  if (IsBorrowerTag(tag)) {
    ++record.lent;
  } else if (!record.is_wanted() && record.lent > 0) {
    batch.Delete(LenderKey(id));
  }
  ++record.count;
  batch.Put(RecordKey(id), EncodeRecord(record));
}

}  // namespace

Result<References::AddResult> References::Add(const Digest256& id, std::string_view tag) {
  AddResult result;
  const size_t partition = PartitionOf(id);
  RETURN_IF_ERROR(Commit(partition, [&](MetaBatch& batch) -> Result<void> {
    result = {};
    ASSIGN_OR_RETURN(std::optional<Record> record, Expect(id, batch));
    if (!record) return {};
    result.record = *record;
    result.added = record->is_whole() ? Added::kYes : Added::kBad;
    if (!record->is_whole()) return {};
    ASSIGN_OR_RETURN(const auto tagged, Value(partition, TagKey(id, tag)));
    if (!tagged) AddTag(id, tag, "", result.record, batch);
    return {};
  }));
  return result;
}

Result<void> References::ForEachPartition(
    std::span<const Digest256> ids,
    const std::function<Result<void>(size_t, std::span<const Digest256>)>& work) {
  std::vector<Digest256> sorted(ids.begin(), ids.end());
  std::sort(sorted.begin(), sorted.end());
  sorted.erase(std::unique(sorted.begin(), sorted.end()), sorted.end());
  for (size_t begin = 0; begin < sorted.size();) {
    const size_t partition = PartitionOf(sorted[begin]);
    size_t end = begin;
    while (end < sorted.size() && end - begin < kIdsPerCommit &&
           PartitionOf(sorted[end]) == partition)
      ++end;
    RETURN_IF_ERROR(work(partition, std::span(sorted).subspan(begin, end - begin)));
    begin = end;
  }
  return {};
}

Result<void> References::AddToAll(std::span<const Digest256> ids, std::string_view tag) {
  return ForEachPartition(ids, [&](size_t partition, std::span<const Digest256> some) {
    return Commit(partition, [&](MetaBatch& batch) -> Result<void> {
      for (const Digest256& id : some) {
        ASSIGN_OR_RETURN(std::optional<Record> record, Expect(id, batch));
        if (!record) return Error(Code::kNotFound, "nothing is stored under " + id.hex());
        ASSIGN_OR_RETURN(const auto tagged, Value(partition, TagKey(id, tag)));
        if (!tagged) AddTag(id, tag, "", *record, batch);
      }
      return {};
    });
  });
}

Result<void> References::DropOne(const Digest256& id, std::string_view tag, MetaBatch& batch,
                                 std::vector<Doomed>* doomed) {
  const std::string key = TagKey(id, tag);
  ASSIGN_OR_RETURN(const auto tagged, Value(PartitionOf(id), key));
  if (!tagged) return {};
  batch.ExpectValue(key, *tagged).Delete(key);
  ASSIGN_OR_RETURN(std::optional<Record> record, Expect(id, batch));
  if (!record) return {};
  if (record->changes > 0) ++record->changes;
  if (record->count == 0) {  // a wrong count: scrub's to find
    batch.Put(RecordKey(id), EncodeRecord(*record));
    return {};
  }
  --record->count;
  if (IsBorrowerTag(tag) && record->lent > 0) --record->lent;
  if (record->count == 0 && record->kind == BlobKind::kManifest) {
    const Doomed dead = BlobOnly({id, record->suffix}, *record);
    Doom(dead, batch);
    batch.Delete(RecordKey(id));
    if (doomed) doomed->push_back(dead);
    return {};
  }
  if (record->count == 0) batch.Put(GarbageKey(id), "");
  if (record->count == 0 && record->changes > 0) batch.Delete(LenderKey(id));
  if (record->count > 0 && !record->is_wanted()) batch.Put(LenderKey(id), "");
  batch.Put(RecordKey(id), EncodeRecord(*record));
  return {};
}

Result<void> References::DropFromAll(std::span<const Digest256> ids, std::string_view tag,
                                     std::vector<Doomed>* doomed) {
  return ForEachPartition(ids, [&](size_t partition, std::span<const Digest256> some) {
    std::vector<Doomed> now;
    Result<void> done = Commit(partition, [&](MetaBatch& batch) -> Result<void> {
      now.clear();
      for (const Digest256& id : some) {
        RETURN_IF_ERROR(DropOne(id, tag, batch, &now));
      }
      return {};
    });
    if (done.has_value() && doomed) doomed->insert(doomed->end(), now.begin(), now.end());
    return done;
  });
}

Result<void> References::Intend(Token token, const BlobRef& blob, bool borrows) {
  const std::string key = IntentKey(token, blob.id);
  const size_t partition = PartitionOf(blob.id);
  return Commit(partition, [&](MetaBatch& batch) -> Result<void> {
    // An earlier try of this ingest failed on the way and may have left a part of a blob.
    ASSIGN_OR_RETURN(const auto earlier, Value(partition, key));
    if (earlier) {
      ASSIGN_OR_RETURN(const Intent left, DecodeIntent(*earlier));
      Doom({.blob = {blob.id, left.suffix}, .has_references = left.borrows}, batch);
      batch.ExpectValue(key, *earlier);
    }
    batch.Put(key, EncodeIntent({.suffix = blob.suffix, .borrows = borrows}));
    return {};
  });
}

Result<bool> References::Lend(const BlobRef& owner, const BlobRef& borrower,
                              std::span<const uint16_t> pages) {
  return LendIf(owner.id, borrower, pages, [&](const Record& record) {
    return record.is_whole() && record.is_wanted() && record.suffix == owner.suffix &&
           record.kind == BlobKind::kChunk;
  });
}

Result<bool> References::LendAnyway(const Digest256& owner, const BlobRef& borrower,
                                    std::span<const uint16_t> pages) {
  return LendIf(owner, borrower, pages, [](const Record&) { return true; });
}

Result<bool> References::LendIf(const Digest256& owner, const BlobRef& borrower,
                                std::span<const uint16_t> pages, const OwnerCheck& may_lend) {
  const size_t partition = PartitionOf(owner);
  const std::string tag = BorrowerTag(borrower);
  bool lent = false;
  RETURN_IF_ERROR(Commit(partition, [&](MetaBatch& batch) -> Result<void> {
    ASSIGN_OR_RETURN(std::optional<Record> record, Expect(owner, batch));
    lent = record && may_lend(*record);
    if (!lent) return {};
    ASSIGN_OR_RETURN(const auto tagged, Value(partition, TagKey(owner, tag)));
    if (!tagged) AddTag(owner, tag, EncodeLent(pages), *record, batch);
    return {};
  }));
  return lent;
}

Result<void> References::VisitLent(const Digest256& id, const LentVisitor& visit) {
  const std::string prefix = TagPrefix(id);
  std::string from = prefix + "s";
  const std::string end = PrefixEnd(from);
  while (true) {
    std::vector<std::pair<std::string, std::string>> some;
    RETURN_IF_ERROR(meta_.Scan(names_[PartitionOf(id)], from, end, kIdsPerCommit,
                               [&](std::string_view key, std::string_view value) {
                                 some.emplace_back(key, value);
                                 return true;
                               }));
    for (const auto& [key, value] : some) {
      ASSIGN_OR_RETURN(const ParsedTag tag, ParseTag(std::string_view(key).substr(prefix.size())));
      ASSIGN_OR_RETURN(const std::vector<uint16_t> pages, DecodeLent(value));
      ASSIGN_OR_RETURN(const bool go_on, visit({tag.page, tag.incarnation}, pages));
      if (!go_on) return {};
    }
    if (some.size() < kIdsPerCommit) return {};
    from = some.back().first + '\0';
  }
}

Result<std::vector<uint16_t>> References::LentPages(const Digest256& id) {
  std::vector<uint16_t> pages;
  RETURN_IF_ERROR(
      VisitLent(id, [&](const BlobRef&, std::span<const uint16_t> some) -> Result<bool> {
        pages.insert(pages.end(), some.begin(), some.end());
        if (pages.size() > 2 * kMaxLentPages) SortUnique(&pages);
        return true;
      }));
  SortUnique(&pages);
  return pages;
}

Result<std::vector<Digest256>> References::ListLenders(size_t partition,
                                                       const std::optional<Digest256>& after,
                                                       size_t limit) {
  return ListMarked(partition, "l", after ? LenderKey(*after) + '\0' : "l", limit);
}

Result<void> References::PassLender(const Digest256& id, const Record& record) {
  return Commit(PartitionOf(id), [&](MetaBatch& batch) -> Result<void> {
    ASSIGN_OR_RETURN(const std::optional<Record> now, Expect(id, batch));
    if (!now || *now == record) batch.Delete(LenderKey(id));
    return {};
  });
}

Result<bool> References::Shrink(Token token, const Digest256& id, const Record& looked_at,
                                const Record& mine, std::vector<Doomed>* doomed) {
  const size_t partition = PartitionOf(id);
  const std::string intent = IntentKey(token, id);
  bool shrunk = false;
  std::optional<Doomed> lost;
  RETURN_IF_ERROR(Commit(partition, [&](MetaBatch& batch) -> Result<void> {
    ASSIGN_OR_RETURN(const auto intended, Value(partition, intent));
    if (!intended || *intended != EncodeIntent({.suffix = mine.suffix}))
      return Error(Code::kCancelled, "the collector was given up: its lease ran out");
    batch.ExpectValue(intent, *intended).Delete(intent);
    ASSIGN_OR_RETURN(std::optional<Record> record, Expect(id, batch));
    shrunk = record && *record == looked_at && !record->is_wanted();
    lost = BlobOnly({id, shrunk ? record->suffix : mine.suffix}, shrunk ? *record : mine);
    Doom(*lost, batch);
    if (!shrunk) return {};
    record->bad = false;  // what is left of it was verified
    record->partial = true;
    record->suffix = mine.suffix;
    record->stored_length = mine.stored_length;
    record->borrowed_bytes = 0;
    batch.Put(RecordKey(id), EncodeRecord(*record)).Delete(LenderKey(id));
    return {};
  }));
  doomed->push_back(*lost);
  return shrunk;
}

Result<References::Settled> References::Settle(Token token, const Digest256& id, Record mine,
                                               std::vector<Doomed>* doomed) {
  const size_t partition = PartitionOf(id);
  const std::string intent = IntentKey(token, id);
  const std::string tag = IngestTag(token);
  Settled settled;
  std::optional<Doomed> lost;
  RETURN_IF_ERROR(Commit(partition, [&](MetaBatch& batch) -> Result<void> {
    lost.reset();
    ASSIGN_OR_RETURN(const auto intended, Value(partition, intent));
    if (!intended ||
        *intended != EncodeIntent({.suffix = mine.suffix, .borrows = mine.borrowed_bytes > 0}))
      return Error(Code::kCancelled, "the upload was given up: its lease ran out");
    batch.ExpectValue(intent, *intended).Delete(intent);
    ASSIGN_OR_RETURN(std::optional<Record> record, Expect(id, batch));
    ASSIGN_OR_RETURN(const auto tagged, Value(partition, TagKey(id, tag)));
    settled.created = !record || !record->is_whole() || !StandsFor(record->kind, mine.kind);
    settled.refused = record && settled.created &&
                      (mine.borrowed_bytes > 0 || !StandsFor(mine.kind, record->kind));
    if (settled.refused) {
      // What it borrows from may borrow from it: nobody would ever let go.
      settled.created = false;
      lost = BlobOnly({id, mine.suffix}, mine);
      Doom(*lost, batch);
      return {};
    }
    if (!record) {
      record = mine;
      record->count = 0;
    } else if (settled.created) {
      if (record->suffix != 0) lost = BlobOnly({id, record->suffix}, *record);
      record->bad = false;
      record->partial = false;
      record->suffix = mine.suffix;
      record->plain_length = mine.plain_length;
      record->stored_length = mine.stored_length;
      record->borrowed_bytes = 0;
      if (record->kind != mine.kind) {
        record->kind = mine.kind;
        record->building = mine.building;
        record->incarnation = mine.incarnation;
      }
      batch.Put(RecordKey(id), EncodeRecord(*record));
    } else {
      lost = BlobOnly({id, mine.suffix}, mine);
    }
    if (lost) Doom(*lost, batch);
    if (!tagged) AddTag(id, tag, "", *record, batch);
    settled.record = *record;
    return {};
  }));
  if (lost) doomed->push_back(*lost);
  return settled;
}

Result<void> References::DropIngest(Token token, size_t partition, std::vector<Doomed>* doomed) {
  const auto scan = [&](char kind, std::vector<std::pair<std::string, std::string>>* found) {
    const std::string prefix = IngestPrefix(kind, token);
    found->clear();
    return meta_.Scan(names_[partition], prefix, PrefixEnd(prefix), kIdsPerCommit,
                      [&](std::string_view key, std::string_view value) {
                        found->emplace_back(key, value);
                        return true;
                      });
  };
  std::vector<std::pair<std::string, std::string>> found;
  while (true) {
    RETURN_IF_ERROR(scan('w', &found));
    if (found.empty()) break;
    MetaBatch batch;
    std::vector<Doomed> dead;
    for (const auto& [key, value] : found) {
      Doomed one;
      ASSIGN_OR_RETURN(one.blob.id, IdOfKey(key, 9));
      ASSIGN_OR_RETURN(const Intent intent, DecodeIntent(value));
      one.blob.suffix = intent.suffix;
      one.has_references = intent.borrows;
      batch.ExpectValue(key, value).Delete(key);
      Doom(one, batch);
      dead.push_back(one);
    }
    Result<void> committed = meta_.Commit(names_[partition], batch);
    if (!committed.has_value() && committed.error().code() == Code::kConflict) continue;
    RETURN_IF_ERROR(committed);
    doomed->insert(doomed->end(), dead.begin(), dead.end());
  }
  while (true) {
    RETURN_IF_ERROR(scan('u', &found));
    if (found.empty()) return {};
    std::vector<Digest256> ids;
    for (const auto& [key, value] : found) {
      ASSIGN_OR_RETURN(const Digest256 id, IdOfKey(key, 9));
      ids.push_back(id);
    }
    RETURN_IF_ERROR(DropFromAll(ids, IngestTag(token), doomed));
  }
}

Result<bool> References::Change(const Digest256& id, const Edit& edit) {
  bool changed = false;
  RETURN_IF_ERROR(Commit(PartitionOf(id), [&](MetaBatch& batch) -> Result<void> {
    changed = false;
    ASSIGN_OR_RETURN(std::optional<Record> record, Expect(id, batch));
    if (!record || !edit(*record)) return {};
    changed = true;
    batch.Put(RecordKey(id), EncodeRecord(*record));
    return {};
  }));
  return changed;
}

Result<References::Taken> References::TakeGarbage(size_t partition, size_t limit) {
  Taken taken;
  RETURN_IF_ERROR(Commit(partition, [&](MetaBatch& batch) -> Result<void> {
    taken = {};
    std::vector<std::string> keys;
    RETURN_IF_ERROR(meta_.Scan(names_[partition], "g", PrefixEnd("g"), limit,
                               [&](std::string_view key, std::string_view) {
                                 keys.emplace_back(key);
                                 return true;
                               }));
    for (const std::string& key : keys) {
      ASSIGN_OR_RETURN(const Digest256 id, IdOfKey(key, 1));
      ASSIGN_OR_RETURN(const std::optional<Record> record, Expect(id, batch));
      batch.Delete(key);
      if (!record || record->count != 0) continue;  // resurrected since the scan
      batch.Delete(RecordKey(id));
      ++taken.records;
      if (record->suffix == 0) continue;
      Doomed dead = BlobOnly({id, record->suffix}, *record);
      dead.has_references |= record->kind == BlobKind::kPage;
      Doom(dead, batch);
      taken.pages += record->kind == BlobKind::kPage;
      taken.chunks += record->kind == BlobKind::kChunk;
    }
    return {};
  }));
  return taken;
}

Result<std::vector<Doomed>> References::ListDoomed(size_t partition, size_t limit) {
  std::vector<Doomed> doomed;
  Result<void> decoded;
  RETURN_IF_ERROR(meta_.Scan(names_[partition], "d", PrefixEnd("d"), limit,
                             [&](std::string_view key, std::string_view value) {
                               Result<Doomed> one = DecodeDoomed(key, value);
                               if (one.has_value())
                                 doomed.push_back(*one);
                               else
                                 decoded = one.error();
                               return one.has_value();
                             }));
  RETURN_IF_ERROR(decoded);
  return doomed;
}

Result<std::vector<Digest256>> References::ListGarbage(size_t partition) {
  return ListMarked(partition, "g", "g", SIZE_MAX);
}

Result<std::vector<Digest256>> References::ListMarked(size_t partition, std::string_view mark,
                                                      const std::string& from, size_t limit) {
  std::vector<Digest256> ids;
  Result<void> decoded;
  RETURN_IF_ERROR(meta_.Scan(names_[partition], from, PrefixEnd(mark), limit,
                             [&](std::string_view key, std::string_view) {
                               const Result<Digest256> id = IdOfKey(key, 1);
                               if (id.has_value())
                                 ids.push_back(*id);
                               else
                                 decoded = id.error();
                               return id.has_value();
                             }));
  RETURN_IF_ERROR(decoded);
  return ids;
}

Result<void> References::ForgetDoomed(std::span<const Doomed> doomed) {
  std::vector<const Doomed*> sorted;
  for (const Doomed& one : doomed) sorted.push_back(&one);
  std::sort(sorted.begin(), sorted.end(),
            [](const Doomed* a, const Doomed* b) { return a->blob.id < b->blob.id; });
  for (size_t i = 0; i < sorted.size();) {
    const size_t partition = PartitionOf(sorted[i]->blob.id);
    MetaBatch batch;
    for (; i < sorted.size() && PartitionOf(sorted[i]->blob.id) == partition; ++i)
      batch.Delete(DoomedKey(sorted[i]->blob));
    RETURN_IF_ERROR(meta_.Commit(names_[partition], batch));
  }
  return {};
}

Result<bool> References::IsKnown(const BlobRef& blob) {
  const size_t partition = PartitionOf(blob.id);
  // Intents first: a blob moves from its intent to its record in one commit, never back; then to a
  // doomed entry.
  bool intended = false;
  RETURN_IF_ERROR(meta_.Scan(names_[partition], "w", PrefixEnd("w"), SIZE_MAX,
                             [&](std::string_view key, std::string_view value) {
                               const Result<Intent> intent = DecodeIntent(value);
                               intended = key.size() == 41 && key.substr(9) == blob.id.view() &&
                                          intent.has_value() && intent->suffix == blob.suffix;
                               return !intended;
                             }));
  if (intended) return true;
  ASSIGN_OR_RETURN(const std::optional<Record> record, Find(blob.id));
  if (record && record->suffix == blob.suffix) return true;
  ASSIGN_OR_RETURN(const auto doomed, Value(partition, DoomedKey(blob)));
  return doomed.has_value();
}

Result<std::vector<std::string>> References::Tags(const Digest256& id, std::string_view after,
                                                  size_t limit) {
  const std::string prefix = TagPrefix(id);
  std::string from = prefix + std::string(after);
  if (!after.empty()) from.push_back('\0');
  std::vector<std::string> tags;
  RETURN_IF_ERROR(meta_.Scan(names_[PartitionOf(id)], from, PrefixEnd(prefix), limit,
                             [&](std::string_view key, std::string_view) {
                               tags.emplace_back(key.substr(prefix.size()));
                               return true;
                             }));
  return tags;
}

Result<bool> References::VisitRecords(size_t partition, const RecordVisitor& visit) {
  std::string from = "r";
  while (true) {
    std::vector<std::pair<std::string, std::string>> batch;
    RETURN_IF_ERROR(meta_.Scan(names_[partition], from, PrefixEnd("r"), kScanBatch,
                               [&](std::string_view key, std::string_view value) {
                                 batch.emplace_back(key, value);
                                 return true;
                               }));
    for (const auto& [key, value] : batch) {
      ASSIGN_OR_RETURN(const Digest256 id, IdOfKey(key, 1));
      ASSIGN_OR_RETURN(const Record record, DecodeRecord(value));
      ASSIGN_OR_RETURN(const bool go_on, visit(id, record));
      if (!go_on) return false;
    }
    if (batch.size() < kScanBatch) return true;
    from = batch.back().first + '\0';
  }
}

Result<void> References::Insert(const Digest256& id, const Record& record) {
  MetaBatch batch;
  batch.ExpectAbsent(RecordKey(id)).Put(RecordKey(id), EncodeRecord(record));
  if (record.count == 0) batch.Put(GarbageKey(id), "");
  return meta_.Commit(names_[PartitionOf(id)], batch);
}

}  // namespace chunkstore
