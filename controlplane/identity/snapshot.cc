#include "controlplane/identity/snapshot.h"

#include <algorithm>
#include <utility>

namespace controlplane::identity {

RecordPtr Snapshot::Get(Kind kind, std::string_view id) const {
  const RecordPtr* found = records_[static_cast<size_t>(kind)].Find(id);
  return found == nullptr ? nullptr : *found;
}

std::vector<RecordPtr> Snapshot::All(Kind kind) const {
  std::vector<RecordPtr> all;
  records_[static_cast<size_t>(kind)].ForEach(
      [&](const std::string&, const RecordPtr& record) { all.push_back(record); });
  std::sort(all.begin(), all.end(),
            [](const RecordPtr& a, const RecordPtr& b) { return a->id < b->id; });
  return all;
}

std::vector<RecordPtr> Snapshot::Where(Index index,
                                       std::initializer_list<std::string_view> values) const {
  std::vector<RecordPtr> matches;
  const Ids* ids = indexes_[static_cast<size_t>(index)].Find(IndexKey(values));
  if (ids == nullptr) return matches;
  for (const std::string& id : *ids) matches.push_back(Get(DefinitionOf(index).kind, id));
  return matches;
}

RecordPtr Snapshot::Named(Index index, std::string_view within, std::string_view name) const {
  std::vector<RecordPtr> matches = Where(index, {within, name});
  return matches.empty() ? nullptr : matches.front();
}

void Snapshot::Put(RecordPtr record) {
  SharedMap<RecordPtr>& table = records_[static_cast<size_t>(record->kind)];
  if (const RecordPtr* before = table.Find(record->id); before != nullptr)
    ChangeIndexes(**before, false);
  else
    ++size_;
  ChangeIndexes(*record, true);
  std::string id = record->id;
  table.Set(id, std::move(record));
}

void Snapshot::Remove(Kind kind, const std::string& id) {
  SharedMap<RecordPtr>& table = records_[static_cast<size_t>(kind)];
  const RecordPtr* before = table.Find(id);
  if (before == nullptr) return;
  ChangeIndexes(**before, false);
  table.Remove(id);
  --size_;
}

void Snapshot::ChangeIndexes(const Record& record, bool add) {
  for (size_t i = 0; i < kIndexes; ++i) {
    const IndexDefinition& definition = DefinitionOf(static_cast<Index>(i));
    if (definition.kind != record.kind) continue;
    std::string key = IndexKey(definition, record.body);
    Ids& ids = indexes_[i].Mutable(key);
    if (add)
      ids.insert(record.id);
    else
      ids.erase(record.id);
    if (ids.empty()) indexes_[i].Remove(key);
  }
}

}  // namespace controlplane::identity
