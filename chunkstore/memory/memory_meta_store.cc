#include "chunkstore/memory/memory_meta_store.h"

#include <algorithm>
#include <random>
#include <utility>

#include <fmt/format.h>

namespace chunkstore {

using base::Code;
using base::Error;
using base::MutexLock;
using base::Result;

namespace {

// Enough that the lock and the search are cheap beside the copying.
constexpr size_t kScanStep = 64;

}  // namespace

Result<std::string> MemoryMetaStore::Get(std::string_view partition, std::string_view key) {
  MutexLock lock(mutex_);
  auto found = partitions_.find(partition);
  if (found != partitions_.end()) {
    auto entry = found->second.keys.find(key);
    if (entry != found->second.keys.end()) return entry->second;
  }
  return Error(Code::kNotFound, fmt::format("no such key in partition {}", partition));
}

MemoryMetaStore::Keys MemoryMetaStore::Copy(std::string_view partition, std::string_view from,
                                            std::string_view to, size_t count, bool reverse) {
  Keys copied;
  MutexLock lock(mutex_);
  auto found = partitions_.find(partition);
  if (found == partitions_.end() || (!to.empty() && to <= from)) return copied;
  auto& keys = found->second.keys;
  auto begin = keys.lower_bound(from);
  auto end = to.empty() ? keys.end() : keys.lower_bound(to);
  while (begin != end && copied.size() < count) {
    copied.push_back(reverse ? *--end : *begin++);
  }
  return copied;
}

Result<void> MemoryMetaStore::Scan(std::string_view partition, std::string_view from,
                                   std::string_view to, size_t limit, const Visitor& visit) {
  std::string next(from);
  while (limit > 0) {
    size_t step = std::min(limit, kScanStep);
    Keys keys = Copy(partition, next, to, step, /*reverse=*/false);
    for (const auto& [key, value] : keys) {
      if (!visit(key, value)) return {};
    }
    if (keys.size() < step) break;
    limit -= step;
    next = keys.back().first + '\0';
  }
  return {};
}

Result<void> MemoryMetaStore::ScanReverse(std::string_view partition, std::string_view from,
                                          std::string_view to, size_t limit, const Visitor& visit) {
  std::string end(to);
  while (limit > 0) {
    size_t step = std::min(limit, kScanStep);
    Keys keys = Copy(partition, from, end, step, /*reverse=*/true);
    for (const auto& [key, value] : keys) {
      if (!visit(key, value)) return {};
    }
    // The empty key is the first of all: an empty `end` would mean the end of the partition.
    if (keys.size() < step || keys.back().first.empty()) break;
    limit -= step;
    end = keys.back().first;
  }
  return {};
}

Result<void> MemoryMetaStore::Commit(std::string_view partition, const MetaBatch& batch) {
  RETURN_IF_ERROR(CheckBatch(partition, batch));
  MutexLock lock(mutex_);
  auto found = partitions_.try_emplace(std::string(partition)).first;
  auto& keys = found->second.keys;
  for (const auto& expected : batch.expectations()) {
    auto entry = keys.find(expected.key);
    bool holds = expected.value ? entry != keys.end() && entry->second == *expected.value
                                : entry == keys.end();
    if (!holds) {
      return Error(Code::kConflict,
                   fmt::format("a key in partition {} is not what was expected", partition));
    }
  }
  Undo undo;
  for (const auto& change : batch.changes()) {
    auto entry = keys.find(change.key);
    undo.push_back({change.key, entry == keys.end() ? std::nullopt
                                                    : std::optional<std::string>(entry->second)});
    if (change.value) {
      keys.insert_or_assign(change.key, *change.value);
    } else if (entry != keys.end()) {
      keys.erase(entry);
    }
  }
  found->second.unsynced.push_back(std::move(undo));
  return {};
}

Result<void> MemoryMetaStore::Sync() {
  MutexLock lock(mutex_);
  for (auto& [name, partition] : partitions_) partition.unsynced.clear();
  return {};
}

Result<std::vector<std::string>> MemoryMetaStore::Partitions(std::string_view prefix) {
  std::vector<std::string> names;
  MutexLock lock(mutex_);
  for (auto it = partitions_.lower_bound(prefix);
       it != partitions_.end() && it->first.starts_with(prefix); ++it) {
    if (!it->second.keys.empty()) names.push_back(it->first);
  }
  return names;
}

void MemoryMetaStore::Crash(uint64_t seed) {
  std::mt19937_64 random(seed);
  MutexLock lock(mutex_);
  for (auto& [name, partition] : partitions_) {
    size_t kept = random() % (partition.unsynced.size() + 1);
    while (partition.unsynced.size() > kept) {
      Undo& undo = partition.unsynced.back();
      for (auto change = undo.rbegin(); change != undo.rend(); ++change) {
        if (change->value) {
          partition.keys.insert_or_assign(change->key, *change->value);
        } else {
          partition.keys.erase(change->key);
        }
      }
      partition.unsynced.pop_back();
    }
    partition.unsynced.clear();
  }
}

}  // namespace chunkstore
