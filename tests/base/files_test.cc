#include "base/files.h"

#include <algorithm>
#include <vector>

#include <gtest/gtest.h>
#include <sys/stat.h>

#include "tests/support/fault_files.h"
#include "tests/support/results.h"
#include "tests/support/temp_dir.h"

namespace base {
namespace {

using Mode = Files::Mode;

Result<void> Write(File& file, uint64_t offset, std::string_view text) {
  ByteView bytes = AsBytes(text);
  return file.WriteAt(offset, {&bytes, 1});
}

std::string Read(const File& file, uint64_t offset, size_t size) {
  std::string text(size, '\0');
  EXPECT_OK(file.ReadAt(offset, {reinterpret_cast<uint8_t*>(text.data()), size}));
  return text;
}

// What every Files promises: the machine's, and the one in memory that tests hand in instead.
class FilesContract : public testing::TestWithParam<bool> {
 protected:
  void SetUp() override { ASSERT_OK(files_.CreateDirs(dir_.path())); }

  support::TempDir dir_;
  support::FaultFiles memory_;
  Files& files_ = GetParam() ? SystemFiles() : static_cast<Files&>(memory_);
};

INSTANTIATE_TEST_SUITE_P(All, FilesContract, testing::Bool(), [](const auto& info) {
  return std::string(info.param ? "Machine" : "Memory");
});

// What only real files have.
class FilesTest : public testing::Test {
 protected:
  support::TempDir dir_;
  Files& files_ = SystemFiles();
};

TEST_P(FilesContract, WritesAndReadsAtOffsets) {
  ASSERT_OK_AND_ASSIGN(auto file, files_.Open(dir_ / "x", Mode::kCreateNew));
  std::vector<ByteView> pieces = {AsBytes("abc"), {}, AsBytes("defg"), {}};
  ASSERT_OK(file->WriteAt(2, pieces));
  EXPECT_EQ(file->Size().value(), 9u);
  EXPECT_EQ(Read(*file, 0, 9), std::string("\0\0abcdefg", 9));
  EXPECT_EQ(Read(*file, 4, 2), "cd");
  ASSERT_OK(file->WriteAt(0, {}));
  ASSERT_OK(file->Sync());
  file->StartWriteback();
}

TEST_P(FilesContract, WritesMorePiecesThanOneSystemCallTakes) {
  ASSERT_OK_AND_ASSIGN(auto file, files_.Open(dir_ / "x", Mode::kCreateNew));
  std::vector<std::string> texts;
  std::string whole;
  for (int i = 0; i < 1000; ++i) {
    texts.push_back(std::to_string(i) + ";");
    whole += texts.back();
  }
  std::vector<ByteView> pieces;
  for (const std::string& text : texts) pieces.push_back(AsBytes(text));
  ASSERT_OK(file->WriteAt(0, pieces));
  EXPECT_EQ(Read(*file, 0, whole.size()), whole);
}

TEST_P(FilesContract, PunchedBytesReadAsZerosAndTheLengthStays) {
  ASSERT_OK_AND_ASSIGN(auto file, files_.Open(dir_ / "x", Mode::kCreateNew));
  ASSERT_OK(Write(*file, 0, std::string(3 * 4096, 'x')));
  ASSERT_OK(file->PunchHole(4096, 4096));
  ASSERT_OK(file->PunchHole(0, 0));
  ASSERT_OK(file->PunchHole(2 * 4096 + 512, kMiB));
  std::string expected = std::string(4096, 'x') + std::string(4096, '\0') + std::string(512, 'x') +
                         std::string(4096 - 512, '\0');
  EXPECT_EQ(Read(*file, 0, 3 * 4096), expected);
  EXPECT_EQ(file->Size().value(), 3u * 4096);
}

TEST_P(FilesContract, AllocatedBytesReadAsZerosAndWhatWasThereStays) {
  ASSERT_OK_AND_ASSIGN(auto file, files_.Open(dir_ / "x", Mode::kCreateNew));
  ASSERT_OK(Write(*file, 0, "abc"));
  ASSERT_OK(file->Allocate(kMiB));
  EXPECT_EQ(file->Size().value(), kMiB);
  EXPECT_EQ(Read(*file, 0, 5), std::string("abc\0\0", 5));
  ASSERT_OK(file->Allocate(4096));
  EXPECT_EQ(file->Size().value(), kMiB);
  ASSERT_OK_AND_ASSIGN(FileInfo info, files_.Stat(dir_ / "x"));
  EXPECT_GE(info.allocated_bytes, kMiB);
}

TEST_P(FilesContract, TriesToReadWhatIsInMemory) {
  ASSERT_OK_AND_ASSIGN(auto file, files_.Open(dir_ / "x", Mode::kCreateNew));
  ASSERT_OK(Write(*file, 0, "abcdef"));
  std::string text(3, '\0');
  MutableByteView into{reinterpret_cast<uint8_t*>(text.data()), text.size()};
  ASSERT_OK_AND_ASSIGN(bool there, file->TryReadAt(1, into));
  if (there) EXPECT_EQ(text, "bcd");
  file->WillRead(0, 6);
}

TEST_P(FilesContract, ReadingBeyondTheEndIsCutShort) {
  ASSERT_OK_AND_ASSIGN(auto file, files_.Open(dir_ / "x", Mode::kCreateNew));
  ASSERT_OK(Write(*file, 0, "abc"));
  std::vector<uint8_t> into(4);
  auto read = file->ReadAt(0, into);
  ASSERT_ERROR(read, Code::kCorruption);
  EXPECT_NE(read.error().message().find("cut short"), std::string::npos);
}

TEST_P(FilesContract, TruncateCutsAndExtends) {
  ASSERT_OK_AND_ASSIGN(auto file, files_.Open(dir_ / "x", Mode::kCreateNew));
  ASSERT_OK(Write(*file, 0, "abc"));
  ASSERT_OK(file->Truncate(1));
  ASSERT_OK(file->Truncate(3));
  EXPECT_EQ(Read(*file, 0, 3), std::string("a\0\0", 3));
}

TEST_P(FilesContract, ModesSayWhatMayBeThere) {
  EXPECT_ERROR(files_.Open(dir_ / "x", Mode::kRead), Code::kNotFound);
  EXPECT_ERROR(files_.Open(dir_ / "x", Mode::kReadWrite), Code::kNotFound);
  ASSERT_OK(files_.Open(dir_ / "x", Mode::kCreateOrOpen));
  ASSERT_OK(files_.Open(dir_ / "x", Mode::kCreateOrOpen));
  EXPECT_ERROR(files_.Open(dir_ / "x", Mode::kCreateNew), Code::kAlreadyExists);
  ASSERT_OK_AND_ASSIGN(auto read_only, files_.Open(dir_ / "x", Mode::kRead));
  EXPECT_ERROR(Write(*read_only, 0, "a"), Code::kIo);
}

TEST_P(FilesContract, ErrorsNameTheFile) {
  std::string path = dir_ / "missing";
  auto opened = files_.Open(path, Mode::kRead);
  ASSERT_ERROR(opened, Code::kNotFound);
  EXPECT_NE(opened.error().message().find(path), std::string::npos);
}

TEST_P(FilesContract, NamesAreMadeMovedListedAndRemoved) {
  ASSERT_OK(files_.CreateDirs(dir_ / "a/b/"));
  ASSERT_OK(files_.CreateDirs(dir_ / "a/b"));
  ASSERT_OK(files_.Open(dir_ / "a/x", Mode::kCreateNew));
  ASSERT_OK(files_.Open(dir_ / "a/y", Mode::kCreateNew));
  ASSERT_OK(files_.Rename(dir_ / "a/x", dir_ / "a/y"));
  ASSERT_OK(files_.SyncDir(dir_ / "a"));
  ASSERT_OK_AND_ASSIGN(auto names, files_.List(dir_ / "a"));
  std::sort(names.begin(), names.end());
  EXPECT_EQ(names, (std::vector<std::string>{"b", "y"}));
  EXPECT_TRUE(files_.Stat(dir_ / "a/b").value().is_directory);
  EXPECT_FALSE(files_.Stat(dir_ / "a/y").value().is_directory);
  EXPECT_ERROR(files_.CreateDirs(dir_ / "a/y"), Code::kIo);
  EXPECT_ERROR(files_.CreateDirs(dir_ / "a/y/z"), Code::kIo);
  ASSERT_OK(files_.Remove(dir_ / "a/y"));
  EXPECT_ERROR(files_.Remove(dir_ / "a/y"), Code::kNotFound);
  EXPECT_ERROR(files_.List(dir_ / "nowhere"), Code::kNotFound);
  EXPECT_ERROR(files_.SyncDir(dir_ / "nowhere"), Code::kNotFound);
}

TEST_F(FilesTest, HaveADescriptor) {
  ASSERT_OK_AND_ASSIGN(auto file, files_.Open(dir_ / "x", Mode::kCreateNew));
  EXPECT_GE(file->descriptor(), 0);
}

TEST_F(FilesTest, HolesTakeNoSpace) {
  ASSERT_OK_AND_ASSIGN(auto file, files_.Open(dir_ / "x", Mode::kCreateNew));
  ASSERT_OK(file->Truncate(kGiB));
  ASSERT_OK_AND_ASSIGN(FileInfo info, files_.Stat(dir_ / "x"));
  EXPECT_EQ(info.size_bytes, kGiB);
  EXPECT_LT(info.allocated_bytes, kMiB);
  EXPECT_GT(info.modified_us, 0);
}

TEST_P(FilesContract, SpaceIsPlausible) {
  ASSERT_OK_AND_ASSIGN(SpaceInfo space, files_.Space(dir_.path()));
  EXPECT_GT(space.capacity_bytes, 0u);
  EXPECT_LE(space.available_bytes, space.capacity_bytes);
}

TEST_F(FilesTest, AFullDiskIsOutOfSpace) {
  ASSERT_OK_AND_ASSIGN(auto full, files_.Open("/dev/full", Mode::kReadWrite));
  EXPECT_ERROR(Write(*full, 0, "abc"), Code::kOutOfSpace);
}

TEST_F(FilesTest, WholeFilesAreReadUpToALimit) {
  std::string text(200'000, 'x');
  ASSERT_OK(WriteFileDurably(dir_ / "x", text));
  EXPECT_EQ(ReadWholeFile(dir_ / "x", text.size()).value(), text);
  EXPECT_ERROR(ReadWholeFile(dir_ / "x", text.size() - 1), Code::kTooLarge);
  EXPECT_ERROR(ReadWholeFile(dir_ / "y", 10), Code::kNotFound);
}

TEST_F(FilesTest, DurableWriteReplacesSetsModeAndLeavesNothingBeside) {
  ASSERT_OK(WriteFileDurably(dir_ / "x", "old"));
  ASSERT_OK(WriteFileDurably(dir_ / "x", "new", 0600));
  EXPECT_EQ(ReadWholeFile(dir_ / "x", 10).value(), "new");
  struct stat info;
  ASSERT_EQ(stat((dir_ / "x").c_str(), &info), 0);
  EXPECT_EQ(info.st_mode & 0777, 0600u);
  EXPECT_ERROR(WriteFileDurably(dir_ / "no/x", "new"), Code::kNotFound);
  ASSERT_OK(files_.CreateDirs(dir_ / "dir"));
  EXPECT_ERROR(WriteFileDurably(dir_ / "dir", "new"), Code::kIo);
  EXPECT_EQ(files_.List(dir_.path()).value().size(), 2u);
}

// What is on the grid of pages takes another way to the disk than what is not; nobody may see
// which.
TEST(SystemFilesTest, WritesBulkOnAndOffTheGridOfPages) {
  support::TempDir dir;
  std::string noise(5 * kMiB + 123, '\0');
  for (size_t i = 0; i < noise.size(); ++i) noise[i] = static_cast<char>(i * 31 + i / 4096);
  Buffer buffer(noise.size());
  std::copy(noise.begin(), noise.end(), reinterpret_cast<char*>(buffer.data()));
  std::string small = "a table and a trailer";
  for (size_t shift : {0, 1, 4096}) {
    for (uint64_t offset : {0, 4096, 100}) {
      for (size_t length : {kMiB - 1, kMiB, kMiB + 1, 4 * kMiB, 5 * kMiB + 7}) {
        std::string path = dir / "bulk";
        auto opened = SystemFiles().Open(path, Files::Mode::kCreateNew);
        ASSERT_OK(opened);
        length = std::min(length, noise.size() - shift);
        const ByteView pieces[] = {buffer.view().subspan(shift, length), AsBytes(small)};
        ASSERT_OK((*opened)->WriteBulkAt(offset, pieces));
        ASSERT_OK((*opened)->Sync());
        auto content = ReadWholeFile(path, 16 * kMiB);
        ASSERT_OK(content);
        ASSERT_TRUE(*content == std::string(offset, '\0') + noise.substr(shift, length) + small)
            << shift << " " << offset << " " << length;
        ASSERT_OK(SystemFiles().Remove(path));
      }
    }
  }
}

}  // namespace
}  // namespace base
