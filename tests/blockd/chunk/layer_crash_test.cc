#include <cstring>
#include <memory>
#include <random>
#include <set>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "blockd/chunk/layer.h"
#include "tests/support/fault_files.h"
#include "tests/support/results.h"

// Power loss at every mutating call of random writes, zeros and flushes: each sector that was
// flushed is exact, each other one is as it was at the last flush or as some write after it.

namespace blockd::chunk {
namespace {

constexpr uint64_t kBlocks = 40;
constexpr uint64_t kSectors = kBlocks * kBlockBytes / kSectorBytes;
constexpr int kSteps = 40;
constexpr uint64_t kBelow = UINT64_MAX;  // what an absent block shows

std::string SectorOf(uint64_t stamp) {
  std::string sector;
  for (size_t i = 0; i < kSectorBytes / 8; ++i)
    sector.append(reinterpret_cast<const char*>(&stamp), 8);
  return sector;
}

// A layer's sectors as stamps: each the only possible one, or several.
class Model {
 public:
  Model() : now_(kSectors, {kBelow}), since_flush_(kSectors, {kBelow}) {}

  void Write(uint64_t sector, uint64_t stamp) {
    now_[sector] = stamp;
    since_flush_[sector].insert(stamp);
  }
  // A call that failed may have done all, or nothing.
  void MayWrite(uint64_t sector, uint64_t stamp) { since_flush_[sector].insert(stamp); }
  void Flush() {
    for (uint64_t i = 0; i < kSectors; ++i) since_flush_[i] = {now_[i]};
  }
  uint64_t Now(uint64_t sector) const { return now_[sector]; }
  bool May(uint64_t sector, uint64_t stamp) const { return since_flush_[sector].contains(stamp); }

 private:
  std::vector<uint64_t> now_;
  std::vector<std::set<uint64_t>> since_flush_;
};

class Workload {
 public:
  Workload(support::FaultFiles& files, uint64_t seed) : files_(files), random_(seed) {}

  // False when a call failed.
  bool Run() {
    if (!files_.CreateDirs("/l").has_value() || !files_.SyncDir("/").has_value()) return false;
    auto made = Layer::Create(files_, "/l", "x");
    if (!made.has_value()) return false;
    layer_ = *std::move(made);
    created_ = true;
    for (int step = 0; step < kSteps; ++step) {
      if (!Step()) return false;
    }
    return true;
  }

  void Check() {
    layer_.reset();
    auto opened = Layer::Open(files_, "/l", "x");
    if (!created_) return;  // was never acknowledged
    ASSERT_OK(opened);
    for (uint64_t block = 0; block < kBlocks; ++block) CheckBlock(**opened, block);
  }

 private:
  bool Step() {
    switch (random_() % 8) {
      case 0:
        if (!layer_->Flush().has_value()) return false;
        model_.Flush();
        return true;
      case 1:
        return Clear(BlockState::kZero, 0);
      case 2:
        return Clear(BlockState::kAbsent, kBelow);
      case 3:
        return Overwrite();
      default:
        return Write();
    }
  }

  bool Put(uint64_t first, uint64_t count) {
    const uint64_t stamp = ++stamps_;
    std::string bytes;
    for (uint64_t i = 0; i < count; ++i) bytes += SectorOf(stamp);
    const base::ByteView piece = base::AsBytes(bytes);
    const bool fine = layer_->Write(first * kSectorBytes, {&piece, 1}).has_value();
    for (uint64_t i = first; i < first + count; ++i)
      fine ? model_.Write(i, stamp) : model_.MayWrite(i, stamp);
    return fine;
  }

  bool Write() {
    const uint64_t block = random_() % kBlocks;
    const uint64_t count = 1 + random_() % std::min<uint64_t>(5, kBlocks - block);
    return Put(block * 8, count * 8);
  }

  // Of sectors in a block that is held.
  bool Overwrite() {
    const uint64_t block = random_() % kBlocks;
    auto run = layer_->map().RunAt(block, 1);
    if (!run.has_value() || run->state != BlockState::kData) return run.has_value();
    const uint64_t first = random_() % 8;
    return Put(block * 8 + first, 1 + random_() % (8 - first));
  }

  bool Clear(BlockState state, uint64_t reads) {
    const uint64_t block = random_() % kBlocks;
    const uint64_t count = 1 + random_() % std::min<uint64_t>(9, kBlocks - block);
    const bool punch = random_() % 2 == 0;
    const bool fine = layer_->Clear(block, count, state, punch).has_value();
    for (uint64_t i = block * 8; i < (block + count) * 8; ++i) {
      fine ? model_.Write(i, reads) : model_.MayWrite(i, reads);
      if (punch) model_.MayWrite(i, 0);  // early: see layer.h
    }
    if (random_() % 2 == 0) layer_->PunchHoles({0, kBlocks});
    return fine;
  }

  void CheckBlock(Layer& layer, uint64_t block) {
    ASSERT_OK_AND_ASSIGN(const LayerMap::Run run, layer.map().RunAt(block, 1));
    std::string bytes(kBlockBytes, '\0');
    if (run.state == BlockState::kData) {
      ASSERT_OK(layer.ReadAt(block * kBlockBytes,
                             {reinterpret_cast<uint8_t*>(bytes.data()), bytes.size()}));
    }
    for (uint64_t i = 0; i < 8; ++i) {
      uint64_t stamp = kBelow;
      if (run.state != BlockState::kAbsent) std::memcpy(&stamp, &bytes[i * kSectorBytes], 8);
      ASSERT_TRUE(model_.May(block * 8 + i, stamp)) << "sector " << block * 8 + i << ": " << stamp;
      if (run.state == BlockState::kData)
        ASSERT_EQ(bytes.substr(i * kSectorBytes, kSectorBytes), SectorOf(stamp)) << "torn";
    }
  }

  support::FaultFiles& files_;
  std::mt19937_64 random_;
  std::shared_ptr<Layer> layer_;
  bool created_ = false;
  Model model_;
  uint64_t stamps_ = 0;
};

TEST(LayerCrash, AtEveryCallSectorsAreOldOrNewAndFlushedOnesExact) {
  uint64_t crashes = 0;
  for (uint64_t workload = 1; workload <= 12; ++workload) {
    for (uint64_t n = 1;; ++n) {
      SCOPED_TRACE("workload " + std::to_string(workload) + ", call " + std::to_string(n));
      support::FaultFiles files;
      files.SetSectorBytes(kSectorBytes);
      files.FailFrom(n, base::Error(base::Code::kIo, "power is gone"));
      Workload work(files, workload);
      const bool ended = work.Run();
      files.Crash(n * 1000 + workload, n % 2 ? support::FaultFiles::Names::kDropUnsynced
                                             : support::FaultFiles::Names::kKeepSome);
      work.Check();
      ASSERT_FALSE(testing::Test::HasFailure());
      ++crashes;
      if (ended) break;
    }
  }
  EXPECT_GT(crashes, 500u);
}

}  // namespace
}  // namespace blockd::chunk
