#include <gtest/gtest.h>

#include "base/log.h"
#include "chunkstore/map.h"
#include "chunkstore/references_format.h"
#include "tests/chunkstore/chunk_store_world.h"

// One id, two meanings: anybody can upload bytes that are a page of somebody's map, before that is
// there or after. Nothing may be lost by it.

namespace chunkstore::testing {
namespace {

using base::Code;
using base::Digest256;

constexpr uint32_t kLast = 3000;

class Kinds : public ::testing::Test {
 protected:
  Kinds() { EXPECT_TRUE(base::SetLogLevel("error")); }

  // A content of two short levels; its pages, root first, are what anyone who has it can compute.
  static Spec Victim() {
    Spec spec;
    spec.seeds.assign(kFanOut + 1, 0);
    spec.seeds.front() = 1;
    spec.seeds.back() = 3;
    spec.last_bytes = kLast;
    return spec;
  }
  static std::vector<std::string> PagesOf(const Spec& spec) {
    const auto id = [&](size_t index) { return base::Sha256(base::AsBytes(spec.ChunkAt(index))); };
    const std::string first = EncodePage({.entries = {{.slot = 0, .id = id(0)}}});
    const std::string second = EncodePage({.entries = {{.slot = 0, .id = id(kFanOut)}}});
    MapPage root{.level = 1, .size_bytes = spec.size_bytes()};
    root.entries.push_back({.slot = 0, .id = base::Sha256(base::AsBytes(first))});
    root.entries.push_back({.slot = 1, .id = base::Sha256(base::AsBytes(second))});
    return {EncodePage(root), first, second};
  }
  void PutVictim() {
    ASSERT_OK_AND_ASSIGN(const auto ingest, store().NewIngest("victim", ""));
    for (const size_t index : {size_t{0}, size_t{kFanOut}})
      ASSERT_OK(ingest->Put(index, base::AsBytes(victim_.ChunkAt(index))));
    ASSERT_OK_AND_ASSIGN(root_, ingest->Finish(victim_.size_bytes()));
    ASSERT_EQ(root_.id, base::Sha256(base::AsBytes(pages_[0])));
  }
  // Contents that are one chunk each: a page of the victim's map.
  void PutPagesAsChunks() {
    for (const std::string& page : pages_) {
      const std::string holder = "attacker/" + std::to_string(attackers_++);
      ASSERT_OK_AND_ASSIGN(const auto ingest, store().NewIngest(holder, ""));
      ASSERT_OK(ingest->Put(0, base::AsBytes(page)));
      ASSERT_OK_AND_ASSIGN(const Root root, ingest->Finish(page.size()));
      theirs_[holder] = {root, page};
    }
  }
  void ExpectAllReads() {
    world_.Reopen();
    ASSERT_OK_AND_ASSIGN(const auto content, store().Open(root_));
    for (const size_t index : {size_t{0}, size_t{kFanOut}}) {
      const std::string expected = victim_.ChunkAt(index);
      std::string read(expected.size(), '?');
      ASSERT_OK(content->ReadAt(index * uint64_t{kChunkBytes},
                                {reinterpret_cast<uint8_t*>(read.data()), read.size()}));
      EXPECT_TRUE(read == expected);
    }
    for (const auto& [holder, their] : theirs_) {
      ASSERT_OK_AND_ASSIGN(const std::string read, ReadBack(store(), their.first));
      EXPECT_TRUE(read == their.second);
    }
    ExpectClean(store());
  }
  std::map<std::string, std::string> BlobsOfPages() {
    std::map<std::string, std::string> blobs;
    for (const std::string& page : pages_) {
      const Digest256 id = base::Sha256(base::AsBytes(page));
      for (const std::string& name : BlobNames(world_.blobs())) {
        if (!name.starts_with(id.hex())) continue;
        std::string& bytes = blobs[name];
        bytes.resize(world_.blobs().Size(name).value());
        EXPECT_OK(
            world_.blobs().Get(name, 0, {reinterpret_cast<uint8_t*>(bytes.data()), bytes.size()}));
      }
    }
    return blobs;
  }
  void PutBack(const std::map<std::string, std::string>& blobs) {
    for (const auto& [name, bytes] : blobs) {
      const base::ByteView pieces[] = {base::AsBytes(bytes)};
      ASSERT_OK(world_.blobs().Put(name, pieces));
    }
  }
  void Collect() { ASSERT_OK(store().Collect(true, nullptr)); }
  void ReleaseAttackers() {
    for (const auto& [holder, their] : theirs_) ASSERT_OK(store().Release(holder));
    theirs_.clear();
  }
  void ExpectAllGoes() {
    ReleaseAttackers();
    ASSERT_OK(store().Release("victim"));
    Collect();
    ExpectEmpty(world_.blobs(), world_.meta());
  }
  ChunkStore& store() { return world_.store(); }

  World world_;
  const Spec victim_ = Victim();
  const std::vector<std::string> pages_ = PagesOf(victim_);
  Root root_;
  int attackers_ = 0;
  std::map<std::string, std::pair<Root, std::string>> theirs_;
};

TEST_F(Kinds, AChunkWithTheBytesOfAPageToCome) {
  PutPagesAsChunks();
  PutVictim();
  Collect();
  ExpectAllReads();
  ReleaseAttackers();
  Collect();
  ExpectAllReads();
  ExpectAllGoes();
}

TEST_F(Kinds, AChunkWithTheBytesOfAPageThatIsThere) {
  PutVictim();
  PutPagesAsChunks();
  Collect();
  ExpectAllReads();
  ASSERT_OK(store().Release("victim"));
  Collect();
  PutVictim();
  Collect();
  ExpectAllReads();
  ExpectAllGoes();
}

// A chunk that nobody has any more and the collector has not taken yet.
TEST_F(Kinds, AChunkThatIsGarbageByThen) {
  PutPagesAsChunks();
  ReleaseAttackers();
  PutVictim();
  Collect();
  ExpectAllReads();
  ExpectAllGoes();
}

TEST_F(Kinds, AnUploadAsAChunkHealsAPage) {
  PutVictim();
  for (const std::string& page : pages_) {
    const Digest256 id = base::Sha256(base::AsBytes(page));
    for (const std::string& name : BlobNames(world_.blobs()))
      if (name.starts_with(id.hex())) world_.blobs().FlipBit(name, page.size() / 2, 1);
  }
  world_.Reopen();
  EXPECT_ERROR(store().Open(root_), Code::kCorruption);
  ASSERT_OK(store().Scrub(true, nullptr));
  PutPagesAsChunks();
  ExpectAllReads();
  Collect();
  ExpectAllReads();
  ExpectAllGoes();
}

// A crash may leave the blob of a chunk beside that of the page which took its place.
TEST_F(Kinds, RebuildTakesThePage) {
  PutPagesAsChunks();
  const auto of_chunks = BlobsOfPages();
  ASSERT_EQ(of_chunks.size(), pages_.size());
  PutVictim();
  PutBack(of_chunks);
  ASSERT_OK_AND_ASSIGN(const RebuildReport report, store().Rebuild(nullptr));
  EXPECT_EQ(report.bad_blobs, 0u);
  Collect();
  ExpectAllReads();
  ExpectAllGoes();
}

// The bytes of a page are no secret to who knows the ids of chunks; they give no right to these.
TEST_F(Kinds, KnowingAMapIsNoRightToWhatItNames) {
  PutVictim();
  PutPagesAsChunks();
  std::vector<Digest256> ids;
  for (const size_t index : {size_t{0}, size_t{kFanOut}})
    ids.push_back(base::Sha256(base::AsBytes(victim_.ChunkAt(index))));
  for (const std::string& page : pages_) ids.push_back(base::Sha256(base::AsBytes(page)));
  const auto of = [&](const std::string& who) {
    const auto reachable = store().WhichReachable(
        ids, [&](std::string_view holder) { return base::Result<bool>(holder.starts_with(who)); });
    EXPECT_OK(reachable);
    return reachable.value_or(std::vector<bool>());
  };
  // His own chunks are, whether they are pages of somebody by now or not.
  EXPECT_EQ(of("attacker"), (std::vector<bool>{false, false, true, true, true}));
  EXPECT_EQ(of("victim"), (std::vector<bool>{true, true, false, false, false}));
  for (const std::string& page : pages_) {
    std::string read(page.size(), '?');
    ASSERT_OK(store().ReadChunk(base::Sha256(base::AsBytes(page)),
                                {reinterpret_cast<uint8_t*>(read.data()), read.size()}));
    EXPECT_TRUE(read == page);
  }
}

TEST_F(Kinds, RebuildTakesNoChunkForAPageThatIsLost) {
  PutPagesAsChunks();
  const auto of_chunks = BlobsOfPages();
  PutVictim();
  for (const auto& [name, bytes] : BlobsOfPages()) ASSERT_OK(world_.blobs().Remove(name));
  PutBack(of_chunks);
  ASSERT_OK(store().Rebuild(nullptr));
  world_.Reopen();
  EXPECT_ERROR(store().Open(root_), Code::kCorruption);
  // The same bytes once more heal it, and keep what lies below.
  ASSERT_OK(store().Release("victim"));
  PutVictim();
  Collect();
  ExpectAllReads();
  ExpectAllGoes();
}

}  // namespace
}  // namespace chunkstore::testing
