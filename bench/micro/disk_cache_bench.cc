#include <random>
#include <string>
#include <vector>

#include <benchmark/benchmark.h>
#include <fcntl.h>
#include <unistd.h>

#include "base/hash.h"
#include "bench/micro/inputs.h"
#include "chunkstore/blob_format.h"
#include "chunkstore/layers/caching.h"
#include "tests/support/temp_dir.h"

// Warm reads of the disk cache of a compute host, its file in the page cache, beside the least that
// has to be done for them: pread and DecodeBlock, where somebody else knows the place. Bytes are
// plain ones.

namespace chunkstore::layers {
namespace {

constexpr uint64_t kChunks = 64;

// Chunks like a disk's, and their stored bytes in a file of their own.
class Image : public BlockSource {
 public:
  Image() : descriptor_(open((dir_ / "blocks").c_str(), O_RDWR | O_CREAT, 0600)) {
    BlobEncoder encoder(EncodeOptions{});
    for (uint64_t i = 0; i < kChunks; ++i) {
      const std::string plain = bench::DiskBytes(kChunkBytes, i);
      const EncodedBlob blob = encoder.Encode(BlobKind::kChunk, base::Sha256(base::AsBytes(plain)),
                                              base::AsBytes(plain));
      std::string stored;
      for (const base::ByteView piece : blob.pieces()) stored += base::AsText(piece);
      if (pwrite(descriptor_, stored.data(), stored.size(), BeginOf(i)) < 0) abort();
      tables_.push_back(blob.table());
      std::vector<BlockInfo> infos;
      for (const Block& block : blob.table().blocks) {
        BlockInfo info{.plain_length = block.plain_length,
                       .stored_length = block.stored_length,
                       .compressed = block.form == Block::Form::kZstd,
                       .hash = block.hash};
        base::FillRandom(info.name.bytes);
        infos.push_back(info);
      }
      infos_.push_back(std::move(infos));
    }
  }
  ~Image() override { close(descriptor_); }

  base::Result<std::vector<BlockInfo>> Table(uint64_t index) override { return infos_[index]; }
  base::Result<void> Fetch(uint64_t index, std::span<const size_t> numbers,
                           const Sink& sink) override {
    for (const size_t number : numbers) RETURN_IF_ERROR(sink(number, Stored(index, number)));
    return {};
  }

  base::ByteView Stored(uint64_t index, size_t number) {
    const Block& block = tables_[index].blocks[number];
    thread_local std::vector<uint8_t> stored(kMaxBlockBytes);
    if (pread(descriptor_, stored.data(), block.stored_length,
              BeginOf(index) + block.stored_offset) < 0)
      abort();
    return base::ByteView(stored).first(block.stored_length);
  }
  const std::vector<Block>& blocks(uint64_t index) const { return tables_[index].blocks; }
  const std::vector<BlockInfo>& infos(uint64_t index) const { return infos_[index]; }

 private:
  static off_t BeginOf(uint64_t index) { return static_cast<off_t>(index * 2 * kChunkBytes); }

  support::TempDir dir_;
  const int descriptor_;
  std::vector<BlobTable> tables_;
  std::vector<std::vector<BlockInfo>> infos_;
};

struct World {
  World() {
    cache = std::move(*BlockDiskCache::Open({.directory = dir / "cache", .limit_bytes = base::kGiB},
                                            metrics, base::SystemFiles(), base::SystemClock()));
    std::vector<uint8_t> into(kChunkBytes);
    for (uint64_t i = 0; i < kChunks; ++i)
      if (!cache->Read(image, i, image.infos(i), 0, into)) abort();
  }
  support::TempDir dir;
  base::Metrics metrics;
  Image image;
  std::unique_ptr<BlockDiskCache> cache;
};

World& TheWorld() {
  static World world;
  return world;
}

// One block after the other, at random.
void BM_PreadAndDecode(benchmark::State& state) {
  Image& image = TheWorld().image;
  std::mt19937_64 random(static_cast<uint64_t>(state.thread_index()));
  std::vector<uint8_t> into(kMaxBlockBytes);
  int64_t bytes = 0;
  for (auto _ : state) {
    const uint64_t index = random() % kChunks;
    const size_t number = random() % image.blocks(index).size();
    const Block& block = image.blocks(index)[number];
    const base::MutableByteView out = base::MutableByteView(into).first(block.plain_length);
    if (!DecodeBlock(block, image.Stored(index, number), out)) state.SkipWithError("damaged");
    bytes += block.plain_length;
  }
  state.SetBytesProcessed(bytes);
  state.SetItemsProcessed(state.iterations());
}
BENCHMARK(BM_PreadAndDecode)->MinTime(0.5)->ThreadRange(1, 2)->UseRealTime();

// The same through the cache.
void BM_DiskCacheBlocks(benchmark::State& state) {
  World& world = TheWorld();
  std::mt19937_64 random(static_cast<uint64_t>(state.thread_index()));
  std::vector<uint8_t> into(kMaxBlockBytes);
  int64_t bytes = 0;
  for (auto _ : state) {
    const uint64_t index = random() % kChunks;
    const Block& block = world.image.blocks(index)[random() % world.image.blocks(index).size()];
    const base::MutableByteView out = base::MutableByteView(into).first(block.plain_length);
    if (!world.cache->Read(world.image, index, world.image.infos(index), block.plain_offset, out))
      state.SkipWithError("failed");
    bytes += block.plain_length;
  }
  state.SetBytesProcessed(bytes);
  state.SetItemsProcessed(state.iterations());
}
BENCHMARK(BM_DiskCacheBlocks)->MinTime(0.5)->ThreadRange(1, 2)->UseRealTime();

// As guests read: so many bytes on a grid of as many, at random.
void BM_DiskCacheReads(benchmark::State& state) {
  World& world = TheWorld();
  const auto size = static_cast<size_t>(state.range(0));
  std::mt19937_64 random(static_cast<uint64_t>(state.thread_index()));
  std::vector<uint8_t> into(size);
  for (auto _ : state) {
    const uint64_t index = random() % kChunks;
    const auto offset = static_cast<uint32_t>(random() % (kChunkBytes / size) * size);
    if (!world.cache->Read(world.image, index, world.image.infos(index), offset, into))
      state.SkipWithError("failed");
  }
  state.SetBytesProcessed(state.iterations() * static_cast<int64_t>(size));
  state.SetItemsProcessed(state.iterations());
}
BENCHMARK(BM_DiskCacheReads)
    ->ArgName("bytes")
    ->Arg(4096)
    ->Arg(128 * 1024)
    ->Arg(kChunkBytes)
    ->MinTime(0.5)
    ->ThreadRange(1, 2)
    ->UseRealTime();

}  // namespace
}  // namespace chunkstore::layers
