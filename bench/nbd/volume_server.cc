// Volumes on the local stores behind an NBD server, as `quarry serve` has them, but told what to do
// by lines on standard input instead of an API: for bench/nbd/run.py; and the same on RBD, for
// bench/rbd/run.py.
//
//   quarry_bench_volumes DIR SOCKET CACHE_MIB
//   quarry_bench_rbd_volumes DIR SOCKET CACHE_MIB
//
//   create VOLUME GIB [snapshot|volume|content NAME]
//   write VOLUME MIB              (random bytes, from 0 on)
//   scatter VOLUME MIB            (random blocks, as far from each other as can be)
//   scatter-blocks VOLUME BLOCKS  (the same)
//   snapshot VOLUME SNAPSHOT      remove VOLUME         unsnapshot SNAPSHOT
//   seal SNAPSHOT                 content NAME GIB MIB  (GIB of which MIB random bytes are there)
//   limit KEY VALUE...            (of all exports)      flush VOLUME
//
// Each is answered by a line: "ok", the seconds that it took and whatever it has to tell, or
// "error ...". An export is named as its volume. Runs until the input ends.

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <iostream>
#include <map>
#include <mutex>
#include <random>
#include <sstream>
#include <string>
#include <thread>
#include <utility>

#include <fmt/format.h>

#include "base/log.h"
#include "bench/nbd/make_store.h"
#include "blockd/nbd/server.h"
#include "blockd/qos/project.h"
#include "blockd/qos/timer.h"
#include "chunkstore/local/local_blob_store.h"
#include "chunkstore/local/local_meta_store.h"

namespace blockd {
namespace {

using base::Result;
using chunkstore::kChunkBytes;
using Clock = std::chrono::steady_clock;

double SecondsSince(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

base::Error Unclear(const std::string& line) {
  return {base::Code::kInvalidArgument, "not understood: " + line};
}

// Bytes that neither compress nor repeat.
void FillRandom(std::mt19937_64& random, base::MutableByteView into) {
  for (size_t i = 0; i + 8 <= into.size(); i += 8) {
    const uint64_t word = random();
    std::copy_n(reinterpret_cast<const uint8_t*>(&word), 8, into.data() + i);
  }
}

class Exports : public nbd::ExportProvider {
 public:
  Exports(VolumeStore& store, std::shared_ptr<qos::VolumeLimiter> limiter)
      : store_(store), limiter_(std::move(limiter)) {}

  Result<std::shared_ptr<const nbd::Export>> Open(std::string_view name) override {
    nbd::Export made;
    made.volume_id = std::string(name);
    ASSIGN_OR_RETURN(made.volume, store_.Open(made.volume_id));
    made.limiter = limiter_;
    return std::make_shared<const nbd::Export>(std::move(made));
  }

 private:
  VolumeStore& store_;
  const std::shared_ptr<qos::VolumeLimiter> limiter_;
};

class Bench {
 public:
  Result<void> Start(const std::string& dir, const std::string& socket, uint64_t cache_bytes) {
    ASSIGN_OR_RETURN(blobs_, chunkstore::local::LocalBlobStore::Open(base::SystemFiles(), dir));
    ASSIGN_OR_RETURN(meta_, chunkstore::local::OpenLocalMetaStore(dir + "/meta", {}));
    chunkstore::ChunkStoreOptions options;
    options.cache_bytes = cache_bytes;
    ASSIGN_OR_RETURN(chunks_, chunkstore::ChunkStore::Open(options, *blobs_, *meta_,
                                                           base::SystemClock(), metrics_));
    ASSIGN_OR_RETURN(store_, MakeStore(dir, *chunks_, *meta_, metrics_));
    ASSIGN_OR_RETURN(timer_, qos::Timer::Create());
    const auto project = qos::Project::Create(base::SystemClock(), timer_.get());
    limiter_ = project->AddVolume("bench", {}, nullptr);
    ASSIGN_OR_RETURN(
        server_, nbd::Server::Create({}, std::make_shared<Exports>(*store_, limiter_), metrics_));
    return server_->ListenUnix(socket);
  }

  void Run() {
    std::string line;
    while (std::getline(std::cin, line)) {
      std::string told;
      const Clock::time_point start = Clock::now();
      const Result<void> done = RunLine(line, &told);
      if (done.has_value()) {
        std::printf("ok %.6f%s\n", SecondsSince(start), told.c_str());
      } else {
        std::printf("error %s\n", done.error().ToString().c_str());
      }
      std::fflush(stdout);
    }
    server_->Stop(10'000);
    server_.reset();
  }

 private:
  Result<void> RunLine(const std::string& line, std::string* told) {
    std::istringstream words(line);
    std::string what;
    std::string name;
    words >> what >> name;
    if (what == "create") return Create(words, name);
    if (what == "write") return Write(words, name);
    if (what == "scatter") return Scatter(words, name, base::kMiB / kBlockBytes);
    if (what == "scatter-blocks") return Scatter(words, name, 1);
    if (what == "snapshot") return Snapshot(words, name, told);
    if (what == "remove") return store_->Remove(name);
    if (what == "unsnapshot") return store_->RemoveSnapshot(name);
    if (what == "seal") return Seal(name);
    if (what == "content") return PutContent(words, name);
    if (what == "limit") return Limit(words, name);
    if (what == "flush") {
      ASSIGN_OR_RETURN(const std::shared_ptr<Volume> volume, store_->Open(name));
      return volume->Flush();
    }
    return Unclear(line);
  }

  Result<void> Create(std::istringstream& words, const std::string& id) {
    NewVolume volume{.id = id};
    std::string kind;
    words >> volume.size_bytes >> kind >> volume.source.name;
    volume.size_bytes *= base::kGiB;
    static const std::map<std::string, VolumeSource::Kind> kKinds = {
        {"", VolumeSource::Kind::kNothing},
        {"snapshot", VolumeSource::Kind::kSnapshot},
        {"volume", VolumeSource::Kind::kVolume},
        {"content", VolumeSource::Kind::kContent}};
    if (!kKinds.contains(kind)) return Unclear(kind);
    volume.source.kind = kKinds.at(kind);
    return store_->Create(volume);
  }

  Result<void> Write(std::istringstream& words, const std::string& id) {
    uint64_t mib = 0;
    words >> mib;
    ASSIGN_OR_RETURN(const std::shared_ptr<Volume> volume, store_->Open(id));
    base::Buffer buffer(base::kMiB);
    for (uint64_t at = 0; at < mib; ++at) {
      FillRandom(random_, buffer.view());
      RETURN_IF_ERROR(volume->Write(at * base::kMiB, buffer.view()));
    }
    return {};
  }

  Result<void> Scatter(std::istringstream& words, const std::string& id, uint64_t blocks_each) {
    uint64_t blocks = 0;
    words >> blocks;
    blocks *= blocks_each;
    ASSIGN_OR_RETURN(const std::shared_ptr<Volume> volume, store_->Open(id));
    const uint64_t between = volume->size_bytes() / blocks / kBlockBytes * kBlockBytes;
    base::Buffer buffer(kBlockBytes);
    for (uint64_t i = 0; i < blocks; ++i) {
      FillRandom(random_, buffer.view());
      RETURN_IF_ERROR(volume->Write(i * between, buffer.view()));
    }
    return {};
  }

  // Tells, besides the seconds until all was durable, those until the moment was over.
  Result<void> Snapshot(std::istringstream& words, const std::string& volume, std::string* told) {
    std::string id;
    words >> id;
    const double before = TakenSum();
    RETURN_IF_ERROR(store_->Snapshot(volume, id));
    *told = fmt::format(" {:.6f}", TakenSum() - before);
    return {};
  }

  // Of the seconds until snapshots were taken.
  double TakenSum() const {
    const std::string text = metrics_.Render();
    const std::string name = "\nquarry_volumes_snapshot_taken_seconds_sum ";
    const size_t at = text.find(name);
    return at == std::string::npos ? 0 : std::stod(text.substr(at + name.size()));
  }

  Result<void> Seal(const std::string& snapshot) {
    for (;;) {
      const Result<std::string> holder = store_->SnapshotHolder(snapshot);
      if (holder.has_value()) return {};
      if (holder.error().code() != base::Code::kUnavailable) return holder.error();
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
  }

  // As an image would be: the random bytes lie spread over all of it, a chunk at a time.
  Result<void> PutContent(std::istringstream& words, const std::string& name) {
    uint64_t gib = 0;
    uint64_t mib = 0;
    words >> gib >> mib;
    ASSIGN_OR_RETURN(const auto ingest, chunks_->NewIngest(name, ""));
    const uint64_t chunks = gib * base::kGiB / kChunkBytes;
    const uint64_t there = std::min(chunks, mib * base::kMiB / kChunkBytes);
    base::Buffer buffer(kChunkBytes);
    for (uint64_t i = 0; i < there; ++i) {
      FillRandom(random_, buffer.view());
      RETURN_IF_ERROR(ingest->Put(i * (chunks / there), buffer.view()));
    }
    const Result<chunkstore::Root> root = ingest->Finish(gib * base::kGiB);
    if (!root.has_value()) return root.error();
    return {};
  }

  Result<void> Limit(std::istringstream& words, std::string key) {
    std::map<std::string, std::string> spec;
    do {
      words >> spec[key];
    } while (words >> key);
    ASSIGN_OR_RETURN(const qos::Limits limits, qos::ParseSpec(spec, 1));
    limiter_->SetLimits(limits);
    return {};
  }

  base::Metrics metrics_;
  std::mt19937_64 random_{std::random_device()()};
  std::unique_ptr<chunkstore::BlobStore> blobs_;
  std::unique_ptr<chunkstore::MetaStore> meta_;
  std::unique_ptr<chunkstore::ChunkStore> chunks_;
  std::unique_ptr<VolumeStore> store_;
  std::unique_ptr<qos::Timer> timer_;
  std::shared_ptr<qos::VolumeLimiter> limiter_;
  std::unique_ptr<nbd::Server> server_;
};

}  // namespace
}  // namespace blockd

int main(int argc, char** argv) {
  if (argc != 4) return 2;
  base::SetLogLevel("warn");
  blockd::Bench bench;
  const base::Result<void> started =
      bench.Start(argv[1], argv[2], std::strtoull(argv[3], nullptr, 10) * base::kMiB);
  if (!started.has_value()) {
    std::fprintf(stderr, "%s\n", started.error().ToString().c_str());
    return 1;
  }
  std::printf("ready\n");
  std::fflush(stdout);
  bench.Run();
  return 0;
}
