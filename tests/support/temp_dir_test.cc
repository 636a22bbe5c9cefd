#include "tests/support/temp_dir.h"

#include <gtest/gtest.h>

#include "base/files.h"
#include "tests/support/results.h"

namespace support {
namespace {

TEST(TempDir, IsFreshAndGoesWithItsContent) {
  std::string path;
  {
    TempDir dir;
    TempDir other;
    EXPECT_NE(dir.path(), other.path());
    path = dir.path();
    ASSERT_OK(base::SystemFiles().CreateDirs(dir / "a/b"));
    ASSERT_OK(base::WriteFileDurably(dir / "a/b/c", "content"));
  }
  EXPECT_ERROR(base::SystemFiles().Stat(path), base::Code::kNotFound);
}

}  // namespace
}  // namespace support
