#include "imaged/block_wire.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include <fmt/format.h>

#include "base/check.h"
#include "base/coding.h"
#include "chunkstore/chunk_store.h"
#include "chunkstore/map.h"

namespace imaged {

using base::ByteView;
using base::Code;
using base::Decoder;
using base::Error;
using base::Result;
using chunkstore::kMaxBlockBytes;
using chunkstore::kMaxBlocks;

namespace {

constexpr std::string_view kRequestMagic = "QBRQ";
constexpr std::string_view kAnswerMagic = "QBLK";
constexpr std::string_view kTraceMagic = "QBTR";
constexpr size_t kItemHeadBytes = 8;

Error Bad(std::string why) { return Error(Code::kInvalidArgument, std::move(why)); }
Error Nonsense(std::string why) {
  return Error(Code::kCorruption, "the service's answer with blocks is none: " + std::move(why));
}

void AppendHead(std::string* out, std::string_view magic) {
  out->append(magic);
  base::PutFixed<uint16_t>(out, kBlockWireVersion);
  base::PutFixed<uint16_t>(out, 0);
}

// What all bodies begin with: magic, version, 16 bits that are 0.
Result<void> CheckHead(Decoder* decoder, std::string_view magic) {
  ASSIGN_OR_RETURN(const std::string_view found, decoder->Bytes(magic.size()));
  ASSIGN_OR_RETURN(const uint16_t version, decoder->Fixed<uint16_t>());
  ASSIGN_OR_RETURN(const uint16_t flags, decoder->Fixed<uint16_t>());
  if (found != magic) return Bad(fmt::format("the body does not begin with \"{}\"", magic));
  if (version == kBlockWireVersion && flags == 0) return {};
  return Bad(fmt::format("version {} (flags {}) of the block format is not known here, only {}",
                         version, flags, kBlockWireVersion));
}

template <typename Name>
Result<Name> TakeName(Decoder* decoder) {
  Name name;
  ASSIGN_OR_RETURN(const std::string_view raw, decoder->Bytes(name.bytes.size()));
  std::memcpy(name.bytes.data(), raw.data(), raw.size());
  return name;
}

template <typename Name>
void AppendName(std::string* out, const Name& name) {
  out->append(reinterpret_cast<const char*>(name.bytes.data()), name.bytes.size());
}

// The count of what follows, and 32 bits that are 0.
Result<uint32_t> TakeCount(Decoder* decoder, size_t most, std::string_view of_what) {
  ASSIGN_OR_RETURN(const uint32_t count, decoder->Fixed<uint32_t>());
  ASSIGN_OR_RETURN(const uint32_t reserved, decoder->Fixed<uint32_t>());
  if (reserved != 0) return Bad("the reserved bytes of the head are not 0");
  if (count > most) return Bad(fmt::format("{} {}: at most {} are taken", count, of_what, most));
  return count;
}

Result<void> CheckChunk(uint32_t chunk, uint64_t chunks) {
  if (chunk < chunks) return {};
  return Bad(fmt::format("chunk {} of an image that has {}", chunk, chunks));
}

Result<BlockItem> TakeItem(Decoder* decoder, uint64_t chunks) {
  BlockItem item;
  ASSIGN_OR_RETURN(item.chunk, decoder->Fixed<uint32_t>());
  ASSIGN_OR_RETURN(const uint16_t how, decoder->Fixed<uint16_t>());
  ASSIGN_OR_RETURN(const uint16_t count, decoder->Fixed<uint16_t>());
  RETURN_IF_ERROR(CheckChunk(item.chunk, chunks));
  const bool table = how == static_cast<uint16_t>(BlockHow::kTable);
  if (!table && how != static_cast<uint16_t>(BlockHow::kBlocks)) {
    return Bad(fmt::format("chunk {}: {} is nothing that can be wanted", item.chunk, how));
  }
  if (table != (count == 0) || count > kMaxBlocks) {
    return Bad(fmt::format("chunk {}: {} numbers of blocks", item.chunk, count));
  }
  item.numbers.reserve(count);
  for (uint16_t i = 0; i < count; ++i) {
    ASSIGN_OR_RETURN(const uint16_t number, decoder->Fixed<uint16_t>());
    if (number >= kMaxBlocks || (i > 0 && number <= item.numbers.back())) {
      return Bad(
          fmt::format("chunk {}: numbers of blocks must ascend, below {}", item.chunk, kMaxBlocks));
    }
    item.numbers.push_back(number);
  }
  return item;
}

}  // namespace

// --- the request

std::string EncodeBlockRequest(const std::vector<BlockItem>& items) {
  CHECK(items.size() <= kMaxBlockItems);
  std::string body;
  AppendHead(&body, kRequestMagic);
  base::PutFixed<uint32_t>(&body, static_cast<uint32_t>(items.size()));
  base::PutFixed<uint32_t>(&body, 0);
  for (const BlockItem& item : items) {
    const BlockHow how = item.wants_table() ? BlockHow::kTable : BlockHow::kBlocks;
    AppendBlockItemHead(&body, item.chunk, how, item.numbers.size());
    for (const uint16_t number : item.numbers) base::PutFixed<uint16_t>(&body, number);
  }
  CHECK(body.size() <= kMaxBlockRequestBytes);
  return body;
}

Result<std::vector<BlockItem>> DecodeBlockRequest(std::string_view body, uint64_t chunks) {
  Decoder decoder(body);
  const auto decode = [&]() -> Result<std::vector<BlockItem>> {
    RETURN_IF_ERROR(CheckHead(&decoder, kRequestMagic));
    ASSIGN_OR_RETURN(const uint32_t count, TakeCount(&decoder, kMaxBlockItems, "chunks"));
    std::vector<BlockItem> items;
    size_t numbers = 0;
    for (uint32_t i = 0; i < count; ++i) {
      ASSIGN_OR_RETURN(BlockItem item, TakeItem(&decoder, chunks));
      numbers += item.numbers.size();
      if (numbers > kMaxBlockNumbers) {
        return Bad(fmt::format("more than {} blocks in one request", kMaxBlockNumbers));
      }
      items.push_back(std::move(item));
    }
    RETURN_IF_ERROR(decoder.ExpectEnd());
    return items;
  };
  Result<std::vector<BlockItem>> items = decode();
  if (items.has_value() || items.error().code() == Code::kInvalidArgument) return items;
  return Bad("a request of blocks: " + items.error().message());
}

// --- the answer

std::string EncodeBlockAnswerHead(const BlockAnswerHead& head) {
  std::string out;
  AppendHead(&out, kAnswerMagic);
  base::PutFixed<uint64_t>(&out, head.size_bytes);
  AppendName(&out, head.data);
  return out;
}

void AppendBlockItemHead(std::string* out, uint32_t chunk, BlockHow how, size_t entries) {
  base::PutFixed<uint32_t>(out, chunk);
  base::PutFixed<uint16_t>(out, static_cast<uint16_t>(how));
  base::PutFixed<uint16_t>(out, static_cast<uint16_t>(entries));
}

void AppendBlockEntry(std::string* out, size_t number, const BlockInfo& block) {
  AppendName(out, block.name);
  base::PutFixed<uint64_t>(out, block.hash.low);
  base::PutFixed<uint64_t>(out, block.hash.high);
  base::PutFixed<uint32_t>(out, block.plain_length);
  base::PutFixed<uint32_t>(out, block.stored_length);
  base::PutFixed<uint16_t>(out, static_cast<uint16_t>(number));
  base::PutFixed<uint16_t>(out, block.compressed ? 1 : 0);
}

namespace {

struct Entry {
  uint16_t number = 0;
  BlockInfo block;
};

Result<Entry> TakeEntry(Decoder* decoder) {
  Entry entry;
  ASSIGN_OR_RETURN(entry.block.name, TakeName<BlockName>(decoder));
  ASSIGN_OR_RETURN(entry.block.hash.low, decoder->Fixed<uint64_t>());
  ASSIGN_OR_RETURN(entry.block.hash.high, decoder->Fixed<uint64_t>());
  ASSIGN_OR_RETURN(entry.block.plain_length, decoder->Fixed<uint32_t>());
  ASSIGN_OR_RETURN(entry.block.stored_length, decoder->Fixed<uint32_t>());
  ASSIGN_OR_RETURN(entry.number, decoder->Fixed<uint16_t>());
  ASSIGN_OR_RETURN(const uint16_t form, decoder->Fixed<uint16_t>());
  const uint32_t plain = entry.block.plain_length;
  const uint32_t stored = entry.block.stored_length;
  entry.block.compressed = form == 1;
  const bool stored_fits = form == 1 ? stored > 0 && stored < plain : stored == plain;
  if (form > 1 || plain == 0 || plain > kMaxBlockBytes || !stored_fits) {
    return Nonsense(
        fmt::format("a block of {} bytes, stored in {} (form {})", plain, stored, form));
  }
  return entry;
}

}  // namespace

BlockReceiver::BlockReceiver(const std::vector<BlockItem>& asked,
                             std::optional<uint64_t> size_bytes, Sinks sinks)
    : asked_(asked), known_size_bytes_(size_bytes), sinks_(std::move(sinks)) {}

size_t BlockReceiver::Needed() const {
  switch (state_) {
    case State::kHead:
      return kBlockAnswerHeadBytes;
    case State::kItem:
      return kItemHeadBytes;
    case State::kEntries:
      return entry_count_ * kBlockEntryBytes;
    case State::kBytes:
      return entries_[block_].stored_length;
    case State::kDone:
      break;
  }
  return 0;
}

Result<void> BlockReceiver::Take(ByteView bytes) {
  std::string_view left = base::AsText(bytes);
  while (!left.empty()) {
    if (state_ == State::kDone) return Nonsense("it goes on behind its end");
    const size_t missing = Needed() - kept_.size();
    if (left.size() < missing) {
      kept_.append(left);
      return {};
    }
    if (kept_.empty()) {
      RETURN_IF_ERROR(Step(left.substr(0, missing)));
    } else {
      kept_.append(left.substr(0, missing));
      const std::string whole = std::exchange(kept_, {});
      RETURN_IF_ERROR(Step(whole));
    }
    left.remove_prefix(missing);
  }
  return {};
}

Result<void> BlockReceiver::End() {
  if (state_ == State::kDone) return {};
  return Nonsense(fmt::format("it ends after {} of {} chunks", item_, asked_.size()));
}

Result<void> BlockReceiver::Step(std::string_view bytes) {
  switch (state_) {
    case State::kHead:
      return TakeHead(bytes);
    case State::kItem:
      return TakeItem(bytes);
    case State::kEntries:
      return TakeEntries(bytes);
    case State::kBytes: {
      const size_t number = asked_[item_].numbers[block_];
      RETURN_IF_ERROR(sinks_.block(item_, number, entries_[block_], base::AsBytes(bytes)));
      if (++block_ == entries_.size()) NextItem();
      return {};
    }
    case State::kDone:
      break;
  }
  return {};
}

Result<void> BlockReceiver::TakeHead(std::string_view bytes) {
  Decoder decoder(bytes);
  const Result<void> begins = CheckHead(&decoder, kAnswerMagic);
  if (!begins.has_value()) return Nonsense(begins.error().message());
  BlockAnswerHead head;
  ASSIGN_OR_RETURN(head.size_bytes, decoder.Fixed<uint64_t>());
  ASSIGN_OR_RETURN(head.data, TakeName<DataName>(&decoder));
  if (head.size_bytes > chunkstore::kMaxContentBytes ||
      head.size_bytes != known_size_bytes_.value_or(head.size_bytes)) {
    return Nonsense(fmt::format("an image of {} bytes", head.size_bytes));
  }
  const uint64_t chunks = chunkstore::ChunkCount(head.size_bytes);
  for (const BlockItem& item : asked_) {
    if (item.chunk >= chunks) {
      return Nonsense(fmt::format("it has chunk {} of an image of {}", item.chunk, chunks));
    }
  }
  head_ = head;
  state_ = asked_.empty() ? State::kDone : State::kItem;
  return {};
}

Result<void> BlockReceiver::TakeItem(std::string_view bytes) {
  const BlockItem& item = asked_[item_];
  Decoder decoder(bytes);
  ASSIGN_OR_RETURN(const uint32_t chunk, decoder.Fixed<uint32_t>());
  ASSIGN_OR_RETURN(const uint16_t how, decoder.Fixed<uint16_t>());
  ASSIGN_OR_RETURN(const uint16_t count, decoder.Fixed<uint16_t>());
  if (chunk != item.chunk) {
    return Nonsense(fmt::format("chunk {} where {} was asked for", chunk, item.chunk));
  }
  if (how == static_cast<uint16_t>(BlockHow::kOther) && !item.wants_table()) {
    return Error(
        Code::kInvalidArgument,
        fmt::format("chunk {} has no blocks of these numbers: its table says which it has", chunk));
  }
  const BlockHow wanted = item.wants_table() ? BlockHow::kTable : BlockHow::kBlocks;
  const bool fits = item.wants_table() ? count <= kMaxBlocks : count == item.numbers.size();
  if (how != static_cast<uint16_t>(wanted) || !fits) {
    return Nonsense(fmt::format("chunk {} has {} entries (of kind {})", chunk, count, how));
  }
  entries_.clear();
  entry_count_ = count;
  state_ = State::kEntries;
  return count == 0 ? EndItem() : Result<void>();
}

Result<void> BlockReceiver::TakeEntries(std::string_view bytes) {
  const BlockItem& item = asked_[item_];
  Decoder decoder(bytes);
  uint64_t plain_bytes = 0;
  for (size_t i = 0; i < entry_count_; ++i) {
    ASSIGN_OR_RETURN(const Entry entry, TakeEntry(&decoder));
    if (entry.number != (item.wants_table() ? i : item.numbers[i])) {
      return Nonsense(fmt::format("chunk {}: block {} at place {}", item.chunk, entry.number, i));
    }
    plain_bytes += entry.block.plain_length;
    entries_.push_back(entry.block);
  }
  const uint64_t chunk_bytes = chunkstore::ChunkLength(item.chunk, head_->size_bytes);
  if (item.wants_table() ? plain_bytes != chunk_bytes : plain_bytes > chunk_bytes) {
    return Nonsense(
        fmt::format("blocks of {} bytes in chunk {} of {}", plain_bytes, item.chunk, chunk_bytes));
  }
  if (item.wants_table()) return EndItem();
  block_ = 0;
  state_ = State::kBytes;
  return {};
}

// A table is whole.
Result<void> BlockReceiver::EndItem() {
  RETURN_IF_ERROR(sinks_.table(item_, std::exchange(entries_, {})));
  NextItem();
  return {};
}

void BlockReceiver::NextItem() {
  entries_.clear();
  state_ = ++item_ == asked_.size() ? State::kDone : State::kItem;
}

// --- boot traces

std::string EncodeTrace(const BootTrace& trace) {
  std::string body;
  AppendHead(&body, kTraceMagic);
  AppendName(&body, trace.data);
  base::PutFixed<uint32_t>(&body, static_cast<uint32_t>(trace.runs.size()));
  base::PutFixed<uint32_t>(&body, 0);
  for (const BlockRun& run : trace.runs) {
    base::PutFixed<uint32_t>(&body, run.chunk);
    base::PutFixed<uint16_t>(&body, run.first);
    base::PutFixed<uint16_t>(&body, run.count);
  }
  CHECK(body.size() <= kMaxTraceBytes);
  return body;
}

namespace {

// No block stands in two runs.
Result<void> CheckApart(std::vector<BlockRun> runs) {
  std::ranges::sort(runs, {}, [](const BlockRun& run) { return std::pair(run.chunk, run.first); });
  for (size_t i = 1; i < runs.size(); ++i) {
    const BlockRun& before = runs[i - 1];
    if (before.chunk == runs[i].chunk && before.first + before.count > runs[i].first) {
      return Bad(fmt::format("block {} of chunk {} stands in the trace twice", runs[i].first,
                             runs[i].chunk));
    }
  }
  return {};
}

Result<BlockRun> TakeRun(Decoder* decoder, uint64_t chunks) {
  BlockRun run;
  ASSIGN_OR_RETURN(run.chunk, decoder->Fixed<uint32_t>());
  ASSIGN_OR_RETURN(run.first, decoder->Fixed<uint16_t>());
  ASSIGN_OR_RETURN(run.count, decoder->Fixed<uint16_t>());
  RETURN_IF_ERROR(CheckChunk(run.chunk, chunks));
  if (run.count > 0 && run.first + uint32_t{run.count} <= kMaxBlocks) return run;
  return Bad(fmt::format("{} blocks from number {} on in chunk {}: a chunk has at most {}",
                         run.count, run.first, run.chunk, kMaxBlocks));
}

}  // namespace

Result<BootTrace> DecodeTrace(std::string_view body, uint64_t chunks) {
  Decoder decoder(body);
  const auto decode = [&]() -> Result<BootTrace> {
    BootTrace trace;
    RETURN_IF_ERROR(CheckHead(&decoder, kTraceMagic));
    ASSIGN_OR_RETURN(trace.data, TakeName<DataName>(&decoder));
    constexpr size_t kMaxRuns = (kMaxTraceBytes - kTraceHeadBytes) / kTraceRunBytes;
    ASSIGN_OR_RETURN(const uint32_t count, TakeCount(&decoder, kMaxRuns, "runs"));
    size_t blocks = 0;
    for (uint32_t i = 0; i < count; ++i) {
      ASSIGN_OR_RETURN(const BlockRun run, TakeRun(&decoder, chunks));
      blocks += run.count;
      if (blocks > kMaxTraceBlocks) {
        return Bad(fmt::format("more than {} blocks in a trace", kMaxTraceBlocks));
      }
      trace.runs.push_back(run);
    }
    RETURN_IF_ERROR(decoder.ExpectEnd());
    RETURN_IF_ERROR(CheckApart(trace.runs));
    return trace;
  };
  Result<BootTrace> trace = decode();
  if (trace.has_value() || trace.error().code() == Code::kInvalidArgument) return trace;
  return Bad("a boot trace: " + trace.error().message());
}

}  // namespace imaged
