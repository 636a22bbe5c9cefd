#include "chunkstore/ceph/spiller.h"

#include <algorithm>
#include <utility>

#include "base/uuid.h"

namespace chunkstore::ceph {

using base::Code;
using base::Error;
using base::Result;

namespace {

// Of one write; OSDs refuse 90 MiB by default.
constexpr size_t kMaxMoveBytes = 8 * 1024 * 1024;
// A head's keys that change while they are moved stay there.
constexpr int kRemoveTries = 3;

bool IsCode(const Result<void>& result, Code code) {
  return !result && result.error().code() == code;
}

Error Overtaken() { return Error(Code::kConflict, "another process moves these keys now"); }

}  // namespace

Spiller::Spiller(Objects& objects, Heads& heads, const base::Clock& clock,
                 const CephMetaOptions& options, std::string_view partition)
    : objects_(objects),
      heads_(heads),
      clock_(clock),
      options_(options),
      partition_(partition),
      head_(HeadName(partition)),
      owner_(base::NewUuidHex()) {}

Result<void> Spiller::Run(const std::function<bool()>& stop) {
  ASSIGN_OR_RETURN(bool is_large, HeadIsLarge());
  if (!is_large) return {};
  ASSIGN_OR_RETURN(bool in_office, TakeOffice());
  if (!in_office) return {};
  RETURN_IF_ERROR(RemovePending());
  RETURN_IF_ERROR(MoveAll(stop));
  std::vector<std::string> touched;
  for (const auto& [object, shard] : entered_) {
    if (shard.keys > options_.shard_keys) touched.push_back(object);
  }
  for (const std::string& object : touched) {
    if (stop()) break;
    RETURN_IF_ERROR(SplitIfLarge(object));
  }
  Directory directory = directory_;
  directory.owner.clear();
  directory.pending.clear();
  return WriteDirectory(std::move(directory));
}

Result<void> Spiller::WriteMine(const std::string& object, const ObjectWrite& write) {
  Result<void> written = objects_.Write(object, write);
  // An object that is gone was removed by somebody who took over.
  if (IsCode(written, Code::kConflict) || IsCode(written, Code::kNotFound)) return Overtaken();
  return written;
}

Result<bool> Spiller::HeadIsLarge() {
  ObjectRead read;
  read.page = options_.page_keys;
  read.after = BeforeKey("");
  for (size_t keys = 0;;) {
    ASSIGN_OR_RETURN(Head head, heads_.Read(partition_, read));
    if (!head.open) return false;
    keys += head.view.page.size();
    if (keys > options_.head_keys) return true;
    if (!head.view.more || head.view.page.empty()) return false;
    read.after = head.view.page.back().first;
  }
}

Result<bool> Spiller::TakeOffice() {
  ObjectRead read;
  read.keys = {kDirectoryKey};
  ASSIGN_OR_RETURN(Head head, heads_.Read(partition_, std::move(read)));
  if (!head.open) return false;
  const std::string* moves = head.view.Find(kMovesKey);
  moves_ = 0;
  if (moves != nullptr) {
    ASSIGN_OR_RETURN(moves_, DecodeNumber(*moves));
  }
  epoch_ = head.layout->epoch;
  directory_ = head.layout->directory;
  const auto now_ms = static_cast<uint64_t>(clock_.NowUs() / 1000);
  if (!directory_.owner.empty() && now_ms < directory_.lease_until_ms) return false;
  Directory directory = directory_;
  directory.owner = owner_;
  Result<void> taken = WriteDirectory(std::move(directory));
  if (IsCode(taken, Code::kConflict)) return false;
  if (!taken) return std::move(taken).error();
  mark_ = EncodeNumber(epoch_);
  return true;
}

Result<void> Spiller::WriteDirectory(Directory directory) {
  directory.lease_until_ms = static_cast<uint64_t>(
      clock_.NowUs() / 1000 + (directory.owner.empty() ? 0 : options_.lease_ms));
  ObjectWrite write;
  write.expected = {{kEpochKey, EncodeNumber(epoch_)}, {kClosedKey, ""}};
  write.set = {{kEpochKey, EncodeNumber(epoch_ + 1)}, {kDirectoryKey, EncodeDirectory(directory)}};
  RETURN_IF_ERROR(WriteMine(head_, write));
  ++epoch_;
  directory_ = std::move(directory);
  return {};
}

Result<void> Spiller::RemovePending() {
  if (directory_.pending.empty()) return {};
  for (const std::string& object : directory_.pending) {
    ObjectWrite remove;
    remove.remove_object = true;
    Result<void> removed = objects_.Write(object, remove);
    if (!removed && removed.error().code() != Code::kNotFound) return removed;
  }
  Directory directory = directory_;
  directory.pending.clear();
  return WriteDirectory(std::move(directory));
}

// Keys and all, in the order in which a crash does no harm: named as pending, made, filled by the
// caller, and only then in the directory.
Result<void> Spiller::MakeShard(const Directory::Shard& shard, uint64_t keys) {
  Directory directory = directory_;
  directory.pending = {shard.object};
  RETURN_IF_ERROR(WriteDirectory(std::move(directory)));
  ObjectWrite make;
  make.create = true;
  make.set = {
      {kGuardKey, mark_}, {kRangeKey, EncodeRange(shard.range)}, {kCountKey, EncodeNumber(keys)}};
  RETURN_IF_ERROR(WriteMine(shard.object, make));
  entered_[shard.object].keys = keys;
  return {};
}

Result<void> Spiller::MakeFirstShard() {
  Directory::Shard shard{.range = {}, .object = NewShardName(partition_)};
  RETURN_IF_ERROR(MakeShard(shard, 0));
  Directory directory = directory_;
  directory.shards = {shard};
  directory.pending.clear();
  return WriteDirectory(std::move(directory));
}

Result<void> Spiller::MoveAll(const std::function<bool()>& stop) {
  if (directory_.shards.empty()) RETURN_IF_ERROR(MakeFirstShard());
  ObjectRead read;
  read.page = std::max<size_t>(1, options_.page_keys / 2);
  read.after = BeforeKey("");
  for (;;) {
    if (stop()) return {};
    ASSIGN_OR_RETURN(ObjectView view, objects_.Read(head_, read));
    if (view.page.empty()) return {};
    read.after = view.page.back().first;
    std::vector<Entry> entries;
    const Directory::Shard* target = nullptr;
    size_t bytes = 0;
    for (Entry& entry : view.page) {
      ASSIGN_OR_RETURN(std::string key, KeyOf(entry.first));
      const Directory::Shard* shard = &directory_.ShardOf(key);
      if (!entries.empty() && (shard != target || bytes > kMaxMoveBytes)) {
        RETURN_IF_ERROR(Move(*target, entries));
        entries.clear();
        bytes = 0;
      }
      target = shard;
      bytes += entry.first.size() + entry.second.size();
      entries.push_back(std::move(entry));
    }
    if (!entries.empty()) RETURN_IF_ERROR(Move(*target, entries));
    if (!view.more) return {};
  }
}

ObjectWrite Spiller::ToShard() const {
  ObjectWrite write;
  write.expected = {{kGuardKey, mark_}};
  return write;
}

Result<void> Spiller::Enter(const Directory::Shard& shard) {
  if (entered_.contains(shard.object)) return {};
  ObjectRead read;
  read.keys = {kGuardKey, kRangeKey, kCountKey};
  ASSIGN_OR_RETURN(ObjectView view, objects_.Read(shard.object, read));
  const std::string* mark = view.Find(kGuardKey);
  const std::string* range = view.Find(kRangeKey);
  const std::string* count = view.Find(kCountKey);
  if (mark == nullptr || range == nullptr || count == nullptr) {
    return Error(Code::kCorruption, "a shard without its marks: " + shard.object);
  }
  // A later one was here: we are the one who was left behind.
  if (*mark > mark_) return Overtaken();
  ASSIGN_OR_RETURN(uint64_t keys, DecodeNumber(*count));
  ObjectWrite write;
  write.expected = {{kGuardKey, *mark}};
  write.set = {{kGuardKey, mark_}, {kRangeKey, EncodeRange(shard.range)}};
  if (*range != EncodeRange(shard.range)) {
    // Its upper half went to another shard, and who split it did not live to cut it off.
    if (!shard.range.to) return Error(Code::kCorruption, "a shard with a wrong range");
    write.remove_range = {BeforeKey(*shard.range.to), kAfterKeys};
  }
  RETURN_IF_ERROR(WriteMine(shard.object, write));
  entered_[shard.object].keys = keys;
  return {};
}

Result<void> Spiller::Move(const Directory::Shard& to, const std::vector<Entry>& entries) {
  RETURN_IF_ERROR(Enter(to));
  uint64_t& keys = entered_[to.object].keys;
  ObjectWrite write = ToShard();
  for (const Entry& entry : entries) {
    RETURN_IF_ERROR(CheckStored(entry.second));
    if (IsTombstone(entry.second)) {
      write.remove.insert(entry.first);
    } else {
      write.set.insert(entry);
    }
  }
  keys += write.set.size();
  write.set.emplace(kCountKey, EncodeNumber(keys));
  RETURN_IF_ERROR(WriteMine(to.object, write));
  return RemoveFromHead(entries);
}

Result<void> Spiller::RemoveFromHead(std::vector<Entry> entries) {
  for (int tries = 0; tries < kRemoveTries && !entries.empty(); ++tries) {
    ObjectWrite remove;
    remove.expected = {{kEpochKey, EncodeNumber(epoch_)}};
    // Whoever expects something of a key that was not in the head may have looked for it in the
    // shard before it came there.
    remove.set = {{kMovesKey, EncodeNumber(++moves_)}};
    for (const Entry& entry : entries) {
      remove.expected.insert(entry);
      remove.remove.insert(entry.first);
    }
    Result<void> removed = WriteMine(head_, remove);
    if (!IsCode(removed, Code::kConflict)) return removed;
    ObjectRead read;
    for (const Entry& entry : entries) read.keys.insert(entry.first);
    read.keys.insert(kEpochKey);
    ASSIGN_OR_RETURN(ObjectView view, objects_.Read(head_, read));
    const std::string* epoch = view.Find(kEpochKey);
    if (epoch == nullptr || *epoch != EncodeNumber(epoch_)) return Overtaken();
    std::erase_if(entries, [&view](const Entry& entry) {
      const std::string* now = view.Find(entry.first);
      return now == nullptr || *now != entry.second;
    });
  }
  return {};
}

}  // namespace chunkstore::ceph
