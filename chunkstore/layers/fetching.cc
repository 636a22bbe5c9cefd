#include "chunkstore/layers/fetching.h"

#include <algorithm>

#include <fmt/format.h>

#include "base/check.h"
#include "chunkstore/blob_format.h"

namespace chunkstore::layers {

using base::ByteView;
using base::Code;
using base::Error;
using base::MutableByteView;
using base::Result;

namespace {

constexpr int kFetchTries = 2;
// Stored bytes that wait to be written together.
constexpr size_t kWriteTogetherBytes = 1 * base::kMiB;

}  // namespace

Result<uint32_t> CheckTable(std::span<const BlockInfo> table) {
  uint32_t end = 0;
  for (const BlockInfo& info : table) {
    const bool right = info.plain_length > 0 && info.plain_length <= kMaxBlockBytes &&
                       info.stored_length > 0 && info.stored_length <= kMaxBlockBytes &&
                       (info.compressed || info.stored_length == info.plain_length);
    if (!right || info.plain_length > kChunkBytes - end)
      return Error(Code::kCorruption, "what the service says of a chunk's blocks can't be right");
    end += info.plain_length;
  }
  return end;
}

Result<void> DecodeBlock(const BlockInfo& info, ByteView stored, MutableByteView out) {
  const Block block{.plain_length = info.plain_length,
                    .stored_length = info.stored_length,
                    .form = info.compressed ? Block::Form::kZstd : Block::Form::kRaw,
                    .hash = info.hash,
                    // Nobody says what it should be; the hash of what comes out decides.
                    .stored_check = info.compressed ? base::Xxh3(stored).low : 0};
  return chunkstore::DecodeBlock(block, stored, out);
}

// --- what is wanted

Wanted::Wanted(BlockSource& block_source, uint64_t chunk_index, std::span<const BlockInfo> blocks)
    : source(block_source), index(chunk_index), table(blocks) {}

Wanted::Wanted(BlockSource& block_source, uint64_t chunk_index, std::span<const BlockInfo> blocks,
               uint32_t offset, MutableByteView into)
    : source(block_source), index(chunk_index), table(blocks), into_(into) {
  const uint64_t wanted_end = offset + into.size();
  uint64_t begin = 0;
  for (size_t number = 0; number < table.size() && begin < wanted_end; ++number) {
    const uint64_t end = begin + table[number].plain_length;
    if (end > offset) {
      const uint64_t from = std::max<uint64_t>(begin, offset);
      numbers_.push_back(number);
      parts_.push_back({.in_block = static_cast<uint32_t>(from - begin),
                        .in_read = static_cast<uint32_t>(from - offset),
                        .length = static_cast<uint32_t>(std::min(end, wanted_end) - from)});
    }
    begin = end;
  }
  CHECK(begin >= wanted_end);
}

uint64_t Wanted::BytesOf(size_t number) const { return PartOf(number).length; }

MutableByteView Wanted::RoomFor(size_t number) const {
  const Part& part = PartOf(number);
  if (part.length != table[number].plain_length) return {};
  return into_.subspan(part.in_read, part.length);
}

void Wanted::Deliver(size_t number, ByteView plain) const {
  if (!reads()) return;
  const Part& part = PartOf(number);
  std::ranges::copy(plain.subspan(part.in_block, part.length), into_.begin() + part.in_read);
}

// --- fetching it

void Fetching::Add(size_t number, std::shared_ptr<Flight> flight) {
  CHECK(items_.empty() || items_.back().number < number);
  items_.push_back({.number = number, .flight = std::move(flight)});
}

Result<void> Fetching::Run() {
  Result<void> fetched;
  for (int tries = 0; tries < kFetchTries && !items_.empty(); ++tries) {
    fetched = FetchOnce();
    if (!fetched && fetched.error().code() != Code::kCorruption) break;
  }
  WriteLanded();
  if (items_.empty()) return {};
  std::vector<std::shared_ptr<Flight>> failed;
  for (Item& item : items_) {
    item.flight->Fail(fetched.error());
    failed.push_back(std::move(item.flight));
  }
  flights_.End(failed);
  return fetched;
}

// Success: nothing is left to fetch.
Result<void> Fetching::FetchOnce() {
  std::vector<size_t> numbers;
  for (const Item& item : items_) numbers.push_back(item.number);
  size_t next = 0;
  Result<void> fetched = wanted_.source.Fetch(
      wanted_.index, numbers, [&](size_t number, ByteView stored) -> Result<void> {
        if (next == items_.size() || items_[next].number != number)
          return Error(Code::kCorruption, "the service sent a block that nobody asked for");
        counts_.fetched_blocks.Add(1);
        counts_.fetched_bytes.Add(stored.size());
        if (!wanted_.reads()) counts_.ahead_fetched_bytes.Add(stored.size());
        Take(items_[next++], stored);
        return {};
      });
  std::erase_if(items_, [](const Item& item) { return item.flight->done(); });
  if (items_.empty()) return {};  // whatever went wrong after that
  if (!fetched) return fetched;
  return Error(Code::kCorruption,
               fmt::format("block {} of chunk {} did not come from the service, or with other "
                           "bytes than it told",
                           items_.front().number, wanted_.index));
}

void Fetching::Take(const Item& item, ByteView stored) {
  const BlockInfo& info = wanted_.table[item.number];
  std::vector<uint8_t> plain(info.plain_length);
  if (!DecodeBlock(info, stored, plain)) return;
  wanted_.Deliver(item.number, plain);
  item.flight->Land(std::move(plain));
  landed_.push_back({.flight = item.flight, .stored = {stored.begin(), stored.end()}});
  landed_bytes_ += stored.size();
  if (landed_bytes_ >= kWriteTogetherBytes) WriteLanded();
}

// Only now the flights end: from now on the block is found on disk.
void Fetching::WriteLanded() {
  if (landed_.empty()) return;
  std::vector<BlockLog::Stored> blocks;
  std::vector<std::shared_ptr<Flight>> ended;
  for (Landed& landed : landed_) {
    blocks.push_back({.key = KeyOf(landed.flight->info().name),
                      .bytes = landed.stored,
                      .ahead = !wanted_.reads()});
    ended.push_back(std::move(landed.flight));
  }
  const size_t written = log_.Append(blocks);
  if (written < blocks.size()) counts_.unkept_blocks.Add(blocks.size() - written);
  flights_.End(ended);
  landed_.clear();
  landed_bytes_ = 0;
}

}  // namespace chunkstore::layers
