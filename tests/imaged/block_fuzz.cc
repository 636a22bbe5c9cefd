#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/check.h"
#include "chunkstore/map.h"
#include "imaged/block_wire.h"

// Requests of blocks and boot traces, as a service takes them, and the answer as a host does: what
// is taken is within its limits, and says the same when it is written again.

namespace {

using base::Code;

constexpr uint64_t kChunks = 100;

void CheckRequest(std::string_view body) {
  const auto items = imaged::DecodeBlockRequest(body, kChunks);
  if (!items.has_value()) {
    CHECK(items.error().code() == Code::kInvalidArgument && !items.error().message().empty());
    return;
  }
  CHECK(items->size() <= imaged::kMaxBlockItems);
  for (const imaged::BlockItem& item : *items) CHECK(item.chunk < kChunks);
  CHECK(imaged::EncodeBlockRequest(*items) == body);
}

void CheckTrace(std::string_view body) {
  const auto trace = imaged::DecodeTrace(body, kChunks);
  if (!trace.has_value()) {
    CHECK(trace.error().code() == Code::kInvalidArgument && !trace.error().message().empty());
    return;
  }
  size_t blocks = 0;
  for (const imaged::BlockRun& run : trace->runs) {
    CHECK(run.chunk < kChunks && run.count > 0);
    CHECK(run.first + size_t{run.count} <= chunkstore::kMaxBlocks);
    blocks += run.count;
  }
  CHECK(blocks <= imaged::kMaxTraceBlocks);
  CHECK(imaged::EncodeTrace(*trace) == body);
}

// Asked for were the table of a short last chunk, and two blocks of the first.
void CheckAnswer(std::string_view body, size_t piece) {
  const std::vector<imaged::BlockItem> asked = {{1, {}}, {0, {0, 2}}};
  int tables = 0;
  int blocks = 0;
  imaged::BlockReceiver::Sinks sinks;
  sinks.table = [&](size_t item, const auto& table) -> base::Result<void> {
    CHECK(item == 0 && tables == 0 && blocks == 0);
    ++tables;
    CHECK(table.size() <= chunkstore::kMaxBlocks);
    for (const imaged::BlockInfo& block : table) {
      CHECK(block.plain_length > 0 && block.plain_length <= chunkstore::kMaxBlockBytes);
      CHECK(block.stored_length > 0 && block.stored_length <= block.plain_length);
    }
    return {};
  };
  sinks.block = [&](size_t item, size_t number, const imaged::BlockInfo& block,
                    base::ByteView stored) -> base::Result<void> {
    CHECK(item == 1 && tables == 1 && number == (blocks == 0 ? 0u : 2u));
    CHECK(stored.size() == block.stored_length);
    ++blocks;
    return {};
  };
  imaged::BlockReceiver receiver(asked, std::nullopt, sinks);
  base::Result<void> taken;
  while (!body.empty() && taken.has_value()) {
    taken = receiver.Take(base::AsBytes(body.substr(0, piece)));
    body.remove_prefix(std::min(piece, body.size()));
  }
  CHECK(blocks <= 2);
  if (taken.has_value()) {
    CHECK(receiver.End().has_value() == (blocks == 2));
  } else {
    CHECK(taken.error().code() == Code::kCorruption ||
          taken.error().code() == Code::kInvalidArgument);
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size < 2) return 0;
  const std::string_view body(reinterpret_cast<const char*>(data) + 2, size - 2);
  if (data[0] % 3 == 0) CheckRequest(body);
  if (data[0] % 3 == 1) CheckTrace(body);
  if (data[0] % 3 == 2) CheckAnswer(body, data[1] + size_t{1});
  return 0;
}
