#include "chunkstore/ceph/omap_format.h"

#include <algorithm>
#include <utility>

#include <fmt/format.h>

#include "base/check.h"
#include "base/coding.h"
#include "base/uuid.h"

namespace chunkstore::ceph {

using base::Code;
using base::Error;
using base::Result;

namespace {

constexpr uint8_t kDirectoryVersion = 1;

// In stored keys: bytes 00 and 01 are two bytes, and this alone is the end.
constexpr char kEscape = '\x01';
constexpr char kZero = '\x01';  // after kEscape
constexpr char kOne = '\x02';   // after kEscape

Error Damaged(std::string_view what) {
  return Error(Code::kCorruption, fmt::format("the metadata's {} is damaged", what));
}

bool IsPlain(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' ||
         c == '_' || c == '/' || c == '.';
}

std::string Printable(std::string_view partition) {
  std::string text;
  for (char c : partition) {
    if (IsPlain(c)) {
      text.push_back(c);
    } else {
      text += fmt::format("%{:02x}", static_cast<uint8_t>(c));
    }
  }
  return text;
}

void PutRange(std::string* out, const Range& range) {
  base::PutString(out, range.from);
  base::PutFixed<uint8_t>(out, range.to ? 1 : 0);
  if (range.to) base::PutString(out, *range.to);
}

Result<Range> TakeRange(base::Decoder& in) {
  Range range;
  ASSIGN_OR_RETURN(range.from, in.String());
  ASSIGN_OR_RETURN(uint8_t has_end, in.Fixed<uint8_t>());
  if (has_end > 1) return Damaged("range");
  if (has_end == 1) {
    ASSIGN_OR_RETURN(range.to, in.String());
  }
  return range;
}

Result<void> CheckShards(const std::vector<Directory::Shard>& shards) {
  for (size_t i = 0; i < shards.size(); ++i) {
    const Range& range = shards[i].range;
    bool begins = i == 0 ? range.from.empty() : shards[i - 1].range.to == range.from;
    bool ends = i + 1 == shards.size() ? !range.to : range.to && *range.to > range.from;
    if (!begins || !ends || shards[i].object.empty()) return Damaged("directory");
  }
  return {};
}

}  // namespace

std::string HeadName(std::string_view partition) { return "meta.head." + Printable(partition); }

std::string NewShardName(std::string_view partition) {
  return fmt::format("meta.shard.{}.{}", Printable(partition), base::NewUuidHex());
}

std::string BeforeKey(std::string_view key) {
  std::string stored = "k";
  stored.reserve(key.size() + 2);
  for (char c : key) {
    if (c == '\0' || c == '\x01') {
      stored.push_back(kEscape);
      stored.push_back(c == '\0' ? kZero : kOne);
    } else {
      stored.push_back(c);
    }
  }
  return stored;
}

std::string StoredKey(std::string_view key) { return BeforeKey(key) + kEscape; }

Result<std::string> KeyOf(std::string_view stored) {
  if (stored.size() < 2 || stored.front() != 'k' || stored.back() != kEscape) return Damaged("key");
  stored = stored.substr(1, stored.size() - 2);
  std::string key;
  key.reserve(stored.size());
  for (size_t i = 0; i < stored.size(); ++i) {
    if (stored[i] != kEscape) {
      key.push_back(stored[i]);
      continue;
    }
    if (++i == stored.size() || (stored[i] != kZero && stored[i] != kOne)) return Damaged("key");
    key.push_back(stored[i] == kZero ? '\0' : '\x01');
  }
  return key;
}

std::string StoredValue(std::string_view value) { return fmt::format("v{}", value); }

Result<void> CheckStored(std::string_view stored) {
  if (stored.starts_with('v') || IsTombstone(stored)) return {};
  return Damaged("value");
}

std::string EncodeNumber(uint64_t number) {
  std::string stored;
  base::PutOrdered64(&stored, number);
  return stored;
}

Result<uint64_t> DecodeNumber(std::string_view stored) {
  if (stored.size() != sizeof(uint64_t)) return Damaged("number");
  uint64_t number = 0;
  for (char c : stored) number = number << 8 | static_cast<uint8_t>(c);
  return number;
}

std::string EncodeRange(const Range& range) {
  std::string stored;
  PutRange(&stored, range);
  return stored;
}

Result<Range> DecodeRange(std::string_view stored) {
  base::Decoder in(stored);
  ASSIGN_OR_RETURN(Range range, TakeRange(in));
  RETURN_IF_ERROR(in.ExpectEnd());
  return range;
}

const Directory::Shard& Directory::ShardOf(std::string_view key) const {
  auto after = std::upper_bound(
      shards.begin(), shards.end(), key,
      [](std::string_view wanted, const Shard& shard) { return wanted < shard.range.from; });
  CHECK(after != shards.begin());
  return *(after - 1);
}

std::string EncodeDirectory(const Directory& directory) {
  std::string stored;
  base::PutFixed<uint8_t>(&stored, kDirectoryVersion);
  base::PutVarint(&stored, directory.shards.size());
  for (const Directory::Shard& shard : directory.shards) {
    PutRange(&stored, shard.range);
    base::PutString(&stored, shard.object);
  }
  base::PutVarint(&stored, directory.pending.size());
  for (const std::string& object : directory.pending) base::PutString(&stored, object);
  base::PutString(&stored, directory.owner);
  base::PutVarint(&stored, directory.lease_until_ms);
  return stored;
}

Result<Directory> DecodeDirectory(std::string_view stored) {
  base::Decoder in(stored);
  ASSIGN_OR_RETURN(uint8_t version, in.Fixed<uint8_t>());
  if (version != kDirectoryVersion) {
    return Error(Code::kCorruption,
                 fmt::format("a directory of version {}: this program knows version {}", version,
                             kDirectoryVersion));
  }
  Directory directory;
  ASSIGN_OR_RETURN(uint64_t shards, in.Varint());
  for (uint64_t i = 0; i < shards; ++i) {
    Directory::Shard shard;
    ASSIGN_OR_RETURN(shard.range, TakeRange(in));
    ASSIGN_OR_RETURN(shard.object, in.String());
    directory.shards.push_back(std::move(shard));
  }
  RETURN_IF_ERROR(CheckShards(directory.shards));
  ASSIGN_OR_RETURN(uint64_t pending, in.Varint());
  for (uint64_t i = 0; i < pending; ++i) {
    ASSIGN_OR_RETURN(std::string_view object, in.String());
    directory.pending.emplace_back(object);
  }
  ASSIGN_OR_RETURN(directory.owner, in.String());
  ASSIGN_OR_RETURN(directory.lease_until_ms, in.Varint());
  RETURN_IF_ERROR(in.ExpectEnd());
  return directory;
}

}  // namespace chunkstore::ceph
