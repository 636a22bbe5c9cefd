#include "controlplane/identity/store.h"

#include <atomic>
#include <thread>

#include <gtest/gtest.h>

#include "chunkstore/memory/memory_meta_store.h"
#include "tests/controlplane/identity/harness.h"
#include "tests/support/results.h"

namespace controlplane::identity {
namespace {

class StoreTest : public testing::Test {
 protected:
  std::unique_ptr<Store> Open(StoreOptions options = {}) {
    auto store = Store::Open(options, meta_, clock_);
    EXPECT_OK(store);
    return *std::move(store);
  }
  static base::Result<void> Put(Store& store, const std::string& id, const std::string& name) {
    return store.Transact([&](Transaction& tx) -> base::Result<void> {
      tx.Put(Kind::kService, id, {{"name", name}});
      return {};
    });
  }
  static std::string Name(Store& store, const std::string& id) {
    auto now = store.Read();
    EXPECT_OK(now);
    RecordPtr record = (*now)->Get(Kind::kService, id);
    return record == nullptr ? "(none)" : std::string(Text(*record, "name"));
  }

  chunkstore::MemoryMetaStore meta_;
  base::ManualClock clock_;
};

TEST_F(StoreTest, KeepsRecordsAndIndexes) {
  auto store = Open();
  ASSERT_OK(Put(*store, "a", "first"));
  ASSERT_OK(Put(*store, "a", "second"));
  EXPECT_EQ(Name(*store, "a"), "second");
  EXPECT_EQ(Name(*Open(), "a"), "second");
  ASSERT_OK(store->Transact([](Transaction& tx) -> base::Result<void> {
    tx.Remove(Kind::kService, "a");
    return {};
  }));
  EXPECT_EQ(Name(*store, "a"), "(none)");
  EXPECT_EQ(Name(*Open(), "a"), "(none)");
}

TEST_F(StoreTest, IndexFollowsChanges) {
  auto store = Open();
  auto rename = [&](const std::string& name) {
    return store->Transact([&](Transaction& tx) -> base::Result<void> {
      tx.Put(Kind::kUser, "u", {{"domain_id", "d"}, {"name", name}});
      return {};
    });
  };
  ASSERT_OK(rename("one"));
  ASSERT_OK(rename("two"));
  ASSERT_OK_AND_ASSIGN(SnapshotPtr now, store->Read());
  EXPECT_EQ(now->Named(Index::kUserName, "d", "one"), nullptr);
  ASSERT_NE(now->Named(Index::kUserName, "d", "two"), nullptr);
  EXPECT_EQ(now->size(), 1u);
}

TEST_F(StoreTest, OthersSeeItWithinTheRefresh) {
  auto one = Open();
  auto two = Open();
  ASSERT_OK(Put(*one, "a", "x"));
  EXPECT_EQ(Name(*two, "a"), "(none)");
  clock_.AdvanceUs(201'000);
  EXPECT_EQ(Name(*two, "a"), "x");
}

TEST_F(StoreTest, CatchesUpByTheLogAndWithoutIt) {
  auto one = Open();
  auto near = Open();
  auto far = Open();
  ASSERT_OK(Put(*one, "a", "x"));
  clock_.AdvanceUs(base::kSecondUs);
  EXPECT_EQ(Name(*near, "a"), "x");
  for (uint64_t i = 0; i < kLogEntries + 5; ++i)
    ASSERT_OK(Put(*one, "b" + std::to_string(i % 10), std::to_string(i)));
  ASSERT_OK(one->Transact([](Transaction& tx) -> base::Result<void> {
    tx.Remove(Kind::kService, "a");
    return {};
  }));
  clock_.AdvanceUs(base::kSecondUs);
  EXPECT_EQ(Name(*far, "a"), "(none)");
  EXPECT_EQ(Name(*far, "b0"), Name(*one, "b0"));
  size_t entries = 0;
  ASSERT_OK(meta_.Scan(kPartition, "log/", "log0", 1 << 20,
                       [&](std::string_view, std::string_view) { return ++entries > 0; }));
  EXPECT_EQ(entries, kLogEntries);
}

TEST_F(StoreTest, TransactionsOfTwoProcessesAreSerial) {
  auto one = Open();
  auto two = Open();
  auto add = [](Store& store) {
    return store.Transact([](Transaction& tx) -> base::Result<void> {
      RecordPtr before = tx.now().Get(Kind::kService, "counter");
      int64_t count = before == nullptr ? 0 : Number(*before, "_count");
      tx.Put(Kind::kService, "counter", {{"_count", count + 1}});
      return {};
    });
  };
  constexpr int kEach = 50;
  std::atomic<int> failed = 0;
  auto run = [&](Store& store) {
    for (int i = 0; i < kEach; ++i)
      if (!add(store).has_value()) ++failed;
  };
  std::thread a([&] { run(*one); }), b([&] { run(*two); }), c([&] { run(*one); });
  a.join();
  b.join();
  c.join();
  EXPECT_EQ(failed, 0);
  ASSERT_OK_AND_ASSIGN(SnapshotPtr now, Open()->Read());
  EXPECT_EQ(Number(*now->Get(Kind::kService, "counter"), "_count"), 3 * kEach);
}

TEST_F(StoreTest, SnapshotsDoNotChange) {
  auto store = Open();
  ASSERT_OK(Put(*store, "a", "old"));
  ASSERT_OK_AND_ASSIGN(SnapshotPtr before, store->Read());
  ASSERT_OK(Put(*store, "a", "new"));
  EXPECT_EQ(Text(*before->Get(Kind::kService, "a"), "name"), "old");
}

TEST_F(StoreTest, FailedTransactionChangesNothing) {
  auto store = Open();
  EXPECT_ERROR(store->Transact([](Transaction& tx) -> base::Result<void> {
    tx.Put(Kind::kService, "a", {});
    return base::Error(base::Code::kConflict, "no");
  }),
               base::Code::kConflict);
  EXPECT_EQ(Name(*store, "a"), "(none)");
}

TEST_F(StoreTest, RecordsAreCounted) {
  StoreOptions options;
  options.max_records = 2;
  auto store = Open(options);
  ASSERT_OK(Put(*store, "a", ""));
  ASSERT_OK(Put(*store, "b", ""));
  EXPECT_ERROR(Put(*store, "c", ""), base::Code::kTooLarge);
  ASSERT_OK(Put(*store, "b", "changed"));
}

// What was acknowledged is there after a crash, whatever was in flight.
TEST_F(StoreTest, AcknowledgedSurvivesACrash) {
  for (uint64_t seed = 0; seed < 50; ++seed) {
    chunkstore::MemoryMetaStore meta;
    {
      auto store = Store::Open({}, meta, clock_);
      ASSERT_OK(store);
      for (int i = 0; i < 5; ++i) ASSERT_OK(Put(**store, "s" + std::to_string(i), "x"));
    }
    meta.Crash(seed);
    auto store = Store::Open({}, meta, clock_);
    ASSERT_OK(store);
    ASSERT_OK_AND_ASSIGN(SnapshotPtr now, (*store)->Read());
    EXPECT_EQ(now->size(), 5u);
    EXPECT_EQ(now->version(), 5u);
  }
}

TEST_F(StoreTest, DamagedRecordIsAnError) {
  chunkstore::MetaBatch batch;
  batch.Put("r/user/x", "not json");
  ASSERT_OK(meta_.Commit(kPartition, batch));
  EXPECT_ERROR(Store::Open({}, meta_, clock_), base::Code::kCorruption);
}

// A store that can be told to fail, for what a reader does when it cannot look for other writers.
class FailingMeta : public chunkstore::MemoryMetaStore {
 public:
  base::Result<std::string> Get(std::string_view partition, std::string_view key) override {
    if (failing) return base::Error(base::Code::kIo, "the disk is gone");
    return MemoryMetaStore::Get(partition, key);
  }
  bool failing = false;
};

TEST_F(StoreTest, StaleReadsFailRatherThanMissARevocation) {
  FailingMeta meta;
  auto store = Store::Open({}, meta, clock_);
  ASSERT_OK(store);
  meta.failing = true;
  clock_.AdvanceUs(500'000);
  EXPECT_OK((*store)->Read());
  clock_.AdvanceUs(500'000);
  EXPECT_ERROR((*store)->Read(), base::Code::kUnavailable);
  meta.failing = false;
  EXPECT_OK((*store)->Read());
}

TEST(Concurrency, OneOfManyCreatorsOfANameWins) {
  World world;
  Process other(world.meta, world.clock);
  std::atomic<int> created = 0, refused = 0;
  std::vector<std::thread> threads;
  for (int i = 0; i < 8; ++i) {
    threads.emplace_back([&, i] {
      const Process& process = i % 2 == 0 ? world.process : other;
      int status =
          process.Do("POST", "/projects", world.admin, R"({"project":{"name":"same"}})").status;
      if (status == 201) ++created;
      if (status == 409) ++refused;
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(created, 1);
  EXPECT_EQ(refused, 7);
}

TEST(Concurrency, ReadersAndWritersDoNotDisturbEachOther) {
  World world;
  World::Member member = world.MakeMember("ann");
  std::atomic<bool> stop = false;
  std::atomic<int> failed = 0;
  std::vector<std::thread> readers;
  for (int i = 0; i < 3; ++i) {
    readers.emplace_back([&] {
      while (!stop) {
        if (!world.process.identity().verifier().Verify(member.token).has_value()) ++failed;
        if (world.process.Do("GET", "/users", world.admin).status != 200) ++failed;
      }
    });
  }
  for (int i = 0; i < 100; ++i)
    world.process.Create(world.admin, "groups", "group",
                         "{\"name\":\"g" + std::to_string(i) + "\"}");
  stop = true;
  for (std::thread& reader : readers) reader.join();
  EXPECT_EQ(failed, 0);
  EXPECT_EQ(world.process.Do("GET", "/groups", world.admin).Count("groups"), 100u);
}

TEST(Bootstrap, ResetsALostPasswordOnlyWhenAsked) {
  World world;
  BootstrapRequest request;
  request.admin_password = "another";
  world.Tick();
  ASSERT_OK(world.process.identity().Bootstrap(request));
  EXPECT_OK(world.process.identity().verifier().Verify(world.admin));
  request.reset_admin_password = true;
  ASSERT_OK(world.process.identity().Bootstrap(request));
  EXPECT_ERROR(world.process.identity().verifier().Verify(world.admin),
               base::Code::kUnauthenticated);
}

TEST(Bootstrap, AgainChangesNothing) {
  World world;
  auto version = [&] { return world.meta.Get(kPartition, "version").value(); };
  std::string before = version();
  Process again(world.meta, world.clock);
  EXPECT_EQ(version(), before);
  ASSERT_OK_AND_ASSIGN(bool done, again.identity().IsBootstrapped());
  EXPECT_TRUE(done);
  EXPECT_EQ(again.Do("GET", "/endpoints", world.admin).Count("endpoints"), 6u);
}

}  // namespace
}  // namespace controlplane::identity
