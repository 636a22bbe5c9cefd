#include <optional>
#include <string>
#include <utility>

#include "chunkstore/references.h"

// Whether a record counts as many tags as there are, beside processes that add and drop them.

namespace chunkstore {
namespace {

using base::Digest256;
using base::Result;

constexpr int kMaxLooks = 5;  // at a count that others change

}  // namespace

Result<References::Counted> References::Count(const Digest256& id) {
  const size_t partition = PartitionOf(id);
  Counted counted;
  const std::string prefix = TagPrefix(id);
  RETURN_IF_ERROR(meta_.Scan(names_[partition], prefix, PrefixEnd(prefix), SIZE_MAX,
                             [&](std::string_view key, std::string_view) {
                               counted.lent += IsBorrowerTag(key.substr(prefix.size()));
                               return ++counted.tags != 0;
                             }));
  RETURN_IF_ERROR(meta_.Scan(names_[partition], "u", PrefixEnd("u"), SIZE_MAX,
                             [&](std::string_view key, std::string_view) {
                               if (key.size() == 41 && key.substr(9) == id.view()) ++counted.tags;
                               return true;
                             }));
  ASSIGN_OR_RETURN(const auto garbage, Value(partition, GarbageKey(id)));
  counted.garbage = garbage.has_value();
  return counted;
}

// Another process may move a reference from one tag to another between the scans, and both are
// missed: so what is wrong is looked at again, until two looks agree.
Result<std::optional<std::string>> References::FindMiscount(const Digest256& id) {
  std::optional<std::pair<Record, Counted>> last;
  for (int look = 0; look < kMaxLooks; ++look) {
    ASSIGN_OR_RETURN(const std::optional<Record> record, Find(id));
    if (!record) break;
    ASSIGN_OR_RETURN(const Counted counted, Count(id));
    if (counted.Fits(*record)) break;
    const std::pair<Record, Counted> now(*record, counted);
    if (last == now)
      return std::optional("counts " + std::to_string(record->count) + " references and has " +
                           std::to_string(counted.tags) +
                           (counted.garbage ? ", marked as garbage" : ", not marked as garbage"));
    last = now;
  }
  return std::optional<std::string>();
}

Result<std::optional<std::string>> References::CheckCount(const Digest256& id, bool repair) {
  ASSIGN_OR_RETURN(const auto problem, FindMiscount(id));
  if (problem && repair) RETURN_IF_ERROR(Recount(id));
  return problem;
}

// First the record begins to tell of every change; if it is still the same after its tags were
// counted, then none came or went meanwhile.
Result<void> References::Recount(const Digest256& id) {
  RETURN_IF_ERROR(Change(id, [](Record& record) {
    ++record.changes;
    return true;
  }));
  return Commit(PartitionOf(id), [&](MetaBatch& batch) -> Result<void> {
    ASSIGN_OR_RETURN(std::optional<Record> record, Expect(id, batch));
    if (!record || record->changes == 0) return {};
    ASSIGN_OR_RETURN(const Counted counted, Count(id));
    record->count = counted.tags;
    record->lent = counted.lent;
    ++record->changes;
    batch.Put(RecordKey(id), EncodeRecord(*record));
    if (counted.tags > 0 && !record->is_wanted()) batch.Put(LenderKey(id), "");
    if (counted.tags == 0)
      batch.Put(GarbageKey(id), "");
    else
      batch.Delete(GarbageKey(id));
    return {};
  });
}

}  // namespace chunkstore
