#include <atomic>
#include <memory>
#include <string>
#include <vector>

#include <benchmark/benchmark.h>
#include <fmt/format.h>

#include "base/check.h"
#include "base/coding.h"
#include "base/hash.h"
#include "bench/micro/inputs.h"
#include "chunkstore/local/local_blob_store.h"
#include "chunkstore/local/local_meta_store.h"
#include "tests/support/temp_dir.h"

// The embedded stores on the disk under $TMPDIR. Put and Sync wait for it; reads come from the page
// cache.

namespace chunkstore {
namespace {

// One store for all threads of a benchmark: made before, removed after.
template <typename Store>
struct Shared {
  std::unique_ptr<support::TempDir> dir;
  std::unique_ptr<Store> store;
  std::atomic<uint64_t> next = 0;
};

Shared<local::LocalBlobStore> g_blobs;
Shared<MetaStore> g_meta;

void OpenBlobs(const benchmark::State&) {
  g_blobs.dir = std::make_unique<support::TempDir>();
  g_blobs.store = local::LocalBlobStore::Open(base::SystemFiles(), g_blobs.dir->path()).value();
}
void CloseBlobs(const benchmark::State&) {
  g_blobs.store.reset();
  g_blobs.dir.reset();
}
void OpenMeta(const benchmark::State&) {
  g_meta.dir = std::make_unique<support::TempDir>();
  g_meta.store = local::OpenLocalMetaStore(g_meta.dir->path(), {}).value();
}
void CloseMeta(const benchmark::State&) {
  g_meta.store.reset();
  g_meta.dir.reset();
}

// Each thread removes what it put some time ago, so that the disk does not fill up.
void BM_BlobPut(benchmark::State& state) {
  std::string bytes = bench::RandomBytes(static_cast<size_t>(state.range(0)));
  base::ByteView piece = base::AsBytes(bytes);
  std::vector<std::string> names;
  for (auto _ : state) {
    names.push_back(fmt::format("{:x}", g_blobs.next++));
    CHECK(g_blobs.store->Put(names.back(), {&piece, 1}).has_value());
    if (names.size() >= 16) {
      CHECK(g_blobs.store->Remove(names[names.size() - 16]).has_value());
    }
  }
  state.SetBytesProcessed(static_cast<int64_t>(state.iterations() * bytes.size()));
}
BENCHMARK(BM_BlobPut)
    ->Arg(16 * 1024)
    ->Arg(1 << 20)
    ->Arg(4 << 20)
    ->ThreadRange(1, 8)
    ->UseRealTime()
    ->Setup(OpenBlobs)
    ->Teardown(CloseBlobs);

void BM_BlobGet(benchmark::State& state) {
  std::string bytes = bench::RandomBytes(4 << 20);
  base::ByteView piece = base::AsBytes(bytes);
  if (state.thread_index() == 0) {
    for (int i = 0; i < 16; ++i) {
      CHECK(g_blobs.store->Put(fmt::format("{:x}", i), {&piece, 1}).has_value());
    }
  }
  std::vector<uint8_t> into(static_cast<size_t>(state.range(0)));
  uint64_t count = 0;
  for (auto _ : state) {
    std::string name = fmt::format("{:x}", ++count % 16);
    CHECK(g_blobs.store->Get(name, (count * 4096) % (4 << 20) / 2, into).has_value());
  }
  state.SetBytesProcessed(static_cast<int64_t>(state.iterations() * into.size()));
}
BENCHMARK(BM_BlobGet)
    ->Arg(4096)
    ->Arg(32 * 1024)
    ->Arg(2 << 20)
    ->Setup(OpenBlobs)
    ->Teardown(CloseBlobs);

std::string KeyOf(uint64_t number) {
  std::string text;
  base::PutFixed<uint64_t>(&text, number);
  return std::string(base::Sha256(base::AsBytes(text)).view());
}

// A record like those of the chunk index: a 32-byte key, 60 bytes of value.
void BM_MetaCommit(benchmark::State& state) {
  for (auto _ : state) {
    std::string key = KeyOf(g_meta.next++);
    MetaBatch batch;
    batch.ExpectAbsent(key).Put(key, std::string(60, 'v'));
    CHECK(g_meta.store->Commit(fmt::format("chunk/{}", key[0] & 15), batch).has_value());
  }
  state.SetItemsProcessed(static_cast<int64_t>(state.iterations()));
}
BENCHMARK(BM_MetaCommit)->ThreadRange(1, 8)->UseRealTime()->Setup(OpenMeta)->Teardown(CloseMeta);

void BM_MetaCommitSync(benchmark::State& state) {
  for (auto _ : state) {
    std::string key = KeyOf(g_meta.next++);
    CHECK(
        CommitDurably(*g_meta.store, "p", MetaBatch().Put(key, std::string(60, 'v'))).has_value());
  }
  state.SetItemsProcessed(static_cast<int64_t>(state.iterations()));
}
BENCHMARK(BM_MetaCommitSync)
    ->ThreadRange(1, 8)
    ->UseRealTime()
    ->Setup(OpenMeta)
    ->Teardown(CloseMeta);

// "Is this chunk known?", among 200,000: half of the questions are about chunks that are not there.
void BM_MetaKnown(benchmark::State& state) {
  constexpr uint64_t kRecords = 200'000;
  constexpr uint64_t kBatch = 1000;
  std::vector<std::string> keys;
  for (uint64_t i = 0; i < kRecords; i += kBatch) {
    MetaBatch batch;
    for (uint64_t k = i; k < i + kBatch; ++k) {
      keys.push_back(KeyOf(k));
      batch.Put(keys.back(), std::string(60, 'v'));
    }
    CHECK(g_meta.store->Commit("chunk", batch).has_value());
  }
  uint64_t at = 0, found = 0;
  for (auto _ : state) {
    at = (at + 7919) % (2 * kRecords);
    std::string key = at < kRecords ? keys[at] : keys[at - kRecords].substr(1) + "x";
    if (g_meta.store->Get("chunk", key)) ++found;
  }
  state.SetItemsProcessed(static_cast<int64_t>(state.iterations()));
  benchmark::DoNotOptimize(found);
}
BENCHMARK(BM_MetaKnown)->Setup(OpenMeta)->Teardown(CloseMeta);

void BM_MetaScan(benchmark::State& state) {
  MetaBatch batch;
  for (uint64_t i = 0; i < 10'000; ++i) batch.Put(KeyOf(i), std::string(60, 'v'));
  CHECK(g_meta.store->Commit("p", batch).has_value());
  uint64_t seen = 0;
  for (auto _ : state) {
    CHECK(g_meta.store
              ->Scan("p", "", "", SIZE_MAX,
                     [&](std::string_view, std::string_view) { return ++seen > 0; })
              .has_value());
  }
  state.SetItemsProcessed(static_cast<int64_t>(seen));
}
BENCHMARK(BM_MetaScan)->Setup(OpenMeta)->Teardown(CloseMeta);

}  // namespace
}  // namespace chunkstore
