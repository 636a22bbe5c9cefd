#include "chunkstore/layers/cache_format.h"

#include <cstring>

#include "base/check.h"
#include "base/coding.h"
#include "base/hash.h"
#include "chunkstore/blob_format.h"

namespace chunkstore::layers {

using base::Code;
using base::Decoder;
using base::Error;
using base::PutFixed;
using base::Result;

namespace {

constexpr std::string_view kCacheMagic = "QDCF";
constexpr std::string_view kSegmentMagic = "QDCS";
constexpr std::string_view kPinsMagic = "QDCP";
constexpr uint32_t kVersion = 1;
constexpr size_t kCheckBytes = 8;
constexpr size_t kCacheHeadUsed = 24;
constexpr size_t kSegmentHeadUsed = 32;
constexpr size_t kPinBytes = 12;

uint64_t CheckSum(std::string_view bytes) { return base::Xxh3(base::AsBytes(bytes)).low; }

void PutCheckSum(std::string* out) { PutFixed<uint64_t>(out, CheckSum(*out)); }

// What comes before the check sum at the end, if that is right.
std::optional<std::string_view> Checked(std::string_view bytes) {
  if (bytes.size() < kCheckBytes) return std::nullopt;
  const std::string_view body = bytes.substr(0, bytes.size() - kCheckBytes);
  uint64_t sum;
  std::memcpy(&sum, bytes.data() + body.size(), kCheckBytes);
  if (sum != CheckSum(body)) return std::nullopt;
  return body;
}

template <typename T>
T At(std::string_view bytes, size_t offset) {
  T value;
  CHECK(offset + sizeof(value) <= bytes.size());
  std::memcpy(&value, bytes.data() + offset, sizeof(value));
  return value;
}

// The sum also covers what tells one use of the slot from another.
uint64_t EntryCheckSum(std::string_view entry, uint64_t generation, uint64_t slot) {
  std::array<char, 2 * sizeof(uint64_t) + kEntryBytes - kCheckBytes> summed;
  CHECK(entry.size() == kEntryBytes - kCheckBytes);
  std::memcpy(summed.data(), &generation, sizeof(generation));
  std::memcpy(summed.data() + sizeof(generation), &slot, sizeof(slot));
  std::memcpy(summed.data() + 2 * sizeof(uint64_t), entry.data(), entry.size());
  return CheckSum({summed.data(), summed.size()});
}

}  // namespace

BlockKey KeyOf(const BlockName& name) {
  BlockKey key;
  std::memcpy(&key, name.bytes.data(), sizeof(key));
  return key;
}

std::string EncodeCacheHead(uint64_t segment_bytes) {
  std::string out(kCacheMagic);
  PutFixed<uint32_t>(&out, kVersion);
  PutFixed<uint64_t>(&out, segment_bytes);
  PutCheckSum(&out);
  out.resize(kCacheHeadBytes);
  return out;
}

std::optional<uint64_t> DecodeCacheHead(base::ByteView head) {
  const auto body = Checked(base::AsText(head).substr(0, kCacheHeadUsed));
  if (!body || body->size() + kCheckBytes != kCacheHeadUsed || !body->starts_with(kCacheMagic) ||
      At<uint32_t>(*body, 4) != kVersion)
    return std::nullopt;
  const auto segment_bytes = At<uint64_t>(*body, 8);
  if (segment_bytes < kMinSegmentBytes || segment_bytes > kMaxSegmentBytes ||
      segment_bytes % (4 * base::kKiB) != 0)
    return std::nullopt;
  return segment_bytes;
}

std::string EncodeSegmentHead(const SegmentHead& head) {
  std::string out(kSegmentMagic);
  PutFixed<uint32_t>(&out, static_cast<uint32_t>(head.queue));
  PutFixed<uint64_t>(&out, head.generation);
  PutFixed<uint64_t>(&out, head.order);
  PutCheckSum(&out);
  out.resize(kSegmentHeadBytes);
  return out;
}

std::optional<SegmentHead> DecodeSegmentHead(base::ByteView bytes) {
  const auto body = Checked(base::AsText(bytes).substr(0, kSegmentHeadUsed));
  if (!body || body->size() + kCheckBytes != kSegmentHeadUsed || !body->starts_with(kSegmentMagic))
    return std::nullopt;
  const auto queue = At<uint32_t>(*body, 4);
  if (queue != static_cast<uint32_t>(Queue::kSmall) && queue != static_cast<uint32_t>(Queue::kMain))
    return std::nullopt;
  return SegmentHead{.queue = static_cast<Queue>(queue),
                     .generation = At<uint64_t>(*body, 8),
                     .order = At<uint64_t>(*body, 16)};
}

std::string EncodeEntry(const SegmentEntry& entry, uint64_t generation, uint64_t slot) {
  std::string out;
  PutFixed<uint64_t>(&out, entry.key);
  PutFixed<uint32_t>(&out, entry.offset);
  PutFixed<uint32_t>(&out, entry.length);
  PutFixed<uint64_t>(&out, EntryCheckSum(out, generation, slot));
  return out;
}

std::optional<SegmentEntry> DecodeEntry(base::ByteView bytes, uint64_t generation, uint64_t slot,
                                        uint64_t segment_bytes) {
  const std::string_view text = base::AsText(bytes);
  if (text.size() != kEntryBytes) return std::nullopt;
  const std::string_view body = text.substr(0, kEntryBytes - kCheckBytes);
  if (At<uint64_t>(text, body.size()) != EntryCheckSum(body, generation, slot)) return std::nullopt;
  const SegmentEntry entry{.key = At<uint64_t>(body, 0),
                           .offset = At<uint32_t>(body, 8),
                           .length = At<uint32_t>(body, 12)};
  if (entry.length == 0) return entry;
  if (entry.length > kMaxBlockBytes || entry.offset < TableBytes(segment_bytes) ||
      uint64_t{entry.offset} + entry.length > segment_bytes)
    return std::nullopt;
  return entry;
}

std::string EncodePins(const PinGroup& group) {
  std::string out(kPinsMagic);
  PutFixed<uint32_t>(&out, kVersion);
  base::PutString(&out, group.name);
  PutFixed<uint64_t>(&out, group.blocks.size());
  for (const PinnedBlock& block : group.blocks) {
    PutFixed<uint64_t>(&out, block.key);
    PutFixed<uint32_t>(&out, block.stored_length);
  }
  PutCheckSum(&out);
  return out;
}

Result<PinGroup> DecodePins(std::string_view bytes) {
  const auto body = Checked(bytes);
  if (!body) return Error(Code::kCorruption, "the check sum is wrong");
  Decoder decoder(*body);
  ASSIGN_OR_RETURN(const std::string_view magic, decoder.Bytes(kPinsMagic.size()));
  ASSIGN_OR_RETURN(const auto version, decoder.Fixed<uint32_t>());
  if (magic != kPinsMagic || version != kVersion)
    return Error(Code::kCorruption, "this is no list of pinned blocks of version 1");
  PinGroup group;
  ASSIGN_OR_RETURN(group.name, decoder.String());
  ASSIGN_OR_RETURN(const auto count, decoder.Fixed<uint64_t>());
  if (count != decoder.remaining() / kPinBytes)
    return Error(Code::kCorruption, "the number of blocks is wrong");
  group.blocks.resize(count);
  for (PinnedBlock& block : group.blocks) {
    ASSIGN_OR_RETURN(block.key, decoder.Fixed<uint64_t>());
    ASSIGN_OR_RETURN(block.stored_length, decoder.Fixed<uint32_t>());
    if (block.stored_length == 0 || block.stored_length > kMaxBlockBytes)
      return Error(Code::kCorruption, "the length of a block is wrong");
  }
  RETURN_IF_ERROR(decoder.ExpectEnd());
  return group;
}

}  // namespace chunkstore::layers
