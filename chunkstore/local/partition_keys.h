#pragma once

#include <optional>
#include <string>
#include <string_view>

// How partitions lie in the one ordered key space of RocksDB: partition, terminator, key. In the
// partition's name a byte 00 becomes 00 FF, and 00 01 ends it; so partitions sort as their names
// do, none is a prefix of another, and keys within one sort as they are. (FORMAT.md, section 5.)

namespace chunkstore::local {

// What every key of the partition begins with.
std::string PartitionPrefix(std::string_view partition);

// The first key after all keys of the partition with this prefix.
std::string PartitionEnd(std::string_view partition_prefix);

// What the keys of all partitions whose names begin with `prefix` begin with.
std::string EscapePartition(std::string_view prefix);

// The name of the partition that a stored key belongs to; nothing if the key is none of ours.
std::optional<std::string> PartitionOf(std::string_view stored_key);

}  // namespace chunkstore::local
