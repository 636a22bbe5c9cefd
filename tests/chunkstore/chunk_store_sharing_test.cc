#include <set>

#include <gtest/gtest.h>

#include "base/log.h"
#include "chunkstore/references_format.h"
#include "chunkstore/zstd_frames.h"
#include "tests/chunkstore/chunk_store_world.h"
#include "tests/chunkstore/stored_blocks.h"

// Blocks that chunks share: what is saved, that it reads back in every way, and what becomes of an
// owner that goes.

namespace chunkstore::testing {
namespace {

using base::Code;

constexpr uint32_t kBytes = kWovenDigits * kWovenPartBytes;

Spec Woven(uint32_t digits) { return Spec{{kWoven + digits}, kBytes}; }

std::map<base::Digest256, BlobTable> Tables(BlobStore& blobs) {
  std::map<base::Digest256, BlobTable> tables;
  for (const std::string& name : BlobNames(blobs)) {
    const uint64_t size = blobs.Size(name).value();
    std::string bytes(size, 0);
    EXPECT_OK(blobs.Get(name, 0, {reinterpret_cast<uint8_t*>(bytes.data()), size}));
    const auto table = DecodeTable(base::AsBytes(bytes).last(TailReadBytes(size)), size);
    EXPECT_OK(table);
    if (table->kind == BlobKind::kChunk) tables[table->id] = *table;
  }
  return tables;
}

// Whoever borrows does so of whom has the bytes.
void ExpectNoChains(BlobStore& blobs) {
  const auto tables = Tables(blobs);
  for (const auto& [id, table] : tables) {
    for (const Block& block : table.blocks) {
      if (block.form != Block::Form::kElsewhere) continue;
      const auto owner = tables.find(table.owners[block.owner]);
      ASSERT_NE(owner, tables.end());
      const Block& theirs = owner->second.blocks[owner->second.BlockAt(block.owner_offset)];
      EXPECT_TRUE(theirs.is_here());
      EXPECT_EQ(theirs.hash, block.hash);
    }
  }
}

size_t IndexedBlocks(MetaStore& meta) {
  size_t blocks = 0;
  const auto partitions = meta.Partitions("b/");
  EXPECT_OK(partitions);
  for (const std::string& partition : *partitions) {
    EXPECT_OK(meta.Scan(partition, "", "", SIZE_MAX,
                        [&](std::string_view, std::string_view) { return ++blocks != 0; }));
  }
  return blocks;
}

class Sharing : public ::testing::Test {
 protected:
  ChunkStore& store() { return world_.store(); }
  void Put(const std::string& holder, const Spec& spec) {
    ASSERT_OK_AND_ASSIGN(roots_[holder], Upload(store(), holder, spec));
    specs_[holder] = spec;
  }
  void Drop(const std::string& holder) {
    ASSERT_OK(store().Release(holder));
    roots_.erase(holder);
  }
  CollectReport Collect(bool orphans = false) {
    const auto report = store().Collect(orphans, nullptr);
    EXPECT_OK(report);
    return report.value_or(CollectReport{});
  }
  void ExpectAllReads() {
    for (const auto& [holder, root] : roots_) {
      const auto bytes = ReadBack(store(), root);
      ASSERT_OK(bytes) << holder;
      EXPECT_TRUE(*bytes == specs_[holder].Bytes()) << holder;
    }
    ExpectClean(store());
    ExpectNoChains(world_.blobs());
  }
  StoreStats Stats() { return store().Stats().value(); }

  World world_;
  std::map<std::string, Root> roots_;
  std::map<std::string, Spec> specs_;
};

TEST_F(Sharing, KeepsEqualPartsOnce) {
  Put("a", Woven(123456));
  const uint64_t alone = Stats().compressed_bytes;
  Put("b", Woven(123457));
  const StoreStats stats = Stats();
  EXPECT_EQ(stats.unique_bytes, 2 * kBytes);
  EXPECT_GE(stats.borrowed_bytes, 3 * kWovenPartBytes);
  EXPECT_LE(stats.borrowed_bytes, 5 * kWovenPartBytes);
  EXPECT_LT(stats.compressed_bytes, alone + alone / 2);
  EXPECT_EQ(stats.lender_bytes, 0u);
  ExpectAllReads();
}

TEST_F(Sharing, FindsPartsThatMoved) {
  Put("a", Woven(123456));
  Put("b", Woven(941235));
  EXPECT_GE(Stats().borrowed_bytes, kWovenPartBytes / 2);
  ExpectAllReads();
}

TEST_F(Sharing, CanBeSwitchedOff) {
  world_.options().share_blocks = false;
  world_.Reopen();
  Put("a", Woven(123456));
  Put("b", Woven(123457));
  EXPECT_EQ(Stats().borrowed_bytes, 0u);
  ExpectAllReads();
}

TEST_F(Sharing, ReadsEveryRange) {
  Put("a", Woven(123456));
  Put("b", Woven(129456));
  const std::string expected = specs_["b"].Bytes();
  world_.Reopen();  // nothing is cached
  ASSERT_OK_AND_ASSIGN(const auto content, store().Open(roots_["b"]));
  std::mt19937 random(7);
  for (int i = 0; i < 300; ++i) {
    const size_t from = random() % kBytes;
    const size_t length = 1 + random() % (kBytes - from);
    std::string part(length, '?');
    ASSERT_OK(content->ReadAt(from, {reinterpret_cast<uint8_t*>(part.data()), length}));
    ASSERT_TRUE(part == expected.substr(from, length)) << from << " " << length;
    ASSERT_OK_AND_ASSIGN(const ContentPiece piece, content->PieceAt(from, length));
    ASSERT_TRUE(base::AsText(piece.bytes) == expected.substr(from, piece.length));
  }
}

TEST_F(Sharing, GivesFramesOfWhatIsBorrowed) {
  Put("a", Woven(123456));
  Put("b", Woven(129456));
  ASSERT_OK_AND_ASSIGN(const auto content, store().Open(roots_["b"]));
  ASSERT_OK_AND_ASSIGN(const auto pieces, content->FramesAt(0, kBytes));
  std::string stream;
  for (const ContentPiece& piece : pieces) stream += base::AsText(piece.bytes);
  EXPECT_LT(stream.size(), kBytes);
  std::string plain(kBytes + 1, '?');
  ZstdReader reader;
  base::ByteView in = base::AsBytes(stream);
  ASSERT_OK_AND_ASSIGN(const size_t count,
                       reader.Read(&in, {reinterpret_cast<uint8_t*>(plain.data()), plain.size()}));
  EXPECT_TRUE(plain.substr(0, count) == specs_["b"].Bytes());
}

TEST_F(Sharing, TellsWhereBlocksLieAndGivesThem) {
  Put("a", Woven(123456));
  Put("b", Woven(129456));
  const base::Digest256 owner = base::Sha256(base::AsBytes(specs_["a"].Bytes()));
  ASSERT_OK_AND_ASSIGN(const auto content, store().Open(roots_["b"]));
  ASSERT_OK_AND_ASSIGN(const std::vector<StoredBlock> blocks, content->BlocksOf(0));
  std::vector<size_t> numbers;
  size_t borrowed = 0;
  for (size_t i = 0; i < blocks.size(); ++i) {
    borrowed += blocks[i].owner == owner;
    if (i % 3 != 1) numbers.push_back(i);
  }
  EXPECT_GT(borrowed, 2u);
  EXPECT_LT(borrowed, blocks.size());
  ASSERT_OK_AND_ASSIGN(const BlockBytes read, content->ReadBlocks(0, numbers));
  std::string stored;
  for (const ContentPiece& piece : read.pieces) stored += base::AsText(piece.bytes);
  const std::string expected = specs_["b"].Bytes();
  size_t at = 0;
  for (size_t i = 0; i < numbers.size(); ++i) {
    const StoredBlock& block = read.blocks[i];
    ASSERT_EQ(block.plain_offset, blocks[numbers[i]].plain_offset);
    ASSERT_EQ(block.stored_length, blocks[numbers[i]].stored_length);
    ASSERT_OK_AND_ASSIGN(
        const std::string plain,
        DecodeStored(block, base::AsBytes(stored).subspan(at, block.stored_length)));
    at += block.stored_length;
    EXPECT_TRUE(plain == expected.substr(block.plain_offset, block.plain_length));
  }
  EXPECT_EQ(at, stored.size());
}

TEST_F(Sharing, AnOwnerThatGoesLeavesWhatIsBorrowed) {
  Put("a", Woven(123456));
  Put("b", Woven(129999));
  Drop("a");
  const StoreStats before = Stats();
  EXPECT_GT(before.lender_bytes, 0u);
  const CollectReport report = Collect();
  EXPECT_EQ(report.compacted_chunks, 1u);
  const StoreStats after = Stats();
  EXPECT_LT(after.lender_bytes, before.lender_bytes * 2 / 3);
  EXPECT_EQ(after.unique_bytes, kBytes);
  ExpectAllReads();
  EXPECT_EQ(Collect().compacted_chunks, 0u);
  Drop("b");
  Collect(true);
  ExpectEmpty(world_.blobs(), world_.meta());
}

TEST_F(Sharing, AnOwnerThatIsMostlyBorrowedStaysAsItIs) {
  Put("a", Woven(123456));
  Put("b", Woven(123450));
  Put("b2", Woven(993456));
  Drop("a");
  EXPECT_EQ(Collect().compacted_chunks, 0u);
  ExpectAllReads();
  Put("c", Woven(123456));  // and is whole, as it was
  EXPECT_EQ(Stats().lender_bytes, 0u);
  ExpectAllReads();
}

TEST_F(Sharing, WhatWasCompactedIsWholeAgainAfterAnUpload) {
  Put("a", Woven(123456));
  const base::Digest256 id = base::Sha256(base::AsBytes(specs_["a"].Bytes()));
  Put("b", Woven(129999));
  Drop("a");
  Collect();
  std::string chunk(kBytes, '?');
  EXPECT_ERROR(store().ReadChunk(id, {reinterpret_cast<uint8_t*>(chunk.data()), kBytes}),
               Code::kNotFound);
  Put("c", Woven(123456));
  ExpectAllReads();
  EXPECT_EQ(Stats().lender_bytes, 0u);
  Drop("b");
  Drop("c");
  Collect(true);
  ExpectEmpty(world_.blobs(), world_.meta());
}

TEST_F(Sharing, CompactsAgainWhenABorrowerGoes) {
  Put("a", Woven(123456));
  Put("b", Woven(123999));
  Put("c", Woven(128888));
  Drop("a");
  EXPECT_EQ(Collect().compacted_chunks, 1u);
  const uint64_t before = Stats().lender_bytes;
  Drop("b");
  EXPECT_EQ(Collect().compacted_chunks, 1u);
  EXPECT_LT(Stats().lender_bytes, before);
  ExpectAllReads();
}

TEST_F(Sharing, WhatIsCompactedLetsGoOfWhatItBorrowed) {
  Put("a", Woven(123456));
  Put("b", Woven(123777));  // borrows 1 2 3 of a
  Put("c", Woven(888777));  // borrows 7 7 7 of b
  Drop("a");
  Drop("b");
  Collect();
  Collect();
  ExpectAllReads();
  // Nothing of a is left.
  EXPECT_FALSE(Tables(world_.blobs()).contains(base::Sha256(base::AsBytes(Woven(123456).Bytes()))));
}

// A lender whose file is gone is one chunk's trouble: the rest is collected all the same.
TEST_F(Sharing, ALostLenderDoesNotStopTheCollector) {
  ASSERT_TRUE(base::SetLogLevel("error"));
  Put("a", Woven(123456));
  const base::Digest256 id = base::Sha256(base::AsBytes(specs_["a"].Bytes()));
  Put("b", Woven(129999));
  for (const std::string& name : BlobNames(world_.blobs())) {
    if (name.starts_with(id.hex())) ASSERT_OK(world_.blobs().Remove(name));
  }
  Drop("a");
  const std::string orphan = BlobName({base::Sha256(base::AsBytes("orphan")), 1});
  const base::ByteView some[] = {base::AsBytes("orphan")};
  ASSERT_OK(world_.blobs().Put(orphan, some));
  ASSERT_OK_AND_ASSIGN(const CollectReport report, store().Collect(true, nullptr));
  EXPECT_EQ(report.removed_orphans, 1u);
  Drop("b");
  Collect(true);
  ExpectEmpty(world_.blobs(), world_.meta());
}

// Another process made the owner whole again and lent more of it, while this one knows the rest
// that was left before.
TEST_F(Sharing, AnOldTableOfAnOwnerInTheCacheIsNoDamage) {
  base::Metrics metrics;
  ASSERT_OK_AND_ASSIGN(const auto other, ChunkStore::Open(world_.options(), world_.blobs(),
                                                          world_.meta(), world_.clock(), metrics));
  Put("a", Woven(123456));
  Put("b", Woven(123999));
  Drop("a");
  EXPECT_EQ(Collect().compacted_chunks, 1u);
  ASSERT_OK(ReadBack(*other, roots_["b"]));  // knows what is left of a
  Put("c", Woven(123456));
  Put("d", Woven(888456));  // borrows of it what was not left
  ASSERT_OK_AND_ASSIGN(const std::string bytes, ReadBack(*other, roots_["d"]));
  EXPECT_TRUE(bytes == specs_["d"].Bytes());
  ExpectAllReads();
}

TEST_F(Sharing, TheIndexForgetsWhatIsGone) {
  Put("a", Woven(123456));
  Collect(true);
  const size_t before = IndexedBlocks(world_.meta());
  EXPECT_GT(before, 5u);
  Put("b", Woven(777777));
  Drop("a");
  Collect(true);
  EXPECT_LT(IndexedBlocks(world_.meta()), 2 * before);
  Drop("b");
  Collect(true);
  EXPECT_EQ(IndexedBlocks(world_.meta()), 0u);
}

TEST_F(Sharing, GivesNoRightToTheOwner) {
  Put("mine", Woven(123456));
  Put("theirs", Woven(123999));
  const base::Digest256 ids[] = {base::Sha256(base::AsBytes(specs_["mine"].Bytes())),
                                 base::Sha256(base::AsBytes(specs_["theirs"].Bytes()))};
  ASSERT_OK_AND_ASSIGN(const auto reachable,
                       store().WhichReachable(ids, [](std::string_view holder) {
                         return base::Result<bool>(holder == "theirs");
                       }));
  EXPECT_EQ(reachable, (std::vector<bool>{false, true}));
}

// What a tenant is shown of how his chunk is stored must not tell whether somebody else has a part
// of it: a little that compresses, in a chunk that does not, is stored alike with and without.
TEST_F(Sharing, HowAChunkIsStoredTellsNothingOfOthers) {
  const auto see = [](bool other_has_it) {
    World world;
    if (other_has_it) EXPECT_OK(Upload(world.store(), "victim", Spec{{2}, kBytes}));
    std::string probe = MakeBytes(4, kChunkBytes);
    probe.replace(0, 4 * kWovenPartBytes, MakeBytes(2, 4 * kWovenPartBytes));
    probe.replace(2 * base::kMiB, 2 * kWovenPartBytes, MakeBytes(3, 2 * kWovenPartBytes));
    std::vector<std::pair<uint32_t, bool>> seen;
    const auto ingest = world.store().NewIngest("probe", "");
    EXPECT_OK((*ingest)->Put(0, base::AsBytes(probe)));
    const auto root = (*ingest)->Finish(kChunkBytes);
    EXPECT_EQ(world.store().Stats()->borrowed_bytes > 0, other_has_it);
    const auto content = world.store().Open(*root);
    const auto blocks = (*content)->BlocksOf(0);
    for (const StoredBlock& block : *blocks)
      seen.emplace_back(block.stored_length, block.compressed);
    return seen;
  };
  EXPECT_EQ(see(true), see(false));
}

// Damages the byte of the stored block at this plain offset of a chunk.
void Rot(MemoryBlobStore& blobs, const base::Digest256& id, uint32_t plain_offset) {
  for (const std::string& name : BlobNames(blobs)) {
    if (!name.starts_with(id.hex())) continue;
    const BlobTable table = Tables(blobs)[id];
    const Block& block = table.blocks[table.BlockAt(plain_offset)];
    ASSERT_TRUE(block.is_here());
    blobs.FlipBit(name, block.stored_offset + block.stored_length / 2, 1);
  }
}

TEST_F(Sharing, RotInABlockHurtsWhoeverHasIt) {
  Put("a", Woven(123456));
  const base::Digest256 id = base::Sha256(base::AsBytes(specs_["a"].Bytes()));
  Put("b", Woven(123999));
  world_.Reopen();
  Rot(world_.blobs(), id, kBytes - 1);  // not lent
  EXPECT_ERROR(ReadBack(store(), roots_["a"]), Code::kCorruption);
  ASSERT_OK(ReadBack(store(), roots_["b"]));
  Rot(world_.blobs(), id, kWovenPartBytes);  // lent
  world_.Reopen();
  EXPECT_ERROR(ReadBack(store(), roots_["b"]), Code::kCorruption);
  // The borrower's own upload heals it, though nobody has the owner any more.
  Put("c", Woven(123999));
  ASSERT_OK(ReadBack(store(), roots_["b"]));
  EXPECT_ERROR(ReadBack(store(), roots_["a"]), Code::kCorruption);
  Put("d", Woven(123456));
  ExpectAllReads();
}

TEST_F(Sharing, ScrubSetsAsideABorrowerWhoseOwnerRots) {
  Put("a", Woven(123456));
  const base::Digest256 id = base::Sha256(base::AsBytes(specs_["a"].Bytes()));
  Put("b", Woven(123999));
  world_.Reopen();
  Rot(world_.blobs(), id, kWovenPartBytes);
  ASSERT_OK_AND_ASSIGN(const ScrubReport report, store().Scrub(true, nullptr));
  EXPECT_EQ(report.finding_count, 2u);
  std::set<std::string> hurt;
  for (const auto& finding : report.findings) {
    EXPECT_TRUE(finding.set_aside) << finding.problem;
    hurt.insert(finding.holders.begin(), finding.holders.end());
  }
  EXPECT_EQ(hurt, (std::set<std::string>{"a", "b"}));
  Put("c", Woven(123999));
  Put("d", Woven(123456));
  ExpectAllReads();
}

TEST_F(Sharing, IsMadeAgainFromBlobsAlone) {
  Put("a", Woven(123456));
  Put("b", Woven(123999));
  Put("c", Woven(888999));
  Drop("a");
  Collect();
  const StoreStats before = Stats();
  MemoryMetaStore lost;
  base::Metrics metrics;
  ASSERT_OK_AND_ASSIGN(const auto store, ChunkStore::Open(world_.options(), world_.blobs(), lost,
                                                          world_.clock(), metrics));
  ASSERT_OK_AND_ASSIGN(const RebuildReport report, store->Rebuild(nullptr));
  EXPECT_EQ(report.bad_blobs, 0u);
  for (const auto& [holder, root] : roots_) {
    ASSERT_OK_AND_ASSIGN(const std::string bytes, ReadBack(*store, root));
    EXPECT_TRUE(bytes == specs_[holder].Bytes());
  }
  ExpectClean(*store);
  ASSERT_OK_AND_ASSIGN(const StoreStats now, store->Stats());
  EXPECT_EQ(now.borrowed_bytes, before.borrowed_bytes);
  EXPECT_EQ(now.lender_bytes, before.lender_bytes);
  EXPECT_EQ(now.physical_bytes, before.physical_bytes);
  // What is shared is found again as well.
  ASSERT_OK(Upload(*store, "d", Woven(777999)));
  ASSERT_OK_AND_ASSIGN(const StoreStats more, store->Stats());
  EXPECT_GT(more.borrowed_bytes, now.borrowed_bytes);
  for (const char* holder : {"b", "c", "d"}) ASSERT_OK(store->Release(holder));
  ASSERT_OK(store->Collect(true, nullptr));
  ExpectEmpty(world_.blobs(), lost);
}

TEST_F(Sharing, DeletesNothingThatIsBorrowedWhateverTheOrder) {
  std::mt19937 random(11);
  for (int step = 0; step < 400; ++step) {
    const std::string holder = "h" + std::to_string(random() % 8);
    if (roots_.contains(holder)) {
      Drop(holder);
    } else {
      uint32_t digits = 0;
      for (size_t i = 0; i < kWovenDigits; ++i)
        digits = digits * 10 + static_cast<uint32_t>(random() % 4);
      Put(holder, Woven(digits));
    }
    if (random() % 4 == 0) Collect();
    if (random() % 16 == 0) {
      ExpectAllReads();
      world_.Reopen();
    }
    if (HasFailure()) return;
  }
  while (!roots_.empty()) Drop(roots_.begin()->first);
  Collect(true);
  ExpectEmpty(world_.blobs(), world_.meta());
}

}  // namespace
}  // namespace chunkstore::testing
