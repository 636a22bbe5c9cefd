#include "imaged/recipe_wire.h"

#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "base/coding.h"
#include "tests/support/results.h"

namespace imaged {
namespace {

using base::Code;
using base::Digest256;
using How = RecipePiece::How;

constexpr uint32_t kChunk = chunkstore::kChunkBytes;

Digest256 Id(uint8_t byte) {
  Digest256 id;
  id.bytes.fill(byte);
  return id;
}

base::Result<Recipes> Decode(const std::string& bytes, const std::vector<uint32_t>& lengths) {
  const base::ByteView view = base::AsBytes(bytes);
  ASSIGN_OR_RETURN(const RecipeCounts counts, DecodeRecipeHead(view.first(kRecipeHeadBytes)));
  if (counts.bytes() != bytes.size() - kRecipeHeadBytes) {
    return base::Error(Code::kInvalidArgument, "another length");
  }
  return DecodeRecipes(view.subspan(kRecipeHeadBytes), counts, lengths);
}

const Recipes kRecipes{
    .owners = {Id(0xab)},
    .chunks = {{{.how = How::kNamed, .length = 0x8000, .owner = 0, .offset = 0x3000},
                {.how = How::kSent, .length = 0x2000}},
               {{.how = How::kZeros, .length = 5}}}};

// The bytes that API.md shows.
TEST(RecipeWireTest, ByteByByte) {
  const std::string bytes = EncodeRecipes(kRecipes);
  EXPECT_EQ(base::ToHex(bytes),
            "01000000"
            "03000000" +
                Id(0xab).hex() +
                "00800000"
                "00300000"
                "0000"
                "01"
                "00"
                "00200000"
                "00000000"
                "0000"
                "02"
                "00"
                "05000000"
                "00000000"
                "0000"
                "00"
                "00");
  ASSERT_OK_AND_ASSIGN(const Recipes decoded, Decode(bytes, {0xa000, 5}));
  EXPECT_EQ(decoded, kRecipes);
  EXPECT_EQ(EncodeRecipes({}).size(), kRecipeHeadBytes);
  ASSERT_OK_AND_ASSIGN(const Recipes none, Decode(EncodeRecipes({}), {}));
  EXPECT_EQ(none, Recipes());
}

TEST(RecipeWireTest, WhatDoesNotMakeTheChunksIsRefused) {
  const std::string bytes = EncodeRecipes(kRecipes);
  for (const std::vector<uint32_t>& lengths : std::vector<std::vector<uint32_t>>{
           {}, {0xa000}, {0xa000, 4}, {0xa000, 6}, {0x9000, 5}, {0xa004}, {0xa000, 5, 1}}) {
    EXPECT_ERROR(Decode(bytes, lengths), Code::kInvalidArgument) << lengths.size();
  }
}

TEST(RecipeWireTest, HostilePiecesAreRefused) {
  const auto refused = [](const std::vector<Digest256>& owners, const RecipePiece& piece,
                          uint32_t length) {
    return !Decode(EncodeRecipes({.owners = owners, .chunks = {{piece}}}), {length}).has_value();
  };
  const std::vector<Digest256> one = {Id(1)};
  EXPECT_FALSE(refused(one, {.how = How::kNamed, .length = kChunk}, kChunk));
  EXPECT_TRUE(refused(one, {.how = How::kNamed, .length = kChunk, .offset = 1}, kChunk));
  EXPECT_TRUE(refused(one, {.how = How::kNamed, .length = 1, .offset = 0xffffffff}, 1));
  EXPECT_TRUE(refused(one, {.how = How::kNamed, .length = 1, .owner = 1}, 1));
  EXPECT_TRUE(refused({}, {.how = How::kNamed, .length = 1}, 1));
  EXPECT_TRUE(refused({Digest256{}}, {.how = How::kNamed, .length = 1}, 1));
  EXPECT_TRUE(refused(one, {.how = How::kSent, .length = 1, .offset = 1}, 1));
  EXPECT_TRUE(refused(one, {.how = How::kZeros, .length = 0}, 1));
  EXPECT_TRUE(refused(one, {.how = How::kSent, .length = 0xffffffff}, 1));
  EXPECT_TRUE(refused(one, {.how = static_cast<How>(3), .length = 1}, 1));
  std::string reserved = EncodeRecipes({.owners = {}, .chunks = {{{.length = 1}}}});
  ASSERT_OK(Decode(reserved, {1}));
  reserved.back() = 1;
  EXPECT_ERROR(Decode(reserved, {1}), Code::kInvalidArgument);
}

TEST(RecipeWireTest, HasItsLimits) {
  const auto head = [](uint32_t owners, uint32_t pieces) {
    std::string bytes;
    base::PutFixed<uint32_t>(&bytes, owners);
    base::PutFixed<uint32_t>(&bytes, pieces);
    return DecodeRecipeHead(base::AsBytes(bytes)).has_value();
  };
  EXPECT_TRUE(head(kMaxOwnersOfBatch, kMaxPiecesOfBatch));
  EXPECT_FALSE(head(kMaxOwnersOfBatch + 1, 0));
  EXPECT_FALSE(head(0, kMaxPiecesOfBatch + 1));
  EXPECT_FALSE(head(0xffffffff, 0xffffffff));

  Recipe recipe(kMaxPiecesOfChunk, {.how = How::kZeros, .length = 1});
  ASSERT_OK(Decode(EncodeRecipes({.owners = {}, .chunks = {recipe}}), {kMaxPiecesOfChunk}));
  recipe.push_back(recipe.front());
  EXPECT_ERROR(Decode(EncodeRecipes({.owners = {}, .chunks = {recipe}}), {kMaxPiecesOfChunk + 1}),
               Code::kInvalidArgument);
}

TEST(RecipeWireTest, WhatIsSentGoesWhereItBelongs) {
  const Recipe recipe = {{.how = How::kZeros, .length = 2},
                         {.how = How::kSent, .length = 3},
                         {.how = How::kNamed, .length = 1, .owner = 0, .offset = 0},
                         {.how = How::kSent, .length = 2},
                         {.how = How::kSent, .length = 1}};
  EXPECT_EQ(SentBytes(recipe), 6u);
  std::string chunk = "abcdef...";
  SpreadSent(recipe, {reinterpret_cast<uint8_t*>(chunk.data()), chunk.size()});
  EXPECT_EQ(chunk.substr(2, 3) + chunk.substr(6), "abcdef");
  const Recipe all = {{.how = How::kSent, .length = 9}};
  chunk = "as it was";
  SpreadSent(all, {reinterpret_cast<uint8_t*>(chunk.data()), chunk.size()});
  EXPECT_EQ(chunk, "as it was");
  EXPECT_EQ(SentBytes({{.how = How::kZeros, .length = 9}}), 0u);
}

}  // namespace
}  // namespace imaged
