#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "base/check.h"
#include "chunkstore/map.h"
#include "imaged/chunk_wire.h"

// The bodies of negotiated transfers: what is taken says the same when it is written again.

namespace {

using imaged::ChunkList;

void CheckList(std::string_view body) {
  const auto list = imaged::DecodeChunkList(body);
  if (!list.has_value()) {
    CHECK(list.error().code() == base::Code::kInvalidArgument && !list.error().message().empty());
    return;
  }
  CHECK(list->ids.size() <= imaged::kMaxListedChunks);
  CHECK(list->first + list->ids.size() <= chunkstore::ChunkCount(list->size_bytes));
  CHECK(imaged::EncodeChunkList(*list) == body);
}

void CheckStream(std::string_view body) {
  if (body.size() < imaged::kChunkStreamHeaderBytes) return;
  const std::string_view header = body.substr(0, imaged::kChunkStreamHeaderBytes);
  const auto size = imaged::DecodeChunkStreamHeader(base::AsBytes(header));
  if (size.has_value()) CHECK(imaged::EncodeChunkStreamHeader(*size) == header);
  body.remove_prefix(header.size());
  body = body.substr(0, body.size() / imaged::kChunkEntryBytes * imaged::kChunkEntryBytes);
  const auto entries = imaged::DecodeChunkEntries(base::AsBytes(body), 0);
  if (!entries.has_value()) return;
  std::string again;
  for (const auto& entry : *entries) imaged::AppendChunkEntry(&again, entry);
  CHECK(again == body);
}

void CheckWanted(std::string_view body) {
  const ChunkList asked{
      .size_bytes = uint64_t{100} << 30, .first = 7, .ids = {50, base::Digest256{}}};
  const auto flags = imaged::DecodeWanted(body, asked);
  if (flags.has_value()) CHECK(flags->size() == asked.ids.size());
}

void CheckFetch(std::string_view body) {
  const uint64_t size = uint64_t{100} << 30;
  const auto runs = imaged::DecodeFetch(body, size);
  if (!runs.has_value()) {
    CHECK(runs.error().code() == base::Code::kInvalidArgument);
    return;
  }
  uint64_t end = 0;
  uint64_t total = 0;
  for (const imaged::ChunkRun& run : *runs) {
    CHECK(run.count > 0 && run.first >= end);
    end = run.first + run.count;
    total += run.count;
  }
  CHECK(end <= chunkstore::ChunkCount(size) && total <= imaged::kMaxListedChunks);
  const auto again = imaged::DecodeFetch(imaged::EncodeWanted(*runs), size);
  CHECK(again.has_value() && *again == *runs);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  const std::string_view body(reinterpret_cast<const char*>(data) + 1, size - 1);
  if (data[0] % 4 == 0) CheckList(body);
  if (data[0] % 4 == 1) CheckStream(body);
  if (data[0] % 4 == 2) CheckWanted(body);
  if (data[0] % 4 == 3) CheckFetch(body);
  return 0;
}
