#include "controlplane/cli/image_chunks.h"

#include <cstring>
#include <string>
#include <vector>

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/files.h"
#include "chunkstore/blob_format.h"
#include "controlplane/cli/chunk_stream_body.h"
#include "controlplane/cli/image_blocks.h"
#include "controlplane/cli/image_transfer.h"
#include "imaged/chunk_wire.h"
#include "imaged/recipe_wire.h"
#include "tests/support/results.h"
#include "tests/support/temp_dir.h"

namespace controlplane::cli {
namespace {

using base::Code;

constexpr size_t kChunk = chunkstore::kChunkBytes;

class ImageChunksTest : public testing::Test {
 protected:
  ImageChunksTest() { Write(std::string(kChunk, 'a') + std::string(kChunk, '\0') + "tail"); }

  void Write(const std::string& bytes) {
    bytes_ = bytes;
    EXPECT_OK(base::WriteFileDurably(path_, bytes));
  }
  // In place, as a guest that still runs would. `later` makes the change visible by its time.
  void Overwrite(size_t at, const std::string& bytes, bool later = true) {
    const int file = ::open(path_.c_str(), O_WRONLY | O_CLOEXEC);
    struct stat state{};
    ::fstat(file, &state);
    EXPECT_EQ(::pwrite(file, bytes.data(), bytes.size(), static_cast<off_t>(at)),
              static_cast<ssize_t>(bytes.size()));
    timespec times[2] = {state.st_atim, state.st_mtim};
    if (later) times[1].tv_sec += 10;
    ::futimens(file, times);
    ::close(file);
  }
  static base::Result<FileChunks> Hash(const ImageSource& source) {
    return HashChunks(source, [](uint64_t) {});
  }
  // All of the body, in pieces of this size.
  static base::Result<std::string> Drain(ChunkStreamBody& body, size_t piece) {
    std::string all;
    std::vector<uint8_t> buffer(piece);
    while (true) {
      ASSIGN_OR_RETURN(const size_t count, body.Fill(buffer));
      if (count == 0) return all;
      all.append(reinterpret_cast<const char*>(buffer.data()), count);
    }
  }

  support::TempDir dir_;
  const std::string path_ = dir_ / "disk.raw";
  std::string bytes_;
};

TEST_F(ImageChunksTest, HashesWhatIsNotZero) {
  ASSERT_OK_AND_ASSIGN(const auto source, ImageSource::Open(path_));
  ASSERT_OK_AND_ASSIGN(const FileChunks chunks, Hash(*source));
  EXPECT_EQ(chunks.size_bytes, bytes_.size());
  EXPECT_EQ(chunks.zero_bytes, kChunk);
  ASSERT_EQ(chunks.ids.size(), 3u);
  EXPECT_EQ(chunks.ids[0], base::Sha256(base::AsBytes(bytes_).first(kChunk)));
  EXPECT_TRUE(imaged::IsHole(chunks.ids[1]));
  EXPECT_EQ(chunks.ids[2], base::Sha256(base::AsBytes("tail")));
}

TEST_F(ImageChunksTest, HolesOfTheFileAreZeros) {
  ASSERT_EQ(::truncate(path_.c_str(), 0), 0);
  ASSERT_EQ(::truncate(path_.c_str(), 20 * kChunk + 1), 0);
  Overwrite(7 * kChunk + 5, "x");
  ASSERT_OK_AND_ASSIGN(const auto source, ImageSource::Open(path_));
  ASSERT_OK_AND_ASSIGN(const FileChunks chunks, Hash(*source));
  ASSERT_EQ(chunks.ids.size(), 21u);
  EXPECT_EQ(chunks.zero_bytes, 19 * kChunk + 1);
  for (size_t i = 0; i < 21; ++i) EXPECT_EQ(imaged::IsHole(chunks.ids[i]), i != 7) << i;
}

TEST_F(ImageChunksTest, TheBodyNamesAllButWhatIsSent) {
  ASSERT_OK_AND_ASSIGN(const auto source, ImageSource::Open(path_));
  ASSERT_OK_AND_ASSIGN(const FileChunks chunks, Hash(*source));
  std::string expected = imaged::EncodeChunkStreamHeader({.size_bytes = bytes_.size()});
  imaged::AppendChunkEntry(&expected, {imaged::ChunkHow::kNamed, chunks.ids[0]});
  imaged::AppendChunkEntry(&expected, {imaged::ChunkHow::kHole, {}});
  imaged::AppendChunkEntry(&expected, {imaged::ChunkHow::kSent, chunks.ids[2]});
  expected += "tail";
  for (const size_t piece : {size_t{1}, size_t{50}, size_t{1} << 20}) {
    const SendPlan plan{.wanted = {false, false, true}, .recipes = {}, .frames = false};
    ChunkStreamBody body(*source, chunks, plan);
    EXPECT_EQ(body.size_bytes(), expected.size());
    ASSERT_OK_AND_ASSIGN(const std::string sent, Drain(body, piece));
    EXPECT_EQ(sent, expected);
    EXPECT_EQ(body.file_bytes(), 4u);
  }
}

// Bytes of which no page is like another.
std::string Noise(size_t size, uint32_t seed) {
  std::string bytes(size, '\0');
  uint64_t state = seed * 0x9e3779b97f4a7c15u + 1;
  for (char& byte : bytes) {
    state = state * 6364136223846793005u + 1442695040888963407u;
    byte = static_cast<char>(state >> 56);
  }
  return bytes;
}

ServiceBlocks BlocksOf(const std::vector<std::string>& chunks) {
  ServiceBlocks blocks;
  for (const std::string& chunk : chunks) {
    const base::ByteView bytes = base::AsBytes(chunk);
    for (const chunkstore::Block& block : chunkstore::HashBlocks(bytes)) {
      blocks.Add(base::Sha256(bytes), block.plain_offset, block.plain_length, block.hash);
    }
  }
  return blocks;
}

// As the service does it.
std::string Made(const ChunkRecipe& recipe, const std::vector<std::string>& chunks,
                 const std::string& chunk) {
  std::string made;
  for (const imaged::RecipePiece& piece : recipe.pieces) {
    if (piece.how == imaged::RecipePiece::How::kZeros) made += std::string(piece.length, '\0');
    if (piece.how == imaged::RecipePiece::How::kSent)
      made += chunk.substr(made.size(), piece.length);
    if (piece.how != imaged::RecipePiece::How::kNamed) continue;
    for (const std::string& other : chunks) {
      if (base::Sha256(base::AsBytes(other)) != recipe.owners[piece.owner]) continue;
      made += other.substr(piece.offset, piece.length);
    }
  }
  return made;
}

TEST(CookChunkTest, TakesWhatLiesElsewhere) {
  const std::vector<std::string> there = {Noise(kChunk, 1), Noise(kChunk, 2), Noise(70'000, 3)};
  const std::string page = Noise(4096, 4);
  const std::string chunk = there[1].substr(0, 1'048'576) + page + std::string(1'048'576, '\0') +
                            there[0].substr(2'097'152, 1'500'000) + there[2];
  const ServiceBlocks blocks = BlocksOf(there);
  const auto recipe = CookChunk(base::AsBytes(chunk), blocks);
  ASSERT_TRUE(recipe.has_value());
  EXPECT_EQ(Made(*recipe, there, chunk), chunk);
  EXPECT_LT(recipe->sent_bytes, 8 * chunkstore::kMaxBlockBytes);
  EXPECT_GT(recipe->zero_bytes, 1'048'576 - 2 * chunkstore::kMaxBlockBytes);
  EXPECT_EQ(recipe->sent_bytes + recipe->zero_bytes + recipe->named_bytes, chunk.size());
  EXPECT_LT(recipe->pieces.size(), 20u) << "neighbours are one piece";
  EXPECT_FALSE(CookChunk(base::AsBytes(Noise(kChunk, 5)), blocks).has_value());
  EXPECT_FALSE(CookChunk(base::AsBytes(chunk.substr(0, 300'000)), ServiceBlocks()).has_value());
}

TEST_F(ImageChunksTest, ABodyOfRecipes) {
  // Nothing of the first chunk has to be sent, of the second and last a little, or all.
  const std::vector<std::string> there = {Noise(kChunk, 1), Noise(kChunk, 2)};
  Write(there[1] + Noise(8192, 9) + there[0].substr(8192) + "tail");
  ASSERT_OK_AND_ASSIGN(const auto source, ImageSource::Open(path_));
  ASSERT_OK_AND_ASSIGN(const FileChunks chunks, Hash(*source));
  SendPlan plan{.wanted = {true, true, true}, .recipes = {}, .frames = false};
  ASSERT_OK_AND_ASSIGN(plan.recipes, CookChunks(*source, chunks, plan.wanted, BlocksOf(there)));
  ASSERT_TRUE(plan.recipes[0].has_value() && plan.recipes[1].has_value());
  ASSERT_FALSE(plan.recipes[2].has_value());
  EXPECT_EQ(plan.recipes[0]->sent_bytes, 0u);
  const size_t sent_bytes = plan.recipes[1]->sent_bytes;
  EXPECT_EQ(plan.FileBytes(chunks), sent_bytes + 4);

  std::string expected = imaged::EncodeChunkStreamHeader({.size_bytes = bytes_.size()}, 2);
  imaged::AppendChunkEntry(&expected, {imaged::ChunkHow::kAssembled, chunks.ids[0]});
  imaged::AppendChunkEntry(&expected, {imaged::ChunkHow::kAssembled, chunks.ids[1]});
  imaged::AppendChunkEntry(&expected, {imaged::ChunkHow::kSent, chunks.ids[2]});
  imaged::Recipes recipes{.owners = {chunks.ids[0], base::Sha256(base::AsBytes(there[0]))},
                          .chunks = {plan.recipes[0]->pieces, plan.recipes[1]->pieces}};
  for (imaged::RecipePiece& piece : recipes.chunks[1]) {
    if (piece.how == imaged::RecipePiece::How::kNamed) piece.owner = 1;
  }
  expected += imaged::EncodeRecipes(recipes) + bytes_.substr(kChunk, sent_bytes) + "tail";
  for (const size_t piece : {size_t{1000}, size_t{1} << 20}) {
    ChunkStreamBody body(*source, chunks, plan);
    EXPECT_EQ(body.size_bytes(), expected.size());
    ASSERT_OK_AND_ASSIGN(const std::string sent, Drain(body, piece));
    EXPECT_TRUE(sent == expected);
    EXPECT_EQ(body.file_bytes(), sent_bytes + 4);
  }
}

TEST_F(ImageChunksTest, ABodyOfFrames) {
  // What compresses, a hole, what does not; nothing is known of its size before.
  Write(std::string(kChunk, 'a') + std::string(kChunk, '\0') + Noise(200'000, 3));
  ASSERT_OK_AND_ASSIGN(const auto source, ImageSource::Open(path_));
  ASSERT_OK_AND_ASSIGN(const FileChunks chunks, Hash(*source));
  const SendPlan plan{.wanted = {true, false, true}, .recipes = {}, .frames = true};
  std::string expected = imaged::EncodeChunkStreamHeader(
      {.size_bytes = bytes_.size(), .frames = true}, imaged::kRecipeStreamVersion);
  imaged::AppendChunkEntry(&expected, {imaged::ChunkHow::kSent, chunks.ids[0]});
  imaged::AppendChunkEntry(&expected, {imaged::ChunkHow::kHole, {}});
  imaged::AppendChunkEntry(&expected, {imaged::ChunkHow::kSent, chunks.ids[2]});
  expected += imaged::EncodeRecipes({});
  imaged::SentFramesWriter writer;
  expected += writer.Encode(base::AsBytes(bytes_).first(kChunk));
  expected += writer.Encode(base::AsBytes(bytes_).subspan(2 * kChunk));
  EXPECT_LT(expected.size(), 210'000u);
  for (const size_t piece : {size_t{1}, size_t{1} << 20}) {
    ChunkStreamBody body(*source, chunks, plan);
    EXPECT_FALSE(body.size_bytes().has_value());
    ASSERT_OK_AND_ASSIGN(const std::string sent, Drain(body, piece));
    EXPECT_TRUE(sent == expected);
    EXPECT_EQ(body.file_bytes(), kChunk + 200'000);
  }
  // It does not end if the file has changed.
  ChunkStreamBody body(*source, chunks, plan);
  std::vector<uint8_t> buffer(1);
  for (size_t out = 0; out < expected.size(); ++out) ASSERT_OK(body.Fill(buffer));
  Overwrite(kChunk, "b");
  EXPECT_ERROR(body.Fill(buffer), Code::kCancelled);
}

TEST_F(ImageChunksTest, AChangeIsSeenBeforeTheLastByteLeaves) {
  ASSERT_OK_AND_ASSIGN(const auto source, ImageSource::Open(path_));
  ASSERT_OK_AND_ASSIGN(const FileChunks chunks, Hash(*source));
  const SendPlan plan{.wanted = {false, false, false}, .recipes = {}, .frames = false};
  ChunkStreamBody body(*source, chunks, plan);
  Overwrite(0, "b");  // in a chunk that is only named
  std::vector<uint8_t> buffer(1);
  for (size_t out = 0; out + 1 < body.size_bytes(); ++out) ASSERT_OK(body.Fill(buffer));
  EXPECT_ERROR(body.Fill(buffer), Code::kCancelled);
}

TEST_F(ImageChunksTest, SentBytesAreThoseThatWereHashed) {
  ASSERT_OK_AND_ASSIGN(const auto source, ImageSource::Open(path_));
  ASSERT_OK_AND_ASSIGN(const FileChunks chunks, Hash(*source));
  Overwrite(2 * kChunk, "T", /*later=*/false);
  const SendPlan plan{.wanted = {false, false, true}, .recipes = {}, .frames = false};
  ChunkStreamBody body(*source, chunks, plan);
  const auto sent = Drain(body, 1000);
  ASSERT_FALSE(sent.has_value());
  EXPECT_EQ(sent.error().code(), Code::kCancelled);
  EXPECT_NE(sent.error().message().find("changed while it was pushed"), std::string::npos);
}

TEST_F(ImageChunksTest, AFileThatGetsShorterChanged) {
  ASSERT_OK_AND_ASSIGN(const auto source, ImageSource::Open(path_));
  ASSERT_OK_AND_ASSIGN(const FileChunks chunks, Hash(*source));
  ASSERT_EQ(::truncate(path_.c_str(), kChunk), 0);
  const SendPlan plan{.wanted = {false, false, true}, .recipes = {}, .frames = false};
  ChunkStreamBody body(*source, chunks, plan);
  EXPECT_ERROR(Drain(body, 1000), Code::kCancelled);
  EXPECT_ERROR(source->CheckUnchanged(), Code::kCancelled);
  std::vector<uint8_t> buffer(3 * kChunk);
  EXPECT_ERROR(source->Next(buffer), Code::kCancelled);
}

TEST_F(ImageChunksTest, APlainReadSeesAChangeToo) {
  ASSERT_OK_AND_ASSIGN(const auto source, ImageSource::Open(path_));
  std::vector<uint8_t> buffer(2 * kChunk);
  ASSERT_OK(source->Next(buffer));
  Overwrite(0, "b");
  EXPECT_ERROR(source->Next(buffer), Code::kCancelled);
}

TEST(PushSummaryTest, CountsWhatIsNotZero) {
  const auto summary = [](uint64_t total, uint64_t zero, uint64_t there, uint64_t sent) {
    return PushSummary(base::JsonObject{{"bytes_total", total},
                                        {"bytes_zero", zero},
                                        {"bytes_already_there", there},
                                        {"bytes_sent", sent}});
  };
  EXPECT_EQ(summary(2000, 1000, 830, 170), "already there: 83 %, 170 B sent");
  EXPECT_EQ(summary(1000, 0, 1000, 0), "already there: 100 %, nothing sent");
  EXPECT_EQ(summary(1000, 0, 0, 1000), "already there: 0 %, 1000 B sent");
  EXPECT_EQ(summary(1000, 1000, 0, 60), "nothing but zeros");
}

}  // namespace
}  // namespace controlplane::cli
