#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

// How metadata lies in objects; README.md tells why. All of it is read back as hostile input.
//
// A partition's head is the object HeadName(partition). Its omap has
//   E   the epoch: 8 bytes, big-endian; begins anywhere, and every change of D or X adds one
//   D   the directory
//   X   "1" while nobody may commit here (a partition that is being made or retired); else absent
//   M   the moves: 8 bytes, another number whenever keys went from here to a shard; absent before
//   k.. recent keys (StoredKey), each with 'v' and the value, or with 't': it is deleted
// A shard has
//   G   the epoch at which its spiller took office: nobody else may write
//   R   its range of keys: the directory's, or a larger one that a split did not live to cut
//   C   8 bytes: at least so many keys are in it
//   k.. keys, each with 'v' and the value
// The registry, one object, has a key (StoredKey of the partition's name) with a random value each
// for partitions that have a head.

namespace chunkstore::ceph {

inline const std::string kEpochKey = "E";
inline const std::string kDirectoryKey = "D";
inline const std::string kClosedKey = "X";
inline const std::string kMovesKey = "M";
inline const std::string kGuardKey = "G";
inline const std::string kRangeKey = "R";
inline const std::string kCountKey = "C";
inline const std::string kRegistryName = "meta.registry";

inline const std::string kClosed = "1";
inline const std::string kTombstone = "t";

// Printable for names that are.
std::string HeadName(std::string_view partition);
std::string NewShardName(std::string_view partition);

// Sorts as keys do. Without NUL, because librados's C interface takes strings that end there.
std::string StoredKey(std::string_view key);
// kCorruption if it is none.
base::Result<std::string> KeyOf(std::string_view stored);
// What a page begins after to begin with `key`, and where [.., key) ends: no stored key equals it.
std::string BeforeKey(std::string_view key);
// After all stored keys.
inline const std::string kAfterKeys = "l";

std::string StoredValue(std::string_view value);
inline bool IsTombstone(std::string_view stored) { return stored == kTombstone; }
// kCorruption for what is neither value nor tombstone.
base::Result<void> CheckStored(std::string_view stored);

std::string EncodeNumber(uint64_t number);
base::Result<uint64_t> DecodeNumber(std::string_view stored);

// Keys in [from, to); without `to`, to the end.
struct Range {
  std::string from;
  std::optional<std::string> to;
  bool Contains(std::string_view key) const { return key >= from && (!to || key < *to); }
  bool Contains(const Range& other) const {
    return other.from >= from && (!to || (other.to && *other.to <= *to));
  }
};
std::string EncodeRange(const Range& range);
base::Result<Range> DecodeRange(std::string_view stored);

// Which shard has which keys.
struct Directory {
  struct Shard {
    Range range;
    std::string object;
  };
  // In order, without gaps, over all keys; or none, and all keys are in the head.
  std::vector<Shard> shards;
  // Objects that are being made: no part of the partition unless they are among `shards`, and
  // garbage when their maker is gone.
  std::vector<std::string> pending;
  // The spiller at work, and until when others leave it alone (ms since 1970; both may lie).
  std::string owner;
  uint64_t lease_until_ms = 0;

  // REQUIRES: there are shards.
  const Shard& ShardOf(std::string_view key) const;
};
std::string EncodeDirectory(const Directory& directory);
base::Result<Directory> DecodeDirectory(std::string_view stored);

}  // namespace chunkstore::ceph
