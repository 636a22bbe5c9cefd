#include <algorithm>
#include <set>

#include <gtest/gtest.h>

#include "chunkstore/references.h"
#include "tests/chunkstore/chunk_store_world.h"

// Stats, difference, scrub's repairs, and rebuild.

namespace chunkstore::testing {
namespace {

using base::Code;

// What the statistics have to be, counted the plain way.
struct Expected {
  std::map<std::string, Spec> held;

  static std::set<std::string> ChunksOf(const Spec& spec) {
    std::set<std::string> chunks;
    for (size_t i = 0; i < spec.seeds.size(); ++i) {
      if (spec.seeds[i] != 0) chunks.insert(spec.ChunkAt(i));
    }
    return chunks;
  }
  static uint64_t Sum(const std::set<std::string>& chunks) {
    uint64_t bytes = 0;
    for (const std::string& chunk : chunks) bytes += chunk.size();
    return bytes;
  }
  static uint64_t Nonzero(const Spec& spec) {
    uint64_t bytes = 0;
    for (size_t i = 0; i < spec.seeds.size(); ++i)
      bytes += spec.seeds[i] ? spec.ChunkAt(i).size() : 0;
    return bytes;
  }

  void Check(ChunkStore& store) const {
    ASSERT_OK_AND_ASSIGN(const StoreStats stats, store.Stats());
    std::set<std::string> all;
    uint64_t logical = 0, nonzero = 0;
    for (const auto& [name, spec] : held) {
      all.merge(ChunksOf(spec));
      logical += spec.size_bytes();
      nonzero += Nonzero(spec);
    }
    EXPECT_EQ(stats.logical_bytes, logical);
    EXPECT_EQ(stats.nonzero_bytes, nonzero);
    EXPECT_EQ(stats.unique_bytes, Sum(all));
    EXPECT_EQ(stats.chunks, all.size());
    EXPECT_EQ(stats.holders, held.size());
    for (const auto& [name, spec] : held) CheckOne(store, name, spec);
  }

  void CheckOne(ChunkStore& store, const std::string& name, const Spec& spec) const {
    std::set<std::string> unique = ChunksOf(spec);
    std::vector<std::string> shared_with;
    for (const auto& [other, other_spec] : held) {
      if (other == name) continue;
      const std::set<std::string> theirs = ChunksOf(other_spec);
      bool shares = false;
      for (const std::string& chunk : ChunksOf(spec)) {
        if (!theirs.contains(chunk)) continue;
        shares = true;
        unique.erase(chunk);
      }
      if (shares) shared_with.push_back(other);
    }
    ASSERT_OK_AND_ASSIGN(const HolderStats stats, store.StatsOf(name));
    EXPECT_EQ(stats.logical_bytes, spec.size_bytes()) << name;
    EXPECT_EQ(stats.nonzero_bytes, Nonzero(spec)) << name;
    EXPECT_EQ(stats.unique_bytes, Sum(unique)) << name;
    EXPECT_EQ(stats.shared_bytes, Nonzero(spec) - Sum(unique)) << name;
    EXPECT_EQ(stats.shared_with, shared_with) << name;
  }
};

TEST(ChunkStoreStats, AreExact) {
  World world;
  Expected expected;
  expected.held["a"] = Spec{{1, 2, 0, 3}, 500};
  expected.held["b"] = Spec{{1, 2, 0, 3}, 500};  // the same root
  expected.held["c"] = Spec{{4, 4, 2}};
  expected.held["d"] = Spec{{7}, 100};
  expected.held["e"] = Spec{{0, 0}};
  for (const auto& [name, spec] : expected.held) ASSERT_OK(Upload(world.store(), name, spec));
  expected.Check(world.store());
  // Garbage keeps nothing, whether the collector came by or not.
  for (const char* name : {"c", "a", "d"}) {
    ASSERT_OK(world.store().Release(name));
    expected.held.erase(name);
    expected.Check(world.store());
  }
  ASSERT_OK_AND_ASSIGN(const StoreStats before, world.store().Stats());
  ASSERT_OK_AND_ASSIGN(const CollectReport report, world.store().Collect(false, nullptr));
  EXPECT_EQ(before.garbage_bytes, report.freed_bytes);
  expected.Check(world.store());
  ASSERT_OK_AND_ASSIGN(const StoreStats after, world.store().Stats());
  EXPECT_EQ(after.garbage_bytes, 0u);
  uint64_t listed = 0;
  ASSERT_OK(world.blobs().List([&](std::string_view, uint64_t size) {
    listed += size;
    return true;
  }));
  EXPECT_EQ(after.physical_bytes, listed);
  EXPECT_ERROR(world.store().StatsOf("a"), Code::kNotFound);
}

using Difference = std::map<uint64_t, std::pair<bool, bool>>;  // index -> {a has, b has}

base::Result<Difference> DiffOf(ChunkStore& store, const Root& a, ChunkStore& of_b, const Root& b) {
  Difference found;
  uint64_t previous = 0;
  const auto visit = [&](uint64_t index, const auto& in_a, const auto& in_b) {
    EXPECT_TRUE(found.empty() || index > previous);
    EXPECT_TRUE(in_a.has_value() || in_b.has_value());
    previous = index;
    found[index] = {in_a.has_value(), in_b.has_value()};
    return true;
  };
  RETURN_IF_ERROR(&store == &of_b ? store.Diff(a, b, 0, visit)
                                  : store.DiffAcross(a, of_b, b, visit));
  return found;
}
base::Result<Difference> DiffOf(ChunkStore& store, const Root& a, const Root& b) {
  return DiffOf(store, a, store, b);
}

base::Result<Root> UploadAt(ChunkStore& store, const std::string& holder,
                            const std::map<uint64_t, uint32_t>& seeds, uint64_t chunks) {
  ASSIGN_OR_RETURN(const std::unique_ptr<Ingest> ingest, store.NewIngest(holder, ""));
  for (const auto& [index, seed] : seeds) {
    RETURN_IF_ERROR(ingest->Put(index, base::AsBytes(MakeBytes(seed, kChunkBytes))));
  }
  return ingest->Finish(chunks * kChunkBytes);
}

TEST(ChunkStoreDiff, FindsWhatDiffersAcrossSizesAndLevels) {
  World world;
  const std::vector<std::pair<std::map<uint64_t, uint32_t>, uint64_t>> contents = {
      {{}, 0},
      {{{0, 1}, {5, 2}}, 6},
      {{{0, 1}, {5, 3}, {7, 1}}, 1000},
      {{{0, 1}, {5, 2}, {2000, 3}}, 3000},
      {{{1500, 3}, {2000, 3}}, 3000},
      {{{5, 2}, {2000, 1}, {1'500'000, 2}}, 2'000'000},
  };
  std::vector<Root> roots;
  for (size_t i = 0; i < contents.size(); ++i) {
    ASSERT_OK_AND_ASSIGN(const Root root, UploadAt(world.store(), "h" + std::to_string(i),
                                                   contents[i].first, contents[i].second));
    roots.push_back(root);
  }
  for (size_t k = 0; k < contents.size(); ++k) {
    World apart;  // which has this one only
    ASSERT_OK(UploadAt(apart.store(), "h", contents[k].first, contents[k].second));
    for (size_t i = 0; i < contents.size(); ++i) {
      Difference expected;
      for (const auto& [index, seed] : contents[i].first) {
        const auto other = contents[k].first.find(index);
        if (other == contents[k].first.end() || other->second != seed)
          expected[index] = {true, other != contents[k].first.end()};
      }
      for (const auto& [index, seed] : contents[k].first) {
        if (!contents[i].first.contains(index)) expected[index] = {false, true};
      }
      ASSERT_OK_AND_ASSIGN(const Difference found, DiffOf(world.store(), roots[i], roots[k]));
      EXPECT_EQ(found, expected) << i << " against " << k;
      ASSERT_OK_AND_ASSIGN(const Difference across,
                           DiffOf(world.store(), roots[i], apart.store(), roots[k]));
      EXPECT_EQ(across, expected) << i << " against " << k << " of another store";
    }
  }
}

TEST(ChunkStoreDiff, CostsWhatDiffers) {
  World world;
  std::map<uint64_t, uint32_t> seeds;
  for (uint64_t leaf = 0; leaf < 100; ++leaf) seeds[leaf * 1024] = 1;
  ASSERT_OK_AND_ASSIGN(const Root a, UploadAt(world.store(), "a", seeds, 200'000));
  seeds[50 * 1024] = 3;
  ASSERT_OK_AND_ASSIGN(const Root b, UploadAt(world.store(), "b", seeds, 200'000));
  world.Reopen();
  auto& misses = world.metrics().GetCounter("quarry_chunkstore_cache_misses_total", "");
  const double before = misses.value();
  ASSERT_OK_AND_ASSIGN(const Difference found, DiffOf(world.store(), a, b));
  EXPECT_EQ(found.size(), 1u);
  // Two roots and two leaves, each looked for as a page and as a table.
  EXPECT_LE(misses.value() - before, 8);
}

// Contents of three levels that differ at random around the borders of pages, each way, from every
// chunk on.
TEST(ChunkStoreDiff, GoesOnFromAnyChunk) {
  World world;
  const std::vector<std::pair<uint64_t, uint64_t>> places = {
      {0, 6}, {1020, 1028}, {1'048'572, 1'048'580}, {1'049'598, 1'049'602}};
  std::vector<std::string> chunks;  // by seed; the first is a hole
  std::vector<base::Digest256> ids;
  for (const uint32_t seed : {0, 1, 3}) {
    chunks.push_back(MakeBytes(seed, kChunkBytes));
    ids.push_back(base::Sha256(base::AsBytes(chunks.back())));
  }
  std::mt19937_64 random(7);
  std::vector<std::map<uint64_t, size_t>> contents;
  std::vector<Root> roots;
  for (size_t i = 0; i < 6; ++i) {
    const uint64_t end = places[i % 2 == 0 ? 3 : i / 2].second;
    std::map<uint64_t, size_t> content;
    ASSERT_OK_AND_ASSIGN(const auto ingest, world.store().NewIngest("h" + std::to_string(i), ""));
    for (const auto& [from, to] : places) {
      for (uint64_t index = from; index < std::min(to, end); ++index) {
        const size_t which = random() % 3;
        if (which == 0) continue;
        content[index] = which;
        ASSERT_OK(ingest->PutHashed(index, base::AsBytes(chunks[which]), ids[which]));
      }
    }
    ASSERT_OK_AND_ASSIGN(const Root root, ingest->Finish(end * kChunkBytes));
    contents.push_back(std::move(content));
    roots.push_back(root);
  }
  for (size_t i = 0; i < roots.size(); ++i) {
    for (size_t k = 0; k < roots.size(); ++k) {
      const auto in = [](const std::map<uint64_t, size_t>& content, uint64_t index) {
        const auto found = content.find(index);
        return found == content.end() ? size_t{0} : found->second;
      };
      for (const auto& [first, last] : places) {
        for (uint64_t from = first; from <= last; ++from) {
          Difference expected;
          for (const auto& [begin, end] : places) {
            for (uint64_t index = std::max(begin, from); index < end; ++index) {
              const size_t a = in(contents[i], index);
              const size_t b = in(contents[k], index);
              if (a != b) expected[index] = {a != 0, b != 0};
            }
          }
          Difference found;
          ASSERT_OK(world.store().Diff(
              roots[i], roots[k], from, [&](uint64_t index, const auto& a, const auto& b) {
                EXPECT_TRUE(found.empty() || index > found.rbegin()->first);
                found[index] = {a.has_value(), b.has_value()};
                return true;
              }));
          ASSERT_EQ(found, expected) << i << " against " << k << " from " << from;
        }
      }
    }
  }
}

TEST(ChunkStoreDiff, ReadsNothingOfWhatItPassesOver) {
  World world;
  std::map<uint64_t, uint32_t> seeds;
  for (uint64_t leaf = 0; leaf < 50; ++leaf) seeds[leaf * 1024] = 1;
  ASSERT_OK_AND_ASSIGN(const Root a, UploadAt(world.store(), "a", seeds, 100'000));
  for (auto& [index, seed] : seeds) seed = 3;
  ASSERT_OK_AND_ASSIGN(const Root b, UploadAt(world.store(), "b", seeds, 100'000));
  world.Reopen();
  auto& misses = world.metrics().GetCounter("quarry_chunkstore_cache_misses_total", "");
  const double before = misses.value();
  std::vector<uint64_t> found;
  ASSERT_OK(world.store().Diff(a, b, 49 * 1024, [&](uint64_t index, auto&, auto&) {
    found.push_back(index);
    return true;
  }));
  EXPECT_EQ(found, std::vector<uint64_t>{49 * 1024});
  // Two roots and two leaves, each looked for as a page and as a table.
  EXPECT_LE(misses.value() - before, 8);
}

TEST(ChunkStoreRebuild, MakesTheIndexAgainFromBlobsAlone) {
  World world;
  const std::map<std::string, Spec> specs = {{"image/a", Spec{{1, 0, 2}, 999}},
                                             {"image/b", Spec{{1, 2, 3}}},
                                             {"volume/c", Spec{{0}, 10}},
                                             {"gone", Spec{{8}, 10'000}}};
  for (const auto& [name, spec] : specs) {
    ASSERT_OK(Upload(world.store(), name, spec));
    world.clock().AdvanceUs(1'000'000);
  }
  ASSERT_OK(world.store().HoldAgain("image/a", "snapshot/d", "again"));
  ASSERT_OK(world.store().Release("gone"));
  ASSERT_OK(world.store().Collect(false, nullptr));
  ASSERT_OK_AND_ASSIGN(const auto holders, world.store().Holders("", "", 100));
  ASSERT_OK_AND_ASSIGN(const StoreStats stats, world.store().Stats());

  MemoryMetaStore lost;
  base::Metrics metrics;
  ASSERT_OK_AND_ASSIGN(const auto store, ChunkStore::Open(world.options(), world.blobs(), lost,
                                                          world.clock(), metrics));
  ASSERT_OK_AND_ASSIGN(const RebuildReport report, store->Rebuild(nullptr));
  EXPECT_EQ(report.bad_blobs, 0u);
  EXPECT_EQ(report.chunks, 4u);
  EXPECT_EQ(report.holders.size(), 4u);
  ASSERT_OK_AND_ASSIGN(const auto again, store->Holders("", "", 100));
  ASSERT_EQ(again.size(), holders.size());
  for (size_t i = 0; i < again.size(); ++i) {
    EXPECT_EQ(again[i].holder, holders[i].holder);
    EXPECT_EQ(again[i].root, holders[i].root);
    EXPECT_EQ(again[i].since_us, holders[i].since_us);
    EXPECT_EQ(again[i].attributes, holders[i].attributes);
    ASSERT_OK(ReadBack(*store, *again[i].root));
  }
  ASSERT_OK_AND_ASSIGN(const StoreStats now, store->Stats());
  EXPECT_EQ(now.logical_bytes, stats.logical_bytes);
  EXPECT_EQ(now.nonzero_bytes, stats.nonzero_bytes);
  EXPECT_EQ(now.unique_bytes, stats.unique_bytes);
  EXPECT_EQ(now.compressed_bytes, stats.compressed_bytes);
  EXPECT_EQ(now.physical_bytes, stats.physical_bytes);
  EXPECT_EQ(now.garbage_bytes, 0u);
  ExpectClean(*store);
  // And over an index that is there: the same.
  ASSERT_OK(store->Rebuild(nullptr));
  ExpectClean(*store);
  for (const auto& held : again) ASSERT_OK(store->Release(held.holder));
  ASSERT_OK(store->Collect(true, nullptr));
  ExpectEmpty(world.blobs(), lost);
}

TEST(ChunkStoreRebuild, LeavesOutWhatIsCorruptAndTheNextUploadHealsIt) {
  World world;
  const Spec spec{{2, 4}};
  ASSERT_OK_AND_ASSIGN(const Root root, Upload(world.store(), "a", spec));
  const std::string victim = base::Sha256(base::AsBytes(spec.ChunkAt(1))).hex();
  for (const std::string& name : BlobNames(world.blobs())) {
    ASSERT_OK_AND_ASSIGN(const uint64_t size, world.blobs().Size(name));
    if (name.starts_with(victim)) world.blobs().FlipBit(name, size - 1, 1);  // its trailer
  }
  ASSERT_OK_AND_ASSIGN(const RebuildReport report, world.store().Rebuild(nullptr));
  EXPECT_EQ(report.bad_blobs, 1u);
  EXPECT_EQ(report.holders, std::vector<std::string>{"a"});
  EXPECT_ERROR(ReadBack(world.store(), root), Code::kCorruption);
  ASSERT_OK(Upload(world.store(), "b", spec));
  ASSERT_OK_AND_ASSIGN(const std::string bytes, ReadBack(world.store(), root));
  EXPECT_TRUE(bytes == spec.Bytes());
  ASSERT_OK_AND_ASSIGN(const CollectReport collected, world.store().Collect(true, nullptr));
  EXPECT_EQ(collected.removed_orphans, 1u);
  ExpectClean(world.store());
}

TEST(ChunkStoreScrub, FindsAndGivesBackLeaks) {
  World world;
  ASSERT_OK(Upload(world.store(), "a", Spec{{1, 2}}));
  const base::Digest256 chunk = base::Sha256(base::AsBytes(MakeBytes(1, kChunkBytes)));
  References references(world.meta());
  ASSERT_OK(references.AddToAll({&chunk, 1}, HolderTag(12345)));
  ASSERT_OK(references.AddToAll({&chunk, 1}, PageTag(chunk, 7)));
  ASSERT_OK(references.AddToAll({&chunk, 1}, IngestTag(777)));
  const std::string orphan = BlobName({chunk, 99});
  const base::ByteView piece = base::AsBytes("garbage");
  ASSERT_OK(world.blobs().Put(orphan, {&piece, 1}));
  ASSERT_OK_AND_ASSIGN(const ScrubReport found, world.store().Scrub(false, nullptr));
  EXPECT_EQ(found.leaked_references, 3u);
  EXPECT_EQ(found.orphan_blobs, 1u);
  EXPECT_EQ(found.finding_count, 0u);
  ASSERT_OK(world.store().Scrub(true, nullptr));
  ExpectClean(world.store());
  ASSERT_OK(world.store().Release("a"));
  ASSERT_OK(world.store().Collect(false, nullptr));
  ExpectEmpty(world.blobs(), world.meta());
}

TEST(ChunkStoreScrub, FindsAndRepairsWrongCountsAndMissingReferences) {
  World world;
  ASSERT_OK_AND_ASSIGN(const Root root, Upload(world.store(), "a", Spec{{1, 2}}));
  const base::Digest256 chunk = base::Sha256(base::AsBytes(MakeBytes(1, kChunkBytes)));
  References references(world.meta());
  ASSERT_OK(references.Change(chunk, [](Record& record) { return record.count = 5; }));
  ASSERT_OK_AND_ASSIGN(const auto page_record, references.Find(root.id));
  const base::Digest256 other = base::Sha256(base::AsBytes(MakeBytes(2, kChunkBytes)));
  ASSERT_OK(references.DropFromAll({&other, 1}, PageTag(root.id, page_record->incarnation)));
  ASSERT_OK_AND_ASSIGN(const ScrubReport found, world.store().Scrub(false, nullptr));
  EXPECT_EQ(found.finding_count, 2u);
  ASSERT_OK_AND_ASSIGN(const ScrubReport repaired, world.store().Scrub(true, nullptr));
  for (const auto& finding : repaired.findings) EXPECT_TRUE(finding.repaired) << finding.problem;
  ExpectClean(world.store());
  ASSERT_OK(ReadBack(world.store(), root));
}

TEST(ChunkStoreUpkeep, LongPassesCanBeCalledOff) {
  World world;
  ASSERT_OK(Upload(world.store(), "a", Spec{{1}, 100}));
  const ProgressFn stop = [](const Progress&) { return false; };
  EXPECT_ERROR(world.store().Collect(true, stop), Code::kCancelled);
  EXPECT_ERROR(world.store().Scrub(false, stop), Code::kCancelled);
  ExpectClean(world.store());
}

}  // namespace
}  // namespace chunkstore::testing
