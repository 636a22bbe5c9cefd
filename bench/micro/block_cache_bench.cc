#include <memory>
#include <random>
#include <string>
#include <vector>

#include <benchmark/benchmark.h>

#include "chunkstore/block_cache.h"

// The cache alone, with 1 GiB in blocks of 32 KiB: far more than a core's caches hold, as with a
// volume. A copy of 64 bytes tells what the look-up costs.

namespace chunkstore {
namespace {

constexpr uint32_t kChunks = 256;
constexpr uint32_t kBlockBytes = 32 * base::kKiB;

base::Digest256 IdOf(uint32_t chunk) { return base::Sha256(base::AsBytes(std::to_string(chunk))); }

class Warm {
 public:
  Warm() {
    for (uint32_t chunk = 0; chunk < kChunks; ++chunk) {
      auto blob = std::make_shared<OpenBlob>();
      blob->table = {.id = IdOf(chunk), .plain_length = kChunkBytes};
      for (uint32_t at = 0; at < kChunkBytes; at += kBlockBytes)
        blob->table.blocks.push_back({.plain_offset = at, .plain_length = kBlockBytes});
      cache.InsertBlob(blob);
      for (const Block& block : blob->table.blocks)
        cache.InsertBlock(IdOf(chunk), block, std::make_unique<uint8_t[]>(kBlockBytes));
      ids.push_back(IdOf(chunk));
    }
  }

  base::Metrics metrics;
  BlockCache cache{2 * base::kGiB, metrics};
  std::vector<base::Digest256> ids;
};

void BM_CacheCopy(benchmark::State& state) {
  static Warm warm;
  std::mt19937_64 random(static_cast<uint64_t>(state.thread_index()));
  std::vector<uint8_t> into(static_cast<size_t>(state.range(0)));
  for (auto _ : state) {
    const uint32_t offset = static_cast<uint32_t>(random() % (kChunkBytes / 4096) * 4096);
    if (warm.cache.Copy(warm.ids[random() % kChunks], kChunkBytes, offset, into,
                        BlockCache::Miss::kCounted) != into.size())
      state.SkipWithError("miss");
  }
  state.SetItemsProcessed(state.iterations());
}
BENCHMARK(BM_CacheCopy)->ArgName("bytes")->Arg(64)->Arg(4096)->MinTime(0.5)->ThreadRange(1, 2);

}  // namespace
}  // namespace chunkstore
