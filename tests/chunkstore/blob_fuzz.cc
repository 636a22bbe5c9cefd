#include <cstring>
#include <string>
#include <vector>

#include "base/check.h"
#include "chunkstore/blob_format.h"

namespace {

using chunkstore::BlobTable;
using chunkstore::Block;

// What a table that was accepted promises to those who trust it.
void CheckTable(const BlobTable& table, base::ByteView blob) {
  uint32_t end = 0;
  for (const Block& block : table.blocks) {
    CHECK(block.plain_offset == end);
    CHECK(block.plain_length > 0 && block.plain_length <= chunkstore::kMaxBlockBytes);
    CHECK(uint64_t{block.stored_offset} + block.stored_length <= blob.size());
    if (block.form == Block::Form::kElsewhere) {
      CHECK(block.owner < table.owners.size());
      CHECK(uint64_t{block.owner_offset} + block.plain_length <= chunkstore::kChunkBytes);
    }
    CHECK(block.form != Block::Form::kAbsent || table.partial);
    end += block.plain_length;
  }
  CHECK(end == table.plain_length && end <= chunkstore::kChunkBytes);
  CHECK(table.BlockAt(end - 1) == table.blocks.size() - 1);
}

void Read(base::ByteView blob) {
  auto table =
      chunkstore::DecodeTable(blob.last(chunkstore::TailReadBytes(blob.size())), blob.size());
  if (!table) return;
  CheckTable(*table, blob);
  for (Block block : table->blocks) {
    if (!block.is_here()) continue;
    std::vector<uint8_t> plain(block.plain_length);
    base::ByteView stored = blob.subspan(block.stored_offset, block.stored_length);
    if (chunkstore::DecodeBlock(block, stored, plain)) CHECK(base::Xxh3(plain) == block.hash);
    // As if the check sum were right: zstd gets to see it.
    block.stored_check = base::Xxh3(stored).low;
    if (chunkstore::DecodeBlock(block, stored, plain)) CHECK(base::Xxh3(plain) == block.hash);
  }
}

// Makes the check sum right for the table length that the trailer claims, so that mutations get
// past it.
std::string Signed(base::ByteView blob) {
  std::string copy(base::AsText(blob));
  if (copy.size() < chunkstore::kTrailerBytes) return copy;
  uint32_t table_length;
  std::memcpy(&table_length, copy.data() + copy.size() - chunkstore::kTrailerBytes + 12, 4);
  uint64_t summed = uint64_t{table_length} + chunkstore::kTrailerBytes;
  if (summed > copy.size()) return copy;
  uint64_t sum =
      base::Xxh3(base::AsBytes(std::string_view(copy).substr(copy.size() - summed, summed - 8)))
          .low;
  std::memcpy(copy.data() + copy.size() - 8, &sum, 8);
  return copy;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  Read({data, size});
  Read(base::AsBytes(Signed({data, size})));
  return 0;
}
