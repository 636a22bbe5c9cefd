#include "chunkstore/references_format.h"

#include <cstring>

#include "base/coding.h"

namespace chunkstore {
namespace {

using base::ByteView;
using base::Code;
using base::Decoder;
using base::Digest256;
using base::Error;
using base::Result;

constexpr uint8_t kFormatVersion = 1;
constexpr uint8_t kRecordVersionSharing = 2;  // with what a record says of lending and borrowing
constexpr size_t kSuffixHexBytes = 16;
constexpr size_t kIdHexBytes = 64;

std::string Versioned() { return std::string(1, static_cast<char>(kFormatVersion)); }

Result<void> ExpectVersion(Decoder& in) {
  ASSIGN_OR_RETURN(const uint8_t version, in.Fixed<uint8_t>());
  if (version != kFormatVersion)
    return Error(Code::kCorruption,
                 "a record of unknown format version " + std::to_string(version));
  return {};
}

Result<Digest256> ReadId(Decoder& in) {
  ASSIGN_OR_RETURN(const std::string_view raw, in.Bytes(32));
  return Digest256::FromBytes(raw);
}

Result<BlobKind> ReadKind(Decoder& in) {
  ASSIGN_OR_RETURN(const uint8_t kind, in.Fixed<uint8_t>());
  if (kind < 1 || kind > 3) return Error(Code::kCorruption, "a record of an unknown kind of blob");
  return static_cast<BlobKind>(kind);
}

}  // namespace

Token NewToken() {
  Token token = 0;
  while (token == 0) base::FillRandom({reinterpret_cast<uint8_t*>(&token), sizeof(token)});
  return token;
}

std::string BlobName(const BlobRef& blob) {
  std::string suffix;
  base::PutOrdered64(&suffix, blob.suffix);
  return blob.id.hex() + "-" + base::ToHex(suffix);
}

Result<BlobRef> ParseBlobName(std::string_view name) {
  if (name.size() != kIdHexBytes + 1 + kSuffixHexBytes || name[kIdHexBytes] != '-')
    return Error(Code::kInvalidArgument, "not a blob's name: " + std::string(name));
  BlobRef blob;
  ASSIGN_OR_RETURN(blob.id, Digest256::FromHex(name.substr(0, kIdHexBytes)));
  ASSIGN_OR_RETURN(const std::string suffix, base::FromHex(name.substr(kIdHexBytes + 1)));
  ASSIGN_OR_RETURN(blob.suffix, NumberOfKey(suffix, 0));
  if (BlobName(blob) != name)
    return Error(Code::kInvalidArgument, "not a blob's name: " + std::string(name));
  return blob;
}

std::string EncodeRecord(const Record& record) {
  const bool sharing =
      record.partial || record.lent > 0 || record.changes > 0 || record.borrowed_bytes > 0;
  std::string out(1, static_cast<char>(sharing ? kRecordVersionSharing : kFormatVersion));
  out.push_back(static_cast<char>(record.kind));
  out.push_back(static_cast<char>((record.bad ? 1 : 0) | (record.building ? 2 : 0) |
                                  (record.partial ? 4 : 0)));
  base::PutFixed(&out, record.suffix);
  base::PutFixed(&out, record.incarnation);
  base::PutVarint(&out, record.plain_length);
  base::PutVarint(&out, record.stored_length);
  base::PutVarint(&out, record.count);
  if (!sharing) return out;
  base::PutVarint(&out, record.lent);
  base::PutVarint(&out, record.changes);
  base::PutVarint(&out, record.borrowed_bytes);
  return out;
}

Result<Record> DecodeRecord(std::string_view value) {
  Decoder in(value);
  Record record;
  const bool sharing = !value.empty() && static_cast<uint8_t>(value[0]) == kRecordVersionSharing;
  if (sharing)
    RETURN_IF_ERROR(in.Bytes(1));
  else
    RETURN_IF_ERROR(ExpectVersion(in));
  ASSIGN_OR_RETURN(record.kind, ReadKind(in));
  ASSIGN_OR_RETURN(const uint8_t flags, in.Fixed<uint8_t>());
  record.bad = flags & 1;
  record.building = flags & 2;
  record.partial = flags & 4;
  ASSIGN_OR_RETURN(record.suffix, in.Fixed<uint64_t>());
  ASSIGN_OR_RETURN(record.incarnation, in.Fixed<uint64_t>());
  ASSIGN_OR_RETURN(const uint64_t plain, in.Varint());
  ASSIGN_OR_RETURN(const uint64_t stored, in.Varint());
  ASSIGN_OR_RETURN(record.count, in.Varint());
  uint64_t borrowed = 0;
  if (sharing) {
    ASSIGN_OR_RETURN(record.lent, in.Varint());
    ASSIGN_OR_RETURN(record.changes, in.Varint());
    ASSIGN_OR_RETURN(borrowed, in.Varint());
  }
  RETURN_IF_ERROR(in.ExpectEnd());
  if (flags > (sharing ? 7 : 3) || plain > kChunkBytes || stored > UINT32_MAX || borrowed > plain)
    return Error(Code::kCorruption, "a chunk's record has an absurd value");
  record.plain_length = static_cast<uint32_t>(plain);
  record.stored_length = static_cast<uint32_t>(stored);
  record.borrowed_bytes = static_cast<uint32_t>(borrowed);
  return record;
}

std::string EncodeDoomed(const Doomed& doomed) {
  std::string out = Versioned();
  out.push_back(static_cast<char>(doomed.kind));
  out.push_back(doomed.has_references ? 1 : 0);
  base::PutFixed(&out, doomed.incarnation);
  base::PutVarint(&out, doomed.stored_length);
  return out;
}

Result<Doomed> DecodeDoomed(std::string_view key, std::string_view value) {
  Doomed doomed;
  ASSIGN_OR_RETURN(doomed.blob.id, IdOfKey(key, 1));
  ASSIGN_OR_RETURN(doomed.blob.suffix, NumberOfKey(key, 33));
  Decoder in(value);
  RETURN_IF_ERROR(ExpectVersion(in));
  ASSIGN_OR_RETURN(doomed.kind, ReadKind(in));
  ASSIGN_OR_RETURN(const uint8_t has_references, in.Fixed<uint8_t>());
  doomed.has_references = has_references != 0;
  ASSIGN_OR_RETURN(doomed.incarnation, in.Fixed<uint64_t>());
  ASSIGN_OR_RETURN(const uint64_t stored, in.Varint());
  doomed.stored_length = static_cast<uint32_t>(stored);
  RETURN_IF_ERROR(in.ExpectEnd());
  return doomed;
}

std::string EncodeHolder(const HolderRecord& holder) {
  std::string out = Versioned();
  out.push_back(holder.held ? 1 : 0);
  base::PutFixed(&out, holder.token);
  out += holder.root.view();
  out += holder.manifest.view();
  base::PutVarint(&out, holder.size_bytes);
  base::PutVarint(&out, holder.nonzero_bytes);
  base::PutFixed(&out, static_cast<uint64_t>(holder.since_us));
  base::PutString(&out, holder.attributes);
  return out;
}

Result<HolderRecord> DecodeHolder(std::string_view value) {
  Decoder in(value);
  HolderRecord holder;
  RETURN_IF_ERROR(ExpectVersion(in));
  ASSIGN_OR_RETURN(const uint8_t held, in.Fixed<uint8_t>());
  holder.held = held != 0;
  ASSIGN_OR_RETURN(holder.token, in.Fixed<uint64_t>());
  ASSIGN_OR_RETURN(holder.root, ReadId(in));
  ASSIGN_OR_RETURN(holder.manifest, ReadId(in));
  ASSIGN_OR_RETURN(holder.size_bytes, in.Varint());
  ASSIGN_OR_RETURN(holder.nonzero_bytes, in.Varint());
  ASSIGN_OR_RETURN(const uint64_t since, in.Fixed<uint64_t>());
  holder.since_us = static_cast<int64_t>(since);
  ASSIGN_OR_RETURN(const std::string_view attributes, in.String());
  holder.attributes = attributes;
  RETURN_IF_ERROR(in.ExpectEnd());
  return holder;
}

std::string EncodeJournal(const Journal& journal) {
  std::string out = Versioned();
  out.push_back(static_cast<char>(journal.state));
  base::PutFixed(&out, static_cast<uint64_t>(journal.expires_us));
  base::PutString(&out, journal.holder);
  out.push_back(journal.targets ? 1 : 0);
  out += journal.root.view();
  out += journal.manifest.view();
  return out;
}

Result<Journal> DecodeJournal(std::string_view value) {
  Decoder in(value);
  Journal journal;
  RETURN_IF_ERROR(ExpectVersion(in));
  ASSIGN_OR_RETURN(const uint8_t state, in.Fixed<uint8_t>());
  if (state < 1 || state > 4) return Error(Code::kCorruption, "a journal entry of unknown state");
  journal.state = static_cast<Journal::State>(state);
  ASSIGN_OR_RETURN(const uint64_t expires, in.Fixed<uint64_t>());
  journal.expires_us = static_cast<int64_t>(expires);
  ASSIGN_OR_RETURN(const std::string_view holder, in.String());
  journal.holder = holder;
  ASSIGN_OR_RETURN(const uint8_t targets, in.Fixed<uint8_t>());
  journal.targets = targets != 0;
  ASSIGN_OR_RETURN(journal.root, ReadId(in));
  ASSIGN_OR_RETURN(journal.manifest, ReadId(in));
  RETURN_IF_ERROR(in.ExpectEnd());
  return journal;
}

std::string EncodeManifest(const Manifest& manifest) {
  std::string out = Versioned();
  base::PutString(&out, manifest.holder);
  base::PutFixed(&out, manifest.token);
  out += manifest.root.view();
  base::PutFixed(&out, manifest.size_bytes);
  base::PutFixed(&out, static_cast<uint64_t>(manifest.since_us));
  base::PutString(&out, manifest.attributes);
  return out;
}

Result<Manifest> DecodeManifest(std::string_view plain) {
  Decoder in(plain);
  Manifest manifest;
  RETURN_IF_ERROR(ExpectVersion(in));
  ASSIGN_OR_RETURN(const std::string_view holder, in.String());
  manifest.holder = holder;
  ASSIGN_OR_RETURN(manifest.token, in.Fixed<uint64_t>());
  ASSIGN_OR_RETURN(manifest.root, ReadId(in));
  ASSIGN_OR_RETURN(manifest.size_bytes, in.Fixed<uint64_t>());
  ASSIGN_OR_RETURN(const uint64_t since, in.Fixed<uint64_t>());
  manifest.since_us = static_cast<int64_t>(since);
  ASSIGN_OR_RETURN(const std::string_view attributes, in.String());
  manifest.attributes = attributes;
  RETURN_IF_ERROR(in.ExpectEnd());
  return manifest;
}

std::string EncodeIntent(const Intent& intent) {
  std::string out;
  base::PutOrdered64(&out, intent.suffix);
  if (intent.borrows) out.push_back(1);
  return out;
}

Result<Intent> DecodeIntent(std::string_view value) {
  Intent intent;
  ASSIGN_OR_RETURN(intent.suffix, NumberOfKey(value, 0));
  intent.borrows = value.size() > 8;
  if (value.size() > 9 || (intent.borrows && value[8] != 1))
    return Error(Code::kCorruption, "an intent of unknown shape");
  return intent;
}

std::string EncodeLent(std::span<const uint16_t> pages) {
  std::string out;
  base::PutVarint(&out, pages.size());
  uint16_t last = 0;
  for (const uint16_t page : pages) {
    base::PutVarint(&out, static_cast<uint64_t>(page - last));
    last = page;
  }
  return out;
}

Result<std::vector<uint16_t>> DecodeLent(std::string_view value) {
  Decoder in(value);
  ASSIGN_OR_RETURN(const uint64_t count, in.Varint());
  if (count > kMaxBlocks) return Error(Code::kCorruption, "a borrower of impossibly many blocks");
  std::vector<uint16_t> pages;
  uint64_t page = 0;
  for (uint64_t i = 0; i < count; ++i) {
    ASSIGN_OR_RETURN(const uint64_t step, in.Varint());
    if ((step == 0 && i > 0) || step >= kChunkBytes / kBlockGridBytes - page)
      return Error(Code::kCorruption, "a borrower of blocks that can't be");
    page += step;
    pages.push_back(static_cast<uint16_t>(page));
  }
  RETURN_IF_ERROR(in.ExpectEnd());
  return pages;
}

size_t PartitionOf(const Digest256& id) { return id.bytes[0]; }

std::string RecordPartition(size_t number) {
  const char byte = static_cast<char>(number);
  return "c/" + base::ToHex({&byte, 1});
}

std::string ScratchPartition(Token token) {
  std::string raw;
  base::PutOrdered64(&raw, token);
  return "i/" + base::ToHex(raw);
}

Result<Token> ParseScratchPartition(std::string_view partition) {
  if (!partition.starts_with("i/")) return Error(Code::kCorruption, "not a scratch partition");
  ASSIGN_OR_RETURN(const std::string raw, base::FromHex(partition.substr(2)));
  return NumberOfKey(raw, 0);
}

std::string PageTag(const Digest256& page, uint64_t incarnation) {
  std::string tag = "p";
  tag += page.view();
  base::PutOrdered64(&tag, incarnation);
  return tag;
}

std::string BorrowerTag(const BlobRef& borrower) {
  std::string tag = "s";
  tag += borrower.id.view();
  base::PutOrdered64(&tag, borrower.suffix);
  return tag;
}

bool IsBorrowerTag(std::string_view tag) { return tag.starts_with('s'); }

std::string HolderTag(Token token) {
  std::string tag = "h";
  base::PutOrdered64(&tag, token);
  return tag;
}

std::string IngestTag(Token token) {
  std::string tag = "u";
  base::PutOrdered64(&tag, token);
  return tag;
}

Result<ParsedTag> ParseTag(std::string_view tag) {
  ParsedTag parsed;
  parsed.kind = tag.empty() ? '\0' : tag[0];
  if ((parsed.kind == 'p' || parsed.kind == 's') && tag.size() == 41) {
    ASSIGN_OR_RETURN(parsed.page, IdOfKey(tag, 1));
    ASSIGN_OR_RETURN(parsed.incarnation, NumberOfKey(tag, 33));
    return parsed;
  }
  if ((parsed.kind == 'h' || parsed.kind == 'u') && tag.size() == 9) {
    ASSIGN_OR_RETURN(parsed.token, NumberOfKey(tag, 1));
    return parsed;
  }
  return Error(Code::kCorruption, "a reference of unknown shape");
}

std::string RecordKey(const Digest256& id) { return "r" + std::string(id.view()); }

std::string TagKey(const Digest256& id, std::string_view tag) {
  if (tag.starts_with('u')) return std::string(tag) + std::string(id.view());
  return TagPrefix(id) + std::string(tag);
}

std::string TagPrefix(const Digest256& id) { return "t" + std::string(id.view()); }

std::string IngestPrefix(char kind, Token token) {
  std::string key(1, kind);
  base::PutOrdered64(&key, token);
  return key;
}

std::string IntentKey(Token token, const Digest256& id) {
  return IngestPrefix('w', token) + std::string(id.view());
}

std::string GarbageKey(const Digest256& id) { return "g" + std::string(id.view()); }

std::string LenderKey(const Digest256& id) { return "l" + std::string(id.view()); }

std::string DoomedKey(const BlobRef& blob) {
  std::string key = "d" + std::string(blob.id.view());
  base::PutOrdered64(&key, blob.suffix);
  return key;
}

std::string HolderKey(std::string_view name) { return "h" + std::string(name); }

std::string JournalKey(Token token) { return IngestPrefix('j', token); }

Result<Digest256> IdOfKey(std::string_view key, size_t offset) {
  if (key.size() < offset + 32) return Error(Code::kCorruption, "a key of the index is cut short");
  return Digest256::FromBytes(key.substr(offset, 32));
}

Result<uint64_t> NumberOfKey(std::string_view key, size_t offset) {
  if (key.size() < offset + 8) return Error(Code::kCorruption, "a key of the index is cut short");
  uint64_t value = 0;
  for (size_t i = 0; i < 8; ++i) value = value << 8 | static_cast<uint8_t>(key[offset + i]);
  return value;
}

}  // namespace chunkstore
