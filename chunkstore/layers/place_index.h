#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <memory>
#include <optional>

#include "chunkstore/layers/cache_format.h"

namespace chunkstore::layers {

// Where a block's stored bytes lie in the file of blocks. Value type.
struct Place {
  uint64_t offset = 0;
  uint32_t length = 0;
  bool operator==(const Place&) const = default;
};

// Which blocks are on disk and where, in memory: 16 bytes a block and what a hash table of open
// addressing leaves empty, 18 to 39 bytes in all. With each stands whether it was used since it
// entered its queue, and whether it was brought before anybody read it. Thread-safe: stripes with a
// mutex each, held for one look-up.
class PlaceIndex {
 public:
  PlaceIndex();
  ~PlaceIndex();

  struct Found {
    Place place;
    bool used = false;
    bool ahead = false;
  };
  std::optional<Found> Find(BlockKey key) const;
  // Replaces what was there. Unused. `ahead`: nobody has read it yet.
  void Put(BlockKey key, const Place& place, bool ahead = false);
  // These do nothing, and say so, unless the block still lies at `place`.
  bool SetUsed(BlockKey key, const Place& place, bool used);
  bool Move(BlockKey key, const Place& place, const Place& to);  // unused from now on
  bool ClearAhead(BlockKey key, const Place& place);             // and it was ahead
  bool Erase(BlockKey key, const Place& place);

  uint64_t blocks() const { return blocks_.load(std::memory_order_relaxed); }
  uint64_t bytes() const { return bytes_.load(std::memory_order_relaxed); }  // stored

 private:
  struct Stripe;
  Stripe& StripeOf(BlockKey key) const;

  const std::unique_ptr<Stripe[]> stripes_;
  std::atomic<uint64_t> blocks_ = 0;
  std::atomic<uint64_t> bytes_ = 0;
};

}  // namespace chunkstore::layers
