#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "base/bytes.h"
#include "base/result.h"
#include "chunkstore/layers/block_log.h"
#include "chunkstore/layers/block_source.h"
#include "chunkstore/layers/cache_counts.h"
#include "chunkstore/layers/flights.h"

namespace chunkstore::layers {

// What a service says of a chunk's blocks; the chunk's length in plain bytes. kCorruption for what
// can't be.
base::Result<uint32_t> CheckTable(std::span<const BlockInfo> table);

// The plain bytes of a block, verified. REQUIRES: out.size() == plain_length. kCorruption.
base::Result<void> DecodeBlock(const BlockInfo& info, base::ByteView stored,
                               base::MutableByteView out);

// What one call wants of a chunk, and where it goes. Borrows all.
class Wanted {
 public:
  // Blocks are only to be on disk.
  Wanted(BlockSource& block_source, uint64_t chunk_index, std::span<const BlockInfo> blocks);
  // The bytes from `offset` in the chunk on are to be read. REQUIRES: they lie in it.
  Wanted(BlockSource& block_source, uint64_t chunk_index, std::span<const BlockInfo> blocks,
         uint32_t offset, base::MutableByteView into);

  BlockSource& source;
  const uint64_t index;
  const std::span<const BlockInfo> table;

  bool reads() const { return !into_.empty(); }
  // The blocks that the bytes to read lie in.
  const std::vector<size_t>& numbers() const { return numbers_; }
  // Copies what is wanted of a block.
  void Deliver(size_t number, base::ByteView plain) const;
  // How much that is; and where it goes if that is the whole block, else nothing.
  uint64_t BytesOf(size_t number) const;
  base::MutableByteView RoomFor(size_t number) const;

 private:
  struct Part {
    uint32_t in_block = 0;
    uint32_t in_read = 0;
    uint32_t length = 0;
  };
  const Part& PartOf(size_t number) const { return parts_[number - numbers_.front()]; }

  base::MutableByteView into_;
  std::vector<size_t> numbers_;
  std::vector<Part> parts_;  // of numbers_
};

// The blocks that one call fetches for itself and whoever waits for them. One thread.
class Fetching {
 public:
  Fetching(Flights& flights, BlockLog& log, CacheCounts& counts, const Wanted& wanted)
      : flights_(flights), log_(log), counts_(counts), wanted_(wanted) {}

  // In ascending order. The flight is ours.
  void Add(size_t number, std::shared_ptr<Flight> flight);
  // Fetches them, what came wrong a second time; then every flight is ended. Each block is
  // delivered and handed to those who wait when it comes, and written a little later.
  base::Result<void> Run();

 private:
  struct Item {
    size_t number = 0;
    std::shared_ptr<Flight> flight;
  };
  struct Landed {
    std::shared_ptr<Flight> flight;
    std::vector<uint8_t> stored;
  };

  base::Result<void> FetchOnce();
  void Take(const Item& item, base::ByteView stored);
  void WriteLanded();

  Flights& flights_;
  BlockLog& log_;
  CacheCounts& counts_;
  const Wanted& wanted_;
  std::vector<Item> items_;  // that have not landed
  std::vector<Landed> landed_;
  size_t landed_bytes_ = 0;
};

}  // namespace chunkstore::layers
