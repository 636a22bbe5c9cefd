#include "chunkstore/ceph/heads.h"

#include <algorithm>
#include <chrono>
#include <random>
#include <thread>
#include <utility>

#include <fmt/format.h>

#include "base/uuid.h"
#include "chunkstore/meta_store.h"

namespace chunkstore::ceph {

using base::Code;
using base::Error;
using base::MutexLock;
using base::Result;

namespace {

constexpr int kMaxAttempts = 400;
constexpr int kMaxWaitMs = 20;
// Beyond this all are forgotten: one read each brings back those in use.
constexpr size_t kMaxLayouts = 10'000;
constexpr size_t kRegistryPage = 512;

Result<Layout> DecodeLayout(const std::string& epoch, const std::string& directory) {
  Layout layout;
  ASSIGN_OR_RETURN(layout.epoch, DecodeNumber(epoch));
  ASSIGN_OR_RETURN(layout.directory, DecodeDirectory(directory));
  return layout;
}

// A head that is made anew has epochs that no earlier one had: who still has a layout of that must
// not take it for one of this.
uint64_t FirstEpoch() {
  std::random_device random;
  return static_cast<uint64_t>(random()) << 31 | random();
}

bool IsConflict(const Result<void>& result) {
  return !result && result.error().code() == Code::kConflict;
}

}  // namespace

bool Attempts::Next() {
  if (++count_ > kMaxAttempts) return false;
  if (count_ <= 2) return true;
  thread_local std::minstd_rand random(std::random_device{}());
  int longest_us = std::min(kMaxWaitMs * 1000, 100 << std::min(count_, 12));
  std::this_thread::sleep_for(
      std::chrono::microseconds(std::uniform_int_distribution<int>(0, longest_us)(random)));
  return true;
}

Error Attempts::GivenUp(std::string_view partition) {
  return Error(
      Code::kUnavailable,
      fmt::format("partition {} changes faster than it can be read: try again later", partition));
}

std::shared_ptr<const Layout> Heads::Cached(std::string_view partition) {
  MutexLock lock(mutex_);
  auto found = layouts_.find(std::string(partition));
  return found == layouts_.end() ? nullptr : found->second;
}

void Heads::Keep(std::string_view partition, std::shared_ptr<const Layout> layout) {
  MutexLock lock(mutex_);
  if (layouts_.size() >= kMaxLayouts) layouts_.clear();
  layouts_[std::string(partition)] = std::move(layout);
}

Result<Head> Heads::Read(std::string_view partition, ObjectRead read) {
  std::shared_ptr<const Layout> layout = Cached(partition);
  read.keys.insert({kEpochKey, kClosedKey, kMovesKey});
  if (layout == nullptr) read.keys.insert(kDirectoryKey);
  for (;;) {
    Result<ObjectView> view = objects_.Read(HeadName(partition), read);
    if (!view && view.error().code() == Code::kNotFound) {
      MutexLock lock(mutex_);
      layouts_.erase(std::string(partition));
      return Head();
    }
    if (!view) return std::move(view).error();
    const std::string* epoch = view->Find(kEpochKey);
    const std::string* directory = view->Find(kDirectoryKey);
    if (epoch == nullptr) return Error(Code::kCorruption, "a head without an epoch");
    if (directory == nullptr && read.keys.contains(kDirectoryKey)) {
      return Error(Code::kCorruption, "a head without a directory");
    }
    if (directory != nullptr) {
      ASSIGN_OR_RETURN(Layout read_now, DecodeLayout(*epoch, *directory));
      layout = std::make_shared<const Layout>(std::move(read_now));
      Keep(partition, layout);
    }
    if (EncodeNumber(layout->epoch) == *epoch) {
      bool open = view->Find(kClosedKey) == nullptr;
      return Head{.open = open, .layout = std::move(layout), .view = std::move(*view)};
    }
    read.keys.insert(kDirectoryKey);
  }
}

Result<void> Heads::Open(std::string_view partition) {
  ObjectWrite make;
  make.create = true;
  make.set = {{kEpochKey, EncodeNumber(FirstEpoch())},
              {kDirectoryKey, EncodeDirectory({})},
              {kClosedKey, kClosed}};
  for (Attempts attempts; attempts.Next();) {
    Result<void> made = objects_.Write(HeadName(partition), make);
    if (!made && made.error().code() != Code::kAlreadyExists) return made;
    ASSIGN_OR_RETURN(Head head, Read(partition, {}));
    if (head.layout == nullptr) continue;  // retired meanwhile
    if (head.open) return {};
    ObjectWrite enter;
    enter.set = {{StoredKey(partition), base::NewUuidHex()}};
    RETURN_IF_ERROR(objects_.Write(kRegistryName, enter).Annotate("register a partition"));
    ObjectWrite open;
    open.expected = {{kEpochKey, EncodeNumber(head.layout->epoch)}, {kClosedKey, kClosed}};
    open.set = {{kEpochKey, EncodeNumber(head.layout->epoch + 1)}};
    open.remove = {kClosedKey};
    Result<void> opened = objects_.Write(HeadName(partition), open);
    if (opened) return {};
    if (!IsConflict(opened) && opened.error().code() != Code::kNotFound) return opened;
  }
  return Attempts::GivenUp(partition);
}

Result<std::map<std::string, std::string>> Heads::Registered(std::string_view prefix) {
  std::map<std::string, std::string> names;
  ObjectRead read;
  read.page = kRegistryPage;
  read.after = BeforeKey(prefix);
  for (;;) {
    Result<ObjectView> view = objects_.Read(kRegistryName, read);
    if (!view && view.error().code() == Code::kNotFound) return names;
    if (!view) return std::move(view).error();
    for (auto& [stored, registration] : view->page) {
      ASSIGN_OR_RETURN(std::string name, KeyOf(stored));
      if (!name.starts_with(prefix)) return names;
      names.emplace(std::move(name), std::move(registration));
    }
    if (!view->more || view->page.empty()) return names;
    read.after = view->page.back().first;
  }
}

Result<void> Heads::Retire(std::string_view partition, const std::string& registration) {
  ObjectRead one_key;
  one_key.page = 1;
  one_key.after = BeforeKey("");
  ASSIGN_OR_RETURN(Head head, Read(partition, one_key));
  ObjectWrite leave;
  leave.expected = {{StoredKey(partition), registration}};
  leave.remove = {StoredKey(partition)};
  if (head.layout == nullptr) {
    // Whoever makes it will register it after that.
    Result<void> left = objects_.Write(kRegistryName, leave);
    return IsConflict(left) ? Result<void>() : left;
  }
  const Directory& directory = head.layout->directory;
  if (!head.view.page.empty() || !directory.shards.empty() || !directory.pending.empty()) return {};
  const std::string epoch = EncodeNumber(head.layout->epoch + 1);
  ObjectWrite close;
  close.version = head.view.version;
  close.set = {{kEpochKey, epoch}, {kClosedKey, kClosed}};
  Result<void> done = objects_.Write(HeadName(partition), close);
  if (done) done = objects_.Write(kRegistryName, leave);
  if (done) {
    ObjectWrite remove;
    remove.expected = {{kEpochKey, epoch}, {kClosedKey, kClosed}};
    remove.remove_object = true;
    done = objects_.Write(HeadName(partition), remove);
  }
  bool was_late = IsConflict(done) || (!done && done.error().code() == Code::kNotFound);
  return was_late ? Result<void>() : done;
}

}  // namespace chunkstore::ceph
