#include "chunkstore/ceph/scanner.h"

#include <algorithm>
#include <utility>

namespace chunkstore::ceph {

using base::Code;
using base::Error;
using base::Result;

namespace {

// The first key after `key`.
std::string After(std::string key) {
  key.push_back('\0');
  return key;
}

Result<std::deque<Scanner::Entry>> Decode(std::vector<std::pair<std::string, std::string>>&& page) {
  std::deque<Scanner::Entry> entries;
  for (auto& [stored_key, stored] : page) {
    ASSIGN_OR_RETURN(std::string key, KeyOf(stored_key));
    RETURN_IF_ERROR(CheckStored(stored));
    entries.emplace_back(std::move(key), std::move(stored));
  }
  return entries;
}

}  // namespace

Scanner::Scanner(Objects& objects, Heads& heads, std::string_view partition, std::string_view from,
                 std::string_view to, size_t page_keys)
    : objects_(objects),
      heads_(heads),
      partition_(partition),
      to_(to),
      page_keys_(page_keys),
      from_(from),
      at_end_(!to.empty() && to <= from) {}

Result<void> Scanner::ReadHead(size_t count) {
  ObjectRead read;
  read.page = count;
  read.after = BeforeKey(from_);
  ASSIGN_OR_RETURN(Head head, heads_.Read(partition_, std::move(read)));
  head_.clear();
  head_end_.reset();
  if (!head.open) {
    layout_ = std::make_shared<const Layout>();
    return {};
  }
  layout_ = head.layout;
  ASSIGN_OR_RETURN(head_, Decode(std::move(head.view.page)));
  if (head.view.more && !head_.empty()) head_end_ = After(head_.back().first);
  return {};
}

Result<bool> Scanner::ReadShard(size_t count) {
  shard_.clear();
  shard_end_.reset();
  if (layout_->directory.shards.empty()) return true;
  const Directory::Shard& shard = layout_->directory.ShardOf(from_);
  ObjectRead read;
  read.keys = {kRangeKey};
  read.page = count;
  read.after = BeforeKey(from_);
  Result<ObjectView> view = objects_.Read(shard.object, read);
  if (!view && view.error().code() == Code::kNotFound) return false;
  if (!view) return std::move(view).error();
  const std::string* stored_range = view->Find(kRangeKey);
  if (stored_range == nullptr) return Error(Code::kCorruption, "a shard without a range");
  ASSIGN_OR_RETURN(Range range, DecodeRange(*stored_range));
  if (!range.Contains(shard.range)) return false;
  ASSIGN_OR_RETURN(shard_, Decode(std::move(view->page)));
  shard_end_ = shard.range.to;
  if (view->more && !shard_.empty() && shard.range.Contains(shard_.back().first)) {
    shard_end_ = After(shard_.back().first);
  }
  return true;
}

std::vector<Scanner::Entry> Scanner::Merge() {
  std::optional<std::string> end = head_end_;
  if (shard_end_ && (!end || *shard_end_ < *end)) end = shard_end_;
  if (!to_.empty() && (!end || to_ <= *end)) {
    end = to_;
    at_end_ = true;
  }
  if (!end) at_end_ = true;
  auto is_here = [&end](const std::deque<Entry>& entries) {
    return !entries.empty() && (!end || entries.front().first < *end);
  };
  std::vector<Entry> merged;
  while (is_here(head_) || is_here(shard_)) {
    bool from_head =
        is_here(head_) && (!is_here(shard_) || head_.front().first <= shard_.front().first);
    std::deque<Entry>& source = from_head ? head_ : shard_;
    if (from_head && is_here(shard_) && head_.front().first == shard_.front().first) {
      shard_.pop_front();
    }
    auto& [key, stored] = source.front();
    if (!IsTombstone(stored)) merged.emplace_back(std::move(key), stored.substr(1));
    source.pop_front();
  }
  if (end) from_ = *end;
  // What is left of the shard's page is older than the next page of the head may be.
  if (head_end_ && from_ >= *head_end_) layout_ = nullptr;
  return merged;
}

Result<std::vector<Scanner::Entry>> Scanner::Next(size_t count) {
  count = std::min(std::max<size_t>(count, 1), page_keys_);
  for (Attempts attempts; !at_end_ && attempts.Next();) {
    if (layout_ == nullptr) RETURN_IF_ERROR(ReadHead(count));
    ASSIGN_OR_RETURN(bool read, ReadShard(count));
    if (read) return Merge();
    layout_ = nullptr;
  }
  if (at_end_) return std::vector<Entry>();
  return Attempts::GivenUp(partition_);
}

}  // namespace chunkstore::ceph
