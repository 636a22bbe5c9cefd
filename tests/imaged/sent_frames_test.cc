#include "imaged/sent_frames.h"

#include <algorithm>
#include <string>

#include <gtest/gtest.h>

#include "base/coding.h"
#include "tests/support/results.h"

namespace imaged {
namespace {

using base::Code;

constexpr size_t kRun = kFramePlainBytes;

std::string Noise(size_t size) {
  std::string bytes(size, '\0');
  uint64_t state = size;
  for (char& byte : bytes) {
    state = state * 6364136223846793005u + 1442695040888963407u;
    byte = static_cast<char>(state >> 56);
  }
  return bytes;
}

// As whoever reads a stream does it, in a buffer of the plain bytes' size.
base::Result<std::string> Decode(std::string_view sent, size_t plain_bytes) {
  const size_t head = kFrameLengthBytes * FrameCount(plain_bytes);
  ASSIGN_OR_RETURN(const SentFrames frames,
                   SentFrames::Of(base::AsBytes(sent.substr(0, head)), plain_bytes));
  std::string plain(plain_bytes, '?');
  const base::MutableByteView view(reinterpret_cast<uint8_t*>(plain.data()), plain.size());
  const base::MutableByteView place = frames.PlaceIn(view);
  EXPECT_EQ(place.size(), sent.size() - head);
  EXPECT_EQ(place.data() + place.size(), view.data() + view.size());
  std::copy_n(sent.begin() + static_cast<ptrdiff_t>(head), place.size(), place.begin());
  RETURN_IF_ERROR(frames.Decode(view));
  return plain;
}

TEST(SentFramesTest, ComeOutAsTheyWentIn) {
  SentFramesWriter writer;
  for (const size_t size : {size_t{1}, kRun - 1, kRun, kRun + 1, 3 * kRun + 5, 32 * kRun}) {
    std::string mixed = Noise(size);
    for (size_t at = 0; at < size; at += 2 * kRun)
      std::fill_n(mixed.begin() + static_cast<ptrdiff_t>(at), std::min(kRun, size - at), 'x');
    for (const std::string& plain : {std::string(size, 'x'), Noise(size), mixed}) {
      const std::string sent = writer.Encode(base::AsBytes(plain));
      EXPECT_LE(sent.size(), size + kFrameLengthBytes * FrameCount(size));
      ASSERT_OK_AND_ASSIGN(const std::string back, Decode(sent, size));
      EXPECT_TRUE(back == plain) << size;
    }
  }
  EXPECT_LT(writer.Encode(base::AsBytes(std::string(32 * kRun, 'x'))).size(), 1000u);
}

// The bytes that API.md shows.
TEST(SentFramesTest, ByteByByte) {
  SentFramesWriter writer;
  EXPECT_EQ(base::ToHex(writer.Encode(base::AsBytes("hello"))), "0500000068656c6c6f");
  ASSERT_OK_AND_ASSIGN(const std::string shown,
                       base::FromHex("16000000"
                                     "28b52ffd202a6d000038717561727279200100441623"));
  ASSERT_OK_AND_ASSIGN(const std::string plain, Decode(shown, 42));
  EXPECT_EQ(plain, "quarry quarry quarry quarry quarry quarry ");
}

TEST(SentFramesTest, LiesAreFound) {
  const auto with_length = [](uint32_t length, std::string_view frame) {
    std::string sent;
    base::PutFixed<uint32_t>(&sent, length);
    return sent.append(frame);
  };
  // Of no length, and longer than what it stands for.
  EXPECT_ERROR(Decode(with_length(0, ""), 5), Code::kInvalidArgument);
  EXPECT_ERROR(Decode(with_length(6, "hello!"), 5), Code::kInvalidArgument);
  EXPECT_ERROR(Decode(with_length(UINT32_MAX, "hello"), 5), Code::kInvalidArgument);
  // No frame; one that is cut off; with fewer bytes, and with more (a bomb), than belong there.
  EXPECT_ERROR(Decode(with_length(4, "hell"), 5), Code::kInvalidArgument);
  SentFramesWriter writer;
  const std::string text(1000, 'x');
  const std::string sent = writer.Encode(base::AsBytes(text));
  const std::string frame = sent.substr(kFrameLengthBytes);
  const auto size = static_cast<uint32_t>(frame.size());
  ASSERT_OK(Decode(with_length(size, frame), 1000));
  EXPECT_ERROR(Decode(with_length(size - 1, frame.substr(0, size - 1)), 1000),
               Code::kInvalidArgument);
  EXPECT_ERROR(Decode(with_length(size, frame), 1001), Code::kInvalidArgument);
  EXPECT_ERROR(Decode(with_length(size, frame), 999), Code::kInvalidArgument);
  const std::string bomb = chunkstore::ZeroFrame(1u << 30).substr(0, 30'000);
  EXPECT_ERROR(Decode(with_length(static_cast<uint32_t>(bomb.size()), bomb), kRun),
               Code::kInvalidArgument);
}

}  // namespace
}  // namespace imaged
