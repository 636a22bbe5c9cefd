#include "blockd/backup/home.h"

#include <filesystem>

#include <gtest/gtest.h>

#include "base/files.h"
#include "base/uuid.h"
#include "chunkstore/memory/memory_meta_store.h"
#include "tests/support/results.h"
#include "tests/support/temp_dir.h"

namespace blockd::backup {
namespace {

using base::Code;
using base::Result;

class HomeTest : public testing::Test {
 protected:
  void SetUp() override {
    disk_ = dir_.path() + "/disk";
    other_ = dir_.path() + "/other";
    for (const std::string& dir : {disk_, other_}) std::filesystem::create_directory(dir);
  }
  std::string AddBackup() {
    BackupRecord backup;
    backup.id = base::NewUuid();
    backup.project_id = "p";
    backup.size_gb = 1;
    backup.status = BackupStatus::kAvailable;
    EXPECT_OK(catalog_.Transact(
        [&](Transaction& transaction) -> Result<void> { return transaction.Put(backup); }));
    return backup.id;
  }

  support::TempDir dir_;
  std::string disk_;
  std::string other_;
  chunkstore::MemoryMetaStore meta_;
  base::ManualClock clock_;
  chunkstore::jobs::Journal journal_{meta_, clock_, std::string(kPartition), "1"};
  Catalog catalog_{meta_, clock_, journal_};
};

TEST_F(HomeTest, ADiskThatIsNotMountedIsNotTakenForTheBackups) {
  ASSERT_OK(CheckHome(catalog_, disk_));
  ASSERT_OK(RememberHome(catalog_, disk_));
  AddBackup();
  EXPECT_OK(CheckHome(catalog_, disk_));

  const std::string mounted = dir_.path() + "/mounted";
  std::filesystem::rename(disk_, mounted);
  EXPECT_ERROR(CheckHome(catalog_, disk_), Code::kConflict);
  EXPECT_FALSE(std::filesystem::exists(disk_));
  std::filesystem::create_directory(disk_);
  EXPECT_ERROR(CheckHome(catalog_, disk_), Code::kConflict);
  EXPECT_OK(CheckHome(catalog_, mounted)) << "wherever it is";

  // The way out that the error names.
  const std::string id = *base::ReadWholeFile(mounted + "/STORE", 100);
  EXPECT_NE(CheckHome(catalog_, disk_).error().message().find(id.substr(0, id.size() - 1)),
            std::string::npos);
  ASSERT_OK(base::WriteFileDurably(disk_ + "/STORE", id));
  EXPECT_OK(CheckHome(catalog_, disk_));
}

TEST_F(HomeTest, WithoutBackupsAnyDirectoryWillDo) {
  ASSERT_OK(RememberHome(catalog_, disk_));
  EXPECT_OK(CheckHome(catalog_, other_));
  ASSERT_OK(RememberHome(catalog_, other_));
  AddBackup();
  EXPECT_OK(CheckHome(catalog_, other_));
  EXPECT_ERROR(CheckHome(catalog_, disk_), Code::kConflict) << "of earlier";
}

TEST_F(HomeTest, AServiceThatKnowsOfNoneTakesWhatIsThere) {
  ASSERT_OK(RememberHome(catalog_, disk_));
  const std::string id = *base::ReadWholeFile(disk_ + "/STORE", 100);
  chunkstore::MemoryMetaStore meta;
  chunkstore::jobs::Journal journal(meta, clock_, std::string(kPartition), "1");
  Catalog successor(meta, clock_, journal);
  EXPECT_OK(CheckHome(successor, disk_));
  EXPECT_OK(RememberHome(successor, disk_));
  EXPECT_EQ(*base::ReadWholeFile(disk_ + "/STORE", 100), id);
  ASSERT_OK(base::WriteFileDurably(disk_ + "/STORE", "garbage"));
  EXPECT_ERROR(CheckHome(successor, disk_), Code::kCorruption);
}

}  // namespace
}  // namespace blockd::backup
