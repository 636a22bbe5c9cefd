#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <unordered_map>
#include <vector>

#include "base/bytes.h"
#include "base/result.h"
#include "base/thread_annotations.h"
#include "chunkstore/layers/block_source.h"
#include "chunkstore/layers/cache_format.h"

namespace chunkstore::layers {

// A block on its way: one fetches it, others wait for it.
class Flight {
 public:
  Flight(const BlockSource* source, const BlockInfo& info) : source_(source), info_(info) {}

  const BlockSource* source() const { return source_; }
  // The block that is coming; another with this name is not what a waiter wants.
  const BlockInfo& info() const { return info_; }

  // Once, by its owner: it has come, verified, or it has not.
  void Land(std::vector<uint8_t> plain);
  void Fail(base::Error error);
  bool done() const;

  // Blocks. The plain bytes stay as long as the flight.
  base::Result<base::ByteView> Wait();
  // Blocks until its owner has ended it: from then on another can be begun.
  void WaitEnded();

 private:
  friend class Flights;
  const BlockSource* const source_;
  const BlockInfo info_;
  mutable base::Mutex mutex_;
  base::CondVar changed_;
  bool done_ GUARDED_BY(mutex_) = false;
  bool ended_ GUARDED_BY(mutex_) = false;
  std::vector<uint8_t> plain_ GUARDED_BY(mutex_);
  std::optional<base::Error> error_ GUARDED_BY(mutex_);
};

// All blocks on their way, by key. Thread-safe.
class Flights {
 public:
  struct Claim {
    std::shared_ptr<Flight> flight;  // null: the block is on disk
    bool ours = false;               // to fetch, to land or fail, and to end
  };
  // Whoever owns a flight ends it only after the block is on disk, so that between the two nobody
  // fetches it again: `on_disk` is asked while nobody can end one.
  template <typename OnDisk>
  Claim Join(const BlockSource& source, const BlockInfo& info, const OnDisk& on_disk) {
    const BlockKey key = KeyOf(info.name);
    base::MutexLock lock(mutex_);
    const auto it = flights_.find(key);
    if (it != flights_.end()) return {it->second, false};
    if (on_disk()) return {};
    auto flight = std::make_shared<Flight>(&source, info);
    flights_.emplace(key, flight);
    return {std::move(flight), true};
  }
  void End(std::span<const std::shared_ptr<Flight>> flights);

 private:
  base::Mutex mutex_;
  std::unordered_map<BlockKey, std::shared_ptr<Flight>> flights_ GUARDED_BY(mutex_);
};

}  // namespace chunkstore::layers
