#include <algorithm>
#include <atomic>
#include <chrono>
#include <memory>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include <benchmark/benchmark.h>

#include "base/check.h"
#include "bench/micro/inputs.h"
#include "blockd/chunk/chunk_volume_store.h"
#include "chunkstore/local/local_blob_store.h"
#include "chunkstore/local/local_meta_store.h"
#include "tests/support/temp_dir.h"

// Volumes on the local stores under $TMPDIR, without a network: what a connection has to add its
// own to. Reads and writes are of 4 KiB at random places of 1 GiB, and stay in the page cache. Maps
// outlive the process, as they do in the service.

namespace blockd {
namespace {

constexpr uint64_t kSpanBytes = base::kGiB;
constexpr uint64_t kHotBlocks = 8192;  // what is written between two snapshots

struct Pool {
  explicit Pool(bool background) {
    blobs = chunkstore::local::LocalBlobStore::Open(base::SystemFiles(), dir.path()).value();
    meta = chunkstore::local::OpenLocalMetaStore(dir / "meta", {}).value();
    chunkstore::ChunkStoreOptions options;
    chunks =
        chunkstore::ChunkStore::Open(options, *blobs, *meta, base::SystemClock(), metrics).value();
    store = chunk::ChunkVolumeStore::Open(
                {.dir = dir / "layers", .background = background, .live_dir = "/dev/shm"},
                base::SystemFiles(), *chunks, *meta, metrics)
                .value();
  }
  std::shared_ptr<Volume> Make(const std::string& id, uint64_t size_bytes) {
    CHECK(store->Create({.id = id, .size_bytes = size_bytes}).has_value());
    return store->Open(id).value();
  }

  support::TempDir dir;
  base::Metrics metrics;
  std::unique_ptr<chunkstore::BlobStore> blobs;
  std::unique_ptr<chunkstore::MetaStore> meta;
  std::unique_ptr<chunkstore::ChunkStore> chunks;
  std::unique_ptr<chunk::ChunkVolumeStore> store;
};

std::unique_ptr<Pool> g_pool;
std::shared_ptr<Volume> g_volume;

// A volume that is written all over, and then snapshotted `frozen` times with a little written in
// between.
void Open(int frozen) {
  g_pool = std::make_unique<Pool>(false);
  g_volume = g_pool->Make("v", kSpanBytes);
  const std::string bytes = bench::RandomBytes(base::kMiB);
  for (uint64_t at = 0; at < kSpanBytes; at += base::kMiB)
    CHECK(g_volume->Write(at, base::AsBytes(bytes)).has_value());
  for (int i = 0; i < frozen; ++i) {
    CHECK(g_pool->store->Snapshot("v", "s" + std::to_string(i)).has_value());
    for (uint64_t at = 0; at < 100; ++at)
      CHECK(g_volume->Write(at * 10 * base::kMiB, base::AsBytes(bytes).first(4096)).has_value());
  }
}
void OpenPlain(const benchmark::State&) { Open(0); }
void OpenDeep(const benchmark::State&) { Open(16); }
void Close(const benchmark::State&) {
  g_volume.reset();
  g_pool.reset();
}

uint64_t RandomPlace(std::mt19937_64& random) { return random() % (kSpanBytes / 4096) * 4096; }

void VolumeWrite(benchmark::State& state) {
  std::mt19937_64 random(static_cast<uint64_t>(state.thread_index()));
  const std::string bytes = bench::RandomBytes(4096);
  for (auto _ : state)
    CHECK(g_volume->Write(RandomPlace(random), base::AsBytes(bytes)).has_value());
  state.SetItemsProcessed(state.iterations());
}
BENCHMARK(VolumeWrite)->Setup(OpenPlain)->Teardown(Close)->Threads(1)->Threads(4)->UseRealTime();

// To blocks that were never written, of so many GiB: each sets a state, some make a page of the
// map.
void VolumeWriteFresh(benchmark::State& state) {
  Pool pool(false);
  const auto blocks = static_cast<uint64_t>(state.range(0)) * base::kGiB / kBlockBytes;
  const std::shared_ptr<Volume> volume = pool.Make("v", blocks * kBlockBytes);
  const std::string bytes = bench::RandomBytes(kBlockBytes);
  uint64_t at = 0;
  for (auto _ : state) {
    at = (at + 1'000'003) % blocks;  // odd: all of them in turn
    CHECK(volume->Write(at * kBlockBytes, base::AsBytes(bytes)).has_value());
  }
  state.SetItemsProcessed(state.iterations());
}
BENCHMARK(VolumeWriteFresh)->Arg(1)->Arg(100)->Iterations(100'000)->UseRealTime();

void VolumeTryRead(benchmark::State& state) {
  std::mt19937_64 random(static_cast<uint64_t>(state.thread_index()));
  base::Buffer into(4096);
  for (auto _ : state)
    benchmark::DoNotOptimize(g_volume->TryRead(RandomPlace(random), into.view()).value());
  state.SetItemsProcessed(state.iterations());
}
BENCHMARK(VolumeTryRead)->Setup(OpenPlain)->Teardown(Close)->Threads(1)->Threads(4)->UseRealTime();

// Through sixteen frozen layers: as deep as it gets.
void VolumeTryReadDeep(benchmark::State& state) { VolumeTryRead(state); }
BENCHMARK(VolumeTryReadDeep)->Setup(OpenDeep)->Teardown(Close)->UseRealTime();

// Snapshots of 100 GiB while two threads write and one flushes: how long the call took, flush and
// all.
void SnapshotUnderLoad(benchmark::State& state) {
  Pool pool(true);
  const std::shared_ptr<Volume> volume = pool.Make("v", 100 * base::kGiB);
  using Clock = std::chrono::steady_clock;
  const auto ms_since = [](Clock::time_point start) {
    return std::chrono::duration<double, std::milli>(Clock::now() - start).count();
  };
  std::atomic<bool> stop = false;
  std::atomic<uint64_t> writes = 0;
  std::vector<std::thread> threads;
  for (uint64_t seed = 0; seed < 2; ++seed) {
    threads.emplace_back([&, seed] {
      std::mt19937_64 random(seed);
      const std::string bytes = bench::RandomBytes(4096);
      for (; !stop; ++writes)
        CHECK(volume->Write(random() % kHotBlocks * 4096, base::AsBytes(bytes)).has_value());
    });
  }
  threads.emplace_back([&] {
    for (; !stop; std::this_thread::sleep_for(std::chrono::milliseconds(100)))
      CHECK(volume->Flush().has_value());
  });
  std::vector<double> took_ms;
  int number = 0;
  for (auto _ : state) {
    const std::string id = "s" + std::to_string(++number);
    const Clock::time_point start = Clock::now();
    if (pool.store->Snapshot("v", id)) took_ms.push_back(ms_since(start));
    state.PauseTiming();
    (void)pool.store->RemoveSnapshot(id).has_value();
    std::this_thread::sleep_for(std::chrono::milliseconds(200));
    state.ResumeTiming();
  }
  stop = true;
  for (std::thread& thread : threads) thread.join();
  std::sort(took_ms.begin(), took_ms.end());
  if (took_ms.empty()) return state.SkipWithError("every snapshot was refused");
  state.counters["p50_ms"] = took_ms[took_ms.size() / 2];
  state.counters["p99_ms"] = took_ms[took_ms.size() * 99 / 100];
  state.counters["max_ms"] = took_ms.back();
  state.counters["taken"] = static_cast<double>(took_ms.size());
  state.counters["writes"] = static_cast<double>(writes.load());
}
BENCHMARK(SnapshotUnderLoad)->Iterations(20)->Unit(benchmark::kMillisecond)->UseRealTime();

}  // namespace
}  // namespace blockd
