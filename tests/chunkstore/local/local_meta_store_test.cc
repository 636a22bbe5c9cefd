#include "chunkstore/local/local_meta_store.h"

#include <filesystem>
#include <fstream>
#include <random>

#include "chunkstore/local/partition_keys.h"
#include "tests/conformance/meta_store_suite.h"
#include "tests/support/faulty_stores.h"
#include "tests/support/results.h"
#include "tests/support/temp_dir.h"

namespace conformance {
namespace {

namespace fs = std::filesystem;
using base::Code;
using chunkstore::MetaBatch;
using chunkstore::MetaStore;
using chunkstore::local::LocalMetaStoreOptions;
using chunkstore::local::OpenLocalMetaStore;

fs::path NewestLog(const std::string& dir) {
  fs::path newest;
  for (const auto& entry : fs::directory_iterator(dir)) {
    if (entry.path().extension() == ".log" && entry.path() > newest) newest = entry.path();
  }
  return newest;
}

// Power loss, as far as it can be had without the machine: RocksDB syncs its files itself, but for
// its log, where anything after the last sync may be missing or torn. So the log is cut somewhere
// after where the last Sync left it.
class LocalMetaHarness : public MetaStoreHarness {
 public:
  LocalMetaHarness() { Open(); }
  MetaStore& store() override { return *faulty_; }
  void FailCall(uint64_t n, base::Error error, bool after_effect) override {
    plan_.FailAt(
        n, std::move(error),
        after_effect ? support::FaultPlan::When::kAfter : support::FaultPlan::When::kBefore);
  }
  void ClearFailures() override { plan_.Clear(); }
  void Crash(uint64_t seed) override {
    // Closing syncs, and says so in the mark: that did not happen.
    std::string mark = base::ReadWholeFile(Dir() + "/SYNCED", 100).value();
    store_.reset();
    ASSERT_OK(base::WriteFileDurably(Dir() + "/SYNCED", mark));
    fs::path log = NewestLog(Dir());
    Tear(log, log.filename() == synced_log_ ? synced_bytes_ : 0, seed);
    Open();
  }

 private:
  // Notes how long the log was at each Sync that succeeded.
  class Watching : public support::FaultyMetaStore {
   public:
    Watching(MetaStore& inner, LocalMetaHarness& harness)
        : FaultyMetaStore(inner, no_faults_), harness_(harness) {}
    base::Result<void> Sync() override {
      RETURN_IF_ERROR(FaultyMetaStore::Sync());
      base::MutexLock lock(mutex_);
      fs::path log = NewestLog(harness_.Dir());
      harness_.synced_log_ = log.filename();
      harness_.synced_bytes_ = fs::file_size(log);
      return {};
    }

   private:
    support::FaultPlan no_faults_;
    base::Mutex mutex_;
    LocalMetaHarness& harness_;
  };

  static void Tear(const fs::path& log, uint64_t synced, uint64_t seed) {
    uint64_t size = fs::file_size(log);
    if (seed % 4 == 0 || size <= synced) return;
    fs::resize_file(log, synced + seed % (size - synced));
    if (seed % 2 == 0) return;
    std::ofstream garbage(log, std::ios::app | std::ios::binary);
    std::mt19937_64 random(seed);
    for (uint64_t i = 0; i < seed % 3000; ++i) garbage.put(static_cast<char>(random()));
  }

  std::string Dir() const { return dir_ / "meta"; }
  void Open() {
    store_ =
        OpenLocalMetaStore(Dir(), LocalMetaStoreOptions{.memory_bytes = 8 * base::kMiB}).value();
    watching_ = std::make_unique<Watching>(*store_, *this);
    faulty_ = std::make_unique<support::FaultyMetaStore>(*watching_, plan_);
  }

  support::TempDir dir_;
  fs::path synced_log_;
  uint64_t synced_bytes_ = 0;
  support::FaultPlan plan_;
  std::unique_ptr<MetaStore> store_;
  std::unique_ptr<Watching> watching_;
  std::unique_ptr<support::FaultyMetaStore> faulty_;
};

INSTANTIATE_TEST_SUITE_P(Local, MetaStoreSuite,
                         testing::Values(MetaStoreBackEnd{
                             "local", [] { return std::make_unique<LocalMetaHarness>(); }}));

class LocalMetaStoreTest : public testing::Test {
 protected:
  base::Result<std::unique_ptr<MetaStore>> Open() { return OpenLocalMetaStore(dir_ / "meta", {}); }
  void Fill(int count) {
    ASSERT_OK_AND_ASSIGN(auto store, Open());
    for (int i = 0; i < count; ++i) {
      std::string key = std::to_string(i);
      ASSERT_OK(store->Commit("p", MetaBatch().Put(key, std::string(500, 'v'))));
    }
    ASSERT_OK(store->Sync());
  }
  static void FlipByte(const fs::path& path, uint64_t at) {
    std::fstream file(path, std::ios::in | std::ios::out | std::ios::binary);
    file.seekg(static_cast<std::streamoff>(at));
    char byte = static_cast<char>(file.get() ^ 0x20);
    file.seekp(static_cast<std::streamoff>(at));
    file.put(byte);
  }
  support::TempDir dir_;
};

TEST_F(LocalMetaStoreTest, KeepsAllOverACleanStop) {
  Fill(1000);
  ASSERT_OK_AND_ASSIGN(auto store, Open());
  int keys = 0;
  ASSERT_OK(store->Scan("p", "", "", SIZE_MAX, [&](std::string_view, std::string_view) {
    ++keys;
    return true;
  }));
  EXPECT_EQ(keys, 1000);
}

TEST_F(LocalMetaStoreTest, ASecondOpenerIsRefused) {
  ASSERT_OK_AND_ASSIGN(auto store, Open());
  EXPECT_ERROR(Open(), Code::kConflict);
  store.reset();
  EXPECT_OK(Open());
}

TEST_F(LocalMetaStoreTest, ADamagedLogIsNotATornOne) {
  Fill(200);
  fs::path log = NewestLog(dir_ / "meta");
  for (uint64_t at : {uint64_t{100}, fs::file_size(log) / 2, fs::file_size(log) - 10}) {
    FlipByte(log, at);
    EXPECT_ERROR(Open(), Code::kCorruption) << "byte " << at;
    FlipByte(log, at);
  }
  EXPECT_OK(Open());
}

TEST_F(LocalMetaStoreTest, ALogThatLostItsEndIsNoticed) {
  Fill(50);
  fs::path log = NewestLog(dir_ / "meta");
  fs::resize_file(log, fs::file_size(log) - 1);
  auto opened = Open();
  ASSERT_ERROR(opened, Code::kCorruption);
  EXPECT_NE(opened.error().message().find("rebuild-index"), std::string::npos);
  // What the message offers.
  fs::remove(dir_ / "meta/SYNCED");
  ASSERT_OK_AND_ASSIGN(auto store, Open());
  EXPECT_OK(store->Get("p", "48"));
}

TEST_F(LocalMetaStoreTest, ADamagedMarkIsNoMark) {
  Fill(10);
  FlipByte(dir_ / "meta/SYNCED", 3);
  EXPECT_OK(Open());
}

TEST_F(LocalMetaStoreTest, ADamagedTableIsNeverServed) {
  {
    ASSERT_OK_AND_ASSIGN(auto store,
                         OpenLocalMetaStore(dir_ / "meta", {.memory_bytes = base::kMiB}));
    for (int i = 0; i < 4000; ++i) {
      ASSERT_OK(store->Commit("p", MetaBatch().Put(std::to_string(i), std::string(500, 'v'))));
    }
    ASSERT_OK(store->Sync());
  }
  int damaged = 0;
  for (const auto& entry : fs::directory_iterator(dir_ / "meta")) {
    if (entry.path().extension() != ".sst") continue;
    FlipByte(entry.path(), entry.file_size() / 3);
    ++damaged;
  }
  ASSERT_GT(damaged, 0);
  auto store = Open();
  if (!store) {
    EXPECT_ERROR(store, Code::kCorruption);
    return;
  }
  bool noticed = false;
  for (int i = 0; i < 4000; ++i) {
    auto value = (*store)->Get("p", std::to_string(i));
    if (value) {
      ASSERT_EQ(*value, std::string(500, 'v'));
    } else {
      noticed = noticed || value.error().code() == Code::kCorruption;
      ASSERT_ERROR(value, Code::kCorruption);
    }
  }
  EXPECT_TRUE(noticed);
  EXPECT_ERROR((*store)->Scan("p", "", "", SIZE_MAX,
                              [](std::string_view, std::string_view) { return true; }),
               Code::kCorruption);
}

TEST(PartitionKeysTest, ComeBackAndSortAsTheNames) {
  const std::string kNames[] = {"a",
                                std::string("a\0", 2),
                                std::string("a\0\x01", 3),
                                std::string("a\0\xff", 3),
                                "a\x01",
                                "ab",
                                "\xff"};
  std::string last;
  for (const std::string& name : kNames) {
    std::string prefix = chunkstore::local::PartitionPrefix(name);
    EXPECT_EQ(chunkstore::local::PartitionOf(prefix + "any\0key"), name);
    EXPECT_GT(prefix, last);
    last = chunkstore::local::PartitionEnd(prefix);
    EXPECT_GT(last, prefix + "\xff\xff");
  }
  EXPECT_FALSE(chunkstore::local::PartitionOf("no end").has_value());
  EXPECT_FALSE(chunkstore::local::PartitionOf(std::string("a\0", 2)).has_value());
  EXPECT_FALSE(chunkstore::local::PartitionOf(std::string("a\0\x05", 3)).has_value());
}

}  // namespace
}  // namespace conformance
