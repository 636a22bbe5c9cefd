#include <chrono>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include <benchmark/benchmark.h>

#include "base/clock.h"
#include "base/metrics.h"
#include "chunkstore/chunk_store.h"
#include "chunkstore/local/local_meta_store.h"
#include "chunkstore/memory/memory_blob_store.h"
#include "tests/support/temp_dir.h"

// What it costs to seal a layer of a volume of 1 TiB: a content made over another one. The index
// lies on disk and the blobs in memory, because what is measured are maps and references.

namespace {

using chunkstore::kChunkBytes;

constexpr uint64_t kChunks = base::kTiB / kChunkBytes;
constexpr uint64_t kLeafChunks = 1024;

// 1 TiB without holes. A chunk occurs in many leaves and only once in each, so that there are as
// many references as if all chunks were different, and a sixtieth of the chunks to prepare.
class FullVolume {
 public:
  static FullVolume& Get() {
    static FullVolume volume;
    return volume;
  }

  // Puts every chunk of [0, kChunks) that `wanted` wants; `shift` says how they differ.
  template <typename Wanted>
  bool Put(chunkstore::Ingest& ingest, uint64_t shift, const Wanted& wanted) {
    for (uint64_t i = 0; i < kChunks; ++i) {
      if (!wanted(i)) continue;
      const uint64_t number = (i % kLeafChunks + i / kLeafChunks * 7 + shift) % kDistinct;
      Number(number);
      if (!ingest.PutHashed(i, base::AsBytes(chunk_), ids_[number]).has_value()) return false;
    }
    return true;
  }
  chunkstore::ChunkStore& store() { return *store_; }

 private:
  static constexpr uint64_t kDistinct = 4 * kLeafChunks;

  FullVolume() : chunk_(kChunkBytes, '\0') {
    meta_ = *chunkstore::local::OpenLocalMetaStore(dir_ / "meta", {});
    chunkstore::ChunkStoreOptions options;
    options.background_bytes_per_s = 0;
    store_ = *chunkstore::ChunkStore::Open(options, blobs_, *meta_, base::SystemClock(), metrics_);
    for (uint64_t number = 0; number < kDistinct; ++number) {
      Number(number);
      ids_.push_back(base::Sha256(base::AsBytes(chunk_)));
    }
    auto ingest = *store_->NewIngest("base", "");
    Put(*ingest, 0, [](uint64_t) { return true; });
    (void)ingest->Finish(base::kTiB).has_value();
  }
  void Number(uint64_t number) { std::memcpy(chunk_.data(), &++number, sizeof(number)); }

  support::TempDir dir_;
  base::Metrics metrics_;
  chunkstore::MemoryBlobStore blobs_;
  std::unique_ptr<chunkstore::MetaStore> meta_;
  std::unique_ptr<chunkstore::ChunkStore> store_;
  std::string chunk_;
  std::vector<base::Digest256> ids_;
};

// Finish alone is timed; the counters say what beginning and (known) puts cost beside it.
// `permille` of the chunks change: all in one place, or everywhere.
void BM_FinishOver(benchmark::State& state) {
  using std::chrono::steady_clock;
  FullVolume& volume = FullVolume::Get();
  const uint64_t permille = static_cast<uint64_t>(state.range(0));
  const bool scattered = state.range(1) != 0;
  double put_ms = 0;
  double begin_ms = 0;
  uint64_t round = 0;
  for (auto _ : state) {
    const auto begin = steady_clock::now();
    auto ingest = volume.store().NewIngestOver("over", "", "base");
    if (!ingest.has_value()) return state.SkipWithError("begin");
    const auto begun = steady_clock::now();
    const auto wanted = [&](uint64_t i) {
      return scattered ? i * permille / 1000 != (i + 1) * permille / 1000
                       : i < kChunks * permille / 1000;
    };
    ++round;
    if (!volume.Put(**ingest, 1000 + round, wanted)) return state.SkipWithError("put");
    const auto put = steady_clock::now();
    if (!(*ingest)->Finish(base::kTiB).has_value()) return state.SkipWithError("finish");
    const auto finished = steady_clock::now();
    state.SetIterationTime(std::chrono::duration<double>(finished - put).count());
    begin_ms += std::chrono::duration<double, std::milli>(begun - begin).count();
    put_ms += std::chrono::duration<double, std::milli>(put - begun).count();
    (void)volume.store().Release("over").has_value();
    (void)volume.store().Collect(false, nullptr).has_value();
  }
  state.counters["begin_ms"] = benchmark::Counter(begin_ms, benchmark::Counter::kAvgIterations);
  state.counters["puts_ms"] = benchmark::Counter(put_ms, benchmark::Counter::kAvgIterations);
}
BENCHMARK(BM_FinishOver)
    ->ArgNames({"permille", "scattered"})
    ->Args({0, 0})
    ->Args({1, 0})
    ->Args({10, 0})
    ->Args({100, 0})
    ->Args({1, 1})
    ->Args({10, 1})
    ->Args({100, 1})
    ->UseManualTime()
    ->Iterations(3)
    ->Unit(benchmark::kMillisecond);

}  // namespace
