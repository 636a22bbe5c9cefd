#include <string>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "imaged/recipe_wire.h"
#include "tests/imaged/data/chunk_uploads.h"

// Chunks that an upload assembles of parts of others: what may be named, and what can't be claimed.

namespace imaged {
namespace {

// A stream of version 2 with one chunk, which is assembled of these pieces.
std::string Assembled(std::string_view chunk, const std::vector<base::Digest256>& owners,
                      const Recipe& recipe) {
  std::string stream =
      EncodeChunkStreamHeader({.size_bytes = chunk.size(), .frames = false}, kRecipeStreamVersion);
  AppendChunkEntry(&stream, {ChunkHow::kAssembled, base::Sha256(base::AsBytes(chunk))});
  stream += EncodeRecipes({.owners = owners, .chunks = {recipe}});
  size_t at = 0;
  for (const RecipePiece& piece : recipe) {
    if (piece.how == RecipePiece::How::kSent) stream += chunk.substr(at, piece.length);
    at += piece.length;
  }
  return stream;
}

class ChunkAssembly : public ChunkUpload {
 protected:
  using How = RecipePiece::How;
  Answer PutAssembled(const std::string& id, std::string_view stream, std::string_view who = "p1") {
    return service_.Call(who, "PUT", "/v2/images/" + id + "/file", stream, kRecipeStreamType);
  }
  // Parts of two chunks of the base, at places of no grid, zeros, and something new.
  const std::string made_ = base_.bytes.substr(kChunk + 5, 2'000'000) + "new bytes" +
                            std::string(100'000, '\0') + base_.bytes.substr(2 * kChunk, 1'000'000);
  const std::vector<base::Digest256> owners_ = {base_.list.ids[1], base_.list.ids[2]};
  const Recipe recipe_ = {{.how = How::kNamed, .length = 2'000'000, .owner = 0, .offset = 5},
                          {.how = How::kSent, .length = 9},
                          {.how = How::kZeros, .length = 100'000},
                          {.how = How::kNamed, .length = 1'000'000, .owner = 1, .offset = 0}};
};

TEST_F(ChunkAssembly, OfPartsOfWhatIsThere) {
  Active(base_.bytes);
  const std::string stream = Assembled(made_, owners_, recipe_);
  EXPECT_LT(stream.size(), 300u);
  const std::string id = service_.CreateImage();
  const Answer put = PutAssembled(id, stream);
  ASSERT_EQ(put.status, 204) << put.body;
  EXPECT_TRUE(service_.Download(id).body == made_);
  EXPECT_EQ(service_.ImageOf(id).os_hash_value, base::Sha256(base::AsBytes(made_)).hex());
}

TEST_F(ChunkAssembly, BesideAllOtherWays) {
  // Over the end of a batch; the same owner in both.
  Active(base_.bytes);
  std::string bytes;
  std::string stream;
  const std::string changed = "changed" + base_.bytes.substr(7, kChunk - 7);
  const Recipe recipe = {{.how = How::kSent, .length = 7},
                         {.how = How::kNamed, .length = kChunk - 7, .owner = 0, .offset = 7}};
  const size_t chunks = kChunksOfBatch + 4;
  for (size_t batch = 0; batch < chunks; batch += kChunksOfBatch) {
    std::string data;
    Recipes recipes{.owners = {base_.list.ids[0]}, .chunks = {}};
    for (size_t i = batch; i < std::min(chunks, batch + kChunksOfBatch); ++i) {
      const std::string fresh = i % 4 == 1 ? RandomBytes(kChunk, 100 + i) : std::string();
      if (i % 4 == 0) {
        AppendChunkEntry(&stream, {ChunkHow::kAssembled, base::Sha256(base::AsBytes(changed))});
        recipes.chunks.push_back(recipe);
        data += "changed";
        bytes += changed;
      } else if (i % 4 == 1) {
        AppendChunkEntry(&stream, {ChunkHow::kSent, base::Sha256(base::AsBytes(fresh))});
        data += fresh;
        bytes += fresh;
      } else if (i % 4 == 2) {
        AppendChunkEntry(&stream, {ChunkHow::kHole, {}});
        bytes += std::string(kChunk, '\0');
      } else {
        AppendChunkEntry(&stream, base_.Entry(2, false));
        bytes += base_.Chunk(2);
      }
    }
    stream += EncodeRecipes(recipes) + data;
  }
  const std::string id = service_.CreateImage();
  const Answer put = PutAssembled(
      id, EncodeChunkStreamHeader({.size_bytes = bytes.size()}, kRecipeStreamVersion) + stream);
  ASSERT_EQ(put.status, 204) << put.body;
  EXPECT_TRUE(service_.Download(id).body == bytes);
}

TEST_F(ChunkAssembly, ASecondTenantCantProbeNorClaim) {
  const std::string secret = Active(base_.bytes);
  Patch(secret, "/visibility", "private");
  const std::string id = service_.CreateImage("p2");
  const auto said = [&](const std::vector<base::Digest256>& owners, const Recipe& recipe) {
    const Answer answer = PutAssembled(id, Assembled(made_, owners, recipe), "p2");
    EXPECT_EQ(answer.status, 409);
    EXPECT_EQ(service_.ImageOf(id).status, Status::kQueued);
    return answer.body.substr(0, answer.body.find("req-"));
  };
  const std::vector<base::Digest256> absent = {base::Sha256(base::AsBytes("1")),
                                               base::Sha256(base::AsBytes("2"))};
  // That it would fit, is there but ends before, or is not there at all: the answer is the same.
  Recipe beyond = recipe_;
  beyond[0].offset = kChunk - 2'000'000;
  const std::string fits = said(owners_, recipe_);
  EXPECT_EQ(fits, said(absent, recipe_));
  EXPECT_EQ(fits, said(owners_, beyond));
  EXPECT_EQ(fits, said({base_.list.ids[5], absent[0]}, recipe_));
  // He is not told of the image either.
  const std::string asked = Ask(id, base_.list, "p2").body;
  EXPECT_EQ(asked.find(secret), std::string::npos) << asked;
  EXPECT_THAT(DecodeAlike(asked), testing::Optional(testing::IsEmpty()));
  // Who may read it may name parts of it, and is told.
  Patch(secret, "/visibility", "public");
  EXPECT_THAT(DecodeAlike(Ask(id, base_.list, "p2").body),
              testing::Optional(testing::ElementsAre(secret)));
  ASSERT_EQ(PutAssembled(id, Assembled(made_, owners_, recipe_), "p2").status, 204);
}

TEST_F(ChunkAssembly, WhatComesOutMustHaveTheId) {
  Active(base_.bytes);
  const std::string id = service_.CreateImage();
  const std::string good = Assembled(made_, owners_, recipe_);
  std::string flipped = good;
  flipped.back() ^= 1;
  EXPECT_EQ(PutAssembled(id, flipped).status, 409);
  Recipe other = recipe_;
  other[0].offset = 6;
  const Answer wrong = PutAssembled(id, Assembled(made_, owners_, other));
  EXPECT_EQ(wrong.status, 409);
  EXPECT_NE(wrong.body.find("chunk 0"), std::string::npos) << wrong.body;
  // Readable, but shorter than the part.
  EXPECT_EQ(PutAssembled(id, Assembled(made_, {base_.list.ids[5], owners_[1]},
                                       [&] {
                                         Recipe beyond = recipe_;
                                         beyond[0].offset = kChunk - 2'000'000;
                                         return beyond;
                                       }()))
                .status,
            409);
  EXPECT_EQ(service_.ImageOf(id).status, Status::kQueued);
  EXPECT_EQ(PutAssembled(id, good).status, 204);
}

TEST_F(ChunkAssembly, AStreamThatIsNoneIsRefused) {
  Active(base_.bytes);
  const std::string id = service_.CreateImage();
  const std::string good = Assembled(made_, owners_, recipe_);
  const size_t recipes_at = kChunkStreamHeaderBytes + kChunkEntryBytes;
  std::string many = good;
  many[recipes_at + 3] = '\x7f';
  std::string short_recipe = good;
  short_recipe[recipes_at + 4] = 3;
  for (const std::string& bad :
       {good + "x", good.substr(0, good.size() - 1), good.substr(0, recipes_at + 3),
        good.substr(0, recipes_at + 50), many, short_recipe, base_.Stream(Flags(6, false))}) {
    EXPECT_EQ(PutAssembled(id, bad).status, 400);
  }
  // By the type of version 1 there is no such thing.
  EXPECT_EQ(Put(id, good).status, 400);
  EXPECT_EQ(service_.ImageOf(id).status, Status::kQueued);
}

}  // namespace
}  // namespace imaged
