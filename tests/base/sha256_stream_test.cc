#include "base/sha256_stream.h"

#include <random>
#include <string>
#include <vector>

#include <gtest/gtest.h>

namespace base {
namespace {

std::string OpenSslHex(ByteView bytes) { return Sha256(bytes).hex(); }

TEST(Sha256Stream, AgreesWithOpenSslOnPartsAndOnTheWhole) {
  std::mt19937_64 random(7);
  std::string bytes(1 << 20, '\0');
  for (char& c : bytes) c = static_cast<char>(random());
  for (int round = 0; round < 3000; ++round) {
    Sha256Stream stream;
    size_t at = 0;
    int parts = static_cast<int>(random() % 6);
    for (int part = 0; part < parts; ++part) {
      // On the grid of blocks more often than off it, as chunks are.
      size_t length = random() % 3 == 0 ? random() % 300 : random() % 20 * 64;
      ByteView view = AsBytes(bytes).subspan(at, length);
      at += length;
      if (random() % 2 == 0) {
        EXPECT_EQ(stream.UpdateBoth(view).hex(), OpenSslHex(view));
      } else {
        stream.Update(view);
      }
    }
    ASSERT_EQ(stream.FinishHex(), OpenSslHex(AsBytes(bytes).subspan(0, at))) << round;
  }
}

// FIPS 180-4's examples, and every length around the padding's edge.
TEST(Sha256Stream, KnowsTheStandardsExamples) {
  Sha256Stream empty;
  EXPECT_EQ(empty.FinishHex(), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  Sha256Stream abc;
  EXPECT_EQ(abc.UpdateBoth(AsBytes("abc")).hex(),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  EXPECT_EQ(abc.FinishHex(), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  for (size_t length = 0; length < 200; ++length) {
    std::string text(length, 'a');
    Sha256Stream stream;
    EXPECT_EQ(stream.UpdateBoth(AsBytes(text)).hex(), OpenSslHex(AsBytes(text))) << length;
    EXPECT_EQ(stream.FinishHex(), OpenSslHex(AsBytes(text))) << length;
  }
}

TEST(Sha256Stream, OfNothingChangesNothing) {
  Sha256Stream stream;
  EXPECT_EQ(stream.UpdateBoth({}).hex(), OpenSslHex({}));
  stream.Update(AsBytes("x"));
  EXPECT_EQ(stream.UpdateBoth({}).hex(), OpenSslHex({}));
  stream.Update({});
  EXPECT_EQ(stream.FinishHex(), OpenSslHex(AsBytes("x")));
}

}  // namespace
}  // namespace base
