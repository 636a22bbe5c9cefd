#include "controlplane/cli/chunk_assembly.h"

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include <gtest/gtest.h>
#include <unistd.h>

#include "base/files.h"
#include "chunkstore/blob_format.h"
#include "controlplane/cli/image_pull.h"
#include "tests/support/results.h"
#include "tests/support/temp_dir.h"

namespace controlplane::cli {
namespace {

using imaged::ChunkRun;
using Runs = std::vector<ChunkRun>;

constexpr size_t kChunk = chunkstore::kChunkBytes;

std::string Fill(char byte) { return std::string(kChunk, byte); }

FileChunks ChunksOf(const std::string& bytes) {
  FileChunks chunks;
  chunks.size_bytes = bytes.size();
  for (size_t at = 0; at < bytes.size(); at += kChunk) {
    const std::string chunk = bytes.substr(at, kChunk);
    const bool zero = base::IsZero(base::AsBytes(chunk));
    chunks.ids.push_back(zero ? base::Digest256{} : base::Sha256(base::AsBytes(chunk)));
  }
  return chunks;
}

class ChunkAssemblyTest : public testing::Test {
 protected:
  // The file as an earlier pull has left it.
  void There(const std::string& bytes) {
    ASSERT_OK(base::WriteFileDurably(path_, bytes));
    ASSERT_EQ(::truncate(path_.c_str(), static_cast<off_t>(image_.size())), 0);
    std::string there = bytes;
    there.resize(image_.size());
    ASSERT_OK_AND_ASSIGN(file_, base::SystemFiles().Open(path_, base::Files::Mode::kReadWrite));
    assembly_.emplace(*file_, chunks_, ChunksOf(there));
    ASSERT_OK(assembly_->ClearHoles());
  }
  void Put(const std::string& bytes) {
    ASSERT_OK(assembly_->Put(base::Sha256(base::AsBytes(bytes)), base::AsBytes(bytes)));
  }
  std::string Content() {
    auto content = base::ReadWholeFile(path_, 100 * base::kMiB);
    EXPECT_OK(content);
    return content.value_or("");
  }

  support::TempDir dir_;
  const std::string path_ = dir_ / "part";
  // a, a hole, b, a again, and a short end.
  const std::string image_ = Fill('a') + Fill('\0') + Fill('b') + Fill('a') + "end";
  const FileChunks chunks_ = ChunksOf(image_);
  std::unique_ptr<base::File> file_;
  std::optional<ChunkAssembly> assembly_;
};

TEST_F(ChunkAssemblyTest, PutsEachChunkWhereItBelongs) {
  There("");
  EXPECT_EQ(assembly_->complete_bytes(), kChunk);
  EXPECT_EQ(assembly_->Missing(100), (Runs{{0, 1}, {2, 1}, {4, 1}}));
  EXPECT_EQ(assembly_->Missing(2), (Runs{{0, 1}, {2, 1}}));
  EXPECT_EQ(assembly_->Missing(0), Runs());
  Put(Fill('a'));
  EXPECT_EQ(assembly_->complete_bytes(), 3 * kChunk);
  Put("nobody wants this");
  EXPECT_EQ(assembly_->Missing(100), (Runs{{2, 1}, {4, 1}}));
  Put("end");
  Put(Fill('b'));
  EXPECT_EQ(assembly_->complete_bytes(), image_.size());
  EXPECT_EQ(assembly_->Missing(100), Runs());
  EXPECT_TRUE(Content() == image_);
  ASSERT_OK_AND_ASSIGN(const base::FileInfo info, base::SystemFiles().Stat(path_));
  EXPECT_LT(info.allocated_bytes, image_.size() - kChunk / 2) << "the hole takes space";
}

TEST_F(ChunkAssemblyTest, KeepsWhatIsRightAndMendsWhatIsNot) {
  std::string torn = Fill('b');
  torn.replace(kChunk / 2, std::string::npos, std::string(kChunk / 2, 'x'));
  There(Fill('a') + Fill('x') + torn + Fill('a').substr(0, kChunk / 3));
  EXPECT_EQ(assembly_->complete_bytes(), 2 * kChunk);
  EXPECT_EQ(assembly_->Missing(100), (Runs{{2, 3}}));
  Put(Fill('b'));
  Put(Fill('a'));
  Put("end");
  EXPECT_TRUE(Content() == image_);
}

// Zeros within a chunk that takes the place of something else.
TEST_F(ChunkAssemblyTest, ZerosTakeThePlaceOfWhatWasThere) {
  const std::string sparse = std::string(kChunk - 1, '\0') + "z";
  const FileChunks chunks = ChunksOf(sparse);
  ASSERT_OK(base::WriteFileDurably(path_, Fill('x')));
  ASSERT_OK_AND_ASSIGN(file_, base::SystemFiles().Open(path_, base::Files::Mode::kReadWrite));
  ChunkAssembly assembly(*file_, chunks, ChunksOf(Fill('x')));
  ASSERT_OK(assembly.Put(chunks.ids[0], base::AsBytes(sparse)));
  EXPECT_TRUE(Content() == sparse);
}

// A service may name one id for chunks of two lengths.
TEST_F(ChunkAssemblyTest, AChunkDoesNotGoWhereItDoesNotFit) {
  FileChunks chunks = chunks_;
  chunks.ids[4] = chunks.ids[0];
  std::string there(image_.size(), '\0');
  ASSERT_OK(base::WriteFileDurably(path_, there));
  ASSERT_OK_AND_ASSIGN(file_, base::SystemFiles().Open(path_, base::Files::Mode::kReadWrite));
  ChunkAssembly assembly(*file_, chunks, ChunksOf(there));
  ASSERT_OK(assembly.Put(chunks.ids[0], base::AsBytes(Fill('a'))));
  EXPECT_EQ(Content().size(), image_.size());
  EXPECT_EQ(assembly.Missing(100), (Runs{{2, 1}, {4, 1}}));
  EXPECT_TRUE(assembly.Lacks(chunks.ids[4]));
}

TEST(PullSummaryTest, SaysWhatWasFetched) {
  const auto summary = [](uint64_t total, uint64_t zero, uint64_t here, uint64_t fetched) {
    return PullSummary(base::JsonObject{{"bytes_total", total},
                                        {"bytes_zero", zero},
                                        {"bytes_already_here", here},
                                        {"bytes_fetched", fetched}});
  };
  EXPECT_EQ(summary(1000, 0, 0, 900), "fetched 900 B of 1000 B");
  EXPECT_EQ(summary(1000, 500, 400, 60), "fetched 60 B of 1000 B; 80 % was here");
  EXPECT_EQ(summary(1000, 1000, 0, 60), "nothing but zeros");
  EXPECT_EQ(summary(0, 0, 0, 0), "empty");
}

}  // namespace
}  // namespace controlplane::cli
