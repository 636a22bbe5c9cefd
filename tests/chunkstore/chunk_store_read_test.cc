#include <gtest/gtest.h>
#include <unistd.h>

#include "chunkstore/local/local_blob_store.h"
#include "tests/chunkstore/chunk_store_world.h"
#include "tests/support/temp_dir.h"

namespace chunkstore::testing {
namespace {

using base::Code;

// Blobs in files, metadata in memory.
class FileWorld {
 public:
  explicit FileWorld(int compression_level = 1, uint64_t cache_bytes = 8 * base::kMiB) {
    options_.compression_level = compression_level;
    options_.cache_bytes = cache_bytes;
    options_.background_bytes_per_s = 0;
    auto blobs = local::LocalBlobStore::Open(base::SystemFiles(), dir_.path());
    EXPECT_OK(blobs);
    blobs_ = *std::move(blobs);
    Reopen();
  }
  void Reopen() {
    store_.reset();
    metrics_ = std::make_unique<base::Metrics>();
    auto opened = ChunkStore::Open(options_, *blobs_, meta_, base::SystemClock(), *metrics_);
    EXPECT_OK(opened);
    store_ = *std::move(opened);
  }
  ChunkStore& store() { return *store_; }
  BlobStore& blobs() { return *blobs_; }
  MemoryMetaStore& meta() { return meta_; }
  double Count(const std::string& name) { return metrics_->GetCounter(name, "").value(); }

  // Changes one byte of the file behind a blob, behind the store's back.
  void Flip(const std::string& name, uint64_t offset) {
    auto path = FindFile(name);
    auto file = base::SystemFiles().Open(path, base::Files::Mode::kReadWrite);
    ASSERT_OK(file);
    uint8_t byte = 0;
    ASSERT_OK((*file)->ReadAt(offset, {&byte, 1}));
    byte ^= 0x40;
    const base::ByteView piece(&byte, 1);
    ASSERT_OK((*file)->WriteAt(offset, {&piece, 1}));
  }

 private:
  std::string FindFile(const std::string& name) {
    auto folders = base::SystemFiles().List(dir_ / "blobs");
    EXPECT_OK(folders);
    for (const std::string& folder : *folders) {
      const std::string path = dir_ / ("blobs/" + folder + "/" + name);
      if (base::SystemFiles().Stat(path).has_value()) return path;
    }
    ADD_FAILURE() << "no file for " << name;
    return "";
  }

  support::TempDir dir_;
  ChunkStoreOptions options_;
  std::unique_ptr<base::Metrics> metrics_;
  std::unique_ptr<BlobStore> blobs_;
  MemoryMetaStore meta_;
  std::unique_ptr<ChunkStore> store_;
};

std::string BytesOf(const ContentPiece& piece) {
  if (piece.hole) return std::string(piece.length, '\0');
  if (piece.descriptor < 0) return std::string(base::AsText(piece.bytes));
  std::string bytes(piece.length, '?');
  EXPECT_EQ(
      ::pread(piece.descriptor, bytes.data(), bytes.size(), static_cast<off_t>(piece.file_offset)),
      static_cast<ssize_t>(piece.length));
  return bytes;
}

const Spec kMixed{{1, 0, 2, 3, 4, 0, 5}, 1'234'567};

TEST(ChunkStoreRead, AnyRangeIsWhatWasPut) {
  FileWorld world;
  const std::string whole = kMixed.Bytes();
  ASSERT_OK_AND_ASSIGN(const Root root, Upload(world.store(), "a", kMixed));
  ASSERT_OK_AND_ASSIGN(const auto content, world.store().Open(root));
  std::mt19937_64 random(1);
  for (int i = 0; i < 400; ++i) {
    const uint64_t offset = random() % (whole.size() + 1);
    const uint64_t limit = i % 10 == 0 ? 9'000'000 : i % 3 == 0 ? 200'000 : 5'000;
    const uint64_t size = std::min<uint64_t>(random() % limit, whole.size() - offset);
    std::string bytes(size, '?');
    ASSERT_OK(content->ReadAt(offset, {reinterpret_cast<uint8_t*>(bytes.data()), size}));
    ASSERT_TRUE(bytes == whole.substr(offset, size)) << offset << " " << size;
  }
  uint8_t byte = 0;
  EXPECT_ERROR(content->ReadAt(whole.size(), {&byte, 1}), Code::kInvalidArgument);
  EXPECT_ERROR(content->ReadAt(UINT64_MAX, {&byte, 1}), Code::kInvalidArgument);
  EXPECT_ERROR(content->PieceAt(whole.size(), 1), Code::kInvalidArgument);
  ASSERT_OK(content->ReadAt(whole.size(), {}));
}

TEST(ChunkStoreRead, PiecesAreTheContentAndRawOnesAreFiles) {
  FileWorld world;
  const std::string whole = kMixed.Bytes();
  ASSERT_OK_AND_ASSIGN(const Root root, Upload(world.store(), "a", kMixed));
  ASSERT_OK_AND_ASSIGN(const auto content, world.store().Open(root));
  for (const uint64_t limit : {uint64_t{100'000}, uint64_t{1} << 40}) {
    int files = 0, decoded = 0, holes = 0;
    for (uint64_t offset = 0; offset < whole.size();) {
      ASSERT_OK_AND_ASSIGN(const ContentPiece piece, content->PieceAt(offset, limit));
      ASSERT_GT(piece.length, 0u);
      ASSERT_LE(piece.length, limit);
      ASSERT_LE(offset % kChunkBytes + piece.length, kChunkBytes);
      ASSERT_TRUE(BytesOf(piece) == whole.substr(offset, piece.length)) << offset;
      ++(piece.hole ? holes : piece.descriptor >= 0 ? files : decoded);
      offset += piece.length;
    }
    EXPECT_GT(files, 0);
    EXPECT_GT(decoded, 0);
    EXPECT_GT(holes, 0);
  }
}

TEST(ChunkStoreRead, AFlippedBitIsNeverServed) {
  for (const uint32_t seed : {1u, 2u}) {  // compressed, raw
    FileWorld world;
    const Spec spec{{seed}, 200'000};
    const std::string whole = spec.Bytes();
    ASSERT_OK_AND_ASSIGN(const Root root, Upload(world.store(), "a", spec));
    const std::vector<std::string> names = BlobNames(world.blobs());
    ASSERT_EQ(names.size(), 3u);
    for (const std::string& name : names) {
      ASSERT_OK_AND_ASSIGN(const uint64_t size, world.blobs().Size(name));
      for (uint64_t offset = 0; offset < size; offset += 1 + size / 40) {
        world.Flip(name, offset);
        world.Reopen();
        for (const bool by_piece : {false, true}) {
          std::string bytes(whole.size(), '?');
          auto content = world.store().Open(root);
          base::Result<void> read;
          if (!content.has_value()) {
            read = content.error();
          } else if (by_piece) {
            auto piece = (*content)->PieceAt(0, UINT64_MAX);
            if (piece.has_value()) bytes = BytesOf(*piece);
            if (!piece.has_value()) read = piece.error();
          } else {
            read = (*content)->ReadAt(0, {reinterpret_cast<uint8_t*>(bytes.data()), bytes.size()});
          }
          if (read.has_value())
            EXPECT_TRUE(bytes == whole) << name << " " << offset;
          else
            EXPECT_ERROR(read, Code::kCorruption);
        }
        ASSERT_OK_AND_ASSIGN(const ScrubReport found, world.store().Scrub(false, nullptr));
        EXPECT_EQ(found.finding_count, 1u) << name << " " << offset;
        if (!found.findings.empty()) {
          EXPECT_EQ(found.findings[0].blob, name);
          EXPECT_EQ(found.findings[0].holders, std::vector<std::string>{"a"});
        }
        // Flipped back, scrub takes it out of quarantine.
        world.Flip(name, offset);
        ASSERT_OK(world.store().Scrub(true, nullptr));
        ExpectClean(world.store());
      }
    }
  }
}

TEST(ChunkStoreRead, TheNextUploadOfTheSameBytesHeals) {
  FileWorld world;
  const Spec spec{{2, 3}};
  ASSERT_OK_AND_ASSIGN(const Root root, Upload(world.store(), "a", spec));
  for (const std::string& name : BlobNames(world.blobs())) world.Flip(name, 10);
  world.Reopen();
  EXPECT_ERROR(ReadBack(world.store(), root), Code::kCorruption);
  EXPECT_GE(world.Count("quarry_chunkstore_corruption_total"), 1);
  ASSERT_OK(world.store().Scrub(true, nullptr));  // quarantines the rest as well
  ASSERT_OK_AND_ASSIGN(const Root again, Upload(world.store(), "b", spec));
  EXPECT_EQ(again, root);
  ASSERT_OK_AND_ASSIGN(const std::string bytes, ReadBack(world.store(), root));
  EXPECT_TRUE(bytes == spec.Bytes());
  ASSERT_OK(world.store().Release("a"));  // its manifest is still corrupt
  ExpectClean(world.store());
  ASSERT_OK(world.store().Release("b"));
  ASSERT_OK(world.store().Collect(false, nullptr));
  ExpectEmpty(world.blobs(), world.meta());
}

TEST(ChunkStoreRead, AMissingBlobIsCorruption) {
  FileWorld world;
  ASSERT_OK_AND_ASSIGN(const Root root, Upload(world.store(), "a", Spec{{2}}));
  for (const std::string& name : BlobNames(world.blobs())) ASSERT_OK(world.blobs().Remove(name));
  world.Reopen();
  EXPECT_ERROR(ReadBack(world.store(), root), Code::kCorruption);
}

TEST(ChunkStoreRead, ACorruptPageThatIsGarbageLeaksAndScrubGivesBack) {
  FileWorld world;
  ASSERT_OK_AND_ASSIGN(const Root root, Upload(world.store(), "a", Spec{{2, 3}}));
  for (const std::string& name : BlobNames(world.blobs())) {
    if (name.starts_with(root.id.hex())) world.Flip(name, 5);
  }
  ASSERT_OK(world.store().Release("a"));
  ASSERT_OK(world.store().Collect(false, nullptr));
  EXPECT_EQ(BlobNames(world.blobs()).size(), 2u);
  ASSERT_OK_AND_ASSIGN(const ScrubReport report, world.store().Scrub(true, nullptr));
  EXPECT_EQ(report.leaked_references, 2u);
  ASSERT_OK(world.store().Collect(false, nullptr));
  ExpectEmpty(world.blobs(), world.meta());
}

TEST(ChunkStoreRead, TheCacheAnswersTheSecondReadAndKeepsItsLimit) {
  constexpr uint64_t kLimit = 2 * base::kMiB;
  FileWorld world(1, kLimit);
  ASSERT_OK_AND_ASSIGN(const Root root, Upload(world.store(), "a", Spec{{1, 3, 5}}));
  world.Reopen();
  ASSERT_OK_AND_ASSIGN(const auto content, world.store().Open(root));
  std::vector<uint8_t> bytes(4096);
  ASSERT_OK(content->ReadAt(100'000, bytes));
  const double misses = world.Count("quarry_chunkstore_cache_misses_total");
  ASSERT_OK(content->ReadAt(100'000, bytes));
  EXPECT_EQ(world.Count("quarry_chunkstore_cache_misses_total"), misses);
}

TEST(ChunkStoreRead, TryReadAtAnswersFromMemoryAlone) {
  World world;
  const Spec spec{{1, 0, 2, 3}, 70'000};
  ASSERT_OK_AND_ASSIGN(const Root root, Upload(world.store(), "a", spec));
  world.Reopen();
  ASSERT_OK_AND_ASSIGN(const auto content, world.store().Open(root));
  const std::string expected = spec.Bytes();
  const auto try_read = [&](uint64_t offset, size_t length) -> base::Result<bool> {
    std::string bytes(length, '?');
    ASSIGN_OR_RETURN(
        const bool read,
        content->TryReadAt(offset, {reinterpret_cast<uint8_t*>(bytes.data()), bytes.size()}));
    if (read) EXPECT_TRUE(bytes == expected.substr(offset, length)) << offset;
    return read;
  };
  const auto expect = [&](bool read, uint64_t offset, size_t length) {
    ASSERT_OK_AND_ASSIGN(const bool was_read, try_read(offset, length));
    EXPECT_EQ(was_read, read) << length << " bytes at " << offset;
  };
  expect(false, 0, 512);
  expect(false, kChunkBytes - 512, 1024);  // the hole alone would do
  expect(true, kChunkBytes + 5, 10'000);   // a hole
  EXPECT_ERROR(try_read(root.size_bytes - 10, 11), base::Code::kInvalidArgument);

  std::vector<uint8_t> bytes(300'000);  // many blocks, at the end of a chunk
  ASSERT_OK(content->ReadAt(kChunkBytes - bytes.size(), bytes));
  ASSERT_OK(content->ReadAt(2ull * kChunkBytes, bytes));
  for (const std::string& name : BlobNames(world.blobs())) ASSERT_OK(world.blobs().Remove(name));
  expect(true, kChunkBytes - bytes.size(), bytes.size());
  expect(true, kChunkBytes - 100'001, 90'000);
  expect(true, kChunkBytes - 4096, kChunkBytes + 8192);  // chunk, hole, chunk
  expect(false, kChunkBytes - 600'000, 600'000);         // begins before what was read
  expect(false, 2ull * kChunkBytes, 600'000);
  expect(false, 3ull * kChunkBytes, 512);
}

TEST(ChunkStoreRead, TryReadAtWantsThePagesOnTheWayAsWell) {
  World world;
  const uint64_t index = 5000;
  ASSERT_OK_AND_ASSIGN(const auto ingest, world.store().NewIngest("a", ""));
  ASSERT_OK(ingest->Put(index, base::AsBytes(MakeBytes(1, kChunkBytes))));
  ASSERT_OK_AND_ASSIGN(const Root root, ingest->Finish(6000ull * kChunkBytes));
  world.Reopen();
  ASSERT_OK_AND_ASSIGN(const auto content, world.store().Open(root));
  std::vector<uint8_t> bytes(4096);
  const auto expect = [&](bool read, uint64_t chunk) {
    ASSERT_OK_AND_ASSIGN(const bool was_read, content->TryReadAt(chunk * kChunkBytes, bytes));
    EXPECT_EQ(was_read, read) << chunk;
  };
  expect(true, 0);           // nothing lies under that page
  expect(false, index - 1);  // a hole, but who knows
  ASSERT_OK(content->ReadAt((index + 1) * kChunkBytes, bytes));
  expect(true, index - 1);
  expect(false, index);
  ASSERT_OK(content->ReadAt(index * kChunkBytes, bytes));
  expect(true, index);
}

}  // namespace
}  // namespace chunkstore::testing
