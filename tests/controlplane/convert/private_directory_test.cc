#include "controlplane/convert/private_directory.h"

#include <cstdlib>
#include <filesystem>
#include <memory>
#include <string>

#include <gtest/gtest.h>

#include "base/files.h"
#include "tests/support/results.h"
#include "tests/support/temp_dir.h"

namespace controlplane::convert {
namespace {

// Directories for temporary files are made in one of this test.
class PrivateDirectoryTest : public testing::Test {
 protected:
  PrivateDirectoryTest() {
    const char* before = std::getenv("TMPDIR");
    before_ = before == nullptr ? "" : before;
    setenv("TMPDIR", dir_.path().c_str(), 1);
  }
  ~PrivateDirectoryTest() override {
    if (before_.empty()) {
      unsetenv("TMPDIR");
    } else {
      setenv("TMPDIR", before_.c_str(), 1);
    }
  }

  std::string before_;
  support::TempDir dir_;
};

TEST_F(PrivateDirectoryTest, IsForUsOnlyAndGoesWithItsOwner) {
  ASSERT_OK_AND_ASSIGN(std::unique_ptr<PrivateDirectory> made, PrivateDirectory::Make());
  const std::string path = made->path();
  EXPECT_TRUE(path.starts_with(dir_ / "quarry-convert-")) << path;
  using std::filesystem::perms;
  EXPECT_EQ(std::filesystem::status(path).permissions(), perms::owner_all);
  ASSERT_OK(base::WriteFileDurably(path + "/nbd", "x"));
  made.reset();
  EXPECT_FALSE(std::filesystem::exists(path));
}

TEST_F(PrivateDirectoryTest, WhatAKilledProcessLeftIsRemovedAndNothingElse) {
  ASSERT_OK_AND_ASSIGN(const auto in_use, PrivateDirectory::Make());
  std::filesystem::create_directory(dir_ / "quarry-convert-killed");
  ASSERT_OK(base::WriteFileDurably(dir_ / "quarry-convert-killed/nbd", "x"));
  std::filesystem::create_directory(dir_ / "quarry-other");
  ASSERT_OK(base::WriteFileDurably(dir_ / "quarry-convert-a-file", "x"));
  std::filesystem::create_directory_symlink(dir_ / "quarry-other", dir_ / "quarry-convert-link");
  RemoveAbandonedDirectories();
  EXPECT_FALSE(std::filesystem::exists(dir_ / "quarry-convert-killed"));
  EXPECT_TRUE(std::filesystem::exists(in_use->path()));
  for (const char* kept : {"quarry-other", "quarry-convert-a-file", "quarry-convert-link"})
    EXPECT_TRUE(std::filesystem::exists(dir_ / kept)) << kept;
}

}  // namespace
}  // namespace controlplane::convert
