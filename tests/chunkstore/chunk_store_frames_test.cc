#include <algorithm>
#include <string>
#include <vector>

#include <gtest/gtest.h>
#include <unistd.h>

#include "chunkstore/local/local_blob_store.h"
#include "chunkstore/zstd_frames.h"
#include "tests/chunkstore/chunk_store_world.h"
#include "tests/support/temp_dir.h"

// Contents as zstd streams of what is stored.

namespace chunkstore::testing {
namespace {

using base::Code;

base::Result<std::string> Decoded(base::ByteView stream, size_t piece) {
  ZstdReader reader;
  std::string plain;
  std::vector<uint8_t> out(piece);
  while (true) {
    ASSIGN_OR_RETURN(const size_t count, reader.Read(&stream, out));
    plain.append(reinterpret_cast<const char*>(out.data()), count);
    if (count < out.size()) return plain;
  }
}

std::string BytesOf(const ContentPiece& piece) {
  EXPECT_FALSE(piece.hole);
  if (piece.descriptor < 0) {
    EXPECT_EQ(piece.length, piece.bytes.size());
    return std::string(base::AsText(piece.bytes));
  }
  std::string bytes(piece.length, '?');
  EXPECT_EQ(
      ::pread(piece.descriptor, bytes.data(), bytes.size(), static_cast<off_t>(piece.file_offset)),
      static_cast<ssize_t>(bytes.size()));
  return bytes;
}

// The stream of a whole content, asked for in parts of this length.
base::Result<std::string> Stream(Content& content, uint64_t part, bool* files = nullptr) {
  std::string stream;
  for (uint64_t at = 0; at < content.root().size_bytes;) {
    const uint64_t length =
        std::min({part, kChunkBytes - at % kChunkBytes, content.root().size_bytes - at});
    ASSIGN_OR_RETURN(const std::vector<ContentPiece> pieces, content.FramesAt(at, length));
    for (const ContentPiece& piece : pieces) {
      stream += BytesOf(piece);
      if (files != nullptr && piece.descriptor >= 0) *files = true;
    }
    at += length;
  }
  return stream;
}

// Text and noise by turns, so that raw blocks stand between compressed ones.
std::string Mixture(size_t size) {
  std::string bytes;
  for (uint32_t seed = 1; bytes.size() < size; ++seed) {
    bytes += MakeBytes(seed, (seed % 7 + 1) * 50'000);
  }
  bytes.resize(size);
  return bytes;
}

std::vector<std::string> Contents() {
  std::vector<std::string> contents = {"x", Spec{{1, 2, 0, 3}, 100'001}.Bytes(),
                                       Spec{{2, 4}, kChunkBytes}.Bytes(), Spec{{0, 0}, 5}.Bytes(),
                                       Mixture(2 * kChunkBytes + 12'345)};
  return contents;
}

base::Result<Root> Put(ChunkStore& store, const std::string& holder, const std::string& bytes) {
  ASSIGN_OR_RETURN(const std::unique_ptr<Ingest> ingest, store.NewIngest(holder, ""));
  for (uint64_t at = 0; at < bytes.size(); at += kChunkBytes) {
    RETURN_IF_ERROR(ingest->Put(at / kChunkBytes,
                                base::AsBytes(std::string_view(bytes).substr(at, kChunkBytes))));
  }
  return ingest->Finish(bytes.size());
}

void ExpectStreamsOf(ChunkStore& store, bool expect_files) {
  int number = 0;
  bool files = false;
  for (const std::string& bytes : Contents()) {
    ASSERT_OK_AND_ASSIGN(const Root root, Put(store, "h" + std::to_string(number++), bytes));
    ASSERT_OK_AND_ASSIGN(const auto content, store.Open(root));
    ASSERT_OK_AND_ASSIGN(const std::string whole, Stream(*content, kChunkBytes, &files));
    for (const uint64_t part : {uint64_t{kChunkBytes}, uint64_t{1} << 20, uint64_t{10'000}}) {
      // A run of a file may be cut elsewhere, and so have other heads.
      ASSERT_OK_AND_ASSIGN(const std::string stream, Stream(*content, part));
      EXPECT_LE(stream.size(), bytes.size() + bytes.size() / 300 + 20) << number << " " << part;
      ASSERT_OK_AND_ASSIGN(const std::string plain, Decoded(base::AsBytes(stream), 70'001));
      EXPECT_TRUE(plain == bytes) << number << " " << part;
    }
    ASSERT_OK_AND_ASSIGN(const std::string plain, Decoded(base::AsBytes(whole), bytes.size()));
    EXPECT_TRUE(plain == bytes) << number;
  }
  EXPECT_EQ(files, expect_files);
}

TEST(ChunkStoreFrames, AreTheContentOverMemory) {
  World world;
  ExpectStreamsOf(world.store(), false);
}

TEST(ChunkStoreFrames, AreTheContentOverFiles) {
  support::TempDir dir;
  MemoryMetaStore meta;
  base::Metrics metrics;
  ASSERT_OK_AND_ASSIGN(auto blobs, local::LocalBlobStore::Open(base::SystemFiles(), dir.path()));
  ASSERT_OK_AND_ASSIGN(auto store, ChunkStore::Open({.reserve_bytes = 0}, *blobs, meta,
                                                    base::SystemClock(), metrics));
  ExpectStreamsOf(*store, true);
}

TEST(ChunkStoreFrames, AreSmallWhereTheContentIs) {
  World world;
  const std::string bytes = Spec{{1, 0, 3}, kChunkBytes}.Bytes();
  ASSERT_OK_AND_ASSIGN(const Root root, Put(world.store(), "h", bytes));
  ASSERT_OK_AND_ASSIGN(const auto content, world.store().Open(root));
  ASSERT_OK_AND_ASSIGN(const std::string stream, Stream(*content, kChunkBytes));
  EXPECT_LT(stream.size(), bytes.size() / 2);
  ASSERT_OK_AND_ASSIGN(const auto hole, content->FramesAt(kChunkBytes, kChunkBytes));
  ASSERT_EQ(hole.size(), 1u);
  EXPECT_LT(hole[0].length, 200u);
}

TEST(ChunkStoreFrames, StayWithinAChunkAndTheContent) {
  World world;
  const std::string bytes = Spec{{1, 2}, 100}.Bytes();
  ASSERT_OK_AND_ASSIGN(const Root root, Put(world.store(), "h", bytes));
  ASSERT_OK_AND_ASSIGN(const auto content, world.store().Open(root));
  EXPECT_ERROR(content->FramesAt(0, 0), Code::kInvalidArgument);
  EXPECT_ERROR(content->FramesAt(1, kChunkBytes), Code::kInvalidArgument);
  EXPECT_ERROR(content->FramesAt(kChunkBytes, 101), Code::kInvalidArgument);
  EXPECT_ERROR(content->FramesAt(2 * uint64_t{kChunkBytes}, 1), Code::kInvalidArgument);
  EXPECT_OK(content->FramesAt(kChunkBytes, 100));
}

// A blob store that changes one byte of what is read.
class FlippingBlobs : public BlobStore {
 public:
  explicit FlippingBlobs(BlobStore& blobs) : blobs_(blobs) {}
  const Properties& properties() const override { return blobs_.properties(); }
  base::Result<void> Put(std::string_view name, std::span<const base::ByteView> pieces) override {
    return blobs_.Put(name, pieces);
  }
  base::Result<void> Get(std::string_view name, uint64_t offset,
                         base::MutableByteView into) override {
    RETURN_IF_ERROR(blobs_.Get(name, offset, into));
    if (flip_at >= offset && flip_at < offset + into.size()) into[flip_at - offset] ^= 1;
    return {};
  }
  void GetMany(std::span<GetRequest> requests) override { blobs_.GetMany(requests); }
  base::Result<uint64_t> Size(std::string_view name) override { return blobs_.Size(name); }
  base::Result<void> Remove(std::string_view name) override { return blobs_.Remove(name); }
  base::Result<void> List(const Visitor& visit) override { return blobs_.List(visit); }
  base::Result<std::shared_ptr<base::File>> OpenFile(std::string_view name) override {
    return blobs_.OpenFile(name);
  }
  base::Result<base::SpaceInfo> Space() override { return blobs_.Space(); }

  uint64_t flip_at = UINT64_MAX;

 private:
  BlobStore& blobs_;
};

TEST(ChunkStoreFrames, OfDamagedBlobsAreNeverServed) {
  const std::string bytes = Mixture(900'000);
  for (const uint64_t at : {0, 1, 20'000, 60'000, 200'000, 400'000}) {
    MemoryBlobStore memory;
    FlippingBlobs blobs(memory);
    MemoryMetaStore meta;
    base::Metrics metrics;
    ASSERT_OK_AND_ASSIGN(auto store, ChunkStore::Open({.reserve_bytes = 0}, blobs, meta,
                                                      base::SystemClock(), metrics));
    ASSERT_OK_AND_ASSIGN(const Root root, Put(*store, "h", bytes));
    ASSERT_OK_AND_ASSIGN(const auto content, store->Open(root));
    ASSERT_OK(content->FramesAt(0, bytes.size()));
    blobs.flip_at = at;
    EXPECT_ERROR(content->FramesAt(0, bytes.size()), Code::kCorruption) << at;
  }
}

TEST(ZstdReader, RefusesWhatIsNoneAndWhatWantsTooMuch) {
  EXPECT_ERROR(Decoded(base::AsBytes("this is no zstd stream"), 100), Code::kInvalidArgument);
  // A window of 128 MiB.
  const std::string wide("\x28\xb5\x2f\xfd\x00\x88\x01\x00\x00", 9);
  EXPECT_ERROR(Decoded(base::AsBytes(wide), 100), Code::kInvalidArgument);
  ASSERT_OK_AND_ASSIGN(const std::string none, Decoded({}, 10));
  EXPECT_EQ(none, "");
}

TEST(ZstdFrames, ByteByByte) {
  const std::string raw = RawFrameHead(5) + "hello";
  EXPECT_EQ(raw, std::string("\x28\xb5\x2f\xfd\x80\x38\x05\0\0\0\x29\0\0hello", 18));
  ASSERT_OK_AND_ASSIGN(const std::string hello, Decoded(base::AsBytes(raw), 100));
  EXPECT_EQ(hello, "hello");
  ASSERT_OK_AND_ASSIGN(const std::string zeros, Decoded(base::AsBytes(ZeroFrame(300'000)), 1000));
  EXPECT_EQ(zeros, std::string(300'000, '\0'));
  ASSERT_OK_AND_ASSIGN(
      const std::string most,
      Decoded(base::AsBytes(RawFrameHead(kMaxRawFrameBytes) + std::string(kMaxRawFrameBytes, 'm')),
              1 << 20));
  EXPECT_EQ(most, std::string(kMaxRawFrameBytes, 'm'));
}

}  // namespace
}  // namespace chunkstore::testing
