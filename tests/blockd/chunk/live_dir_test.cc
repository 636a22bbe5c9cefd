#include <filesystem>

#include <sys/stat.h>

#include "tests/blockd/chunk/live_pages_world.h"

// Where the pages are, and who must not be there.

namespace blockd::chunk {
namespace {

TEST_F(LivePagesTest, WhoeverComesNextGoesOnWithTheDirectoryThatIsThere) {
  WriteUnflushed();
  const std::string path = live_->path();
  Kill();
  live_ = LiveDir::Open(layers_, "", private_pages_);  // none is wanted any more
  ASSERT_NE(live_, nullptr);
  EXPECT_EQ(live_->path(), path);
  OpenLayer();
  EXPECT_EQ(States(*layer_, 12), kUnflushed);
  ASSERT_OK(layer_->Flush());
  Kill();
  EXPECT_EQ(LiveDir::Open(layers_, "", private_pages_), nullptr);
}

// Somebody may have changed the layer meanwhile without them.
TEST_F(LivePagesTest, FilesWithoutAMarkAreNotBelieved) {
  WriteUnflushed();
  Kill();
  ASSERT_OK(files_.Remove(layers_ + "/live"));
  OpenDir();
  EXPECT_EQ(live_->Ids(), std::vector<std::string>());
}

TEST_F(LivePagesTest, ACopyOfTheLayersTakesNothingFromThem) {
  WriteUnflushed();
  const std::string copy = dir_ / "copy";
  std::filesystem::copy(layers_, copy);
  {
    const auto other = LiveDir::Open(copy, parent_, private_pages_);
    ASSERT_NE(other, nullptr);
    EXPECT_NE(other->path(), live_->path());
    ASSERT_OK_AND_ASSIGN(const auto layer, Layer::Open(files_, copy, "one", other));
    EXPECT_EQ(States(*layer, 12), "12 absent");
  }
  EXPECT_EQ(live_->Ids(), std::vector<std::string>{"one"});
}

class HostileDirTest : public LivePagesTest {
 protected:
  // Everything works, and is lost with the process.
  void ExpectPrivate() {
    OpenDir();
    EXPECT_LT(live_->descriptor(), 0);
    OpenLayer();
    WriteUnflushed();
    EXPECT_EQ(private_pages_.value(), 1);
    Kill();
    EXPECT_EQ(private_pages_.value(), 0);
    OpenDir();
    OpenLayer();
    EXPECT_EQ(States(*layer_, 12), "12 absent");
  }
};

TEST_F(HostileDirTest, OneThatOthersMayWriteToIsNotUsed) {
  const std::string path = live_->path();
  Kill();
  ASSERT_OK(files_.CreateDirs(path));
  ASSERT_EQ(::chmod(path.c_str(), 0777), 0);
  ExpectPrivate();
}

TEST_F(HostileDirTest, ALinkIsNotFollowed) {
  const std::string path = live_->path();
  Kill();
  ASSERT_OK(files_.CreateDirs(dir_ / "elsewhere"));
  ASSERT_EQ(::symlink((dir_ / "elsewhere").c_str(), path.c_str()), 0);
  ExpectPrivate();
  EXPECT_EQ(files_.List(dir_ / "elsewhere").value(), std::vector<std::string>());
}

TEST_F(HostileDirTest, OneOfAnotherUserIsNotUsed) {
  const std::string path = live_->path();
  Kill();
  ASSERT_OK(files_.CreateDirs(path));
  if (::chown(path.c_str(), 12345, 12345) != 0) GTEST_SKIP() << "NOT tried: this needs root";
  ExpectPrivate();
}

// A process that was not killed left it marked, and then it was taken over.
TEST_F(HostileDirTest, AMarkDoesNotMakeItOurs) {
  WriteUnflushed();
  const std::string path = live_->path();
  Kill();
  ASSERT_EQ(::chmod(path.c_str(), 0777), 0);
  ExpectPrivate();
}

TEST_F(HostileDirTest, ALinkInItIsNotFollowed) {
  WriteUnflushed();
  const std::string path = LiveFile();
  Kill();
  std::filesystem::rename(path, dir_ / "moved");
  ASSERT_EQ(::symlink((dir_ / "moved").c_str(), path.c_str()), 0);
  OpenDir();
  // It can't be told whether it is to be passed over.
  EXPECT_ERROR(Layer::Open(files_, layers_, "one", live_), Code::kIo);
}

}  // namespace
}  // namespace blockd::chunk
