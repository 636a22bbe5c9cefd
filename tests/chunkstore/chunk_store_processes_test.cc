#include <gtest/gtest.h>

#include "base/log.h"
#include "chunkstore/references.h"
#include "tests/chunkstore/chunk_store_world.h"
#include "tests/chunkstore/hooked_meta_store.h"

// Several processes over the same stores: what one does between two steps of another, step by step.
// (chunk_store_stress_test.cc leaves it to chance.)

namespace chunkstore::testing {
namespace {

using base::Code;
using base::Digest256;
using Operation = HookedMetaStore::Operation;

const Digest256 kId = base::Sha256(base::AsBytes("an id"));
const std::string kPage = PageTag(base::Sha256(base::AsBytes("a page")), 7);

// A reference that moves from one tag to another while a scrub counts is always counted.
class Counting : public ::testing::Test {
 protected:
  Counting() {
    Record record{.suffix = 5, .incarnation = 5, .plain_length = 1, .stored_length = 1};
    EXPECT_OK(other_.Insert(kId, record));
    EXPECT_OK(other_.AddToAll({&kId, 1}, IngestTag(1)));
  }
  // From an ingest to a page, and with the next ingest of the same bytes, back.
  void Move() {
    const bool of_ingest = ++moves_ % 2 == 1;
    const std::string from = of_ingest ? IngestTag(moves_) : kPage;
    const std::string to = of_ingest ? kPage : IngestTag(moves_ + 1);
    EXPECT_OK(other_.AddToAll({&kId, 1}, to));
    EXPECT_OK(other_.DropFromAll({&kId, 1}, from));
  }
  // Whenever ingests are looked through: those of pages were before.
  void MoveBetweenScans(int at_most) {
    hooked_.SetHook([this, at_most](Operation operation, std::string_view key) {
      if (operation == Operation::kScan && key == "u" && moves_ < at_most) Move();
    });
  }
  Record Now() { return *other_.Find(kId).value(); }

  MemoryMetaStore meta_;
  HookedMetaStore hooked_{meta_};
  References other_{meta_};
  References scrubs_{hooked_};
  int moves_ = 0;
};

TEST_F(Counting, AMoveIsNoMiscount) {
  for (const bool repair : {false, true}) {
    MoveBetweenScans(moves_ + 1);
    ASSERT_OK_AND_ASSIGN(const auto problem, scrubs_.CheckCount(kId, repair));
    EXPECT_FALSE(problem.has_value()) << *problem;
    EXPECT_EQ(Now().count, 1u);
    EXPECT_FALSE(meta_.Get(RecordPartition(PartitionOf(kId)), GarbageKey(kId)).has_value());
  }
  EXPECT_GT(moves_, 1);
}

// Here something is wrong, and is put right without losing the reference that moves.
TEST_F(Counting, ARepairSeesEveryMove) {
  ASSERT_OK(other_.Change(kId, [](Record& record) {
    ++record.count;
    return true;
  }));
  int scans = 0;
  hooked_.SetHook([&](Operation operation, std::string_view key) {
    // The looks that find it are left alone, and the moves come back to where they were.
    if (operation == Operation::kScan && key == "u" && ++scans > 2 && moves_ < 5) Move();
  });
  ASSERT_OK_AND_ASSIGN(const auto problem, scrubs_.CheckCount(kId, true));
  EXPECT_TRUE(problem.has_value());
  EXPECT_EQ(moves_, 5);
  EXPECT_EQ(Now().count, 1u);
  ASSERT_OK_AND_ASSIGN(const auto again, other_.CheckCount(kId, false));
  EXPECT_FALSE(again.has_value()) << *again;
}

}  // namespace
}  // namespace chunkstore::testing
