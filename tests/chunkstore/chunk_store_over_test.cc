#include <functional>
#include <map>

#include <gtest/gtest.h>

#include "base/log.h"
#include "chunkstore/map.h"
#include "tests/chunkstore/chunk_store_world.h"

// NewIngestOver: contents made of other contents. What comes out is what an ordinary ingest of the
// same bytes makes, and nothing that happens to the base meanwhile harms it.

namespace chunkstore::testing {
namespace {

using base::Code;

const std::string& Chunk(uint32_t seed, size_t size) {
  static auto* cache = new std::map<std::pair<uint32_t, size_t>, std::string>;
  std::string& bytes = (*cache)[{seed, size}];
  if (bytes.empty()) bytes = MakeBytes(seed, size);
  return bytes;
}
const base::Digest256& IdOf(uint32_t seed, size_t size) {
  static auto* cache = new std::map<std::pair<uint32_t, size_t>, base::Digest256>;
  auto [found, fresh] = cache->try_emplace({seed, size});
  if (fresh) found->second = base::Sha256(base::AsBytes(Chunk(seed, size)));
  return found->second;
}

// A content as chunks far apart, by seed.
struct Sparse {
  std::map<uint64_t, uint32_t> seeds;
  uint64_t size_bytes = 0;
  uint32_t LengthAt(uint64_t index) const { return ChunkLength(index, size_bytes); }
};

base::Result<void> PutOne(Ingest& ingest, const Sparse& content, uint64_t index) {
  const auto seed = content.seeds.find(index);
  if (seed == content.seeds.end()) return ingest.PutHole(index);
  const uint32_t length = content.LengthAt(index);
  RETURN_IF_ERROR(ingest.PutHashed(index, base::AsBytes(Chunk(seed->second, length)),
                                   IdOf(seed->second, length)));
  return {};
}

base::Result<Root> UploadSparse(ChunkStore& store, const std::string& holder,
                                const Sparse& content) {
  ASSIGN_OR_RETURN(const std::unique_ptr<Ingest> ingest, store.NewIngest(holder, ""));
  for (const auto& [index, seed] : content.seeds) {
    RETURN_IF_ERROR(PutOne(*ingest, content, index));
  }
  return ingest->Finish(content.size_bytes);
}

// Only what differs is put.
base::Result<Root> UploadOver(ChunkStore& store, const std::string& holder, const Sparse& content,
                              const std::string& base_holder, const Sparse& base) {
  ASSIGN_OR_RETURN(const std::unique_ptr<Ingest> ingest,
                   store.NewIngestOver(holder, "", base_holder));
  std::map<uint64_t, bool> differs;
  for (const auto& [index, seed] : content.seeds) {
    const auto before = base.seeds.find(index);
    differs[index] = before == base.seeds.end() || before->second != seed ||
                     base.LengthAt(index) != content.LengthAt(index);
  }
  for (const auto& [index, seed] : base.seeds) {
    if (!content.seeds.contains(index)) differs[index] = true;
  }
  for (const auto& [index, differ] : differs) {
    if (differ) RETURN_IF_ERROR(PutOne(*ingest, content, index));
  }
  return ingest->Finish(content.size_bytes);
}

class RandomChain {
 public:
  explicit RandomChain(uint64_t seed) : random_(seed) {}

  void Run() {
    Sparse content = Next({});
    ASSERT_OK(UploadSparse(world_.store(), "over/0", content));
    for (int step = 1; step <= 40 && !::testing::Test::HasFatalFailure(); ++step)
      Step(step, &content);
    ASSERT_OK(world_.store().Release(last_));
    ASSERT_OK(world_.store().Collect(false, nullptr));
    ExpectEmpty(world_.blobs(), world_.meta());
  }

 private:
  void Step(int step, Sparse* content) {
    SCOPED_TRACE("step " + std::to_string(step));
    const Sparse next = Next(*content);
    const std::string over = "over/" + std::to_string(step);
    ASSERT_OK_AND_ASSIGN(const Root root, UploadOver(world_.store(), over, next, last_, *content));
    ASSERT_OK_AND_ASSIGN(const HolderStats stats, world_.store().StatsOf(over));
    ASSERT_OK(world_.store().Release(last_));
    ASSERT_OK_AND_ASSIGN(const Root plain, UploadSparse(world_.store(), "plain", next));
    EXPECT_EQ(root, plain);
    ASSERT_OK_AND_ASSIGN(const HolderStats plain_stats, world_.store().StatsOf("plain"));
    EXPECT_EQ(stats.nonzero_bytes, plain_stats.nonzero_bytes);
    EXPECT_EQ(stats.logical_bytes, plain_stats.logical_bytes);
    ASSERT_OK(world_.store().Release("plain"));
    if (random_() % 3 == 0) {
      ASSERT_OK(world_.store().Collect(true, nullptr));
      ExpectClean(world_.store());
    }
    last_ = over;
    *content = next;
  }

  Sparse Next(Sparse content) {
    static constexpr uint64_t kCounts[] = {1, 2, 1024, 1025, 2049, 1 << 20, (1 << 20) + 1};
    if (random_() % 2 || content.size_bytes == 0) {
      content.size_bytes = kCounts[random_() % std::size(kCounts)] * kChunkBytes;
      if (random_() % 2) content.size_bytes -= 4096 * (1 + random_() % 3);
    }
    const uint64_t count = ChunkCount(content.size_bytes);
    static constexpr uint64_t kPlaces[] = {0, 1, 1023, 1024, 2048, (1 << 20) - 1, 1 << 20};
    for (uint64_t i = random_() % 4; i > 0; --i) {
      const uint64_t index = random_() % 2 ? count - 1 : kPlaces[random_() % std::size(kPlaces)];
      if (random_() % 3)
        content.seeds[index] = 1 + random_() % 4;
      else
        content.seeds.erase(index);
    }
    content.seeds.erase(content.seeds.lower_bound(count), content.seeds.end());
    return content;
  }

  World world_;
  std::mt19937_64 random_;
  std::string last_ = "over/0";
};

TEST(ChunkStoreOver, GivesTheRootAndFiguresOfAnOrdinaryIngest) {
  for (uint64_t seed = 1; seed <= 5 && !HasFailure(); ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    RandomChain(seed).Run();
  }
}

TEST(ChunkStoreOver, ReadsBackAndReusesWhatDidNotChange) {
  World world;
  const Sparse base{{{0, 1}, {1030, 2}, {2050, 3}}, 3000ull * kChunkBytes};
  ASSERT_OK(UploadSparse(world.store(), "base", base));
  const size_t blobs = BlobNames(world.blobs()).size();
  ASSERT_OK_AND_ASSIGN(const auto ingest, world.store().NewIngestOver("over", "x", "base"));
  ASSERT_OK_AND_ASSIGN(const auto put, ingest->Put(1030, base::AsBytes(Chunk(4, kChunkBytes))));
  EXPECT_FALSE(put.known);
  const std::string zeros(kChunkBytes, '\0');
  ASSERT_OK_AND_ASSIGN(const auto hole, ingest->Put(2050, base::AsBytes(zeros)));
  EXPECT_TRUE(hole.hole);
  ASSERT_OK(ingest->PutHole(7));     // is one
  ASSERT_OK(ingest->PutHole(5000));  // beyond the end
  ASSERT_OK_AND_ASSIGN(const Root root, ingest->Finish(base.size_bytes));
  // The chunk, its leaf, the root and the manifest.
  EXPECT_EQ(BlobNames(world.blobs()).size(), blobs + 4);
  ASSERT_OK_AND_ASSIGN(const auto content, world.store().Open(root));
  std::map<uint64_t, base::Digest256> found;
  ASSERT_OK(content->VisitChunks(0, UINT64_MAX, [&](uint64_t index, const base::Digest256& id) {
    found[index] = id;
    return true;
  }));
  EXPECT_EQ(found, (std::map<uint64_t, base::Digest256>{{0, IdOf(1, kChunkBytes)},
                                                        {1030, IdOf(4, kChunkBytes)}}));
  ASSERT_OK_AND_ASSIGN(const auto held, world.store().FindHolder("over"));
  EXPECT_EQ(held.attributes, "x");
  ExpectClean(world.store());
}

TEST(ChunkStoreOver, RefusesWhatDoesNotFit) {
  World world;
  ASSERT_OK(Upload(world.store(), "base", Spec{{1, 2}, 5000}));
  ChunkStore& store = world.store();
  EXPECT_ERROR(store.NewIngestOver("a", "", "nobody"), Code::kNotFound);
  EXPECT_ERROR(store.NewIngestOver("base", "", "base"), Code::kAlreadyExists);
  EXPECT_ERROR(store.NewIngestOver("a b", "", "base"), Code::kInvalidArgument);
  ASSERT_OK_AND_ASSIGN(const auto claimed, store.NewIngest("claimed", ""));
  EXPECT_ERROR(store.NewIngestOver("a", "", "claimed"), Code::kNotFound);
  ASSERT_OK_AND_ASSIGN(const auto ingest, store.NewIngestOver("a", "", "base"));
  EXPECT_ERROR(ingest->PutHole(kMaxContentBytes / kChunkBytes), Code::kTooLarge);
  // The base's last chunk is short: longer or shorter, it must come again.
  EXPECT_ERROR(ingest->Finish(3ull * kChunkBytes), Code::kInvalidArgument);
  EXPECT_ERROR(ingest->Finish(kChunkBytes + 4000), Code::kInvalidArgument);
  EXPECT_ERROR(ingest->Finish(4000), Code::kInvalidArgument);
  std::string longer = MakeBytes(2, 5000);
  longer.resize(kChunkBytes);
  ASSERT_OK(ingest->Put(1, base::AsBytes(longer)));
  EXPECT_ERROR(ingest->Finish(kChunkBytes), Code::kInvalidArgument);  // chunk 1 was put
  ASSERT_OK_AND_ASSIGN(const Root root, ingest->Finish(3ull * kChunkBytes));
  ASSERT_OK_AND_ASSIGN(const std::string bytes, ReadBack(store, root));
  EXPECT_TRUE(bytes == MakeBytes(1, kChunkBytes) + longer + std::string(kChunkBytes, '\0'));
  EXPECT_ERROR(ingest->PutHole(0), Code::kConflict);
  // Cut at a chunk's end, or where a hole was: nothing to put.
  ASSERT_OK_AND_ASSIGN(const auto cut, store.NewIngestOver("b", "", "base"));
  ASSERT_OK_AND_ASSIGN(const Root one, cut->Finish(kChunkBytes));
  ASSERT_OK_AND_ASSIGN(const std::string first, ReadBack(store, one));
  EXPECT_TRUE(first == MakeBytes(1, kChunkBytes));
  ASSERT_OK_AND_ASSIGN(const auto hole, store.NewIngestOver("c", "", "a"));
  ASSERT_OK(hole->Finish(2ull * kChunkBytes + 17));
  ExpectClean(store);
}

TEST(ChunkStoreOver, TheBaseMayGoAtOnce) {
  World world;
  const Sparse base{{{0, 1}, {1030, 2}}, 3000ull * kChunkBytes};
  ASSERT_OK(UploadSparse(world.store(), "base", base));
  ASSERT_OK_AND_ASSIGN(const auto ingest, world.store().NewIngestOver("over", "", "base"));
  ASSERT_OK(world.store().Release("base"));
  ASSERT_OK(world.store().Collect(true, nullptr));
  // Its name means something else from now on.
  ASSERT_OK(UploadSparse(world.store(), "base", {{{0, 3}}, 10ull * kChunkBytes}));
  Sparse expected = base;
  expected.seeds[2000] = 4;
  ASSERT_OK(PutOne(*ingest, expected, 2000));
  ASSERT_OK(world.store().Collect(true, nullptr));
  ASSERT_OK_AND_ASSIGN(const Root root, ingest->Finish(base.size_bytes));
  ASSERT_OK(world.store().Collect(true, nullptr));
  ExpectClean(world.store());
  ASSERT_OK_AND_ASSIGN(const Root plain, UploadSparse(world.store(), "plain", expected));
  EXPECT_EQ(root, plain);
  for (const char* holder : {"base", "plain", "over"}) ASSERT_OK(world.store().Release(holder));
  ASSERT_OK(world.store().Collect(false, nullptr));
  ExpectEmpty(world.blobs(), world.meta());
}

TEST(ChunkStoreOver, AnAbortedOneLetsTheBaseGo) {
  World world;
  ASSERT_OK(UploadSparse(world.store(), "base", {{{0, 1}, {1030, 2}}, 3000ull * kChunkBytes}));
  {
    ASSERT_OK_AND_ASSIGN(const auto ingest, world.store().NewIngestOver("over", "", "base"));
    ASSERT_OK(ingest->PutHole(0));
    ASSERT_OK(world.store().Release("base"));
    ASSERT_OK(world.store().Collect(true, nullptr));
    EXPECT_EQ(BlobNames(world.blobs()).size(), 5u);  // two chunks, two leaves, the root
  }
  ASSERT_OK(world.store().Collect(false, nullptr));
  ExpectEmpty(world.blobs(), world.meta());
}

// Two stores over the same stores below stand for two processes: one stalls past its lease while
// the other lets the base go.
TEST(ChunkStoreOver, AStalledOneNeverHoldsWhatIsGone) {
  for (const bool collect : {false, true}) {
    World world;
    base::Metrics metrics;
    ASSERT_OK_AND_ASSIGN(const auto other, ChunkStore::Open(world.options(), world.blobs(),
                                                            world.meta(), world.clock(), metrics));
    ASSERT_OK(UploadSparse(world.store(), "base", {{{0, 1}, {1030, 2}}, 3000ull * kChunkBytes}));
    ASSERT_OK_AND_ASSIGN(const auto ingest, world.store().NewIngestOver("over", "", "base"));
    ASSERT_OK(ingest->PutHole(0));
    world.Wait();
    ASSERT_OK(other->Release("base"));
    if (collect) ASSERT_OK(other->Collect(true, nullptr));
    if (collect) ExpectEmpty(world.blobs(), world.meta());
    if (collect) {
      EXPECT_ERROR(ingest->Finish(3000ull * kChunkBytes), Code::kCancelled);
      ASSERT_OK(ingest->Abort());
    } else {
      ASSERT_OK(ingest->Finish(3000ull * kChunkBytes));  // it was late, and nobody minded
      ExpectClean(*other);
      ASSERT_OK(other->Release("over"));
    }
    ASSERT_OK(other->Collect(true, nullptr));
    ExpectEmpty(world.blobs(), world.meta());
  }
}

// Before its n-th operation from now something else happens. Borrows what it wraps. One thread.
class InterruptedMetaStore : public MetaStore {
 public:
  explicit InterruptedMetaStore(MetaStore& inner) : inner_(inner) {}
  void InterruptAt(uint64_t n, std::function<void()> interruption) {
    left_ = n;
    interruption_ = std::move(interruption);
  }
  bool was_interrupted() const { return left_ == 0; }

  base::Result<std::string> Get(std::string_view partition, std::string_view key) override {
    Next();
    return inner_.Get(partition, key);
  }
  base::Result<void> Scan(std::string_view partition, std::string_view from, std::string_view to,
                          size_t limit, const Visitor& visit) override {
    Next();
    return inner_.Scan(partition, from, to, limit, visit);
  }
  base::Result<void> ScanReverse(std::string_view partition, std::string_view from,
                                 std::string_view to, size_t limit, const Visitor& visit) override {
    Next();
    return inner_.ScanReverse(partition, from, to, limit, visit);
  }
  base::Result<void> Commit(std::string_view partition, const MetaBatch& batch) override {
    Next();
    return inner_.Commit(partition, batch);
  }
  base::Result<void> Sync() override {
    Next();
    return inner_.Sync();
  }
  base::Result<std::vector<std::string>> Partitions(std::string_view prefix) override {
    Next();
    return inner_.Partitions(prefix);
  }

 private:
  void Next() {
    if (left_ > 0 && --left_ == 0) interruption_();
  }

  MetaStore& inner_;
  uint64_t left_ = 0;
  std::function<void()> interruption_;
};

// At each step of Finish in turn: another process takes the ingest for abandoned, lets the base go
// and collects. Finish is refused, or was through; what it holds is never less than whole.
TEST(ChunkStoreOver, GivenUpAtAnyStepOfFinishItHoldsAllOrNothing) {
  ASSERT_TRUE(base::SetLogLevel("error"));
  const Sparse base{{{0, 1}, {1030, 2}}, 3000ull * kChunkBytes};
  const Sparse expected{{{0, 1}, {2047, 3}}, 3000ull * kChunkBytes};
  int refused = 0;
  int held = 0;
  for (uint64_t n = 1; !HasFailure(); ++n) {
    SCOPED_TRACE("operation " + std::to_string(n));
    World world;
    base::Metrics metrics;
    InterruptedMetaStore meta(world.meta());
    ASSERT_OK_AND_ASSIGN(const auto stalled, ChunkStore::Open(world.options(), world.blobs(), meta,
                                                              world.clock(), metrics));
    ASSERT_OK(UploadSparse(world.store(), "base", base));
    ASSERT_OK_AND_ASSIGN(auto ingest, stalled->NewIngestOver("over", "", "base"));
    ASSERT_OK(ingest->PutHole(1030));
    ASSERT_OK(PutOne(*ingest, expected, 2047));
    meta.InterruptAt(n, [&] {
      world.Wait();
      EXPECT_OK(world.store().Release("base"));
      EXPECT_OK(world.store().Collect(true, nullptr));
    });
    const base::Result<Root> root = ingest->Finish(expected.size_bytes);
    if (!meta.was_interrupted()) {
      EXPECT_OK(root);
      break;
    }
    refused += !root.has_value();
    held += root.has_value();
    if (!root.has_value()) EXPECT_ERROR(root, Code::kCancelled);
    ingest.reset();
    if (root.has_value()) {
      std::string read(kChunkBytes, '?');
      ASSERT_OK_AND_ASSIGN(const auto content, world.store().Open(*root));
      for (const auto& [index, seed] : expected.seeds) {
        ASSERT_OK(content->ReadAt(index * kChunkBytes,
                                  {reinterpret_cast<uint8_t*>(read.data()), read.size()}));
        EXPECT_TRUE(read == Chunk(seed, kChunkBytes));
      }
    } else {
      EXPECT_ERROR(world.store().FindHolder("over"), Code::kNotFound);
    }
    // References of a page that was taken while its tags were made are scrub's to find.
    ASSERT_OK_AND_ASSIGN(const ScrubReport report, world.store().Scrub(true, nullptr));
    EXPECT_EQ(report.finding_count, 0u);
    ASSERT_OK(world.store().Release("over"));
    ASSERT_OK(world.store().Collect(false, nullptr));
    ExpectEmpty(world.blobs(), world.meta());
  }
  EXPECT_GT(refused, 10);
  EXPECT_GT(held, 0);
}

}  // namespace
}  // namespace chunkstore::testing
