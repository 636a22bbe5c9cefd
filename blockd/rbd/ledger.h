#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/result.h"
#include "blockd/rbd/records.h"
#include "chunkstore/meta_store.h"

namespace blockd::rbd {

class Ledger;

// One change of the records: what it reads is remembered and must still be so when it commits. One
// thread.
class Change {
 public:
  explicit Change(Ledger& ledger) : ledger_(ledger) {}

  // As this change leaves it; nothing: not there.
  template <typename Record>
  base::Result<std::optional<Record>> Find(const std::string& id) {
    ASSIGN_OR_RETURN(Entry * entry, Read(KeyOf<Record>(id)));
    if (!entry->is) return std::optional<Record>();
    Record record;
    RETURN_IF_ERROR(Decode(*entry->is, &record));
    return std::optional<Record>(std::move(record));
  }
  // The same of what another record names: kCorruption if it is not there.
  template <typename Record>
  base::Result<Record> Get(const std::string& id) {
    ASSIGN_OR_RETURN(std::optional<Record> found, Find<Record>(id));
    if (!found) return Missing(KeyOf<Record>(id));
    return std::move(*found);
  }
  template <typename Record>
  void Put(const std::string& id, const Record& record) {
    Set(KeyOf<Record>(id), Encode(record));
  }
  template <typename Record>
  void Delete(const std::string& id) {
    Set(KeyOf<Record>(id), std::nullopt);
  }

  // Marks of work: `kind` is one of the prefixes in records.h.
  void Mark(std::string_view kind, const std::string& id, const std::string& value = "");
  void Unmark(std::string_view kind, const std::string& id);
  // A mark of which each is another one, so that a new one is not taken off for an old one.
  void MarkAnew(std::string_view kind, const std::string& id);

  // One use less; with the last the point goes, and with it what only it used.
  base::Result<void> DropUse(const std::string& point);
  base::Result<void> AddUse(const std::string& point);
  // The RBD snapshot of a point is to go; with the last one, perhaps its image.
  base::Result<void> DropSnap(const std::string& point);
  // The volume leaves its image.
  base::Result<void> LeaveImage(const std::string& image);
  // An image that is being made, or that nobody needs, is to go.
  base::Result<void> GiveUpImage(const std::string& image);

 private:
  friend class Ledger;
  struct Entry {
    bool read = false;  // `was` is what the store had
    bool changed = false;
    std::optional<std::string> was;
    std::optional<std::string> is;
  };
  base::Result<Entry*> Read(const std::string& key);
  void Set(const std::string& key, std::optional<std::string> value);
  static base::Error Missing(const std::string& key);
  base::Result<void> DropPoint(const std::string& point, const PointRecord& record);
  base::Result<void> LeavePointOn(const std::string& image);
  base::Result<void> GoIfUnused(const std::string& id, ImageRecord image);
  base::Result<void> Go(const std::string& id, ImageRecord image);

  Ledger& ledger_;
  std::map<std::string, Entry> entries_;
};

// The records of a pool. Thread-safe, also with other processes.
class Ledger {
 public:
  // `meta` is borrowed.
  Ledger(chunkstore::MetaStore& meta, std::string partition)
      : meta_(meta), partition_(std::move(partition)) {}

  // Lets `fill` make a change and commits it, durably; from the start again where another process
  // changed what it read. An error of `fill` is the outcome; nothing changed then.
  using Fill = std::function<base::Result<void>(Change& change)>;
  base::Result<void> Update(const Fill& fill);

  // Outside of changes: as it is now.
  template <typename Record>
  base::Result<std::optional<Record>> Find(const std::string& id) {
    return Change(*this).Find<Record>(id);
  }
  // By id; `limit` of them.
  struct Named {
    std::string id;
    std::string value;
  };
  base::Result<std::vector<Named>> List(std::string_view prefix, size_t limit = SIZE_MAX);
  template <typename Record>
  base::Result<std::map<std::string, Record>> All() {
    ASSIGN_OR_RETURN(const std::vector<Named> listed, List(Record::kPrefix));
    std::map<std::string, Record> all;
    for (const Named& named : listed) RETURN_IF_ERROR(Decode(named.value, &all[named.id]));
    return all;
  }
  // Takes a mark off if it is still this one. What fails stays marked.
  void TakeOff(std::string_view kind, const Named& mark);

 private:
  friend class Change;
  base::Result<void> Commit(const Change& change);

  chunkstore::MetaStore& meta_;
  const std::string partition_;
};

}  // namespace blockd::rbd
