#include "imaged/chunk_receiver.h"

#include <map>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "chunkstore/blob_format.h"
#include "chunkstore/zstd_frames.h"
#include "tests/support/results.h"

namespace imaged {
namespace {

using base::Code;

constexpr size_t kChunk = chunkstore::kChunkBytes;

// An image of two chunks and a short end, of which the first and the last are asked for.
class ChunkReceiverTest : public testing::Test {
 protected:
  ChunkReceiverTest()
      : image_(std::string(kChunk, 'a') + std::string(kChunk, 'b') + "the end"),
        ids_({Id(image_.substr(0, kChunk)), Id(image_.substr(kChunk, kChunk)), Id("the end")}),
        receiver_(image_.size(), ids_, {{0, 1}, {2, 1}},
                  [this](uint64_t number, base::ByteView bytes) -> base::Result<void> {
                    chunks_[number] = base::AsText(bytes);
                    return put_;
                  }) {}

  static base::Digest256 Id(const std::string& bytes) { return base::Sha256(base::AsBytes(bytes)); }
  base::Result<void> Begin(std::string_view coding, std::string_view type = kChunkBytesType) {
    base::http::Headers headers;
    headers.Set("Content-Type", type);
    if (!coding.empty()) headers.Set("Content-Encoding", coding);
    return receiver_.Begin(headers);
  }
  base::Result<void> Take(std::string_view bytes, size_t piece = 100'000) {
    for (size_t at = 0; at < bytes.size(); at += piece) {
      RETURN_IF_ERROR(receiver_.Take(base::AsBytes(bytes.substr(at, piece))));
    }
    return {};
  }
  // As a service that stores nothing compressed makes it.
  static std::string Frames(const std::string& plain) {
    std::string stream;
    for (size_t at = 0; at < plain.size(); at += chunkstore::kMaxRawFrameBytes) {
      const std::string run = plain.substr(at, chunkstore::kMaxRawFrameBytes);
      stream += chunkstore::RawFrameHead(static_cast<uint32_t>(run.size())) + run;
    }
    return stream;
  }
  void ExpectAll() {
    EXPECT_OK(receiver_.End());
    EXPECT_EQ(chunks_,
              (std::map<uint64_t, std::string>{{0, std::string(kChunk, 'a')}, {2, "the end"}}));
    EXPECT_EQ(receiver_.plain_bytes(), kChunk + 7);
  }

  const std::string image_;
  const std::vector<base::Digest256> ids_;
  const std::string asked_ = std::string(kChunk, 'a') + "the end";
  std::map<uint64_t, std::string> chunks_;
  base::Result<void> put_;
  ChunkReceiver receiver_;
};

TEST_F(ChunkReceiverTest, TakesBytesAsTheyAre) {
  ASSERT_OK(Begin(""));
  ASSERT_OK(Take(asked_));
  ExpectAll();
  EXPECT_EQ(receiver_.wire_bytes(), asked_.size());
}

TEST_F(ChunkReceiverTest, TakesAStreamInAnyPieces) {
  ASSERT_OK(Begin("zstd"));
  ASSERT_OK(Take(Frames(asked_), 7'777));
  ExpectAll();
}

TEST_F(ChunkReceiverTest, TakesAStreamThatIsFarShorterThanItsBytes) {
  const std::vector<base::Digest256> zeros = {Id(std::string(kChunk, '\0'))};
  int chunks = 0;
  ChunkReceiver receiver(kChunk, zeros, {{0, 1}}, [&](uint64_t, base::ByteView) {
    ++chunks;
    return base::Result<void>();
  });
  base::http::Headers headers;
  headers.Set("Content-Type", kChunkBytesType);
  headers.Set("Content-Encoding", "zstd");
  ASSERT_OK(receiver.Begin(headers));
  ASSERT_OK(receiver.Take(base::AsBytes(chunkstore::ZeroFrame(kChunk))));
  EXPECT_OK(receiver.End());
  EXPECT_EQ(chunks, 1);
  EXPECT_LT(receiver.wire_bytes(), 200u);
}

TEST_F(ChunkReceiverTest, WrongBytesAreNeverHandedOn) {
  for (const char* coding : {"", "zstd"}) {
    std::string wrong = asked_;
    wrong[1000] ^= 1;
    ChunkReceiver receiver(image_.size(), ids_, {{0, 1}, {2, 1}},
                           [](uint64_t, base::ByteView) -> base::Result<void> {
                             ADD_FAILURE() << "handed on";
                             return {};
                           });
    base::http::Headers headers;
    headers.Set("Content-Type", kChunkBytesType);
    headers.Set("Content-Encoding", coding);
    ASSERT_OK(receiver.Begin(headers));
    const std::string sent = *coding == '\0' ? wrong : Frames(wrong);
    const auto taken = receiver.Take(base::AsBytes(sent));
    ASSERT_FALSE(taken.has_value());
    EXPECT_EQ(taken.error().code(), Code::kCorruption);
    EXPECT_NE(taken.error().message().find("chunk 0"), std::string::npos);
  }
}

TEST_F(ChunkReceiverTest, TooMuchIsAnError) {
  ASSERT_OK(Begin(""));
  ASSERT_OK(Take(asked_));
  EXPECT_ERROR(Take("x"), Code::kCorruption);
}

TEST_F(ChunkReceiverTest, TooMuchInAStreamIsAnError) {
  ASSERT_OK(Begin("zstd"));
  EXPECT_ERROR(Take(Frames(asked_ + "x")), Code::kCorruption);
}

// Frames of nothing, for ever.
TEST_F(ChunkReceiverTest, AStreamOfNothingEnds) {
  ASSERT_OK(Begin("zstd"));
  const std::string skipped("\x50\x2a\x4d\x18\x00\x04\x00\x00", 8);
  const std::string nothing = skipped + std::string(1024, 'n');
  base::Result<void> taken;
  size_t count = 0;
  while (taken.has_value() && count < 100'000) {
    taken = Take(nothing);
    ++count;
  }
  EXPECT_ERROR(taken, Code::kCorruption);
  EXPECT_LT(count, 5'000u);
  EXPECT_TRUE(chunks_.empty());
}

TEST_F(ChunkReceiverTest, TooLittleIsAnError) {
  ASSERT_OK(Begin(""));
  EXPECT_ERROR(receiver_.End(), Code::kCorruption);
  ASSERT_OK(Take(asked_.substr(0, asked_.size() - 1)));
  EXPECT_ERROR(receiver_.End(), Code::kCorruption);
  EXPECT_EQ(chunks_.size(), 1u);
}

TEST_F(ChunkReceiverTest, WhatIsNoStreamIsAnError) {
  ASSERT_OK(Begin("zstd"));
  EXPECT_ERROR(Take("no frame at all"), Code::kCorruption);
}

TEST_F(ChunkReceiverTest, OtherTypesAndCodingsAreErrors) {
  EXPECT_ERROR(Begin("", "text/html"), Code::kIo);
  EXPECT_ERROR(Begin("gzip"), Code::kIo);
  EXPECT_OK(Begin("identity", "APPLICATION/vnd.quarry.chunk-bytes.v1; x=y"));
}

TEST_F(ChunkReceiverTest, AnErrorOfWhoTakesEndsIt) {
  put_ = base::Error(Code::kOutOfSpace, "full");
  ASSERT_OK(Begin(""));
  EXPECT_ERROR(Take(asked_), Code::kOutOfSpace);
}

}  // namespace
}  // namespace imaged
