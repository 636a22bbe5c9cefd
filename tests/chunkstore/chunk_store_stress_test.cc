#include <atomic>
#include <thread>

#include <gtest/gtest.h>

#include "base/log.h"
#include "tests/chunkstore/chunk_store_world.h"

// Threads that upload, hold again, read and release the same few contents, beside collectors, in
// two stores over the same stores below (as two processes would be). For ThreadSanitizer, and for
// every interleaving of a last release with a new reference that the scheduler comes up with.

namespace chunkstore::testing {
namespace {

using base::Code;

constexpr int kThreads = 4;
constexpr int kRounds = 300;

// Two stores over one back end, threads that work in them, and collectors and scrubs beside.
class Stress {
 public:
  virtual ~Stress() = default;

  void Run() {
    std::vector<std::thread> threads;
    for (int i = 0; i < kThreads; ++i) {
      threads.emplace_back([this, i] {
        Work(i % 2 ? *other_ : world_.store(), i);
        --running_;
      });
    }
    threads.emplace_back([this] { Collector(world_.store(), true); });
    threads.emplace_back([this] { Collector(*other_, false); });
    threads.emplace_back([this] { Scrubber(); });
    for (std::thread& thread : threads) thread.join();
    ExpectClean(world_.store());
    ASSERT_OK(world_.store().Collect(false, nullptr));
    ExpectEmpty(world_.blobs(), world_.meta());
  }

  uint64_t compacted() const { return compacted_; }

 protected:
  // `gives_up`: uploads are left without an end.
  explicit Stress(uint64_t cache_bytes = ChunkStoreOptions().cache_bytes, bool gives_up = false)
      : gives_up_(gives_up) {
    world_.options().cache_bytes = cache_bytes;
    world_.Reopen();
    auto opened =
        ChunkStore::Open(world_.options(), world_.blobs(), world_.meta(), world_.clock(), metrics_);
    EXPECT_OK(opened);
    other_ = *std::move(opened);
  }

  // All that a thread holds comes and goes; what others hold never suffers.
  virtual void Work(ChunkStore& store, int number) = 0;

  ChunkStore& one() { return world_.store(); }
  ChunkStore& other() { return *other_; }

 private:
  void Collector(ChunkStore& store, bool orphans) {
    while (running_ > 0) {
      ASSERT_OK_AND_ASSIGN(const CollectReport report, store.Collect(orphans, nullptr));
      EXPECT_EQ(report.removed_orphans, 0u);
      compacted_ += report.compacted_chunks;
      if (!gives_up_) EXPECT_EQ(report.abandoned_ingests, 0u);
    }
  }
  void Scrubber() {
    while (running_ > 0) {
      ASSERT_OK_AND_ASSIGN(const ScrubReport report, world_.store().Scrub(true, nullptr));
      EXPECT_EQ(report.leaked_references, 0u);
      EXPECT_EQ(report.orphan_blobs, 0u);
      for (const auto& finding : report.findings) ADD_FAILURE() << finding.id << finding.problem;
    }
  }

  const bool gives_up_;
  World world_;
  base::Metrics metrics_;
  std::unique_ptr<ChunkStore> other_;
  std::atomic<int> running_ = kThreads;
  std::atomic<uint64_t> compacted_ = 0;
};

class SameContents : public Stress {
 public:
  explicit SameContents(bool over) : over_(over) {
    for (uint32_t seed = 0; seed < 4; ++seed) {
      // One chunk far out: two levels of the map, little work for the rest.
      bytes_.push_back(MakeBytes(seed + 1, 3000));
    }
  }

  void Upload(ChunkStore& store, const std::string& name, size_t which) {
    auto ingest = store.NewIngest(name, "");
    ASSERT_OK(ingest);
    ASSERT_OK((*ingest)->Put(kIndex, base::AsBytes(bytes_[which])));
    ASSERT_OK_AND_ASSIGN(const Root root, (*ingest)->Finish(kSize));
    Expect(store, root, which);
    const base::Result<Root> again = store.HoldAgain(name, name + "-again", "");
    ASSERT_OK(again);
    ASSERT_OK(store.Release(name));
    Expect(store, root, which);
    ASSERT_OK(store.Release(name + "-again"));
  }

  // The same contents, each made of the one before, whose holder goes meanwhile: what they share is
  // made, dropped and made again in all orders.
  void UploadOver(ChunkStore& store, const std::string& name, size_t which, size_t next) {
    auto ingest = store.NewIngest(name, "");
    ASSERT_OK(ingest);
    ASSERT_OK((*ingest)->Put(0, base::AsBytes(shared_)));
    ASSERT_OK((*ingest)->Put(kIndex, base::AsBytes(bytes_[which])));
    ASSERT_OK((*ingest)->Finish(kSize));
    auto over = store.NewIngestOver(name + "-over", "", name);
    ASSERT_OK(over);
    ASSERT_OK(store.Release(name));
    ASSERT_OK((*over)->Put(kIndex, base::AsBytes(bytes_[next])));
    ASSERT_OK_AND_ASSIGN(const Root root, (*over)->Finish(kSize));
    Expect(store, root, next);
    ASSERT_OK_AND_ASSIGN(const auto content, store.Open(root));
    std::string read(4096, '?');
    ASSERT_OK(content->ReadAt(0, {reinterpret_cast<uint8_t*>(read.data()), read.size()}));
    ASSERT_TRUE(read == shared_.substr(0, read.size()));
    ASSERT_OK(store.Release(name + "-over"));
  }

  void Expect(ChunkStore& store, const Root& root, size_t which) {
    ASSERT_OK_AND_ASSIGN(const auto content, store.Open(root));
    std::string read(bytes_[which].size(), '?');
    ASSERT_OK(content->ReadAt(kIndex * kChunkBytes,
                              {reinterpret_cast<uint8_t*>(read.data()), read.size()}));
    ASSERT_TRUE(read == bytes_[which]);
  }

  void Work(ChunkStore& store, int number) override {
    std::mt19937_64 random(number);
    const std::string name = "h/" + std::to_string(number);
    for (int round = 0; round < kRounds && !::testing::Test::HasFatalFailure(); ++round) {
      if (over_)
        UploadOver(store, name, random() % bytes_.size(), random() % bytes_.size());
      else
        Upload(store, name, random() % bytes_.size());
    }
  }

 private:
  static constexpr uint64_t kIndex = 1100;
  static constexpr uint64_t kSize = kIndex * kChunkBytes + 3000;

  const bool over_;
  std::vector<std::string> bytes_;
  const std::string shared_ = MakeBytes(9, kChunkBytes);
};

TEST(ChunkStoreStress, UploadsRaceReleasesAndCollectors) {
  ASSERT_TRUE(base::SetLogLevel("error"));
  SameContents stress(/*over=*/false);
  stress.Run();
}

TEST(ChunkStoreStress, ContentsMadeOfOthersRaceReleasesAndCollectors) {
  ASSERT_TRUE(base::SetLogLevel("error"));
  SameContents stress(/*over=*/true);
  stress.Run();
}

// Chunks that differ a little come and go in two stores, while collectors compact what only lends.
class SharedBlocks : public Stress {
 public:
  // A small cache, so that blobs are read.
  SharedBlocks() : Stress(/*cache_bytes=*/1 << 20, /*gives_up=*/true) {
    for (uint32_t seed : {123456, 123457, 123999, 888999, 888456, 993456, 123000, 777000}) {
      bytes_.push_back(MakeBytes(kWoven + seed, kWovenDigits * kWovenPartBytes));
    }
  }

  void Read(ChunkStore& store, const Root& root, size_t which) {
    const base::Result<std::string> read = ReadBack(store, root);
    ASSERT_OK(read);
    ASSERT_TRUE(*read == bytes_[which]);
  }

  void Work(ChunkStore& store, int number) override {
    std::mt19937_64 random(number);
    std::map<std::string, std::pair<Root, size_t>> held;
    for (int round = 0; round < kSharingRounds && !::testing::Test::HasFatalFailure(); ++round) {
      const std::string name = "h/" + std::to_string(number) + "/" + std::to_string(random() % 3);
      if (const auto found = held.find(name); found != held.end()) {
        Read(number % 3 ? other() : one(), found->second.first, found->second.second);
        ASSERT_OK(store.Release(name));
        held.erase(found);
        continue;
      }
      const size_t which = random() % bytes_.size();
      ASSERT_OK_AND_ASSIGN(const auto ingest, store.NewIngest(name, ""));
      ASSERT_OK(ingest->Put(0, base::AsBytes(bytes_[which])));
      if (random() % 8 == 0) continue;  // given up
      ASSERT_OK_AND_ASSIGN(const Root root, ingest->Finish(bytes_[which].size()));
      held[name] = {root, which};
      Read(store, root, which);
    }
    for (const auto& [name, held_as] : held) ASSERT_OK(store.Release(name));
  }

 private:
  static constexpr int kSharingRounds = 150;
  std::vector<std::string> bytes_;
};

TEST(ChunkStoreStress, ChunksThatShareBlocksRaceReleasesAndCompaction) {
  ASSERT_TRUE(base::SetLogLevel("error"));
  SharedBlocks stress;
  stress.Run();
  EXPECT_GT(stress.compacted(), 0u);
}

TEST(ChunkStoreStress, ThreadsOfOneUploadShareItsIngest) {
  World world;
  for (int round = 0; round < 5; ++round) {
    ASSERT_OK_AND_ASSIGN(const auto ingest, world.store().NewIngest("a", ""));
    std::vector<std::string> chunks;
    for (uint32_t seed : {1u, 2u, 3u}) chunks.push_back(MakeBytes(seed, kChunkBytes));
    std::atomic<uint64_t> next = 0;
    std::atomic<int> fresh = 0;
    std::vector<std::thread> threads;
    for (int i = 0; i < kThreads; ++i) {
      threads.emplace_back([&] {
        for (uint64_t index = next++; index < 30; index = next++) {
          const auto put = ingest->Put(index, base::AsBytes(chunks[index % chunks.size()]));
          ASSERT_OK(put);
          fresh += !put->known;
        }
      });
    }
    for (std::thread& thread : threads) thread.join();
    EXPECT_EQ(fresh, 3);  // each written once, whoever came first
    ASSERT_OK_AND_ASSIGN(const Root root, ingest->Finish(30ull * kChunkBytes));
    ASSERT_OK_AND_ASSIGN(const auto content, world.store().Open(root));
    std::vector<std::thread> readers;
    for (int i = 0; i < kThreads; ++i) {
      readers.emplace_back([&, i] {
        std::mt19937_64 random(i);
        for (int k = 0; k < 50; ++k) {
          const uint64_t offset = random() % (root.size_bytes - 5000);
          std::string bytes(std::min<uint64_t>(5000, kChunkBytes - offset % kChunkBytes), '?');
          ASSERT_OK(
              content->ReadAt(offset, {reinterpret_cast<uint8_t*>(bytes.data()), bytes.size()}));
          const std::string& chunk = chunks[offset / kChunkBytes % chunks.size()];
          ASSERT_TRUE(bytes == chunk.substr(offset % kChunkBytes, bytes.size()));
        }
      });
    }
    for (std::thread& thread : readers) thread.join();
    ASSERT_OK(world.store().Release("a"));
    ASSERT_OK(world.store().Collect(false, nullptr));
    ExpectEmpty(world.blobs(), world.meta());
  }
}

}  // namespace
}  // namespace chunkstore::testing
