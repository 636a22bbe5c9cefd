#include "chunkstore/layers/place_index.h"

#include <boost/unordered/unordered_flat_map.hpp>

#include "base/check.h"
#include "base/thread_annotations.h"

namespace chunkstore::layers {

using base::MutexLock;

namespace {

constexpr int kStripeBits = 6;
// A place in 64 bits: 44 of offset, 18 of length, one of who came first, one of use.
constexpr int kOffsetShift = 20;
constexpr int kLengthShift = 2;
constexpr uint64_t kMaxOffset = (uint64_t{1} << 44) - 1;
constexpr uint64_t kMaxLength = (uint64_t{1} << 18) - 1;
constexpr uint64_t kUsed = 1;
constexpr uint64_t kAhead = 2;

uint64_t Pack(const Place& place) {
  CHECK(place.offset <= kMaxOffset && place.length <= kMaxLength);
  return place.offset << kOffsetShift | uint64_t{place.length} << kLengthShift;
}

Place Unpack(uint64_t packed) {
  return {.offset = packed >> kOffsetShift,
          .length = static_cast<uint32_t>(packed >> kLengthShift & kMaxLength)};
}

}  // namespace

struct alignas(64) PlaceIndex::Stripe {
  // Null unless the block lies at `place`.
  uint64_t* At(BlockKey key, const Place& place) REQUIRES(mutex) {
    const auto it = places.find(key);
    if (it == places.end() || (it->second & ~(kUsed | kAhead)) != Pack(place)) return nullptr;
    return &it->second;
  }

  base::Mutex mutex;
  boost::unordered_flat_map<BlockKey, uint64_t> places GUARDED_BY(mutex);
};

PlaceIndex::PlaceIndex() : stripes_(std::make_unique<Stripe[]>(size_t{1} << kStripeBits)) {}
PlaceIndex::~PlaceIndex() = default;

PlaceIndex::Stripe& PlaceIndex::StripeOf(BlockKey key) const {
  return stripes_[key >> (64 - kStripeBits)];
}

std::optional<PlaceIndex::Found> PlaceIndex::Find(BlockKey key) const {
  Stripe& stripe = StripeOf(key);
  MutexLock lock(stripe.mutex);
  const auto it = stripe.places.find(key);
  if (it == stripe.places.end()) return std::nullopt;
  return Found{Unpack(it->second), (it->second & kUsed) != 0, (it->second & kAhead) != 0};
}

void PlaceIndex::Put(BlockKey key, const Place& place, bool ahead) {
  const uint64_t packed = Pack(place) | (ahead ? kAhead : 0);
  Stripe& stripe = StripeOf(key);
  MutexLock lock(stripe.mutex);
  const auto [it, added] = stripe.places.try_emplace(key, packed);
  if (added) {
    blocks_.fetch_add(1, std::memory_order_relaxed);
  } else {
    bytes_.fetch_sub(Unpack(it->second).length, std::memory_order_relaxed);
    it->second = packed;
  }
  bytes_.fetch_add(place.length, std::memory_order_relaxed);
}

bool PlaceIndex::SetUsed(BlockKey key, const Place& place, bool used) {
  Stripe& stripe = StripeOf(key);
  MutexLock lock(stripe.mutex);
  uint64_t* packed = stripe.At(key, place);
  if (packed == nullptr) return false;
  *packed = (*packed & ~kUsed) | (used ? kUsed : 0);
  return true;
}

bool PlaceIndex::Move(BlockKey key, const Place& place, const Place& to) {
  CHECK(place.length == to.length);
  Stripe& stripe = StripeOf(key);
  MutexLock lock(stripe.mutex);
  uint64_t* packed = stripe.At(key, place);
  if (packed == nullptr) return false;
  *packed = Pack(to) | (*packed & kAhead);
  return true;
}

bool PlaceIndex::ClearAhead(BlockKey key, const Place& place) {
  Stripe& stripe = StripeOf(key);
  MutexLock lock(stripe.mutex);
  uint64_t* packed = stripe.At(key, place);
  if (packed == nullptr || (*packed & kAhead) == 0) return false;
  *packed &= ~kAhead;
  return true;
}

bool PlaceIndex::Erase(BlockKey key, const Place& place) {
  Stripe& stripe = StripeOf(key);
  MutexLock lock(stripe.mutex);
  if (stripe.At(key, place) == nullptr) return false;
  stripe.places.erase(key);
  blocks_.fetch_sub(1, std::memory_order_relaxed);
  bytes_.fetch_sub(place.length, std::memory_order_relaxed);
  return true;
}

}  // namespace chunkstore::layers
