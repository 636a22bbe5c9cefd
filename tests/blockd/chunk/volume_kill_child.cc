#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <random>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include <unistd.h>

#include "base/log.h"
#include "base/metrics.h"
#include "blockd/chunk/chunk_volume_store.h"
#include "chunkstore/local/local_blob_store.h"
#include "chunkstore/local/local_meta_store.h"

// The process that volume_kill_test kills:
//   volume_kill_child DIR SEED LIVE work|idle
// opens the stores in DIR, with maps that outlive it in LIVE (none, if that is empty), and works in
// some threads, each on volumes and snapshots of its own, until it is killed. Says on stdout what
// it is about to do, "<thread> <verb> ...", and when it was acknowledged, "<thread> ok":
//   new V, of V SNAPSHOT, copy V VOLUME, rm V, snap V S, unsnap S, revert V S, flush V,
//   grow V BYTES, and put V SECTOR COUNT STAMP (0: zeros)

namespace {

using base::Code;
using blockd::kSectorBytes;
using blockd::VolumeSource;
using blockd::VolumeStore;
using Kind = VolumeSource::Kind;

constexpr int kThreads = 3;
constexpr uint64_t kSizeBytes = 4 * base::kMiB + 256 * base::kKiB;
constexpr uint64_t kMaxSizeBytes = 5 * base::kMiB;
constexpr uint64_t kGrowthBytes = 12 * base::kKiB;
// Beside the first and the last sectors; at most kPlaceSectors + kMaxPutSectors from each.
constexpr uint64_t kPlaces[] = {8160, 8600};
constexpr uint64_t kPlaceSectors = 48;
constexpr uint64_t kMaxPutSectors = 24;
constexpr size_t kMaxVolumes = 3;
constexpr size_t kMaxSnapshots = 4;

// One write call a line: a line is there wholly or not at all.
void Say(const std::string& line) {
  const std::string whole = line + "\n";
  if (::write(STDOUT_FILENO, whole.data(), whole.size()) < 0) ::_exit(3);
}

class Worker {
 public:
  Worker(VolumeStore& store, chunkstore::ChunkStore& chunks, uint64_t seed, int number)
      : store_(store),
        chunks_(chunks),
        random_(seed * 1000 + static_cast<uint64_t>(number)),
        seed_(seed),
        me_(std::to_string(number)) {}

  void Run() {
    const auto volumes = store_.Volumes();
    const auto snapshots = store_.Snapshots();
    for (const auto& info : *volumes) {
      if (IsMine(info.id)) volumes_.push_back(info.id);
    }
    for (const auto& info : *snapshots) {
      if (IsMine(info.id)) snapshots_.push_back(info.id);
    }
    for (;;) Step();
  }

 private:
  bool IsMine(const std::string& id) const { return id.starts_with("t" + me_ + "-"); }

  void Do(const std::string& what, const auto& call) {
    Say(me_ + " " + what);
    const base::Result<void> done = call();
    if (done) return Say(me_ + " ok");
    if (done.error().code() == Code::kUnavailable) return Say(me_ + " no");
    Say("failed " + what + ": " + done.error().ToString());
    ::_exit(2);
  }

  size_t Any(const auto& list) { return random_() % list.size(); }
  std::string NewId() {
    return "t" + me_ + "-" + std::to_string(seed_) + "-" + std::to_string(++ids_);
  }

  void Step() {
    if (volumes_.empty()) return Create();
    const uint64_t dice = random_() % 40;
    if (dice == 0 && volumes_.size() < kMaxVolumes) return Create();
    if (dice <= 3 && snapshots_.size() < kMaxSnapshots) return Snapshot();
    if (dice == 4 && snapshots_.size() > 1) return RemoveSnapshot();
    if (dice == 5 && volumes_.size() > 1) return Remove();
    if (dice == 6 && !snapshots_.empty()) return Revert();
    if (dice == 7 && me_ == "0") (void)chunks_.Collect(false, nullptr).has_value();
    if (dice <= 10) return Flush();
    if (dice == 11) return Grow();
    Write(dice <= 16);
  }

  void Create() {
    const std::string id = NewId();
    blockd::NewVolume volume{.id = id, .size_bytes = kSizeBytes, .thick = random_() % 4 == 0};
    std::string what = "new " + id;
    if (!snapshots_.empty() && random_() % 2 == 0) {
      volume.source = {Kind::kSnapshot, snapshots_[Any(snapshots_)]};
      const auto source = store_.FindSnapshot(volume.source.name);
      if (source) volume.size_bytes = source->size_bytes;
      what = "of " + id + " " + volume.source.name;
    } else if (!volumes_.empty() && random_() % 2 == 0) {
      volume.source = {Kind::kVolume, volumes_[Any(volumes_)]};
      const auto source = store_.FindVolume(volume.source.name);
      if (source) volume.size_bytes = source->size_bytes;
      what = "copy " + id + " " + volume.source.name;
    }
    Do(what, [&]() -> base::Result<void> {
      RETURN_IF_ERROR(store_.Create(volume));
      volumes_.push_back(id);
      return {};
    });
  }

  void Snapshot() {
    const std::string id = NewId();
    const std::string& volume = volumes_[Any(volumes_)];
    Do("snap " + volume + " " + id, [&]() -> base::Result<void> {
      RETURN_IF_ERROR(store_.Snapshot(volume, id));
      snapshots_.push_back(id);
      return {};
    });
  }

  void RemoveSnapshot() {
    const size_t at = Any(snapshots_);
    Do("unsnap " + snapshots_[at], [&] { return store_.RemoveSnapshot(snapshots_[at]); });
    snapshots_.erase(snapshots_.begin() + static_cast<ptrdiff_t>(at));
  }

  void Remove() {
    const size_t at = Any(volumes_);
    Do("rm " + volumes_[at], [&] { return store_.Remove(volumes_[at]); });
    volumes_.erase(volumes_.begin() + static_cast<ptrdiff_t>(at));
  }

  void Revert() {
    const std::string& snapshot = snapshots_[Any(snapshots_)];
    const auto info = store_.FindSnapshot(snapshot);
    if (!info || std::find(volumes_.begin(), volumes_.end(), info->volume_id) == volumes_.end())
      return;
    Do("revert " + info->volume_id + " " + snapshot,
       [&] { return store_.Revert(info->volume_id, snapshot); });
  }

  void Flush() {
    const std::string& id = volumes_[Any(volumes_)];
    Do("flush " + id, [&]() -> base::Result<void> {
      ASSIGN_OR_RETURN(const auto volume, store_.Open(id));
      return volume->Flush();
    });
  }

  void Grow() {
    const std::string& id = volumes_[Any(volumes_)];
    const auto info = store_.FindVolume(id);
    const uint64_t size_bytes = info ? info->size_bytes + kGrowthBytes : 0;
    if (size_bytes > kMaxSizeBytes) return;
    Do("grow " + id + " " + std::to_string(size_bytes),
       [&] { return store_.Resize(id, size_bytes); });
  }

  uint64_t AnyPlace(const std::string& id) {
    const auto info = store_.FindVolume(id);
    const uint64_t sectors = (info ? info->size_bytes : kSizeBytes) / kSectorBytes;
    const uint64_t places[] = {0, kPlaces[0], kPlaces[1], sectors - kPlaceSectors - kMaxPutSectors};
    return places[random_() % 4];
  }

  void Write(bool zero) {
    const std::string& id = volumes_[Any(volumes_)];
    const uint64_t first = AnyPlace(id) + random_() % kPlaceSectors;
    const uint64_t count = 1 + random_() % kMaxPutSectors;
    const uint64_t stamp = zero ? 0 : seed_ << 32 | ++stamps_;
    std::string bytes(count * kSectorBytes, '\0');
    for (size_t i = 0; i < bytes.size(); i += 8) std::memcpy(&bytes[i], &stamp, 8);
    Do("put " + id + " " + std::to_string(first) + " " + std::to_string(count) + " " +
           std::to_string(stamp),
       [&]() -> base::Result<void> {
         ASSIGN_OR_RETURN(const auto volume, store_.Open(id));
         const uint64_t offset = first * kSectorBytes;
         if (zero) return volume->Zero(offset, bytes.size(), random_() % 2 == 0);
         return volume->Write(offset, base::AsBytes(bytes));
       });
  }

  VolumeStore& store_;
  chunkstore::ChunkStore& chunks_;
  std::mt19937_64 random_;
  const uint64_t seed_;
  const std::string me_;
  std::vector<std::string> volumes_;
  std::vector<std::string> snapshots_;
  uint64_t ids_ = 0;
  uint64_t stamps_ = 0;
};

}  // namespace

int main(int argc, char** argv) {
  if (argc != 5 || !base::SetLogLevel("error")) return 1;
  const std::string dir = argv[1];
  auto blobs = chunkstore::local::LocalBlobStore::Open(base::SystemFiles(), dir);
  auto meta = chunkstore::local::OpenLocalMetaStore(dir + "/meta", {});
  if (!blobs || !meta) return 1;
  base::Metrics metrics;
  chunkstore::ChunkStoreOptions options;
  options.lease_ms = 0;
  options.background_bytes_per_s = 0;
  auto chunks =
      chunkstore::ChunkStore::Open(options, **blobs, **meta, base::SystemClock(), metrics);
  if (!chunks) return 1;
  auto store = blockd::chunk::ChunkVolumeStore::Open(
      {.dir = dir + "/layers", .seal_bytes_per_s = 0, .live_dir = argv[3]}, base::SystemFiles(),
      **chunks, **meta, metrics);
  if (!store) {
    Say("failed to open: " + store.error().ToString());
    return 1;
  }
  if (std::string_view(argv[4]) == "idle") ::pause();
  std::vector<std::thread> threads;
  const uint64_t seed = std::strtoull(argv[2], nullptr, 10);
  for (int i = 0; i < kThreads; ++i)
    threads.emplace_back([&, i] { Worker(**store, **chunks, seed, i).Run(); });
  for (std::thread& thread : threads) thread.join();
  return 0;
}
