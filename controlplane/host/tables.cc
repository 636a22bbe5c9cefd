#include "controlplane/host/tables.h"

#include <algorithm>
#include <utility>

#include <fmt/format.h>

#include "chunkstore/blob_format.h"

namespace controlplane::host {

using base::Code;
using base::Error;
using base::Result;

namespace {

// A node of each of the maps, and the table's own.
constexpr uint64_t kEntryBytes = 256;

uint64_t BytesOf(const ChunkTable& table) {
  return kEntryBytes + table.blocks.size() * sizeof(chunkstore::layers::BlockInfo) +
         table.ends.size() * sizeof(uint32_t);
}

}  // namespace

uint32_t ChunkBytes(const Shape& shape, uint64_t chunk) {
  const uint64_t begin = chunk * chunkstore::kChunkBytes;
  return static_cast<uint32_t>(
      std::min<uint64_t>(chunkstore::kChunkBytes, shape.size_bytes - begin));
}

Result<ChunkTable> ChunkTable::Of(RemoteImage::Table blocks, uint32_t chunk_bytes) {
  ChunkTable table;
  table.ends.reserve(blocks.size());
  uint64_t end = 0;
  for (const chunkstore::layers::BlockInfo& block : blocks) {
    if (block.plain_length == 0 || block.plain_length > chunkstore::kMaxBlockBytes)
      return Error(Code::kCorruption, "the service answered a table with a block of no length");
    end += block.plain_length;
    if (end > chunk_bytes) break;
    table.ends.push_back(static_cast<uint32_t>(end));
  }
  if (end != chunk_bytes) {
    return Error(Code::kCorruption,
                 fmt::format("the service answered a table of blocks that has {} bytes of {}", end,
                             chunk_bytes));
  }
  table.blocks = std::move(blocks);
  return table;
}

size_t ChunkTable::BlockAt(uint32_t offset) const {
  return static_cast<size_t>(std::upper_bound(ends.begin(), ends.end(), offset) - ends.begin());
}

Tables::Tables(uint64_t limit_bytes, base::Metrics& metrics)
    : limit_bytes_(limit_bytes),
      fetched_(metrics.GetCounter("quarry_host_tables_fetched_total",
                                  "Tables of chunks that were asked of the service")),
      memory_(metrics.GetGauge("quarry_host_tables_bytes", "Memory of tables of chunks")) {}

Tables::Ref Tables::FindLocked(const Key& key) {
  const auto found = entries_.find(key);
  if (found == entries_.end()) return nullptr;
  order_.splice(order_.end(), order_, found->second.place);
  return found->second.table;
}

Tables::Ref Tables::Find(uint64_t image, uint64_t chunk) {
  base::MutexLock lock(mutex_);
  return FindLocked({image, chunk});
}

void Tables::Erase(std::map<Key, Entry>::iterator entry) {
  used_bytes_ -= entry->second.bytes;
  order_.erase(entry->second.place);
  entries_.erase(entry);
}

// At least the one that was inserted last stays, however small the limit.
void Tables::Insert(const Key& key, Ref table) {
  const auto present = entries_.find(key);
  if (present != entries_.end()) Erase(present);
  const uint64_t bytes = BytesOf(*table);
  while (used_bytes_ + bytes > limit_bytes_ && !order_.empty())
    Erase(entries_.find(order_.front()));
  order_.push_back(key);
  entries_.emplace(key, Entry{std::move(table), bytes, std::prev(order_.end())});
  used_bytes_ += bytes;
  memory_.Set(static_cast<double>(used_bytes_));
}

// The chunk and those after it that are not here, nor on their way.
std::vector<uint64_t> Tables::Claim(const Key& key, const Shape& shape,
                                    std::shared_ptr<Call> call) {
  std::vector<uint64_t> chunks;
  const uint64_t end = std::min<uint64_t>(shape.holes.size(), key.chunk + kAtOnce);
  for (uint64_t chunk = key.chunk; chunk < end; ++chunk) {
    const Key other{key.image, chunk};
    if (shape.holes[chunk] || entries_.contains(other) || calls_.contains(other)) continue;
    chunks.push_back(chunk);
    calls_.emplace(other, call);
  }
  return chunks;
}

Result<void> Tables::Bring(uint64_t image, RemoteImage& source, const Shape& shape,
                           const std::vector<uint64_t>& chunks) {
  ASSIGN_OR_RETURN(std::vector<RemoteImage::Table> brought, source.Tables(chunks));
  if (brought.size() != chunks.size())
    return Error(Code::kCorruption, "the service answered another number of tables than asked for");
  fetched_.Add(static_cast<double>(chunks.size()));
  std::vector<Ref> tables;
  for (size_t i = 0; i < chunks.size(); ++i) {
    ASSIGN_OR_RETURN(ChunkTable table,
                     ChunkTable::Of(std::move(brought[i]), ChunkBytes(shape, chunks[i])));
    tables.push_back(std::make_shared<const ChunkTable>(std::move(table)));
  }
  base::MutexLock lock(mutex_);
  // What is asked for is used last, so that it isn't what has to go.
  for (size_t i = chunks.size(); i > 0; --i) Insert({image, chunks[i - 1]}, tables[i - 1]);
  return {};
}

Result<Tables::Ref> Tables::Get(uint64_t image, RemoteImage& source, const Shape& shape,
                                uint64_t chunk) {
  const Key key{image, chunk};
  const auto call = std::make_shared<Call>();
  std::vector<uint64_t> mine;
  {
    base::MutexLock lock(mutex_);
    while (true) {
      if (Ref found = FindLocked(key)) return found;
      const auto under_way = calls_.find(key);
      if (under_way == calls_.end()) break;
      const std::shared_ptr<Call> other = under_way->second;
      while (!other->ended) ended_.Wait(mutex_);
      if (!other->outcome.has_value()) return other->outcome.error();
      // Here now, unless it had to go again already.
    }
    mine = Claim(key, shape, call);
  }
  Result<void> outcome = Bring(image, source, shape, mine);
  base::MutexLock lock(mutex_);
  for (const uint64_t other : mine) calls_.erase({image, other});
  call->ended = true;
  call->outcome = outcome;
  ended_.NotifyAll();
  if (!outcome.has_value()) return std::move(outcome).error();
  if (Ref found = FindLocked(key)) return found;
  return Error(Code::kUnavailable, "the memory for tables of blocks is too small");
}

void Tables::Drop(uint64_t image, uint64_t chunk) {
  base::MutexLock lock(mutex_);
  const auto entry = entries_.find({image, chunk});
  if (entry != entries_.end()) Erase(entry);
}

void Tables::Forget(uint64_t image) {
  base::MutexLock lock(mutex_);
  auto entry = entries_.lower_bound({image, 0});
  while (entry != entries_.end() && entry->first.image == image) Erase(entry++);
  memory_.Set(static_cast<double>(used_bytes_));
}

uint64_t Tables::used_bytes() const {
  base::MutexLock lock(mutex_);
  return used_bytes_;
}

}  // namespace controlplane::host
