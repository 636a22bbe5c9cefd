#pragma once

#include <map>
#include <memory>
#include <random>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

#include "base/log.h"
#include "tests/chunkstore/chunk_store_world.h"
#include "tests/support/faulty_stores.h"

// Random uploads (also of contents made of others), holds, releases and collections with shared
// content, beside a plain model of what is held; now and then an operation fails, or the machine
// crashes in the middle and loses what was not synced. After each crash: all that was acknowledged
// reads back right, and nothing is seen that was not asked for. In the end everything is given
// back.

namespace chunkstore::testing {

// What a chunk store stands on: a new back end is tested by saying how to make it and crash it.
class ModelStores {
 public:
  virtual ~ModelStores() = default;
  virtual BlobStore& blobs() = 0;
  virtual MetaStore& meta() = 0;
  // Loses what a crash of the machine may lose, as the seed has it. What blobs() and meta() gave
  // stays valid.
  virtual void Crash(uint64_t seed) = 0;
};

class MemoryModelStores : public ModelStores {
 public:
  BlobStore& blobs() override { return blobs_; }
  MetaStore& meta() override { return meta_; }
  void Crash(uint64_t seed) override { meta_.Crash(seed); }

 private:
  MemoryBlobStore blobs_;
  MemoryMetaStore meta_;
};

// A content as chunks far apart: few bytes, deep maps. The last chunk is short.
struct Sparse {
  std::map<uint64_t, uint32_t> seeds;
  uint64_t chunks = 0;

  static constexpr uint32_t kShort = 2000;
  uint64_t size_bytes() const {
    return chunks == 0 ? 0 : (chunks - 1) * uint64_t{kChunkBytes} + kShort;
  }
  uint32_t LengthAt(uint64_t index) const { return index + 1 == chunks ? kShort : kChunkBytes; }
};

inline const std::string& CachedBytes(uint32_t seed, size_t size) {
  static auto* cache = new std::map<std::pair<uint32_t, size_t>, std::string>;
  std::string& bytes = (*cache)[{seed, size}];
  if (bytes.empty()) bytes = MakeBytes(seed, size);
  return bytes;
}

class ChunkStoreModel {
  using Code = base::Code;
  using Error = base::Error;
  using FaultPlan = support::FaultPlan;

 public:
  ChunkStoreModel(std::unique_ptr<ModelStores> stores, uint64_t seed)
      : random_(seed), stores_(std::move(stores)) {
    options_.background_bytes_per_s = 0;
    Open();
  }
  ~ChunkStoreModel() { Kill(); }

  void Step() {
    const bool faulty = Chance(6);
    if (faulty) plan_.FailAt(1 + random_() % 120, Error(Code::kIo, "injected"), AnyWay());
    const bool crash = !faulty && Chance(12);
    if (crash) plan_.FailFrom(1 + random_() % 400, Error(Code::kIo, "dying"), AnyWay());
    switch (random_() % 15) {
      case 0:
      case 1:
      case 2:
      case 3:
        Upload();
        break;
      case 4:
      case 5:
        HoldAgain();
        break;
      case 6:
      case 7:
        Release();
        break;
      case 8:
        Collect();
        break;
      case 9:
        BeginAndLeave();
        break;
      case 10:
        ReadOne();
        break;
      case 11:
      case 12:
      case 13:
        UploadOver();
        break;
      default:
        clock_.AdvanceUs(options_.lease_ms * 400);
        break;
    }
    plan_.Clear();
    if (crash) Crash();
  }

  void CheckAll() {
    ASSERT_OK_AND_ASSIGN(const auto all, store_->Holders("", "", SIZE_MAX));
    std::set<std::string> seen;
    for (const auto& held : all) {
      if (!held.root) continue;
      seen.insert(held.holder);
      EXPECT_TRUE(held_.contains(held.holder) || maybe_.contains(held.holder)) << held.holder;
      if (maybe_.contains(held.holder)) held_.insert(maybe_.extract(held.holder));
      ExpectReads(held.holder, *held.root);
    }
    for (const auto& [holder, content] : held_) EXPECT_TRUE(seen.contains(holder)) << holder;
    maybe_.clear();
  }

  void End() {
    Crash();
    clock_.AdvanceUs(options_.lease_ms * 1000 + 1);
    ASSERT_OK(store_->Collect(true, nullptr));
    ExpectClean(*store_);
    ExpectStats();
    for (const auto& [holder, content] : held_) ASSERT_OK(store_->Release(holder));
    ASSERT_OK(store_->Collect(false, nullptr));
    ExpectEmpty(stores_->blobs(), stores_->meta());
  }

 private:
  // Some have most of their blocks in common.
  uint32_t WholeChunk() {
    if (Chance(2)) return static_cast<uint32_t>(1 + random_() % 3);
    return static_cast<uint32_t>(kWoven + 100'000 * (random_() % 2) + random_() % 3);
  }
  bool Chance(uint64_t one_in) { return random_() % one_in == 0; }
  FaultPlan::When AnyWay() { return static_cast<FaultPlan::When>(random_() % 3); }

  void Open() {
    auto opened = ChunkStore::Open(options_, faulty_blobs_, faulty_meta_, clock_, metrics_);
    ASSERT_OK(opened);
    store_ = *std::move(opened);
  }
  void Kill() {
    plan_.FailFrom(1, Error(Code::kIo, "dead"), FaultPlan::When::kBefore);
    open_.clear();
    store_.reset();
    plan_.Clear();
  }
  void Crash() {
    Kill();
    stores_->Crash(random_());
    Open();
    CheckAll();
  }

  // Contents come in families, so that maps and chunks are shared.
  Sparse AnyContent() {
    Sparse content;
    content.chunks = std::vector<uint64_t>{0, 1, 1, 1, 1500, 1500, 3000}[random_() % 7];
    if (content.chunks > 0 && !Chance(5)) content.seeds[content.chunks - 1] = 1 + random_() % 4;
    if (content.chunks > 1 && Chance(2)) content.seeds[random_() % 2 * 1024] = WholeChunk();
    return content;
  }
  std::string AnyName() { return "h/" + std::to_string(random_() % 8); }

  base::Result<void> Put(Ingest& ingest, const Sparse& content) {
    for (const auto& [index, seed] : content.seeds) {
      RETURN_IF_ERROR(ingest.Put(index, base::AsBytes(CachedBytes(seed, content.LengthAt(index)))));
    }
    return {};
  }

  void Upload() {
    const std::string name = AnyName();
    const Sparse content = AnyContent();
    auto ingest = store_->NewIngest(name, "model");
    if (!ingest.has_value()) return;
    EXPECT_FALSE(held_.contains(name));
    maybe_.erase(name);  // the name was free: what failed before did not happen, or was taken back
    base::Result<void> put = Put(**ingest, content);
    if (!put.has_value()) return;
    const base::Result<Root> root = (*ingest)->Finish(content.size_bytes());
    if (root.has_value())
      held_[name] = content;
    else
      maybe_[name] = content;
  }

  // Only what differs from the base is put; the base may go meanwhile, or be collected.
  void UploadOver() {
    const std::string from = AnyName();
    const std::string name = AnyName();
    const bool known = held_.contains(from);
    if (!known && !maybe_.contains(from)) return;
    const Sparse base = known ? held_[from] : maybe_[from];
    const Sparse content = AnyContent();
    auto ingest = store_->NewIngestOver(name, "over", from);
    if (!ingest.has_value()) return;
    EXPECT_FALSE(held_.contains(name));
    maybe_.erase(name);
    if (Chance(3)) Release(from);
    if (Chance(4)) Collect();
    const base::Result<void> put = PutChanges(**ingest, content, base);
    if (!put.has_value()) return;
    const base::Result<Root> root = (*ingest)->Finish(content.size_bytes());
    if (root.has_value())
      held_[name] = content;
    else
      maybe_[name] = content;
  }

  base::Result<void> PutChanges(Ingest& ingest, const Sparse& content, const Sparse& base) {
    for (const auto& [index, seed] : base.seeds) {
      if (!content.seeds.contains(index)) RETURN_IF_ERROR(ingest.PutHole(index));
    }
    for (const auto& [index, seed] : content.seeds) {
      const auto before = base.seeds.find(index);
      const uint32_t length = content.LengthAt(index);
      if (before != base.seeds.end() && before->second == seed && base.LengthAt(index) == length)
        continue;
      RETURN_IF_ERROR(ingest.Put(index, base::AsBytes(CachedBytes(seed, length))));
    }
    return {};
  }

  void HoldAgain() {
    const std::string from = AnyName();
    const std::string name = AnyName();
    const bool known = held_.contains(from) || maybe_.contains(from);
    const Sparse content = held_.contains(from) ? held_[from] : known ? maybe_[from] : Sparse{};
    const base::Result<Root> root = store_->HoldAgain(from, name, "again");
    if (root.has_value()) {
      ASSERT_TRUE(known);
      ASSERT_FALSE(held_.contains(name));
      maybe_.erase(name);
      held_[name] = content;
    } else if (known && !held_.contains(name) && !maybe_.contains(name)) {
      maybe_[name] = content;
    }
  }

  void Release() { Release(AnyName()); }
  void Release(const std::string& name) {
    const base::Result<void> released = store_->Release(name);
    const auto was = held_.extract(name);
    if (released.has_value())
      maybe_.erase(name);
    else if (!was.empty())
      maybe_[name] = was.mapped();
  }

  void Collect() {
    const base::Result<CollectReport> report = store_->Collect(Chance(3), nullptr);
    (void)report;
  }

  void BeginAndLeave() {
    if (open_.size() > 3) open_.erase(open_.begin());
    auto ingest = store_->NewIngest("open/" + std::to_string(random_() % 5), "");
    if (!ingest.has_value()) return;
    const base::Result<void> put = Put(**ingest, AnyContent());
    (void)put;
    open_.push_back(*std::move(ingest));
  }

  void ReadOne() {
    const std::string name = AnyName();
    const auto held = store_->FindHolder(name);
    if (!held.has_value() || !held->root) return;
    const Sparse& content = held_.contains(name) ? held_[name] : maybe_[name];
    const base::Result<void> read = Read(*held->root, content);
    if (!read.has_value()) EXPECT_ERROR(read, Code::kIo) << name;
  }

  base::Result<void> Read(const Root& root, const Sparse& expected) {
    EXPECT_EQ(root.size_bytes, expected.size_bytes());
    ASSIGN_OR_RETURN(const std::shared_ptr<Content> content, store_->Open(root));
    std::set<uint64_t> indexes;
    RETURN_IF_ERROR(content->VisitChunks(0, UINT64_MAX, [&](uint64_t index, const auto&) {
      indexes.insert(index);
      return true;
    }));
    for (const uint64_t index : indexes) EXPECT_TRUE(expected.seeds.contains(index));
    for (const auto& [index, seed] : expected.seeds) {
      std::string bytes(expected.LengthAt(index), '?');
      RETURN_IF_ERROR(content->ReadAt(index * kChunkBytes,
                                      {reinterpret_cast<uint8_t*>(bytes.data()), bytes.size()}));
      EXPECT_TRUE(bytes == CachedBytes(seed, bytes.size()));
    }
    return {};
  }
  void ExpectReads(const std::string& holder, const Root& root) {
    EXPECT_OK(Read(root, held_[holder])) << holder;
  }

  void ExpectStats() {
    std::map<std::pair<uint32_t, uint32_t>, int> chunks;
    uint64_t logical = 0, nonzero = 0, unique = 0;
    for (const auto& [holder, content] : held_) {
      logical += content.size_bytes();
      for (const auto& [index, seed] : content.seeds) {
        nonzero += content.LengthAt(index);
        if (++chunks[{seed, content.LengthAt(index)}] == 1) unique += content.LengthAt(index);
      }
    }
    ASSERT_OK_AND_ASSIGN(const StoreStats stats, store_->Stats());
    EXPECT_EQ(stats.logical_bytes, logical);
    EXPECT_EQ(stats.nonzero_bytes, nonzero);
    EXPECT_EQ(stats.unique_bytes, unique);
    EXPECT_EQ(stats.chunks, chunks.size());
    EXPECT_EQ(stats.holders, held_.size());
    EXPECT_EQ(stats.garbage_bytes, 0u);
  }

  std::mt19937_64 random_;
  FaultPlan plan_;
  base::Metrics metrics_;
  base::ManualClock clock_;
  const std::unique_ptr<ModelStores> stores_;
  support::FaultyBlobStore faulty_blobs_{stores_->blobs(), plan_};
  support::FaultyMetaStore faulty_meta_{stores_->meta(), plan_};
  ChunkStoreOptions options_;
  std::unique_ptr<ChunkStore> store_;
  std::vector<std::unique_ptr<Ingest>> open_;
  std::map<std::string, Sparse> held_;   // acknowledged
  std::map<std::string, Sparse> maybe_;  // an operation failed: held or not
};

// Runs one model to its end, or to the first thing that is wrong.
inline void RunChunkStoreModel(std::unique_ptr<ModelStores> stores, uint64_t seed, int steps) {
  base::SetLogLevel("error");
  ChunkStoreModel model(std::move(stores), seed);
  for (int step = 0; step < steps && !::testing::Test::HasFailure(); ++step) {
    SCOPED_TRACE("step " + std::to_string(step));
    model.Step();
  }
  if (!::testing::Test::HasFailure()) model.End();
}

}  // namespace chunkstore::testing
