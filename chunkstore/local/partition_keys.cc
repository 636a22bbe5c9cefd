#include "chunkstore/local/partition_keys.h"

namespace chunkstore::local {

namespace {

constexpr char kEscape = '\x00';
constexpr char kZero = '\xff';  // after kEscape: a byte 00
constexpr char kEnd = '\x01';   // after kEscape: the end of the name

}  // namespace

std::string EscapePartition(std::string_view prefix) {
  std::string escaped;
  escaped.reserve(prefix.size() + 2);
  for (char c : prefix) {
    escaped.push_back(c);
    if (c == kEscape) escaped.push_back(kZero);
  }
  return escaped;
}

std::string PartitionPrefix(std::string_view partition) {
  std::string prefix = EscapePartition(partition);
  prefix.push_back(kEscape);
  prefix.push_back(kEnd);
  return prefix;
}

std::string PartitionEnd(std::string_view partition_prefix) {
  std::string end(partition_prefix);
  end.back() = kEnd + 1;
  return end;
}

std::optional<std::string> PartitionOf(std::string_view stored_key) {
  std::string partition;
  for (size_t i = 0; i < stored_key.size(); ++i) {
    if (stored_key[i] != kEscape) {
      partition.push_back(stored_key[i]);
      continue;
    }
    if (++i == stored_key.size()) break;
    if (stored_key[i] == kEnd) return partition;
    if (stored_key[i] != kZero) break;
    partition.push_back(kEscape);
  }
  return std::nullopt;
}

}  // namespace chunkstore::local
