#include "controlplane/host/tables.h"

#include <latch>
#include <thread>

#include <gtest/gtest.h>

#include "tests/controlplane/host/memory_image.h"
#include "tests/support/results.h"

namespace controlplane::host {
namespace {

using base::Code;
using base::Error;

TEST(ChunkTable, MustHaveExactlyTheBytesOfTheChunk) {
  const MemoryImage image(SomeBytes(1, 5000));
  RemoteImage::Table blocks = image.table(0);
  ASSERT_OK_AND_ASSIGN(const ChunkTable table, ChunkTable::Of(blocks, chunkstore::kChunkBytes));
  uint32_t offset = 0;
  for (size_t i = 0; i < blocks.size(); ++i) {
    EXPECT_EQ(table.BlockAt(offset), i);
    offset += blocks[i].plain_length;
    EXPECT_EQ(table.BlockAt(offset - 1), i);
  }
  EXPECT_ERROR(ChunkTable::Of(blocks, chunkstore::kChunkBytes - 1), Code::kCorruption);
  EXPECT_ERROR(ChunkTable::Of({}, 1), Code::kCorruption);
  RemoteImage::Table empty = blocks;
  empty[1].plain_length = 0;
  EXPECT_ERROR(ChunkTable::Of(empty, chunkstore::kChunkBytes), Code::kCorruption);
  RemoteImage::Table huge = blocks;
  huge[0].plain_length = 0xffffffff;
  EXPECT_ERROR(ChunkTable::Of(huge, chunkstore::kChunkBytes), Code::kCorruption);
  blocks.pop_back();
  EXPECT_ERROR(ChunkTable::Of(blocks, chunkstore::kChunkBytes), Code::kCorruption);
}

TEST(Tables, NeighboursComeWithOneCallAndHolesAreNotAskedFor) {
  base::Metrics metrics;
  Tables tables(Tables::kDefaultMemoryBytes, metrics);
  MemoryImage image(SomeBytes(6));
  ASSERT_OK(tables.Get(1, image, image.shape(), 0));
  EXPECT_EQ(image.table_calls, 1);
  for (const uint64_t chunk : {2, 3, 5}) EXPECT_NE(tables.Find(1, chunk), nullptr) << chunk;
  for (const uint64_t hole : {1, 4}) EXPECT_EQ(tables.Find(1, hole), nullptr) << hole;
  ASSERT_OK(tables.Get(1, image, image.shape(), 5));
  EXPECT_EQ(image.table_calls, 1);
  EXPECT_EQ(tables.Find(2, 0), nullptr) << "another image's";
  tables.Forget(1);
  EXPECT_EQ(tables.used_bytes(), 0);
}

TEST(Tables, StayUnderTheirLimit) {
  base::Metrics metrics;
  MemoryImage image(SomeBytes(12));
  Tables all(Tables::kDefaultMemoryBytes, metrics);
  ASSERT_OK(all.Get(1, image, image.shape(), 0));
  const uint64_t limit = all.used_bytes() / 3;
  Tables few(limit, metrics);
  for (uint64_t chunk = 0; chunk < 12; ++chunk) {
    if (image.shape().holes[chunk]) continue;
    ASSERT_OK_AND_ASSIGN(const Tables::Ref table, few.Get(1, image, image.shape(), chunk));
    EXPECT_EQ(table->blocks.size(), image.table(chunk).size());
    EXPECT_LE(few.used_bytes(), limit);
  }
}

TEST(Tables, ManyWhoWaitAskOnce) {
  base::Metrics metrics;
  Tables tables(Tables::kDefaultMemoryBytes, metrics);
  MemoryImage image(SomeBytes(3));
  constexpr int kReaders = 16;
  std::latch asked(1);
  std::latch go(1);
  image.SetBefore([&] {
    asked.count_down();
    go.wait();
  });
  std::vector<std::thread> readers;
  std::atomic<int> fine{0};
  readers.emplace_back([&] { fine += tables.Get(1, image, image.shape(), 0).has_value() ? 1 : 0; });
  asked.wait();
  for (int i = 1; i < kReaders; ++i)
    readers.emplace_back(
        [&, i] { fine += tables.Get(1, image, image.shape(), i % 2 * 2).has_value() ? 1 : 0; });
  go.count_down();
  for (std::thread& reader : readers) reader.join();
  EXPECT_EQ(fine, kReaders);
  EXPECT_EQ(image.table_calls, 1);
}

TEST(Tables, AFailedCallIsMadeAgainByTheNextOne) {
  base::Metrics metrics;
  Tables tables(Tables::kDefaultMemoryBytes, metrics);
  MemoryImage image(SomeBytes(1));
  image.Fail(Error(Code::kUnavailable, "down"));
  EXPECT_ERROR(tables.Get(1, image, image.shape(), 0), Code::kUnavailable);
  image.Fail(std::nullopt);
  EXPECT_OK(tables.Get(1, image, image.shape(), 0));
}

}  // namespace
}  // namespace controlplane::host
