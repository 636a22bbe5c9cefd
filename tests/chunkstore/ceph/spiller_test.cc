#include "chunkstore/ceph/spiller.h"

#include <set>

#include <gtest/gtest.h>

#include "tests/chunkstore/ceph/interposed.h"
#include "tests/support/results.h"

namespace chunkstore::ceph {
namespace {

using base::Code;

const std::string kPartition = "p";

std::string Key(int number) { return "k" + std::to_string(100 + number); }

// Of both what the store has and what it should have.
struct World {
  void Put(Process& process, int number, const std::string& value) {
    ASSERT_OK(process.store().Commit(kPartition, MetaBatch().Put(Key(number), value)));
    expected[Key(number)] = value;
  }
  void Delete(Process& process, int number) {
    ASSERT_OK(process.store().Commit(kPartition, MetaBatch().Delete(Key(number))));
    expected.erase(Key(number));
  }
  // Keys in shards and in the head, some changed and some deleted since they were moved.
  void Prepare() {
    Process process(objects);
    for (int i = 0; i < 20; i += 2) Put(process, i, "old");
    ASSERT_OK(process.Spill(kPartition));
    for (int i = 0; i < 20; i += 3) Put(process, i, "new");
    for (int i = 0; i < 20; i += 4) Delete(process, i);
    for (int i = 20; i < 30; ++i) Put(process, i, "new");  // makes the last shard large
  }
  // What others do while one sleeps.
  enum class Change { kMix, kAll, kAllAndMove, kAllAndBack, kDeleteAll };
  void Do(Change change, Process& process) {
    const State before = expected;
    if (change == Change::kMix) {
      ChangeMuch(process);
    } else if (change == Change::kDeleteAll) {
      for (int i = 0; i < 20; ++i) Delete(process, i);
      ASSERT_OK(process.Spill(kPartition));
    } else {
      for (int i = 0; i < 20; ++i) Put(process, i, "other");
      if (change != Change::kAll) ASSERT_OK(process.Spill(kPartition));
      if (change == Change::kAllAndBack) {
        for (int i = 0; i < 20; ++i) {
          auto was = before.find(Key(i));
          was == before.end() ? Delete(process, i) : Put(process, i, was->second);
        }
      }
    }
  }
  void ChangeMuch(Process& process) {
    for (int i = 0; i < 20; i += 5) Put(process, i, "other");
    for (int i = 1; i < 20; i += 5) Delete(process, i);
    ASSERT_OK(process.Spill(kPartition));
    for (int i = 0; i < 20; i += 3) Put(process, i, "new");
    for (int i = 2; i < 20; i += 6) Delete(process, i);
  }
  void Check() {
    Process process(objects);
    EXPECT_EQ(ReadAll(process.store(), kPartition), expected);
    for (int i = 0; i < 45; ++i) {
      auto found = expected.find(Key(i));
      auto read = process.store().Get(kPartition, Key(i));
      if (found == expected.end()) {
        EXPECT_ERROR(read, Code::kNotFound);
      } else {
        ASSERT_OK(read);
        EXPECT_EQ(*read, found->second);
      }
    }
  }
  // Objects of shards that no directory names.
  std::set<std::string> Strays() {
    Heads heads(objects);
    auto head = heads.Read(kPartition, {});
    EXPECT_OK(head);
    std::set<std::string> strays;
    for (const auto& [name, keys] : objects.List()) {
      if (name.starts_with("meta.shard.")) strays.insert(name);
    }
    for (const auto& shard : head->layout->directory.shards) strays.erase(shard.object);
    return strays;
  }

  MemoryObjects objects;
  State expected;
};

TEST(SpillerTest, MovesAllAndSplits) {
  World world;
  Process process(world.objects);
  for (int i = 0; i < 60; ++i) world.Put(process, i, "value " + std::to_string(i));
  ASSERT_OK(process.Spill(kPartition));
  world.Check();
  Heads heads(world.objects);
  ASSERT_OK_AND_ASSIGN(Head head, heads.Read(kPartition, {.keys = {}, .page = 1, .after = "k"}));
  EXPECT_TRUE(head.view.page.empty());
  EXPECT_GE(head.layout->directory.shards.size(), 12u);
  EXPECT_TRUE(head.layout->directory.owner.empty());
  for (const auto& shard : head.layout->directory.shards) {
    EXPECT_LE(world.objects.List()[shard.object], TinyOptions().shard_keys + 3);
  }
  EXPECT_EQ(world.Strays(), std::set<std::string>());
}

TEST(SpillerTest, ASmallHeadStaysAsItIs) {
  World world;
  Process process(world.objects);
  for (int i = 0; i < 3; ++i) world.Put(process, i, "x");
  ASSERT_OK(process.Spill(kPartition));
  EXPECT_EQ(world.objects.List().size(), 2u);  // the head, the registry
  ASSERT_OK(process.Spill("no such partition"));
  EXPECT_EQ(world.objects.List().size(), 2u);
}

TEST(SpillerTest, DeletedKeysLeaveNothing) {
  World world;
  Process process(world.objects);
  for (int i = 0; i < 20; ++i) world.Put(process, i, "x");
  ASSERT_OK(process.Spill(kPartition));
  for (int i = 0; i < 20; ++i) world.Delete(process, i);
  EXPECT_EQ(process.store().Partitions("").value(), std::vector<std::string>());
  ASSERT_OK(process.Spill(kPartition));
  world.Check();
  for (const auto& [name, keys] : world.objects.List()) EXPECT_LE(keys, 4u) << name;
}

TEST(SpillerTest, MayDieAtAnyStep) {
  for (bool go_on_changing : {false, true}) {
    bool died = true;
    int call = 1;
    for (; died && !testing::Test::HasFailure(); ++call) {
      SCOPED_TRACE("call " + std::to_string(call));
      World world;
      world.Prepare();
      Process dying(world.objects);
      dying.objects().DieAt(call);
      died = !dying.Spill(kPartition);
      world.Check();
      Process next(world.objects);
      if (go_on_changing) world.ChangeMuch(next);
      for (int i = 40; i < 44; ++i) world.Put(next, i, "more");
      ASSERT_OK(next.Spill(kPartition));
      world.Check();
      EXPECT_EQ(world.Strays(), std::set<std::string>());
    }
    EXPECT_GT(call, 20);
  }
}

class SleepingSpillerTest : public testing::TestWithParam<World::Change> {};

TEST_P(SleepingSpillerTest, MaySleepAtAnyStepWhileOthersGoOn) {
  bool slept = true;
  int call = 1;
  for (; slept && !testing::Test::HasFailure(); ++call) {
    SCOPED_TRACE("call " + std::to_string(call));
    World world;
    world.Prepare();
    Process sleeper(world.objects);
    Process other(world.objects);
    sleeper.objects().At(call, [&] { world.Do(GetParam(), other); });
    auto done = sleeper.Spill(kPartition);
    if (!done) EXPECT_ERROR(done, Code::kConflict);
    slept = sleeper.objects().happened();
    world.Check();
    for (int i = 40; i < 44; ++i) world.Put(other, i, "more");
    ASSERT_OK(other.Spill(kPartition));
    world.Check();
    // What a sleeper makes after all is the leftover that the README tells of.
    EXPECT_LE(world.Strays().size(), 1u);
  }
  EXPECT_GT(call, 20);
}

INSTANTIATE_TEST_SUITE_P(All, SleepingSpillerTest,
                         testing::Values(World::Change::kMix, World::Change::kAll,
                                         World::Change::kAllAndMove, World::Change::kAllAndBack,
                                         World::Change::kDeleteAll));

TEST(SpillerTest, ALeaseKeepsOthersAway) {
  World world;
  world.Prepare();
  base::ManualClock clock;
  CephMetaOptions options = TinyOptions();
  options.lease_ms = 1000;
  auto spill = [&](InterposedObjects& objects) {
    Heads heads(objects);
    Spiller spiller(objects, heads, clock, options, kPartition);
    return spiller.Run([] { return false; });
  };
  InterposedObjects dying(world.objects);
  dying.DieAt(6);
  ASSERT_FALSE(spill(dying).has_value());
  InterposedObjects other(world.objects);
  auto before = world.objects.List();
  ASSERT_OK(spill(other));
  EXPECT_EQ(world.objects.List(), before);
  clock.AdvanceUs(1'000'001);
  ASSERT_OK(spill(other));
  EXPECT_NE(world.objects.List(), before);
  world.Check();
}

}  // namespace
}  // namespace chunkstore::ceph
