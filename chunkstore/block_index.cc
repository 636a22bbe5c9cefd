#include "chunkstore/block_index.h"

#include <algorithm>
#include <utility>

#include "base/coding.h"
#include "base/log.h"

namespace chunkstore {
namespace {

using base::Code;
using base::Digest256;
using base::Error;
using base::MutexLock;
using base::Result;

constexpr size_t kSweepBatch = 1024;

uint64_t KeyOf(const base::Hash128& hash) { return hash.high; }

size_t PartitionOf(uint64_t key) { return key >> 56; }

std::string Encode(uint64_t key) {
  std::string out;
  base::PutOrdered64(&out, key);
  return out;
}

std::string Encode(const BlockIndex::Place& place) {
  std::string out(place.chunk.view());
  base::PutFixed<uint16_t>(&out, static_cast<uint16_t>(place.offset / kBlockGridBytes));
  return out;
}

Result<BlockIndex::Place> Decode(std::string_view value) {
  base::Decoder in(value);
  ASSIGN_OR_RETURN(const std::string_view id, in.Bytes(32));
  BlockIndex::Place place;
  ASSIGN_OR_RETURN(place.chunk, Digest256::FromBytes(id));
  ASSIGN_OR_RETURN(const uint16_t page, in.Fixed<uint16_t>());
  place.offset = page * kBlockGridBytes;
  RETURN_IF_ERROR(in.ExpectEnd());
  if (place.offset >= kChunkBytes) return Error(Code::kCorruption, "a block beyond its chunk");
  return place;
}

}  // namespace

BlockIndex::BlockIndex(MetaStore& meta) : meta_(meta) {}

std::string BlockIndex::PartitionName(size_t number) {
  const char byte = static_cast<char>(number);
  return "b/" + base::ToHex({&byte, 1});
}

Result<std::vector<std::optional<BlockIndex::Place>>> BlockIndex::Find(
    std::span<const Block> blocks) {
  std::vector<std::optional<Place>> places(blocks.size());
  {
    MutexLock lock(mutex_);
    for (size_t i = 0; i < blocks.size(); ++i) {
      for (const Notes* notes : {&notes_, &writing_}) {
        const auto found = notes->find(KeyOf(blocks[i].hash));
        if (found != notes->end()) places[i] = found->second;
      }
    }
  }
  for (size_t i = 0; i < blocks.size(); ++i) {
    if (places[i]) continue;
    const uint64_t key = KeyOf(blocks[i].hash);
    const Result<std::string> value = meta_.Get(PartitionName(PartitionOf(key)), Encode(key));
    if (!value.has_value() && value.error().code() == Code::kNotFound) continue;
    RETURN_IF_ERROR(value);
    const Result<Place> place = Decode(*value);
    if (place.has_value()) places[i] = *place;  // else it will be written over
  }
  return places;
}

void BlockIndex::Note(const BlobTable& table) {
  Notes full;
  {
    MutexLock lock(mutex_);
    for (const Block& block : table.blocks) {
      if (block.is_here())
        notes_.insert_or_assign(KeyOf(block.hash), Place{table.id, block.plain_offset});
    }
    if (notes_.size() < kNotesTogether || !writing_.empty()) return;
    writing_ = std::exchange(notes_, {});
    full = writing_;
  }
  Write(full);
  MutexLock lock(mutex_);
  writing_.clear();
}

void BlockIndex::Flush() {
  Notes all;
  {
    MutexLock lock(mutex_);
    all = std::exchange(notes_, {});
  }
  Write(all);
}

void BlockIndex::Write(const Notes& notes) {
  std::vector<uint64_t> keys;
  keys.reserve(notes.size());
  for (const auto& [key, place] : notes) keys.push_back(key);
  std::sort(keys.begin(), keys.end());
  for (size_t begin = 0; begin < keys.size();) {
    const size_t partition = PartitionOf(keys[begin]);
    MetaBatch batch;
    for (; begin < keys.size() && PartitionOf(keys[begin]) == partition; ++begin)
      batch.Put(Encode(keys[begin]), Encode(notes.at(keys[begin])));
    const Result<void> committed = meta_.Commit(PartitionName(partition), batch);
    if (committed.has_value()) continue;
    LOG(kWarn, "chunkstore", "blocks that will not be shared: their index can't be written: {}",
        committed.error().ToString());
    return;
  }
}

Result<uint64_t> BlockIndex::Sweep(size_t partition, const ChunkCheck& is_there) {
  const std::string name = PartitionName(partition);
  uint64_t forgotten = 0;
  std::string from;
  while (true) {
    std::vector<std::pair<std::string, std::string>> some;
    RETURN_IF_ERROR(
        meta_.Scan(name, from, "", kSweepBatch, [&](std::string_view key, std::string_view value) {
          some.emplace_back(key, value);
          return true;
        }));
    MetaBatch batch;
    for (const auto& [key, value] : some) {
      const Result<Place> place = Decode(value);
      bool there = place.has_value();
      if (there) {
        ASSIGN_OR_RETURN(there, is_there(place->chunk));
      }
      if (!there) batch.Delete(key);
    }
    forgotten += batch.changes().size();
    // A note that came in between may be lost by this; it only proposed.
    if (!batch.empty()) RETURN_IF_ERROR(meta_.Commit(name, batch));
    if (some.size() < kSweepBatch) return forgotten;
    from = some.back().first + '\0';
  }
}

}  // namespace chunkstore
