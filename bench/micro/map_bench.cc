#include <chrono>
#include <cstring>
#include <memory>
#include <optional>
#include <string>
#include <utility>
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
  // Another store over the same, that has nothing in memory.
  std::unique_ptr<chunkstore::ChunkStore> ColdStore() {
    return *chunkstore::ChunkStore::Open({}, blobs_, *meta_, base::SystemClock(), cold_metrics_);
  }
  // Where chunk i is one of `permille` of all: in one place, or everywhere.
  static bool IsAmong(uint64_t i, uint64_t permille, bool scattered) {
    return scattered ? i * permille / 1000 != (i + 1) * permille / 1000
                     : i < kChunks * permille / 1000;
  }

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
  base::Metrics cold_metrics_;
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
    const auto wanted = [&](uint64_t i) { return FullVolume::IsAmong(i, permille, scattered); };
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

// What changed since a snapshot, as backup tools ask: pages of 1000 runs, each from where the last
// one ended, until all was told. Of every chunk of 1 TiB there is one; `permille` of them changed.
// `cold`: by a store that has no page of the maps in memory at first.
void BM_ChangedPages(benchmark::State& state) {
  constexpr uint64_t kRuns = 1000;
  FullVolume& volume = FullVolume::Get();
  const uint64_t permille = static_cast<uint64_t>(state.range(0));
  const bool scattered = state.range(1) != 0;
  const bool cold = state.range(2) != 0;
  auto ingest = volume.store().NewIngestOver("now", "", "base");
  const auto wanted = [&](uint64_t i) { return FullVolume::IsAmong(i, permille, scattered); };
  if (!ingest.has_value() || !volume.Put(**ingest, 999, wanted)) return state.SkipWithError("put");
  const auto now = (*ingest)->Finish(base::kTiB);
  const auto then = volume.store().FindHolder("base");
  if (!now.has_value() || !then.has_value()) return state.SkipWithError("finish");
  uint64_t pages = 0;
  uint64_t changed = 0;
  const auto read_all = [&](chunkstore::ChunkStore& store) {
    pages = changed = 0;
    std::optional<uint64_t> from = 0;
    while (from.has_value()) {
      uint64_t runs = 0;
      uint64_t end = UINT64_MAX;
      const uint64_t begin = *std::exchange(from, std::nullopt);
      const auto done = store.Diff(*now, *then->root, begin, [&](uint64_t i, auto&, auto&) {
        if (i != end && ++runs > kRuns) {
          from = i;
          return false;
        }
        end = i + 1;
        ++changed;
        return true;
      });
      if (!done.has_value()) return false;
      ++pages;
    }
    return true;
  };
  if (!read_all(volume.store())) return state.SkipWithError("diff");
  for (auto _ : state) {
    state.PauseTiming();
    const auto fresh = cold ? volume.ColdStore() : nullptr;
    state.ResumeTiming();
    if (!read_all(cold ? *fresh : volume.store())) return state.SkipWithError("diff");
  }
  state.counters["changed_chunks"] = static_cast<double>(changed);
  state.counters["pages"] = static_cast<double>(pages);
  (void)volume.store().Release("now").has_value();
  (void)volume.store().Collect(false, nullptr).has_value();
}
BENCHMARK(BM_ChangedPages)
    ->ArgNames({"permille", "scattered", "cold"})
    ->ArgsProduct({{0}, {0}, {0, 1}})
    ->ArgsProduct({{1, 100}, {0, 1}, {0, 1}})
    ->Iterations(10)
    ->UseRealTime()
    ->Unit(benchmark::kMicrosecond);

}  // namespace
