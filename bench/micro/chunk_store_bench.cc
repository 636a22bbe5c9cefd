#include <cstring>
#include <random>
#include <string>
#include <vector>

#include <benchmark/benchmark.h>

#include "base/metrics.h"
#include "chunkstore/chunk_store.h"
#include "chunkstore/local/local_blob_store.h"
#include "chunkstore/local/local_meta_store.h"
#include "tests/support/temp_dir.h"

// ChunkStore on local stores: put of new and of known chunks, reading, and the map.

namespace {

using chunkstore::kChunkBytes;

// Bytes that a seed decides: those of odd seeds compress.
std::string MakeBytes(uint32_t seed, size_t size) {
  std::string bytes(size, '\0');
  std::mt19937_64 random(seed);
  for (size_t at = 0; at < size; at += 8) {
    const uint64_t word = seed % 2 ? random() & 0x0000000F0000000FULL : random();
    std::memcpy(bytes.data() + at, &word, 8);
  }
  return bytes;
}

class LocalWorld {
 public:
  explicit LocalWorld(int compression_level) {
    blobs_ = *chunkstore::local::LocalBlobStore::Open(base::SystemFiles(), dir_.path());
    meta_ = *chunkstore::local::OpenLocalMetaStore(dir_ / "meta", {});
    chunkstore::ChunkStoreOptions options;
    options.compression_level = compression_level;
    options.background_bytes_per_s = 0;
    options.cache_bytes = 256 * base::kMiB;
    store_ = *chunkstore::ChunkStore::Open(options, *blobs_, *meta_, base::SystemClock(), metrics_);
  }
  chunkstore::ChunkStore& store() { return *store_; }

 private:
  support::TempDir dir_;
  base::Metrics metrics_;
  std::unique_ptr<chunkstore::BlobStore> blobs_;
  std::unique_ptr<chunkstore::MetaStore> meta_;
  std::unique_ptr<chunkstore::ChunkStore> store_;
};

// Makes a chunk that nobody has seen: another number in each block-sized step.
void Renew(std::string* chunk, uint64_t number) {
  for (size_t at = 0; at < chunk->size(); at += 4096) std::memcpy(chunk->data() + at, &number, 8);
}

// Seed 2: random bytes, stored raw; seed 1: bytes that compress.
void BM_PutNew(benchmark::State& state) {
  LocalWorld world(1);
  auto ingest = *world.store().NewIngest("bench", "");
  std::string chunk = MakeBytes(static_cast<uint32_t>(state.range(0)), kChunkBytes);
  uint64_t index = 0;
  for (auto _ : state) {
    state.PauseTiming();
    Renew(&chunk, index);
    state.ResumeTiming();
    if (!ingest->Put(index++, base::AsBytes(chunk)).has_value()) state.SkipWithError("put");
  }
  state.SetBytesProcessed(static_cast<int64_t>(index * kChunkBytes));
}
BENCHMARK(BM_PutNew)->ArgName("seed")->Arg(1)->Arg(2)->UseRealTime()->Iterations(100);

void BM_PutKnown(benchmark::State& state) {
  LocalWorld world(1);
  auto ingest = *world.store().NewIngest("bench", "");
  const std::string chunk = MakeBytes(2, kChunkBytes);
  uint64_t index = 0;
  for (auto _ : state) {
    if (!ingest->Put(index++, base::AsBytes(chunk)).has_value()) state.SkipWithError("put");
  }
  state.SetBytesProcessed(static_cast<int64_t>(index * kChunkBytes));
}
BENCHMARK(BM_PutKnown)->UseRealTime()->MinTime(0.3);

void BM_PutZeros(benchmark::State& state) {
  LocalWorld world(1);
  auto ingest = *world.store().NewIngest("bench", "");
  const std::string chunk(kChunkBytes, '\0');
  uint64_t index = 0;
  for (auto _ : state) {
    if (!ingest->Put(index++, base::AsBytes(chunk)).has_value()) state.SkipWithError("put");
  }
  state.SetBytesProcessed(static_cast<int64_t>(index * kChunkBytes));
}
BENCHMARK(BM_PutZeros)->UseRealTime()->MinTime(0.3);

chunkstore::Root Fill(chunkstore::ChunkStore& store, uint32_t seed, uint64_t chunks) {
  auto ingest = *store.NewIngest("filled", "");
  std::string chunk = MakeBytes(seed, kChunkBytes);
  for (uint64_t i = 0; i < chunks; ++i) {
    Renew(&chunk, i);
    (void)ingest->Put(i, base::AsBytes(chunk)).has_value();
  }
  return *ingest->Finish(chunks * kChunkBytes);
}

// In order, as a download: verified runs of files (seed 2) or decoded bytes (seed 1).
void BM_Pieces(benchmark::State& state) {
  LocalWorld world(1);
  constexpr uint64_t kChunks = 32;
  const auto root = Fill(world.store(), static_cast<uint32_t>(state.range(0)), kChunks);
  auto content = *world.store().Open(root);
  uint64_t chunk = 0;
  for (auto _ : state) {
    auto piece = content->PieceAt(chunk++ % kChunks * kChunkBytes, kChunkBytes);
    benchmark::DoNotOptimize(piece);
  }
  state.SetBytesProcessed(static_cast<int64_t>(chunk * kChunkBytes));
}
BENCHMARK(BM_Pieces)->ArgName("seed")->Arg(1)->Arg(2)->MinTime(0.3);

// 32 chunks that the cache holds, and the pages above them: each under a leaf of its own, as in a
// volume of 1 TiB.
class WarmContent {
 public:
  static constexpr uint64_t kChunks = 32;
  static constexpr uint64_t kStride = 8 * 1024;

  explicit WarmContent(uint32_t seed) : world_(1) {
    auto ingest = *world_.store().NewIngest("warm", "");
    std::string chunk = MakeBytes(seed, kChunkBytes);
    for (uint64_t i = 0; i < kChunks; ++i) {
      Renew(&chunk, i);
      (void)ingest->Put(i * kStride, base::AsBytes(chunk)).has_value();
    }
    content_ = *world_.store().Open(*ingest->Finish(base::kTiB));
    std::vector<uint8_t> bytes(4096);
    for (uint64_t i = 0; i < kChunks * 1024; ++i)
      (void)content_->ReadAt(Place(i), bytes).has_value();
  }
  static uint64_t Place(uint64_t number) {
    return number / 1024 % kChunks * kStride * kChunkBytes + number % 1024 * 4096;
  }
  chunkstore::Content& content() { return *content_; }

 private:
  LocalWorld world_;
  std::shared_ptr<chunkstore::Content> content_;
};

// 4 KiB anywhere in it.
template <typename Read>
void ReadWarm4K(benchmark::State& state, const Read& read) {
  static WarmContent compressed(1);
  static WarmContent raw(2);
  chunkstore::Content& content = state.range(0) == 1 ? compressed.content() : raw.content();
  std::mt19937_64 random(static_cast<uint64_t>(state.thread_index()));
  std::vector<uint8_t> bytes(4096);
  for (auto _ : state) {
    if (!read(content, WarmContent::Place(random() % (WarmContent::kChunks * 1024)), bytes))
      state.SkipWithError("read");
  }
  state.SetItemsProcessed(state.iterations());
}
void BM_ReadWarm4K(benchmark::State& state) {
  ReadWarm4K(state, [](chunkstore::Content& content, uint64_t offset, base::MutableByteView into) {
    return content.ReadAt(offset, into).has_value();
  });
}
void BM_TryReadWarm4K(benchmark::State& state) {
  ReadWarm4K(state, [](chunkstore::Content& content, uint64_t offset, base::MutableByteView into) {
    const base::Result<bool> read = content.TryReadAt(offset, into);
    return read.has_value() && *read;
  });
}
BENCHMARK(BM_ReadWarm4K)->ArgName("seed")->Arg(1)->Arg(2)->MinTime(0.3)->ThreadRange(1, 2);
BENCHMARK(BM_TryReadWarm4K)->ArgName("seed")->Arg(1)->Arg(2)->MinTime(0.3)->ThreadRange(1, 2);

// A map over chunks that are known: what Finish costs for so many chunks.
void BM_MapInsert(benchmark::State& state) {
  LocalWorld world(1);
  const uint64_t chunks = static_cast<uint64_t>(state.range(0));
  std::vector<std::string> known;
  for (uint32_t seed = 1; seed <= 4; ++seed) known.push_back(MakeBytes(seed, kChunkBytes));
  int round = 0;
  for (auto _ : state) {
    state.PauseTiming();
    auto ingest = *world.store().NewIngest("map/" + std::to_string(round), "");
    for (uint64_t i = 0; i < chunks; ++i)
      (void)ingest->Put(i, base::AsBytes(known[(i ^ round) % 4])).has_value();
    state.ResumeTiming();
    if (!ingest->Finish(chunks * kChunkBytes).has_value()) state.SkipWithError("finish");
    ++round;
  }
}
BENCHMARK(BM_MapInsert)->ArgName("chunks")->Arg(512)->UseRealTime()->Iterations(3);

// Two contents of 1 TiB that differ in one chunk; ids made up, so that only the map is measured.
void BM_MapDiff(benchmark::State& state) {
  LocalWorld world(1);
  const std::string chunk = MakeBytes(1, kChunkBytes);
  const std::string other = MakeBytes(3, kChunkBytes);
  const auto make = [&](const std::string& holder, uint64_t changed) {
    auto ingest = *world.store().NewIngest(holder, "");
    for (uint64_t i = 0; i < 256; ++i) {
      const std::string& bytes = i == changed ? other : chunk;
      (void)ingest->Put(i * 1024, base::AsBytes(bytes)).has_value();
    }
    return *ingest->Finish(base::kTiB);
  };
  const auto a = make("a", 1000);
  const auto b = make("b", 100);
  for (auto _ : state) {
    int found = 0;
    const auto done = world.store().Diff(a, b, 0, [&](uint64_t, const auto&, const auto&) {
      ++found;
      return true;
    });
    if (!done.has_value() || found != 1) state.SkipWithError("diff");
  }
}
BENCHMARK(BM_MapDiff)->MinTime(0.3);

void BM_HoldAgainAndRelease(benchmark::State& state) {
  LocalWorld world(1);
  Fill(world.store(), 1, 32);
  for (auto _ : state) {
    if (!world.store().HoldAgain("filled", "again", "").has_value()) state.SkipWithError("hold");
    if (!world.store().Release("again").has_value()) state.SkipWithError("release");
  }
}
BENCHMARK(BM_HoldAgainAndRelease)->UseRealTime()->MinTime(0.3);

}  // namespace
