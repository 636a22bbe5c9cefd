#include <functional>
#include <set>

#include <gtest/gtest.h>

#include "base/log.h"
#include "chunkstore/block_index.h"
#include "chunkstore/references.h"
#include "tests/chunkstore/chunk_store_world.h"
#include "tests/chunkstore/hooked_meta_store.h"

// Sharing of blocks where something lies, is damaged, is full or is much: an index of lies, blobs
// that were made to harm, many lenders and many borrowers.

namespace chunkstore::testing {
namespace {

using base::Code;
using base::Digest256;

constexpr uint32_t kBytes = kWovenDigits * kWovenPartBytes;

Spec Woven(uint32_t digits) { return Spec{{kWoven + digits}, kBytes}; }
Digest256 IdOf(const Spec& spec) { return base::Sha256(base::AsBytes(spec.Bytes())); }

class Loans : public ::testing::Test {
 protected:
  Loans() { EXPECT_TRUE(base::SetLogLevel("error")); }

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
  void ExpectAllReads(ChunkStore& store) {
    for (const auto& [holder, root] : roots_) {
      const auto bytes = ReadBack(store, root);
      ASSERT_OK(bytes) << holder;
      EXPECT_TRUE(*bytes == specs_[holder].Bytes()) << holder;
    }
    ExpectClean(store);
  }
  void ExpectAllGoes() {
    while (!roots_.empty()) Drop(roots_.begin()->first);
    Collect(true);
    ExpectEmpty(world_.blobs(), world_.meta());
  }
  std::string BlobOf(const Digest256& id) {
    for (const std::string& name : BlobNames(world_.blobs()))
      if (name.starts_with(id.hex())) return name;
    ADD_FAILURE() << "no blob of " << id.hex();
    return "";
  }
  std::string BytesOf(const std::string& name) {
    std::string bytes(world_.blobs().Size(name).value(), 0);
    EXPECT_OK(
        world_.blobs().Get(name, 0, {reinterpret_cast<uint8_t*>(bytes.data()), bytes.size()}));
    return bytes;
  }
  void PutBlob(const std::string& name, std::string_view bytes) {
    const base::ByteView pieces[] = {base::AsBytes(bytes)};
    ASSERT_OK(world_.blobs().Put(name, pieces));
  }
  uint64_t NewBytes() {
    const StoreStats stats = store().Stats().value();
    return stats.unique_bytes - stats.borrowed_bytes;
  }

  World world_;
  std::map<std::string, Root> roots_;
  std::map<std::string, Spec> specs_;
};

// --- an index of lies

// Every entry of the index says this instead.
using Lie = std::function<std::pair<Digest256, uint16_t>(const Digest256& chunk, uint16_t page)>;
size_t Lies(MetaStore& meta, const Lie& lie) {
  size_t lies = 0;
  const auto partitions = meta.Partitions("b/");
  EXPECT_OK(partitions);
  for (const std::string& partition : *partitions) {
    MetaBatch batch;
    EXPECT_OK(meta.Scan(partition, "", "", SIZE_MAX, [&](std::string_view key, std::string_view v) {
      const auto [chunk, page] = lie(
          *Digest256::FromBytes(v.substr(0, 32)),
          static_cast<uint16_t>(static_cast<uint8_t>(v[32]) | static_cast<uint8_t>(v[33]) << 8));
      std::string value(chunk.view());
      value.push_back(static_cast<char>(page & 0xff));
      value.push_back(static_cast<char>(page >> 8));
      batch.Put(std::string(key), value);
      ++lies;
      return true;
    }));
    EXPECT_OK(meta.Commit(partition, batch));
  }
  return lies;
}

size_t EntriesOf(MetaStore& meta, const Digest256& chunk) {
  size_t entries = 0;
  for (const std::string& partition : meta.Partitions("b/").value()) {
    EXPECT_OK(meta.Scan(partition, "", "", SIZE_MAX, [&](std::string_view, std::string_view v) {
      entries += v.substr(0, 32) == chunk.view();
      return true;
    }));
  }
  return entries;
}

TEST_F(Loans, AnIndexOfLiesHarmsNothing) {
  const Digest256 nowhere = base::Sha256(base::AsBytes("nowhere"));
  const Digest256 other = IdOf(Woven(777777));
  const Digest256 itself = IdOf(Woven(123999));
  const Digest256 rest = IdOf(Woven(555666));
  uint16_t turn = 0;
  const std::map<std::string, Lie> lies = {
      {"gone", [&](const Digest256&, uint16_t page) { return std::pair(nowhere, page); }},
      {"another chunk", [&](const Digest256&, uint16_t page) { return std::pair(other, page); }},
      {"the chunk itself",
       [&](const Digest256&, uint16_t page) { return std::pair(itself, page); }},
      {"what is left of one",
       [&](const Digest256&, uint16_t page) { return std::pair(rest, page); }},
      {"its end", [](const Digest256& id, uint16_t) { return std::pair(id, uint16_t{1023}); }},
      {"beyond", [](const Digest256& id, uint16_t) { return std::pair(id, uint16_t{65535}); }},
      {"elsewhere", [&](const Digest256& id, uint16_t) { return std::pair(id, ++turn); }},
      {"a page of a map",
       [&](const Digest256&, uint16_t page) { return std::pair(roots_["a"].id, page); }},
  };
  Put("x", Woven(555666));
  Put("y", Woven(555999));
  Drop("x");
  ASSERT_EQ(Collect().compacted_chunks, 1u);
  for (const auto& [name, lie] : lies) {
    SCOPED_TRACE(name);
    Put("a", Woven(123456));
    Put("z", Woven(777777));
    Collect(true);  // the index is written
    EXPECT_GT(Lies(world_.meta(), lie), 10u);
    Put("b", Woven(123999));
    ExpectAllReads(store());
    // The truth that was put since is found again.
    const uint64_t before = NewBytes();
    Put("c", Woven(123998));
    EXPECT_LT(NewBytes() - before, kBytes / 2);
    ExpectAllReads(store());
    for (const char* holder : {"a", "b", "c", "z"}) Drop(holder);
    Collect(true);
    // What is gone, or can't be borrowed of, is swept.
    EXPECT_EQ(EntriesOf(world_.meta(), nowhere), 0u);
    EXPECT_EQ(EntriesOf(world_.meta(), rest), 0u);
    if (HasFailure()) return;
  }
  ExpectAllGoes();
}

// A chunk whose every block another chunk is said to have costs a look at each, and no more.
TEST_F(Loans, WhatLiesCostIsBounded) {
  HookedMetaStore hooked(world_.meta());
  base::Metrics metrics;
  ASSERT_OK_AND_ASSIGN(const auto store, ChunkStore::Open(world_.options(), world_.blobs(), hooked,
                                                          world_.clock(), metrics));
  std::vector<Digest256> chunks;
  for (uint32_t i = 0; i < 2 * kMaxOwners; ++i) {
    const Spec spec{{2 * i + 2}, 5000};
    Put("h" + std::to_string(i), spec);
    chunks.push_back(IdOf(spec));
  }
  const Spec victim{{3}, kChunkBytes};
  std::map<size_t, MetaBatch> batches;
  size_t next = 0;
  for (const Block& block : HashBlocks(base::AsBytes(victim.Bytes()))) {
    std::string key;
    for (int shift = 56; shift >= 0; shift -= 8)
      key.push_back(static_cast<char>(block.hash.high >> shift));
    std::string value(chunks[next++ % chunks.size()].view());
    value += std::string(2, '\0');
    batches[static_cast<uint8_t>(key[0])].Put(key, value);
  }
  for (const auto& [number, batch] : batches)
    ASSERT_OK(world_.meta().Commit(BlockIndex::PartitionName(number), batch));
  size_t operations = 0;
  hooked.SetHook([&](HookedMetaStore::Operation, std::string_view) { ++operations; });
  ASSERT_OK_AND_ASSIGN(const auto ingest, store->NewIngest("victim", ""));
  ASSERT_OK(ingest->Put(0, base::AsBytes(victim.Bytes())));
  EXPECT_LT(operations, next + 2 * kMaxOwners + 50);
  EXPECT_GT(next, 64u);
}

// --- many

// Lenders that can't be compacted are passed by, however many they are.
TEST_F(Loans, ManyDamagedLendersHoldUpNoOther) {
  Put("a", Woven(123456));
  Put("b", Woven(129999));
  Drop("a");
  const Digest256 real = IdOf(Woven(123456));
  References references(world_.meta());
  for (uint32_t i = 0; i < 300; ++i) {
    Digest256 id{};
    id.bytes[0] = real.bytes[0];
    id.bytes[30] = static_cast<uint8_t>(i >> 8);
    id.bytes[31] = static_cast<uint8_t>(i);
    ASSERT_OK(references.Insert(id, {.suffix = 9, .plain_length = 5000, .stored_length = 5000}));
    ASSERT_OK(references.AddToAll({&id, 1}, HolderTag(1)));
    const uint16_t pages[] = {0};
    ASSERT_OK(references.LendAnyway(id, {real, 77}, pages));
    ASSERT_OK(references.DropFromAll({&id, 1}, HolderTag(1)));
  }
  EXPECT_EQ(Collect().compacted_chunks, 1u);
}

// Where many borrow of one, few of them say that it is to stay as it is.
TEST_F(Loans, AnOwnerOfManyBorrowersIsSoonLookedAt) {
  HookedMetaStore hooked(world_.meta());
  base::Metrics metrics;
  ASSERT_OK_AND_ASSIGN(const auto store, ChunkStore::Open(world_.options(), world_.blobs(), hooked,
                                                          world_.clock(), metrics));
  Put("a", Woven(123456));
  const Digest256 id = IdOf(Woven(123456));
  References references(world_.meta());
  std::vector<uint16_t> pages;
  for (const Block& block : HashBlocks(base::AsBytes(specs_["a"].Bytes())))
    pages.push_back(static_cast<uint16_t>(block.plain_offset / kBlockGridBytes));
  for (uint64_t i = 1; i <= 5000; ++i) {
    const Digest256 borrower = base::Sha256(base::AsBytes(std::to_string(i)));
    ASSERT_OK(references.LendAnyway(id, {borrower, i}, pages));
  }
  Drop("a");
  size_t scans = 0;
  hooked.SetHook([&](HookedMetaStore::Operation operation, std::string_view key) {
    scans += operation == HookedMetaStore::Operation::kScan && key.starts_with(TagPrefix(id));
  });
  ASSERT_OK_AND_ASSIGN(const CollectReport report, store->Collect(false, nullptr));
  EXPECT_EQ(report.compacted_chunks, 0u);
  EXPECT_EQ(scans, 1u);
}

// --- what is new

TEST_F(Loans, WhatIsLentAloneIsNew) {
  Put("a", Woven(123456));
  Put("b", Woven(123999));
  Put("c", Woven(123888));
  EXPECT_LT(NewBytes(), 3 * kBytes - 4 * kWovenPartBytes);
  Drop("a");
  Collect();
  // The first that borrows a block has it as of its own, the second saves it.
  EXPECT_LT(NewBytes(), 2 * kBytes - 2 * kWovenPartBytes);
  EXPECT_GT(NewBytes(), kBytes);
  Drop("b");
  Collect();
  EXPECT_EQ(NewBytes(), kBytes);
  ExpectAllReads(store());
  ExpectAllGoes();
}

// --- a full disk

TEST_F(Loans, AFullDiskDoesNotStopDeletions) {
  Put("a", Woven(123456));
  Put("b", Woven(129999));
  Put("c", Woven(888888));
  Drop("a");
  world_.blobs().SetCapacity(1);
  EXPECT_EQ(Collect().compacted_chunks, 0u);
  ExpectAllReads(store());
  Drop("c");
  const size_t before = BlobNames(world_.blobs()).size();
  Collect();
  EXPECT_LT(BlobNames(world_.blobs()).size(), before);
  ExpectAllReads(store());
  world_.blobs().SetCapacity(base::kGiB);
  EXPECT_EQ(Collect().compacted_chunks, 1u);
  ExpectAllReads(store());
  ExpectAllGoes();
}

// What this process knew to be free others have written full since.
TEST_F(Loans, TheReserveIsKeptFromSeveralProcesses) {
  base::Metrics metrics;
  ASSERT_OK_AND_ASSIGN(const auto other, ChunkStore::Open(world_.options(), world_.blobs(),
                                                          world_.meta(), world_.clock(), metrics));
  world_.blobs().SetCapacity(200 * base::kMiB);
  ASSERT_OK(Upload(*other, "a", Spec{{2}, 1000}));
  world_.blobs().SetCapacity(world_.options().reserve_bytes + 50'000);
  world_.clock().AdvanceUs(2'000'000);
  EXPECT_ERROR(Upload(*other, "b", Spec{{4}, kBytes}), Code::kOutOfSpace);
}

// --- hostile blobs

// The chunk's blob with some of its blocks said to lie with these owners, at this distance.
std::string Borrowing(const Spec& spec, const std::vector<Digest256>& owners, uint32_t shift) {
  const std::string plain = spec.Bytes();
  std::vector<Block> blocks = HashBlocks(base::AsBytes(plain));
  for (size_t i = 0; i < owners.size(); ++i) {
    blocks[i].form = Block::Form::kElsewhere;
    blocks[i].owner = static_cast<uint16_t>(i);
    blocks[i].owner_offset = (blocks[i].plain_offset + shift) % kChunkBytes;
  }
  BlobEncoder encoder({});
  const EncodedBlob encoded = encoder.Encode(IdOf(spec), base::AsBytes(plain), blocks, owners);
  std::string bytes;
  for (const base::ByteView piece : encoded.pieces()) bytes += base::AsText(piece);
  return bytes;
}

class HostileBlobs : public Loans, public ::testing::WithParamInterface<int> {
 protected:
  // What a's blob and b's say.
  std::pair<std::string, std::string> Blobs() const {
    const Digest256 a = IdOf(a_), b = IdOf(b_);
    const Digest256 nowhere = base::Sha256(base::AsBytes("nowhere"));
    switch (GetParam()) {
      case 0:
        return {Borrowing(a_, {b}, 0), Borrowing(b_, {a}, 0)};  // in a circle
      case 1:
        return {Borrowing(a_, {b}, 4096), Borrowing(b_, {nowhere, a}, 0)};
      case 2:
        return {Borrowing(a_, {nowhere}, 0), Borrowing(b_, {nowhere}, 0)};
      case 3:
        return {Borrowing(a_, {b}, kChunkBytes - 4096), Borrowing(b_, {}, 0)};  // beyond
      default:
        return {Borrowing(a_, {c_root_, b}, 0), Borrowing(b_, {c_root_}, 0)};  // a page's
    }
  }
  void SetUp() override {
    Put("a", a_);
    Put("b", b_);
    Put("c", Woven(888888));
    c_root_ = roots_["c"].id;
    const std::string name_a = BlobOf(IdOf(a_)), name_b = BlobOf(IdOf(b_));
    ASSERT_OK(world_.blobs().Remove(name_a));
    ASSERT_OK(world_.blobs().Remove(name_b));
    const auto [of_a, of_b] = Blobs();
    PutBlob(name_a, of_a);
    PutBlob(name_b, of_b);
    world_.Reopen();
  }
  // All ways to read end, none with wrong bytes.
  void ReadAll(ChunkStore& from) {
    for (const auto& [holder, root] : roots_) {
      const std::string expected = specs_[holder].Bytes();
      const auto bytes = ReadBack(from, root);
      if (bytes.has_value())
        EXPECT_TRUE(*bytes == expected) << holder;
      else
        EXPECT_ERROR(bytes, Code::kCorruption) << holder;
      const auto content = from.Open(root);
      ASSERT_OK(content);
      const auto blocks = (*content)->BlocksOf(0);
      const auto frames = (*content)->FramesAt(0, static_cast<uint32_t>(expected.size()));
      const auto piece = (*content)->PieceAt(0, expected.size());
      if (piece.has_value()) EXPECT_TRUE(base::AsText(piece->bytes) == expected);
      if (blocks.has_value()) (void)(*content)->ReadBlocks(0, std::vector<size_t>{0}).has_value();
      if (holder == "c") EXPECT_TRUE(bytes.has_value() && blocks.has_value() && frames.has_value());
    }
  }
  // Uploads of the same bytes heal all; then it all goes.
  void HealAndEmpty(ChunkStore& in, MetaStore& meta) {
    for (const auto& [holder, spec] : std::map<std::string, Spec>{{"a2", a_}, {"b2", b_}}) {
      ASSERT_OK_AND_ASSIGN(roots_[holder], Upload(in, holder, spec));
      specs_[holder] = spec;
    }
    ASSERT_OK(in.Scrub(true, nullptr));
    for (const auto& [holder, root] : roots_) {
      const auto bytes = ReadBack(in, root);
      ASSERT_OK(bytes) << holder;
      EXPECT_TRUE(*bytes == specs_[holder].Bytes()) << holder;
    }
    for (const auto& [holder, root] : roots_) ASSERT_OK(in.Release(holder));
    ASSERT_OK(in.Collect(true, nullptr));
    EXPECT_EQ(AllKeys(meta), std::vector<std::string>());
    EXPECT_EQ(BlobNames(world_.blobs()), std::vector<std::string>());
  }

  const Spec a_ = Woven(123456);
  const Spec b_ = Woven(777999);
  Digest256 c_root_;
};

TEST_P(HostileBlobs, AreFoundAndHealed) {
  ReadAll(store());
  ASSERT_OK(store().Stats());
  ASSERT_OK_AND_ASSIGN(const ScrubReport report, store().Scrub(true, nullptr));
  EXPECT_GE(report.finding_count, 1u);
  ReadAll(store());
  ASSERT_OK(store().StatsOf("a"));
  HealAndEmpty(store(), world_.meta());
}

TEST_P(HostileBlobs, AreRebuiltWithoutACircle) {
  MemoryMetaStore meta;
  base::Metrics metrics;
  ASSERT_OK_AND_ASSIGN(const auto again, ChunkStore::Open(world_.options(), world_.blobs(), meta,
                                                          world_.clock(), metrics));
  ASSERT_OK(again->Rebuild(nullptr));
  ReadAll(*again);
  ASSERT_OK(again->Stats());
  ASSERT_OK(again->StatsOf("b"));
  HealAndEmpty(*again, meta);
}

// Nobody heals them: what lies in a circle goes all the same.
TEST_P(HostileBlobs, GoAfterARebuild) {
  MemoryMetaStore meta;
  base::Metrics metrics;
  ASSERT_OK_AND_ASSIGN(const auto again, ChunkStore::Open(world_.options(), world_.blobs(), meta,
                                                          world_.clock(), metrics));
  ASSERT_OK(again->Rebuild(nullptr));
  for (const auto& [holder, root] : roots_) ASSERT_OK(again->Release(holder));
  ASSERT_OK(again->Collect(true, nullptr));
  EXPECT_EQ(AllKeys(meta), std::vector<std::string>());
  EXPECT_EQ(BlobNames(world_.blobs()), std::vector<std::string>());
}

INSTANTIATE_TEST_SUITE_P(Ways, HostileBlobs, ::testing::Range(0, 5));

// Records that say that both borrow, and of each other.
TEST_F(Loans, ACircleInTheIndexDoesNotKeepStatsGoing) {
  const Spec a = Woven(123456), b = Woven(777999);
  Put("a", a);
  Put("b", b);
  References references(world_.meta());
  for (const auto& [own, other] : {std::pair(a, b), std::pair(b, a)}) {
    const std::string name = BlobOf(IdOf(own)), hostile = Borrowing(own, {IdOf(other)}, 0);
    ASSERT_OK(world_.blobs().Remove(name));
    PutBlob(name, hostile);
    ASSERT_OK(references.Change(IdOf(own), [&](Record& record) {
      record.borrowed_bytes = 4096;
      record.stored_length = static_cast<uint32_t>(hostile.size());
      return true;
    }));
  }
  Drop("a");
  ASSERT_OK(store().Stats());
  ASSERT_OK(store().StatsOf("b"));
}

// --- rebuild

// Two blobs of one chunk that both borrow: the one whose owner is lost is not taken.
TEST_F(Loans, OfTwoBlobsThatBorrowRebuildTakesTheOneThatReads) {
  Put("a", Woven(123456));
  Put("b", Woven(123999));
  const Digest256 b = IdOf(Woven(123999));
  const Digest256 nowhere = base::Sha256(base::AsBytes("nowhere"));
  const std::string lost = Borrowing(Woven(123999), {nowhere}, 0);
  for (const uint64_t suffix : {uint64_t{1}, UINT64_MAX}) {  // listed before the other, and after
    SCOPED_TRACE(suffix);
    const std::string name = BlobName({b, suffix});
    PutBlob(name, lost);
    MemoryMetaStore meta;
    base::Metrics metrics;
    ASSERT_OK_AND_ASSIGN(const auto again, ChunkStore::Open(world_.options(), world_.blobs(), meta,
                                                            world_.clock(), metrics));
    ASSERT_OK(again->Rebuild(nullptr));
    ASSERT_OK(again->Collect(true, nullptr));  // takes the other
    EXPECT_FALSE(world_.blobs().Size(name).has_value());
    ExpectAllReads(*again);
  }
}

// --- leaks

TEST_F(Loans, AnIntentWithoutAnIngestIsALeak) {
  References references(world_.meta());
  const Digest256 id = base::Sha256(base::AsBytes("x"));
  ASSERT_OK(references.Intend(7, {id, 9}, true));
  PutBlob(BlobName({id, 9}), "a part of a blob");
  ASSERT_OK_AND_ASSIGN(const ScrubReport found, store().Scrub(false, nullptr));
  EXPECT_EQ(found.leaked_references, 1u);
  EXPECT_EQ(found.orphan_blobs, 0u);
  ASSERT_OK(store().Scrub(true, nullptr));
  ExpectClean(store());
  ExpectEmpty(world_.blobs(), world_.meta());
}

}  // namespace
}  // namespace chunkstore::testing
