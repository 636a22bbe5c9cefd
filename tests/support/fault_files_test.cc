#include "tests/support/fault_files.h"

#include <algorithm>
#include <set>

#include <gtest/gtest.h>

#include "tests/support/results.h"

namespace support {
namespace {

using base::Code;
using base::Error;
using Mode = base::Files::Mode;

base::Result<void> Write(base::File& file, uint64_t offset, std::string_view text) {
  base::ByteView bytes = base::AsBytes(text);
  return file.WriteAt(offset, {&bytes, 1});
}

std::string Content(FaultFiles& files, const std::string& path) {
  auto file = files.Open(path, Mode::kRead);
  if (!file.has_value()) return file.error().ToString();
  std::string text((*file)->Size().value(), '\0');
  EXPECT_OK((*file)->ReadAt(0, {reinterpret_cast<uint8_t*>(text.data()), text.size()}));
  return text;
}

bool Exists(FaultFiles& files, const std::string& path) { return files.Stat(path).has_value(); }

// Creates `path` with a durable content; its name is durable only if asked.
void MakeFile(FaultFiles& files, const std::string& path, std::string_view text) {
  ASSERT_OK_AND_ASSIGN(auto file, files.Open(path, Mode::kCreateNew));
  ASSERT_OK(Write(*file, 0, text));
  ASSERT_OK(file->Sync());
}

class FaultFilesTest : public testing::Test {
 protected:
  void SetUp() override {
    ASSERT_OK(files_.CreateDirs("/store/a"));
    ASSERT_OK(files_.CreateDirs("/store/b"));
    ASSERT_OK(files_.SyncDir("/"));
    ASSERT_OK(files_.SyncDir("/store"));
  }

  FaultFiles files_;
};

TEST_F(FaultFilesTest, BehavesAsADisk) {
  ASSERT_OK_AND_ASSIGN(auto file, files_.Open("/store/a/x", Mode::kCreateNew));
  EXPECT_ERROR(files_.Open("/store/a/x", Mode::kCreateNew), Code::kAlreadyExists);
  EXPECT_ERROR(files_.Open("/store/a/y", Mode::kReadWrite), Code::kNotFound);
  EXPECT_ERROR(files_.Open("/nowhere/y", Mode::kCreateNew), Code::kNotFound);
  EXPECT_ERROR(files_.Open("/store/a", Mode::kRead), Code::kIo);
  std::vector<base::ByteView> pieces = {base::AsBytes("abc"), base::AsBytes("def")};
  ASSERT_OK(file->WriteAt(2, pieces));
  EXPECT_EQ(Content(files_, "store//a/./x"), std::string("\0\0abcdef", 8));
  ASSERT_OK(file->Truncate(4));
  EXPECT_EQ(file->Size().value(), 4u);
  std::string five(5, '\0');
  EXPECT_ERROR(file->ReadAt(0, {reinterpret_cast<uint8_t*>(five.data()), 5}), Code::kCorruption);
  ASSERT_OK(files_.Rename("/store/a/x", "/store/b/y"));
  EXPECT_FALSE(Exists(files_, "/store/a/x"));
  EXPECT_EQ(files_.List("/store/b").value(), std::vector<std::string>{"y"});
  EXPECT_EQ(files_.List("/store").value(), (std::vector<std::string>{"a", "b"}));
  ASSERT_OK(files_.Remove("/store/b/y"));
  EXPECT_ERROR(files_.Remove("/store/b/y"), Code::kNotFound);
  MakeFile(files_, "/store/a/file", "");
  EXPECT_ERROR(files_.CreateDirs("/store/a/file/dir"), Code::kIo);
}

TEST_F(FaultFilesTest, ReadOnlyFileRefusesWrites) {
  MakeFile(files_, "/store/a/x", "abc");
  ASSERT_OK_AND_ASSIGN(auto file, files_.Open("/store/a/x", Mode::kRead));
  EXPECT_ERROR(Write(*file, 0, "x"), Code::kIo);
  EXPECT_ERROR(file->Truncate(0), Code::kIo);
}

TEST_F(FaultFilesTest, SyncedDataAndNameSurviveACrash) {
  MakeFile(files_, "/store/a/x", "abc");
  ASSERT_OK(files_.SyncDir("/store/a"));
  files_.Crash(1);
  EXPECT_EQ(Content(files_, "/store/a/x"), "abc");
}

TEST_F(FaultFilesTest, UnsyncedNameVanishes) {
  MakeFile(files_, "/store/a/x", "abc");
  files_.Crash(1);
  EXPECT_FALSE(Exists(files_, "/store/a/x"));
}

TEST_F(FaultFilesTest, UnsyncedDirectoryVanishesWithWhatIsInIt) {
  ASSERT_OK(files_.CreateDirs("/store/c/d"));
  MakeFile(files_, "/store/c/d/x", "abc");
  ASSERT_OK(files_.SyncDir("/store/c/d"));
  ASSERT_OK(files_.SyncDir("/store/c"));
  files_.Crash(1);
  EXPECT_FALSE(Exists(files_, "/store/c"));
  EXPECT_FALSE(Exists(files_, "/store/c/d/x"));
}

TEST_F(FaultFilesTest, UnsyncedRenameIsUndone) {
  MakeFile(files_, "/store/a/x", "new");
  MakeFile(files_, "/store/a/y", "old");
  ASSERT_OK(files_.SyncDir("/store/a"));
  ASSERT_OK(files_.Rename("/store/a/x", "/store/a/y"));
  files_.Crash(1);
  EXPECT_EQ(Content(files_, "/store/a/x"), "new");
  EXPECT_EQ(Content(files_, "/store/a/y"), "old");
}

TEST_F(FaultFilesTest, SyncOfEitherDirectoryMakesARenameDurableWhole) {
  for (const char* synced : {"/store/a", "/store/b"}) {
    MakeFile(files_, "/store/a/x", "abc");
    ASSERT_OK(files_.Rename("/store/a/x", "/store/b/x"));
    ASSERT_OK(files_.SyncDir(synced));
    files_.Crash(1);
    EXPECT_FALSE(Exists(files_, "/store/a/x")) << synced;
    EXPECT_EQ(Content(files_, "/store/b/x"), "abc") << synced;
    ASSERT_OK(files_.Remove("/store/b/x"));
    ASSERT_OK(files_.SyncDir("/store/b"));
  }
}

TEST_F(FaultFilesTest, UnsyncedRemovalComesBack) {
  MakeFile(files_, "/store/a/x", "abc");
  ASSERT_OK(files_.SyncDir("/store/a"));
  ASSERT_OK(files_.Remove("/store/a/x"));
  files_.Crash(1);
  EXPECT_EQ(Content(files_, "/store/a/x"), "abc");
  ASSERT_OK(files_.Remove("/store/a/x"));
  ASSERT_OK(files_.SyncDir("/store/a"));
  files_.Crash(2);
  EXPECT_FALSE(Exists(files_, "/store/a/x"));
}

TEST_F(FaultFilesTest, UnsyncedDataIsLostKeptOrTornAsTheSeedSays) {
  std::set<std::string> outcomes;
  for (uint64_t seed = 0; seed < 200; ++seed) {
    FaultFiles files;
    MakeFile(files, "/x", "old-old-");
    ASSERT_OK(files.SyncDir("/"));
    ASSERT_OK_AND_ASSIGN(auto file, files.Open("/x", Mode::kReadWrite));
    ASSERT_OK(Write(*file, 0, "new-"));
    ASSERT_OK(Write(*file, 4, "new-"));
    files.Crash(seed);
    outcomes.insert(Content(files, "/x"));
  }
  EXPECT_TRUE(outcomes.contains("old-old-"));
  EXPECT_TRUE(outcomes.contains("new-old-"));
  EXPECT_TRUE(outcomes.contains("old-new-")) << "writes may be reordered";
  EXPECT_TRUE(outcomes.contains("new-new-"));
  EXPECT_TRUE(outcomes.contains("ned-old-")) << "writes may be torn";
}

TEST_F(FaultFilesTest, TheSameSeedGivesTheSameCrash) {
  auto crash = [](uint64_t seed) {
    FaultFiles files;
    MakeFile(files, "/x", "");
    EXPECT_OK(files.SyncDir("/"));
    auto file = files.Open("/x", Mode::kReadWrite).value();
    for (int i = 0; i < 20; ++i) EXPECT_OK(Write(*file, static_cast<uint64_t>(i) * 3, "abc"));
    files.Crash(seed);
    return Content(files, "/x");
  };
  EXPECT_EQ(crash(7), crash(7));
  EXPECT_NE(crash(7), crash(8));
}

TEST_F(FaultFilesTest, KeepSomeKeepsAPrefixOfTheNameChanges) {
  std::set<std::vector<std::string>> outcomes;
  for (uint64_t seed = 0; seed < 100; ++seed) {
    FaultFiles files;
    MakeFile(files, "/1", "");
    MakeFile(files, "/2", "");
    ASSERT_OK(files.Remove("/1"));
    files.Crash(seed, FaultFiles::Names::kKeepSome);
    outcomes.insert(files.List("/").value());
  }
  std::set<std::vector<std::string>> expected = {{}, {"1"}, {"1", "2"}, {"2"}};
  EXPECT_EQ(outcomes, expected);
}

TEST_F(FaultFilesTest, OpenFilesDieWithTheMachineAndWithTheProcess) {
  ASSERT_OK_AND_ASSIGN(auto file, files_.Open("/store/a/x", Mode::kCreateNew));
  ASSERT_OK(Write(*file, 0, "abc"));
  files_.Kill();
  EXPECT_ERROR(Write(*file, 0, "abc"), Code::kIo);
  EXPECT_EQ(Content(files_, "/store/a/x"), "abc") << "a kill loses nothing that was written";
  ASSERT_OK_AND_ASSIGN(auto again, files_.Open("/store/a/x", Mode::kReadWrite));
  files_.Crash(1);
  EXPECT_ERROR(again->Sync(), Code::kIo);
}

TEST_F(FaultFilesTest, FailsTheNthCallOnly) {
  files_.FailCall(2, Error(Code::kIo, "injected"));
  uint64_t before = files_.mutating_calls();
  ASSERT_OK(files_.CreateDirs("/1"));
  EXPECT_ERROR(files_.CreateDirs("/2"), Code::kIo);
  ASSERT_OK(files_.CreateDirs("/3"));
  EXPECT_EQ(files_.mutating_calls(), before + 3);
  EXPECT_FALSE(Exists(files_, "/2"));
}

TEST_F(FaultFilesTest, FailsFromTheNthCallUntilCleared) {
  files_.FailFrom(2, Error(Code::kOutOfSpace, "injected"));
  ASSERT_OK(files_.CreateDirs("/1"));
  EXPECT_ERROR(files_.CreateDirs("/2"), Code::kOutOfSpace);
  EXPECT_ERROR(files_.SyncDir("/"), Code::kOutOfSpace);
  files_.ClearFailures();
  ASSERT_OK(files_.CreateDirs("/2"));
}

TEST_F(FaultFilesTest, AFailingWriteHasWrittenHalf) {
  ASSERT_OK_AND_ASSIGN(auto file, files_.Open("/store/a/x", Mode::kCreateNew));
  files_.FailCall(1, Error(Code::kIo, "injected"));
  EXPECT_ERROR(Write(*file, 0, "abcdef"), Code::kIo);
  EXPECT_EQ(Content(files_, "/store/a/x"), "abc");
}

TEST_F(FaultFilesTest, AFailingSyncMakesNothingDurable) {
  MakeFile(files_, "/store/a/x", "old");
  ASSERT_OK(files_.SyncDir("/store/a"));
  std::set<std::string> outcomes;
  for (uint64_t seed = 0; seed < 30; ++seed) {
    ASSERT_OK_AND_ASSIGN(auto file, files_.Open("/store/a/x", Mode::kReadWrite));
    ASSERT_OK(Write(*file, 0, "new"));
    files_.FailCall(1, Error(Code::kIo, "injected"));
    EXPECT_ERROR(file->Sync(), Code::kIo);
    files_.Crash(seed);
    outcomes.insert(Content(files_, "/store/a/x"));
    if (outcomes.contains("old")) return;
    ASSERT_OK_AND_ASSIGN(file, files_.Open("/store/a/x", Mode::kReadWrite));
    ASSERT_OK(Write(*file, 0, "old"));
    ASSERT_OK(file->Sync());
  }
  FAIL() << "no seed lost the write";
}

TEST_F(FaultFilesTest, AFullDiskRefusesToGrowAndLetsDelete) {
  ASSERT_OK_AND_ASSIGN(auto file, files_.Open("/store/a/x", Mode::kCreateNew));
  files_.SetCapacity(10);
  ASSERT_OK(Write(*file, 0, "0123456789"));
  EXPECT_EQ(files_.Space("/store").value().available_bytes, 0u);
  EXPECT_ERROR(Write(*file, 10, "x"), Code::kOutOfSpace);
  EXPECT_ERROR(file->Truncate(11), Code::kOutOfSpace);
  EXPECT_ERROR(files_.Open("/store/a/y", Mode::kCreateNew), Code::kOutOfSpace);
  EXPECT_OK(Write(*file, 0, "overwrites"));
  EXPECT_EQ(files_.used_bytes(), 10u);
  ASSERT_OK(files_.Remove("/store/a/x"));
  EXPECT_EQ(files_.Space("/store").value().available_bytes, 10u);
}

TEST_F(FaultFilesTest, WithSectorsATornWriteKeepsWholeOnes) {
  files_.SetSectorBytes(4);
  int mixtures = 0;
  for (uint64_t seed = 1; seed <= 30; ++seed) {
    std::string path = "/store/a/x" + std::to_string(seed);
    MakeFile(files_, path, "aaaabbbbcc");
    ASSERT_OK(files_.SyncDir("/store/a"));
    ASSERT_OK_AND_ASSIGN(auto file, files_.Open(path, Mode::kReadWrite));
    ASSERT_OK(Write(*file, 2, "XXYYYYZZ"));
    files_.Crash(seed);
    std::string content = Content(files_, path);
    for (auto [offset, was, is] :
         {std::tuple{0, "aaaa", "aaXX"}, {4, "bbbb", "YYYY"}, {8, "cc", "ZZ"}}) {
      std::string sector = content.substr(offset, 4);
      EXPECT_TRUE(sector == was || sector == is) << content;
    }
    mixtures += content != "aaaabbbbcc" && content != "aaXXYYYYZZ";
  }
  EXPECT_GT(mixtures, 3);
}

TEST_F(FaultFilesTest, AFlippedBitIsReadAndSurvivesACrash) {
  MakeFile(files_, "/store/a/x", "abc");
  ASSERT_OK(files_.SyncDir("/store/a"));
  files_.FlipBit("/store/a/x", 8);  // the lowest of 'b'
  EXPECT_EQ(Content(files_, "/store/a/x"), "acc");
  files_.Crash(1);
  EXPECT_EQ(Content(files_, "/store/a/x"), "acc");
}

}  // namespace
}  // namespace support
