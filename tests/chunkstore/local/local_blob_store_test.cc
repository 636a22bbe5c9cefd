#include "chunkstore/local/local_blob_store.h"

#include "tests/conformance/blob_store_suite.h"
#include "tests/support/fault_files.h"
#include "tests/support/results.h"
#include "tests/support/temp_dir.h"

namespace conformance {
namespace {

using base::Code;
using chunkstore::local::LocalBlobStore;
using support::FaultFiles;

class LocalBlobHarness : public BlobStoreHarness {
 public:
  LocalBlobHarness() { Open(); }
  chunkstore::BlobStore& store() override { return *store_; }
  void FailCall(uint64_t n, base::Error error) override { files_.FailCall(n, std::move(error)); }
  void ClearFailures() override { files_.ClearFailures(); }
  void Crash(uint64_t seed) override {
    files_.Crash(seed,
                 seed % 2 == 0 ? FaultFiles::Names::kDropUnsynced : FaultFiles::Names::kKeepSome);
    Open();
  }
  void SetCapacity(uint64_t bytes) override { files_.SetCapacity(bytes); }
  uint64_t UsedBytes() override { return files_.used_bytes(); }

 private:
  void Open() {
    store_.reset();
    store_ = LocalBlobStore::Open(files_, "/data/store").value();
  }

  FaultFiles files_;
  std::unique_ptr<LocalBlobStore> store_;
};

// On the machine's own files, where nothing can be injected below.
class RealBlobHarness : public BlobStoreHarness {
 public:
  RealBlobHarness() { Crash(0); }
  chunkstore::BlobStore& store() override { return *store_; }
  bool injects() const override { return false; }
  void FailCall(uint64_t, base::Error) override {}
  void ClearFailures() override {}
  void Crash(uint64_t) override {
    store_.reset();
    store_ = LocalBlobStore::Open(base::SystemFiles(), dir_ / "store").value();
  }
  void SetCapacity(uint64_t) override {}  // see full_disk_test
  uint64_t UsedBytes() override { return 0; }

 private:
  support::TempDir dir_;
  std::unique_ptr<LocalBlobStore> store_;
};

INSTANTIATE_TEST_SUITE_P(Local, BlobStoreSuite,
                         testing::Values(BlobStoreBackEnd{
                             "local", [] { return std::make_unique<LocalBlobHarness>(); }}));
INSTANTIATE_TEST_SUITE_P(LocalOnDisk, BlobStoreSuite,
                         testing::Values(BlobStoreBackEnd{
                             "disk", [] { return std::make_unique<RealBlobHarness>(); }}));

// The first Put after a crash during the very first Open must not land in a folder that power loss
// takes.
TEST(LocalBlobStoreTest, OpeningSurvivesEveryFailingCall) {
  base::ByteView piece = base::AsBytes("content");
  FaultFiles untouched;
  ASSERT_OK(LocalBlobStore::Open(untouched, "/data/store"));
  ASSERT_GT(untouched.mutating_calls(), 256u);
  for (uint64_t n = 1; n <= untouched.mutating_calls(); ++n) {
    FaultFiles files;
    files.FailCall(n, base::Error(Code::kIo, "injected"));
    (void)LocalBlobStore::Open(files, "/data/store").has_value();
    files.Kill();
    files.ClearFailures();
    {
      ASSERT_OK_AND_ASSIGN(auto store, LocalBlobStore::Open(files, "/data/store"));
      ASSERT_OK(store->Put("aa-1", {&piece, 1}));
    }
    files.Crash(n);
    ASSERT_OK_AND_ASSIGN(auto store, LocalBlobStore::Open(files, "/data/store"));
    ASSERT_OK(store->Size("aa-1"));
  }
}

TEST(LocalBlobStoreTest, AnUnacknowledgedPutIsAllThatACrashLeaves) {
  std::string text(100'000, 'x');
  base::ByteView piece = base::AsBytes(text);
  for (uint64_t n = 1; n <= 4; ++n) {
    FaultFiles files;
    ASSERT_OK_AND_ASSIGN(auto store, LocalBlobStore::Open(files, "/data"));
    ASSERT_OK(store->Put("aa-1", {&piece, 1}));
    files.FailFrom(n, base::Error(Code::kIo, "power is gone"));
    EXPECT_FALSE(store->Put("bb-2", {&piece, 1}).has_value());
    files.Crash(n, FaultFiles::Names::kKeepSome);
    ASSERT_OK_AND_ASSIGN(store, LocalBlobStore::Open(files, "/data"));
    EXPECT_EQ(store->Size("aa-1").value(), text.size());
    EXPECT_LE(store->Size("bb-2").value_or(0), text.size());
  }
}

TEST(LocalBlobStoreTest, AnotherOpenerIsToldWho) {
  support::TempDir dir;
  ASSERT_OK_AND_ASSIGN(auto store, LocalBlobStore::Open(base::SystemFiles(), dir.path()));
  auto second = LocalBlobStore::Open(base::SystemFiles(), dir.path());
  ASSERT_ERROR(second, Code::kConflict);
  EXPECT_NE(second.error().message().find("process " + std::to_string(getpid())), std::string::npos)
      << second.error().message();
  store.reset();
  EXPECT_OK(LocalBlobStore::Open(base::SystemFiles(), dir.path()));
}

TEST(LocalBlobStoreTest, TakesTheSpaceItSays) {
  support::TempDir dir;
  ASSERT_OK_AND_ASSIGN(auto store, LocalBlobStore::Open(base::SystemFiles(), dir.path()));
  uint64_t unit = store->properties().allocation_unit_bytes;
  for (uint64_t size : {1, 4096, 4097, 1'000'000}) {
    std::string text(size, 'x');
    base::ByteView piece = base::AsBytes(text);
    std::string name = "aa-" + std::to_string(size);
    ASSERT_OK(store->Put(name, {&piece, 1}));
    ASSERT_OK_AND_ASSIGN(auto file, store->OpenFile(name));
    std::string path = "/proc/self/fd/" + std::to_string(file->descriptor());
    EXPECT_EQ(base::SystemFiles().Stat(path).value().allocated_bytes,
              (size + unit - 1) / unit * unit);
  }
}

}  // namespace
}  // namespace conformance
