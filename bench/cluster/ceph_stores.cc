#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdlib>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include <fmt/format.h>

#include "base/check.h"
#include "base/log.h"
#include "base/uuid.h"
#include "chunkstore/ceph/ceph_blob_store.h"
#include "chunkstore/ceph/ceph_meta_store.h"

// What the stores on Ceph cost; bench/cluster/stores.py calls it beside `rados bench`:
//
//   quarry_bench_ceph blobs SPACE put|get SECONDS THREADS     MiB/s of blobs of 4 MiB
//   quarry_bench_ceph meta SECONDS THREADS KEYS               us of each operation, p50 and p99

namespace chunkstore::ceph {
namespace {

using Clock = std::chrono::steady_clock;

constexpr size_t kBlobBytes = 4 << 20;

double SecondsSince(Clock::time_point then) {
  return std::chrono::duration<double>(Clock::now() - then).count();
}

std::shared_ptr<Cluster> Connect(const std::string& space) {
  ClusterOptions options;
  options.pool = "chunks";
  options.meta_pool = "meta";
  options.space = space;
  auto connected = Cluster::Connect(options);
  if (!connected) {
    fmt::print(stderr, "{}\n", connected.error().message());
    std::exit(1);
  }
  return *connected;
}

// `operation(thread, i)` by all threads until the time is over: microseconds of each.
template <typename Operation>
std::vector<double> Measure(double seconds, int threads, const Operation& operation) {
  std::vector<std::vector<double>> each(static_cast<size_t>(threads));
  std::vector<std::thread> running;
  const Clock::time_point begin = Clock::now();
  for (int t = 0; t < threads; ++t) {
    running.emplace_back([&, t] {
      for (int i = 0; SecondsSince(begin) < seconds; ++i) {
        const Clock::time_point then = Clock::now();
        operation(t, i);
        each[static_cast<size_t>(t)].push_back(SecondsSince(then) * 1e6);
      }
    });
  }
  for (std::thread& thread : running) thread.join();
  std::vector<double> all;
  for (const auto& one : each) all.insert(all.end(), one.begin(), one.end());
  std::sort(all.begin(), all.end());
  return all;
}

int Blobs(const std::string& space, bool put, double seconds, int threads) {
  auto blobs = OpenCephBlobStore(Connect(space));
  std::string bytes(kBlobBytes, '\0');
  std::mt19937_64 random(1);
  for (char& c : bytes) c = static_cast<char>(random());
  std::vector<std::string> names;
  if (!put) {
    auto listed = blobs->List([&](std::string_view name, uint64_t) {
      names.emplace_back(name);
      return true;
    });
    CHECK(listed.has_value() && !names.empty());
  }
  std::atomic<size_t> next = 0;
  const Clock::time_point begin = Clock::now();
  auto all = Measure(seconds, threads, [&](int, int) {
    if (put) {
      base::ByteView piece = base::AsBytes(bytes);
      CHECK(blobs->Put(base::NewUuid(), {&piece, 1}).has_value());
    } else {
      thread_local std::vector<uint8_t> into(kBlobBytes);
      CHECK(blobs->Get(names[next++ % names.size()], 0, into).has_value());
    }
  });
  fmt::print("{:.1f}\n", static_cast<double>(all.size()) * 4 / SecondsSince(begin));
  return 0;
}

void Show(const char* what, const std::vector<double>& all, double seconds) {
  fmt::print("{:28} {:8.0f} {:8.0f} {:9.0f}\n", what, all[all.size() / 2],
             all[all.size() * 99 / 100], static_cast<double>(all.size()) / seconds);
}

std::string Key(uint64_t number) { return fmt::format("key{:012}", number); }

void Fill(MetaStore& meta, uint64_t keys) {
  constexpr uint64_t kBatch = 500;
  for (uint64_t first = 0; first < keys; first += kBatch) {
    MetaBatch batch;
    for (uint64_t i = first; i < std::min(keys, first + kBatch); ++i) {
      batch.Put(Key(i * 7919 % keys), std::string(100, 'v'));
    }
    auto done = meta.Commit("p", batch);
    if (!done) {
      fmt::print(stderr, "{}\n", done.error().message());
      std::exit(1);
    }
  }
}

int Meta(double seconds, int threads, uint64_t keys) {
  auto meta = OpenCephMetaStore(Connect(base::NewUuidHex())).value();
  const Clock::time_point begin = Clock::now();
  Fill(*meta, keys);
  fmt::print("{} keys filled in {:.0f} s; {} threads\n", keys, SecondsSince(begin), threads);
  std::this_thread::sleep_for(std::chrono::seconds(3));  // for what still moves
  auto any = [&] {
    thread_local std::mt19937_64 random(std::random_device{}());
    return random() % keys;
  };
  fmt::print("{:28} {:>8} {:>8} {:>9}\n", "", "p50 us", "p99 us", "a second");
  Show("get",
       Measure(seconds, threads, [&](int, int) { CHECK(meta->Get("p", Key(any())).has_value()); }),
       seconds);
  Show("scan of 50",
       Measure(seconds, threads,
               [&](int, int) {
                 auto visit = [](std::string_view, std::string_view) { return true; };
                 CHECK(meta->Scan("p", Key(any()), "", 50, visit).has_value());
               }),
       seconds);
  Show("scan of the last 50",
       Measure(seconds, threads,
               [&](int, int) {
                 auto visit = [](std::string_view, std::string_view) { return true; };
                 CHECK(meta->ScanReverse("p", "", "", 50, visit).has_value());
               }),
       seconds);
  Show("put",
       Measure(
           seconds, threads,
           [&](int, int) {
             CHECK(
                 meta->Commit("p", MetaBatch().Put(Key(any()), std::string(100, 'w'))).has_value());
           }),
       seconds);
  Show("put of what was absent",
       Measure(seconds, threads,
               [&](int t, int i) {
                 const std::string key = fmt::format("new{}.{}", t, i);
                 CHECK(meta->Commit("p", MetaBatch().ExpectAbsent(key).Put(key, "x")).has_value());
               }),
       seconds);
  return 0;
}

int Main(const std::vector<std::string>& words) {
  base::SetLogLevel("error");
  if (words.size() == 5 && words[0] == "blobs") {
    return Blobs(words[1], words[2] == "put", std::stod(words[3]), std::stoi(words[4]));
  }
  if (words.size() == 4 && words[0] == "meta") {
    return Meta(std::stod(words[1]), std::stoi(words[2]), std::stoull(words[3]));
  }
  fmt::print(stderr,
             "usage: quarry_bench_ceph blobs SPACE put|get SECONDS THREADS\n"
             "       quarry_bench_ceph meta SECONDS THREADS KEYS\n");
  return 2;
}

}  // namespace
}  // namespace chunkstore::ceph

int main(int argc, char** argv) {
  return chunkstore::ceph::Main(std::vector<std::string>(argv + 1, argv + argc));
}
