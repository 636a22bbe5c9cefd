#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "imaged/recipe_wire.h"
#include "imaged/sent_frames.h"
#include "tests/imaged/data/chunk_uploads.h"

// Uploads whose sent bytes come in frames, beside those that come as they are.

namespace imaged {
namespace {

using How = RecipePiece::How;

class ChunkFrames : public ChunkUpload {
 protected:
  ChunkFrames() { Active(base_.bytes); }

  // All of `bytes_`: a chunk that is sent, one of parts of the base and what is new, one of parts
  // alone, and a short one.
  std::string Stream() {
    const uint32_t fresh = 300'000;
    const Recipe recipe = {
        {.how = How::kNamed, .length = 1'000'000, .owner = 0, .offset = 17},
        {.how = How::kSent, .length = fresh - 1},
        {.how = How::kZeros, .length = 5'000},
        {.how = How::kSent, .length = 1},
        {.how = How::kNamed, .length = kChunk - 1'005'000 - fresh, .owner = 0, .offset = 3}};
    const Recipe parts = {{.how = How::kNamed, .length = kChunk - 9, .owner = 0, .offset = 9},
                          {.how = How::kZeros, .length = 9}};
    const std::string_view owner = base_.Chunk(0);
    const std::string text = Text(fresh);
    bytes_ = Text(kChunk);
    bytes_ += std::string(owner.substr(17, 1'000'000)) + text.substr(0, fresh - 1) +
              std::string(5'000, '\0') + text.back() +
              std::string(owner.substr(3, kChunk - 1'005'000 - fresh));
    bytes_ += std::string(owner.substr(9)) + std::string(9, '\0');
    bytes_ += RandomBytes(200'000, 5);
    const Content content(bytes_);
    std::string stream = EncodeChunkStreamHeader({.size_bytes = bytes_.size(), .frames = true},
                                                 kRecipeStreamVersion);
    for (const size_t number : {0, 1, 2, 3}) {
      const bool assembled = number == 1 || number == 2;
      AppendChunkEntry(
          &stream, {assembled ? ChunkHow::kAssembled : ChunkHow::kSent, content.list.ids[number]});
    }
    stream += EncodeRecipes({.owners = {base_.list.ids[0]}, .chunks = {recipe, parts}});
    first_frames_at_ = stream.size();
    SentFramesWriter writer;
    stream += writer.Encode(base::AsBytes(content.Chunk(0)));
    stream += writer.Encode(base::AsBytes(text));
    stream += writer.Encode(base::AsBytes(content.Chunk(3)));
    return stream;
  }
  static std::string Text(size_t size) {
    std::string text;
    for (size_t i = 0; text.size() < size; ++i) text += fmt::format("line {} of a text\n", i * i);
    return text.substr(0, size);
  }
  Answer PutFrames(const std::string& id, std::string_view stream) {
    return service_.Call("p1", "PUT", "/v2/images/" + id + "/file", stream, kRecipeStreamType);
  }

  std::string bytes_;
  size_t first_frames_at_ = 0;
};

TEST_F(ChunkFrames, BringWhatIsSent) {
  const std::string stream = Stream();
  EXPECT_LT(stream.size(), bytes_.size() / 8);
  const std::string id = service_.CreateImage();
  EXPECT_TRUE(DecodeTakesFrames(Ask(id, Content(bytes_).list).body));
  const Answer put = PutFrames(id, stream);
  ASSERT_EQ(put.status, 204) << put.body;
  EXPECT_TRUE(service_.Download(id).body == bytes_);
  EXPECT_EQ(service_.ImageOf(id).os_hash_value, base::Sha256(base::AsBytes(bytes_)).hex());
}

TEST_F(ChunkFrames, LiesLeaveTheImageQueued) {
  const std::string good = Stream();
  const std::string id = service_.CreateImage();
  const size_t lengths = kFrameLengthBytes * FrameCount(kChunk);
  // A frame that is none; a length of 0, of more than it stands for, of another frame's; an end
  // within lengths and within a frame; something behind the last; other bytes, well compressed.
  std::vector<std::string> lies(8, good);
  lies[0][first_frames_at_ + lengths] ^= 1;
  lies[1].replace(first_frames_at_, 4, std::string(4, '\0'));
  lies[2].replace(first_frames_at_ + 4, 4, "\xff\xff\xff\x7f");
  lies[3][first_frames_at_] ^= 1;
  lies[4].resize(first_frames_at_ + 7);
  lies[5].resize(first_frames_at_ + lengths + 100);
  lies[6] += "x";
  SentFramesWriter writer;
  std::string other = Text(kChunk);
  other[12345] ^= 1;
  const size_t first = writer.Encode(base::AsBytes(Text(kChunk))).size();
  lies[7].replace(first_frames_at_, first, writer.Encode(base::AsBytes(other)));
  for (size_t i = 0; i < lies.size(); ++i) {
    const Answer answer = PutFrames(id, lies[i]);
    EXPECT_EQ(answer.status, 400) << i << answer.body;
    EXPECT_EQ(service_.ImageOf(id).status, Status::kQueued);
    if (i < 4) EXPECT_NE(answer.body.find("chunk 0"), std::string::npos) << answer.body;
  }
  // Frames where none were announced, and none where they were.
  std::string silent = good;
  silent[6] = 0;
  EXPECT_EQ(PutFrames(id, silent).status, 400);
  EXPECT_EQ(Put(id, good).status, 400) << "there are none in version 1";
  EXPECT_EQ(PutFrames(id, good).status, 204);
}

}  // namespace
}  // namespace imaged
