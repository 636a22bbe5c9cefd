#include "imaged/chunk_wire.h"

#include <algorithm>
#include <optional>

#include <fmt/format.h>

#include "base/check.h"
#include "base/coding.h"
#include "base/json.h"
#include "base/uuid.h"
#include "chunkstore/chunk_store.h"
#include "chunkstore/map.h"

namespace imaged {

using base::ByteView;
using base::Code;
using base::Digest256;
using base::Error;
using base::Result;

namespace {

constexpr std::string_view kListMagic = "QCHL";
constexpr std::string_view kStreamMagic = "QCHS";

Error Bad(std::string why) { return Error(Code::kInvalidArgument, std::move(why)); }

constexpr uint16_t kFlagFrames = 1;
constexpr std::string_view kZstd = "zstd";

void AppendHead(std::string* out, std::string_view magic, uint16_t version, uint16_t flags,
                uint64_t size_bytes) {
  out->append(magic);
  base::PutFixed<uint16_t>(out, version);
  base::PutFixed<uint16_t>(out, flags);
  base::PutFixed<uint64_t>(out, size_bytes);
}

// What both begin with: magic, version, flags, the image's size.
Result<ChunkStreamHead> TakeHead(base::Decoder* decoder, std::string_view magic, uint16_t expected,
                                 uint16_t known_flags) {
  ASSIGN_OR_RETURN(const std::string_view found, decoder->Bytes(magic.size()));
  ASSIGN_OR_RETURN(const uint16_t version, decoder->Fixed<uint16_t>());
  ASSIGN_OR_RETURN(const uint16_t flags, decoder->Fixed<uint16_t>());
  ASSIGN_OR_RETURN(const uint64_t size_bytes, decoder->Fixed<uint64_t>());
  if (found != magic) return Bad(fmt::format("the body does not begin with \"{}\"", magic));
  if (version != expected || (flags & ~known_flags) != 0) {
    return Bad(fmt::format("version {} (flags {}) of the chunk format is not known here, only {}",
                           version, flags, expected));
  }
  if (size_bytes > chunkstore::kMaxContentBytes) {
    return Bad(fmt::format("an image of {} bytes: at most {} are possible", size_bytes,
                           chunkstore::kMaxContentBytes));
  }
  return ChunkStreamHead{.size_bytes = size_bytes, .frames = (flags & kFlagFrames) != 0};
}

Result<ChunkList> TakeList(base::Decoder* decoder) {
  ChunkList list;
  ASSIGN_OR_RETURN(const ChunkStreamHead head, TakeHead(decoder, kListMagic, kChunkWireVersion, 0));
  list.size_bytes = head.size_bytes;
  ASSIGN_OR_RETURN(list.first, decoder->Fixed<uint64_t>());
  ASSIGN_OR_RETURN(const uint32_t count, decoder->Fixed<uint32_t>());
  ASSIGN_OR_RETURN(const uint32_t reserved, decoder->Fixed<uint32_t>());
  if (reserved != 0) return Bad("the reserved bytes of the list's header are not 0");
  if (count > kMaxListedChunks) {
    return Bad(fmt::format("{} ids in one list: at most {} are taken", count, kMaxListedChunks));
  }
  const uint64_t chunks = chunkstore::ChunkCount(list.size_bytes);
  if (list.first > chunks || count > chunks - list.first) {
    return Bad(fmt::format("{} chunks from number {} on: an image of {} bytes has {}", count,
                           list.first, list.size_bytes, chunks));
  }
  list.ids.reserve(count);
  for (uint32_t i = 0; i < count; ++i) {
    ASSIGN_OR_RETURN(const std::string_view raw, decoder->Bytes(32));
    ASSIGN_OR_RETURN(const Digest256 id, Digest256::FromBytes(raw));
    list.ids.push_back(id);
  }
  RETURN_IF_ERROR(decoder->ExpectEnd());
  return list;
}

// [first, count], both numbers from 0 on; nothing for anything else.
std::optional<ChunkRun> RunOf(const base::Json& json) {
  if (!json.is_array() || json.as_array().size() != 2) return std::nullopt;
  uint64_t numbers[2];
  for (size_t at = 0; at < 2; ++at) {
    const base::Json& value = json.as_array()[at];
    if (value.is_uint64()) {
      numbers[at] = value.as_uint64();
    } else if (value.is_int64() && value.as_int64() >= 0) {
      numbers[at] = static_cast<uint64_t>(value.as_int64());
    } else {
      return std::nullopt;
    }
  }
  return ChunkRun{numbers[0], numbers[1]};
}

base::JsonArray JsonOf(const std::vector<ChunkRun>& runs) {
  base::JsonArray json;
  for (const ChunkRun& run : runs) json.push_back(base::JsonArray{run.first, run.count});
  return json;
}

}  // namespace

std::string EncodeChunkList(const ChunkList& list) {
  CHECK(list.ids.size() <= kMaxListedChunks);
  std::string body;
  body.reserve(kChunkListHeaderBytes + 32 * list.ids.size());
  AppendHead(&body, kListMagic, kChunkWireVersion, 0, list.size_bytes);
  base::PutFixed<uint64_t>(&body, list.first);
  base::PutFixed<uint32_t>(&body, static_cast<uint32_t>(list.ids.size()));
  base::PutFixed<uint32_t>(&body, 0);
  for (const Digest256& id : list.ids) body.append(id.view());
  return body;
}

Result<ChunkList> DecodeChunkList(std::string_view body) {
  base::Decoder decoder(body);
  Result<ChunkList> list = TakeList(&decoder);
  // The decoder speaks of stored bytes; these are a client's.
  if (!list.has_value()) return Bad("a bad chunk list: " + list.error().message());
  return list;
}

std::string EncodeWanted(const std::vector<ChunkRun>& runs) {
  return base::ToText(base::JsonObject{{"wanted", JsonOf(runs)}});
}

std::string EncodeWanted(const std::vector<ChunkRun>& runs, const std::vector<std::string>& alike) {
  base::JsonArray images;
  for (const std::string& image : alike) images.emplace_back(image);
  return base::ToText(base::JsonObject{
      {"wanted", JsonOf(runs)}, {"alike", std::move(images)}, {"encodings", {kZstd}}});
}

bool DecodeTakesFrames(std::string_view body) {
  const Result<base::Json> json = base::ParseJson(body);
  const base::Json* encodings = json.has_value() ? base::Find(*json, "encodings") : nullptr;
  return encodings != nullptr && encodings->is_array() &&
         std::ranges::any_of(encodings->as_array(), [](const base::Json& encoding) {
           return encoding.is_string() && base::View(encoding.get_string()) == kZstd;
         });
}

std::optional<std::vector<std::string>> DecodeAlike(std::string_view body) {
  const Result<base::Json> json = base::ParseJson(body);
  const base::Json* alike = json.has_value() ? base::Find(*json, "alike") : nullptr;
  if (alike == nullptr || !alike->is_array()) return std::nullopt;
  std::vector<std::string> images;
  for (const base::Json& image : alike->as_array()) {
    if (images.size() == kMaxAlike) break;
    if (image.is_string() && base::IsUuid(image.as_string()))
      images.emplace_back(image.as_string());
  }
  return images;
}

Result<std::vector<bool>> DecodeWanted(std::string_view body, const ChunkList& list) {
  ASSIGN_OR_RETURN(const base::Json json, base::ParseJson(body));
  const base::Json* wanted = base::Find(json, "wanted");
  if (wanted == nullptr || !wanted->is_array()) return Bad("an answer without \"wanted\"");
  std::vector<bool> flags(list.ids.size());
  for (const base::Json& json_run : wanted->as_array()) {
    const std::optional<ChunkRun> run = RunOf(json_run);
    const bool inside = run && run->first >= list.first &&
                        run->first - list.first <= flags.size() &&
                        run->count <= flags.size() - (run->first - list.first);
    if (!inside) return Bad("an answer with a run of chunks that were not asked for");
    const auto begin = flags.begin() + static_cast<ptrdiff_t>(run->first - list.first);
    std::fill(begin, begin + static_cast<ptrdiff_t>(run->count), true);
  }
  return flags;
}

Result<std::vector<ChunkRun>> DecodeFetch(std::string_view body, uint64_t size_bytes) {
  const Result<base::Json> json = base::ParseJson(body);
  if (!json.has_value()) return Bad("what to fetch is no JSON: " + json.error().message());
  const base::Json* wanted = base::Find(*json, "wanted");
  if (wanted == nullptr || !wanted->is_array()) {
    return Bad(R"(what to fetch is not said as {"wanted": [[first, count], ...]})");
  }
  const uint64_t chunks = chunkstore::ChunkCount(size_bytes);
  std::vector<ChunkRun> runs;
  uint64_t end = 0;  // of the run before
  uint64_t total = 0;
  for (const base::Json& json_run : wanted->as_array()) {
    const std::optional<ChunkRun> run = RunOf(json_run);
    if (!run || run->count == 0) {
      return Bad(fmt::format("\"{}\" is no run of chunks: [first, count] was expected",
                             base::ToText(json_run).substr(0, 100)));
    }
    if (run->first < end) return Bad("the runs of chunks to fetch don't ascend");
    if (run->first >= chunks || run->count > chunks - run->first) {
      return Bad(fmt::format("{} chunks from number {} on: an image of {} bytes has {}", run->count,
                             run->first, size_bytes, chunks));
    }
    end = run->first + run->count;
    total += run->count;
    runs.push_back(*run);
  }
  if (total > kMaxListedChunks) {
    return Bad(fmt::format("{} chunks to fetch: at most {} at once", total, kMaxListedChunks));
  }
  return runs;
}

std::string EncodeChunkStreamHeader(const ChunkStreamHead& head, uint16_t version) {
  CHECK(!head.frames || version == kRecipeStreamVersion);
  std::string header;
  AppendHead(&header, kStreamMagic, version, head.frames ? kFlagFrames : 0, head.size_bytes);
  return header;
}

Result<ChunkStreamHead> DecodeChunkStreamHeader(ByteView header, uint16_t version) {
  CHECK(header.size() == kChunkStreamHeaderBytes);
  base::Decoder decoder(base::AsText(header));
  return TakeHead(&decoder, kStreamMagic, version, version == kChunkWireVersion ? 0 : kFlagFrames)
      .Annotate("a bad chunk stream");
}

void AppendChunkEntry(std::string* out, const ChunkEntry& entry) {
  out->push_back(static_cast<char>(entry.how));
  out->append(entry.id.view());
}

Result<std::vector<ChunkEntry>> DecodeChunkEntries(ByteView bytes, uint64_t first,
                                                   uint16_t version) {
  CHECK(bytes.size() % kChunkEntryBytes == 0);
  const ChunkHow last = version == kChunkWireVersion ? ChunkHow::kSent : ChunkHow::kAssembled;
  std::vector<ChunkEntry> entries(bytes.size() / kChunkEntryBytes);
  for (size_t i = 0; i < entries.size(); ++i) {
    const ByteView raw = bytes.subspan(i * kChunkEntryBytes, kChunkEntryBytes);
    if (raw[0] > static_cast<uint8_t>(last)) {
      return Bad(fmt::format("chunk {} comes in the unknown way {}", first + i, raw[0]));
    }
    entries[i].how = static_cast<ChunkHow>(raw[0]);
    std::copy(raw.begin() + 1, raw.end(), entries[i].id.bytes.begin());
    if ((entries[i].how == ChunkHow::kHole) != IsHole(entries[i].id)) {
      return Bad(fmt::format("chunk {}: holes, and only they, have the id 0", first + i));
    }
  }
  return entries;
}

}  // namespace imaged
