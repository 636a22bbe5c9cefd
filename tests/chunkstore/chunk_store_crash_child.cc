#include <charconv>
#include <cstdio>
#include <random>
#include <thread>
#include <vector>

#include <unistd.h>

#include "base/log.h"
#include "base/metrics.h"
#include "chunkstore/chunk_store.h"
#include "chunkstore/local/local_blob_store.h"
#include "chunkstore/local/local_meta_store.h"
#include "tests/chunkstore/chunk_store_world.h"

// The process that chunk_store_crash_test kills: opens a store in DIR and uploads, holds, releases
// and collects at random in some threads until it is killed, saying on stdout what it is about to
// do and what was acknowledged:
//   chunk_store_crash_child DIR SEED
// Lines: "try <holder> <seed>", "held <holder> <seed>", "release <holder>", "released <holder>".

namespace {

using chunkstore::ChunkStore;
using chunkstore::testing::Spec;

constexpr int kThreads = 3;

// One write call a line: a line is there wholly or not at all.
void Say(const std::string& line) {
  const std::string whole = line + "\n";
  if (::write(STDOUT_FILENO, whole.data(), whole.size()) < 0) ::_exit(3);
}

class Worker {
 public:
  Worker(ChunkStore& store, uint64_t seed, int number)
      : store_(store), random_(seed * 1000 + number), seed_(seed), number_(number) {}

  void Run() {
    for (int round = 0;; ++round) {
      const uint64_t dice = random_() % 10;
      if (dice < 5) {
        Upload(round);
      } else if (dice < 8 && !mine_.empty()) {
        Release(random_() % mine_.size());
      } else if (dice == 8 && number_ == 0) {
        Must(store_.Collect(random_() % 2 == 0, nullptr).has_value());
      }
    }
  }

 private:
  static void Must(bool fine) {
    if (fine) return;
    Say("failed");
    ::_exit(2);
  }

  std::string NewName(int round) {
    return "h/" + std::to_string(seed_) + "-" + std::to_string(number_) + "-" +
           std::to_string(round);
  }

  void Upload(int round) {
    const std::string name = NewName(round);
    const uint32_t which = 1 + random_() % 6;
    Say("try " + name + " " + std::to_string(which));
    if (!mine_.empty() && random_() % 4 == 0) {
      const auto& [source, source_which] = mine_.back();
      Say("try " + name + " " + std::to_string(source_which));
      Must(store_.HoldAgain(source, name, "again").has_value());
      Held(name, source_which);
      return;
    }
    const Spec spec = chunkstore::testing::CrashSpec(which);
    if (!mine_.empty() && random_() % 2 == 0) {
      UploadOver(name, spec);
    } else {
      Must(chunkstore::testing::Upload(store_, name, spec).has_value());
    }
    Held(name, which);
  }

  // Over one of ours, which is let go at once now and then.
  void UploadOver(const std::string& name, const Spec& spec) {
    const size_t at = random_() % mine_.size();
    const Spec base = chunkstore::testing::CrashSpec(mine_[at].second);
    auto ingest = store_.NewIngestOver(name, "over", mine_[at].first);
    Must(ingest.has_value());
    if (random_() % 3 == 0) Release(at);
    Must(chunkstore::testing::PutChanges(**ingest, spec, base).has_value());
  }

  void Held(const std::string& name, uint32_t which) {
    Say("held " + name + " " + std::to_string(which));
    mine_.emplace_back(name, which);
  }

  void Release(size_t at) {
    const std::string name = mine_[at].first;
    mine_.erase(mine_.begin() + static_cast<std::ptrdiff_t>(at));
    Say("release " + name);
    Must(store_.Release(name).has_value());
    Say("released " + name);
  }

  ChunkStore& store_;
  std::mt19937_64 random_;
  const uint64_t seed_;
  const int number_;
  std::vector<std::pair<std::string, uint32_t>> mine_;
};

}  // namespace

int main(int argc, char** argv) {
  if (argc != 3) return 1;
  if (!base::SetLogLevel("error")) return 1;
  const std::string dir = argv[1];
  auto blobs = chunkstore::local::LocalBlobStore::Open(base::SystemFiles(), dir);
  auto meta = chunkstore::local::OpenLocalMetaStore(dir + "/meta", {});
  if (!blobs.has_value() || !meta.has_value()) return 1;
  base::Metrics metrics;
  chunkstore::ChunkStoreOptions options;
  options.lease_ms = 0;
  options.background_bytes_per_s = 0;
  auto store = ChunkStore::Open(options, **blobs, **meta, base::SystemClock(), metrics);
  if (!store.has_value()) return 1;
  Say("ready");
  std::vector<std::thread> threads;
  const uint64_t seed = std::strtoull(argv[2], nullptr, 10);
  for (int i = 0; i < kThreads; ++i)
    threads.emplace_back([&, i] { Worker(**store, seed, i).Run(); });
  for (std::thread& thread : threads) thread.join();
  return 0;
}
