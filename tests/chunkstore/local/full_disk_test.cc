#include <random>

#include <gtest/gtest.h>
#include <sys/mount.h>

#include "chunkstore/local/local_blob_store.h"
#include "chunkstore/local/local_meta_store.h"
#include "tests/support/results.h"
#include "tests/support/temp_dir.h"

// A real disk that is really full, under both stores at once: a tmpfs of 64 MiB. Needs the right to
// mount.

namespace chunkstore::local {
namespace {

using base::Code;

class FullDiskTest : public testing::Test {
 protected:
  void SetUp() override {
    if (mount("quarry-test", dir_.path().c_str(), "tmpfs", 0, "size=64m") != 0) {
      GTEST_SKIP() << "NOT TESTED: a full disk, because this user may not mount a tmpfs";
    }
    mounted_ = true;
    Open();
  }
  void TearDown() override {
    Close();
    if (mounted_) EXPECT_EQ(umount2(dir_.path().c_str(), MNT_DETACH), 0);
  }
  void Open() {
    ASSERT_OK_AND_ASSIGN(blobs_, LocalBlobStore::Open(base::SystemFiles(), dir_.path()));
    ASSERT_OK_AND_ASSIGN(meta_,
                         OpenLocalMetaStore(dir_ / "meta", {.memory_bytes = 4 * base::kMiB}));
  }
  void Close() {
    meta_.reset();
    blobs_.reset();
  }

  base::Result<void> PutBlob(uint64_t number, size_t size) {
    std::string content(size, static_cast<char>('a' + number % 20));
    base::ByteView piece = base::AsBytes(content);
    return blobs_->Put(std::to_string(number), {&piece, 1});
  }
  base::Result<void> CommitKey(uint64_t number) {
    return CommitDurably(*meta_, "p",
                         MetaBatch().Put(std::to_string(number), std::string(20'000, 'v')));
  }
  // Until the disk is full; how many went in.
  uint64_t FillWithBlobs(size_t size) {
    uint64_t count = 0;
    base::Result<void> put;
    while ((put = PutBlob(next_blob_, size))) {
      ++next_blob_;
      ++count;
    }
    EXPECT_ERROR(put, Code::kOutOfSpace);
    return count;
  }

  support::TempDir dir_;
  bool mounted_ = false;
  uint64_t next_blob_ = 0;
  std::unique_ptr<LocalBlobStore> blobs_;
  std::unique_ptr<MetaStore> meta_;
};

TEST_F(FullDiskTest, BlobsFailCleanlyAndRemovalsMakeRoom) {
  ASSERT_GT(FillWithBlobs(base::kMiB), 40u);
  FillWithBlobs(4096);
  EXPECT_EQ(blobs_->Space().value().available_bytes / (64 * 1024), 0u);
  ASSERT_OK(blobs_->Remove("0"));
  EXPECT_OK(PutBlob(1'000'000, base::kMiB / 2));
  for (uint64_t number = 1; number < 40; ++number) {
    EXPECT_EQ(blobs_->Size(std::to_string(number)).value(), base::kMiB);
  }
}

TEST_F(FullDiskTest, MetadataFailsCleanlyAndWorksAgainWithoutAReopen) {
  uint64_t durable = 0;
  for (int round = 0; round < 3; ++round) {
    SCOPED_TRACE(round);
    FillWithBlobs(base::kMiB);
    FillWithBlobs(64 * 1024);
    base::Result<void> committed;
    while ((committed = CommitKey(durable))) ++durable;
    ASSERT_ERROR(committed, Code::kOutOfSpace);
    EXPECT_ERROR(CommitKey(durable), Code::kOutOfSpace);
    for (uint64_t key = 0; key < durable; ++key) ASSERT_OK(meta_->Get("p", std::to_string(key)));
    // A quarter of what is there goes.
    for (uint64_t number = static_cast<uint64_t>(round); number < next_blob_; number += 4) {
      ASSERT_OK(blobs_->Remove(std::to_string(number)));
    }
    ASSERT_OK(CommitKey(durable++));
    Close();
    Open();
    for (uint64_t key = 0; key < durable; ++key) ASSERT_OK(meta_->Get("p", std::to_string(key)));
  }
}

}  // namespace
}  // namespace chunkstore::local
