#include <array>
#include <cstdlib>
#include <functional>
#include <map>
#include <optional>
#include <random>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

#include "base/log.h"
#include "tests/blockd/chunk/store_world.h"
#include "tests/blockd/chunk/volume_model.h"

// Random workloads of writes, zeros, flushes, snapshots, clones, reverts, resizes, removals and
// sealings, with power loss at any mutating call of the layers' files or any operation of the
// stores below. Afterwards: every volume and snapshot that was acknowledged is there; each sector
// of a volume that was flushed is exact, each other is as some write since; each snapshot is to
// the byte what it was; what was removed is gone; and in the end nothing is left behind.

namespace blockd {
namespace {

using blockd::chunk::testing::ExpectSectors;
using blockd::chunk::testing::SectorOf;
using blockd::chunk::testing::Sectors;
using blockd::chunk::testing::StoreWorld;
using blockd::chunk::testing::VolumeModel;
using Kind = VolumeSource::Kind;

constexpr uint64_t kBlocks = 1030;  // a little more than a chunk
constexpr uint64_t kSize = kBlocks * kBlockBytes;
// Where the workload writes: the two ends of the volume and of its chunks.
constexpr std::array<uint64_t, 3> kPlaces = {0, 1018 * 8, 1026 * 8};
constexpr uint64_t kPlaceSectors = 32;
constexpr int kSteps = 40;

class Workload {
 public:
  Workload(StoreWorld& world, uint64_t seed) : world_(world), random_(seed) {}

  // Until a call fails.
  bool Run() {
    if (!Create()) return false;
    for (int step = 0; step < kSteps; ++step) {
      if (!Step()) return false;
    }
    return true;
  }

  // REQUIRES: the store was opened again.
  void Check() {
    volumes_open_.clear();
    CheckNames();
    for (auto& [id, model] : volumes_) CheckVolume(id, model);
    for (const auto& [id, sectors] : snapshots_) CheckSnapshot(id, sectors);
    if (::testing::Test::HasFailure()) return;
    CheckNothingIsLeft();
  }

 private:
  bool Step() {
    switch (random_() % 18) {
      case 0:
        return Create();
      case 1:
      case 2:
        return Snapshot();
      case 3:
        return RemoveOne();
      case 4:
        return RemoveSnapshot();
      case 5:
        return Revert();
      case 6:
      case 16:
      case 17:
        world_.store().Tidy();
        return !failed_below();
      case 7:
      case 8:
        return Flush();
      case 9:
        return Resize();
      case 10:
        return Write(/*zero=*/true);
      default:
        return Write(/*zero=*/false);
    }
  }

  // Tidy tells nobody; once something failed the workload ends, as the machine is going down.
  bool failed_below() const { return going_down_ && going_down_(); }

  std::string Pick(const auto& map) {
    auto at = map.begin();
    std::advance(at, static_cast<ptrdiff_t>(random_() % map.size()));
    return at->first;
  }

  base::Result<std::shared_ptr<Volume>> OpenVolume(const std::string& id) {
    auto& open = volumes_open_[id];
    if (open) return open;
    ASSIGN_OR_RETURN(open, world_.store().Open(id));
    return open;
  }

  bool Create() {
    if (volumes_.size() >= 4) return true;
    const std::string id = "v" + std::to_string(++ids_);
    VolumeSource source;
    VolumeModel model;
    if (random_() % 3 == 0 && !snapshots_.empty()) {
      source = {Kind::kSnapshot, Pick(snapshots_)};
      model.now = snapshots_[source.name];
    } else if (random_() % 2 == 0 && !volumes_.empty()) {
      source = {Kind::kVolume, Pick(volumes_)};
      model.now = volumes_[source.name].now;
    }
    const bool thick = random_() % 4 == 0;
    maybe_volume_ = id;
    if (!world_.Make(id, source, kSize + kBlockBytes * 64, thick)) return false;
    maybe_volume_.clear();
    // It was made durable as it is, and so was what it is a copy of.
    if (source.kind == Kind::kVolume) volumes_[source.name].may.clear();
    volumes_[id] = std::move(model);
    return true;
  }

  bool Snapshot() {
    if (volumes_.empty() || snapshots_.size() >= 6) return true;
    const std::string id = "s" + std::to_string(++ids_);
    const std::string volume = Pick(volumes_);
    maybe_snapshot_ = id;
    const base::Result<void> taken = world_.store().Snapshot(volume, id);
    if (!taken) return taken.error().code() == base::Code::kUnavailable;
    maybe_snapshot_.clear();
    volumes_[volume].may.clear();  // it flushed
    snapshots_[id] = volumes_[volume].now;
    snapshot_of_[id] = volume;
    return true;
  }

  bool RemoveOne() {
    if (volumes_.size() < 2) return true;
    const std::string id = Pick(volumes_);
    volumes_open_.erase(id);
    volumes_.erase(id);
    maybe_volume_ = id;
    if (!world_.store().Remove(id)) return false;
    maybe_volume_.clear();
    return true;
  }

  bool RemoveSnapshot() {
    if (snapshots_.empty()) return true;
    const std::string id = Pick(snapshots_);
    snapshots_.erase(id);
    maybe_snapshot_ = id;
    if (!world_.store().RemoveSnapshot(id)) return false;
    maybe_snapshot_.clear();
    return true;
  }

  bool Revert() {
    if (snapshots_.empty()) return true;
    const std::string id = Pick(snapshots_);
    const std::string volume = snapshot_of_[id];
    if (!volumes_.contains(volume)) return true;
    volumes_open_.erase(volume);
    VolumeModel& model = volumes_[volume];
    if (!world_.store().Revert(volume, id)) {
      model.MayBe(snapshots_[id]);
      return false;
    }
    model.now = snapshots_[id];
    model.may.clear();
    return true;
  }

  bool Flush() {
    if (volumes_.empty()) return true;
    const std::string id = Pick(volumes_);
    auto volume = OpenVolume(id);
    if (!volume || !(*volume)->Flush()) return false;
    volumes_[id].may.clear();
    return true;
  }

  bool Resize() {
    if (volumes_.empty()) return true;
    const std::string id = Pick(volumes_);
    auto info = world_.store().FindVolume(id);
    return info && world_.store().Resize(id, info->size_bytes + kBlockBytes).has_value();
  }

  bool Write(bool zero) {
    if (volumes_.empty()) return true;
    const std::string id = Pick(volumes_);
    auto volume = OpenVolume(id);
    if (!volume) return false;
    const uint64_t first = kPlaces[random_() % kPlaces.size()] + random_() % kPlaceSectors;
    const uint64_t count = 1 + random_() % 24;
    const uint64_t stamp = zero ? 0 : ++stamps_;
    std::string bytes;
    for (uint64_t i = 0; i < count; ++i) bytes += SectorOf(stamp);
    const uint64_t offset = first * kSectorBytes;
    const base::Result<void> done = zero ? (*volume)->Zero(offset, bytes.size(), random_() % 2)
                                         : blockd::chunk::testing::Write(**volume, offset, bytes);
    for (uint64_t i = first; i < first + count; ++i) volumes_[id].Write(i, stamp, done.has_value());
    return done.has_value();
  }

  void CheckNames() {
    ASSERT_OK_AND_ASSIGN(const auto volumes, world_.store().Volumes());
    ASSERT_OK_AND_ASSIGN(const auto snapshots, world_.store().Snapshots());
    std::set<std::string> seen;
    for (const VolumeInfo& info : volumes) {
      seen.insert(info.id);
      EXPECT_TRUE(volumes_.contains(info.id) || info.id == maybe_volume_) << info.id;
    }
    for (const SnapshotInfo& info : snapshots) {
      seen.insert(info.id);
      EXPECT_TRUE(snapshots_.contains(info.id) || info.id == maybe_snapshot_) << info.id;
    }
    for (const auto& [id, model] : volumes_) EXPECT_TRUE(seen.contains(id)) << id;
    for (const auto& [id, sectors] : snapshots_) EXPECT_TRUE(seen.contains(id)) << id;
  }

  void CheckVolume(const std::string& id, VolumeModel& model) {
    const std::string content = world_.Content(id);
    ASSERT_GE(content.size(), kSize) << id;
    SCOPED_TRACE(id);
    model.Settle(content);
  }

  void CheckSnapshot(const std::string& id, const Sectors& sectors) {
    const std::string content = world_.SnapshotContent(id);
    SCOPED_TRACE(id);
    ExpectSectors(content, sectors);
  }

  // Seals all, looks again, removes all: then no holder, file or chunk is left.
  void CheckNothingIsLeft() {
    world_.Settle();
    for (const auto& [id, sectors] : snapshots_) CheckSnapshot(id, sectors);
    ASSERT_OK_AND_ASSIGN(const auto snapshots, world_.store().Snapshots());
    ASSERT_OK_AND_ASSIGN(const auto volumes, world_.store().Volumes());
    for (const SnapshotInfo& info : snapshots) ASSERT_OK(world_.store().RemoveSnapshot(info.id));
    for (const VolumeInfo& info : volumes) ASSERT_OK(world_.store().Remove(info.id));
    world_.Settle();
    ASSERT_OK(world_.chunks().Collect(true, nullptr));
    EXPECT_EQ(chunkstore::testing::BlobNames(world_.blobs()), std::vector<std::string>());
    EXPECT_EQ(chunkstore::testing::AllKeys(world_.meta()), std::vector<std::string>());
    EXPECT_EQ(world_.files().List("/q/layers").value().size(), 2 * chunk::kSpareLayers);
  }

 public:
  std::function<bool()> going_down_;

 private:
  StoreWorld& world_;
  std::mt19937_64 random_;
  std::map<std::string, VolumeModel> volumes_;
  std::map<std::string, std::shared_ptr<Volume>> volumes_open_;
  std::map<std::string, Sectors> snapshots_;
  std::map<std::string, std::string> snapshot_of_;
  std::string maybe_volume_;  // was being made or removed when the power went
  std::string maybe_snapshot_;
  uint64_t ids_ = 0;
  uint64_t stamps_ = 0;
};

struct Totals {
  uint64_t files = 0;
  uint64_t stores = 0;
};

// Runs a workload on a machine that goes down at the given call, and checks what comes up again.
Totals RunOnce(uint64_t seed, uint64_t file_call, uint64_t store_call, uint64_t crash) {
  StoreWorld world;
  world.Open();
  const uint64_t files_before = world.files().mutating_calls();
  const uint64_t stores_before = world.plan().operations();
  const base::Error gone(base::Code::kIo, "power is gone");
  if (file_call) world.files().FailFrom(file_call, gone);
  const auto when =
      crash % 2 ? support::FaultPlan::When::kBefore : support::FaultPlan::When::kAfter;
  if (store_call) world.plan().FailFrom(store_call, gone, when);
  const auto count = [&] {
    return Totals{world.files().mutating_calls() - files_before,
                  world.plan().operations() - stores_before};
  };
  Totals totals;
  {
    Workload work(world, seed);
    work.going_down_ = [&] {
      const Totals now = count();
      return (file_call && now.files >= file_call) || (store_call && now.stores >= store_call);
    };
    work.Run();
    totals = count();
    world.Crash(crash);
    world.Open();
    if (!::testing::Test::HasFailure()) work.Check();
  }
  return totals;
}

TEST(VolumeStoreCrash, PowerLossAtAnyPointLosesNothingThatWasFlushed) {
  ASSERT_TRUE(base::SetLogLevel("error"));
  const char* wanted = std::getenv("CRASH_ROUNDS");
  const int rounds = wanted ? std::atoi(wanted) : 300;
  std::mt19937_64 random(20);
  for (int round = 1; round <= rounds; ++round) {
    const uint64_t seed = 1 + random() % 40;
    const Totals totals = RunOnce(seed, 0, 0, round);
    if (::testing::Test::HasFailure()) FAIL() << "workload " << seed << " without a failure";
    const bool in_files = random() % 2 == 0;
    const uint64_t call = 1 + random() % (in_files ? totals.files : totals.stores);
    RunOnce(seed, in_files ? call : 0, in_files ? 0 : call, round);
    if (::testing::Test::HasFailure())
      FAIL() << "workload " << seed << ", call " << call << (in_files ? " of files" : " of stores")
             << ", crash " << round;
  }
}

}  // namespace
}  // namespace blockd
