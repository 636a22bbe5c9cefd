#include "controlplane/convert/qcow2_writer.h"

#include <algorithm>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

#include "base/check.h"
#include "base/clock.h"
#include "base/metrics.h"
#include "chunkstore/memory/memory_blob_store.h"
#include "chunkstore/memory/memory_meta_store.h"
#include "imaged/formats/inspector.h"
#include "tests/controlplane/convert/disk_images.h"
#include "tests/support/results.h"

namespace controlplane::convert {
namespace {

using base::Code;
using base::kGiB;
using base::kMiB;
using chunkstore::kChunkBytes;
using chunkstore::Root;

bool Never() { return false; }

class Qcow2WriterTest : public testing::Test {
 protected:
  void SetUp() override {
    int code = 0;
    RunTool({"qemu-img", "--version"}, &code);
    if (code != 0) GTEST_SKIP() << "NOT TESTED: the qcow2 writer: install qemu-utils";
    chunkstore::ChunkStoreOptions options;
    options.reserve_bytes = 0;
    auto opened =
        chunkstore::ChunkStore::Open(options, blobs_, meta_, base::SystemClock(), metrics_);
    ASSERT_OK(opened);
    store_ = std::move(*opened);
  }

  // A disk of which only these chunks are no hole: each full of its own bytes.
  Root Disk(const std::vector<uint64_t>& chunks, uint64_t size) {
    auto ingest = store_->NewIngest("test/disk", "");
    CHECK(ingest.has_value());
    for (const uint64_t chunk : chunks) {
      std::string bytes(std::min<uint64_t>(kChunkBytes, size - chunk * kChunkBytes), 'a');
      for (size_t i = 0; i < bytes.size(); i += 512)
        bytes.replace(i, 8, std::to_string(chunk + i).append(8, '.'), 0, 8);
      CHECK((*ingest)->Put(chunk, base::AsBytes(bytes)).has_value());
    }
    const auto root = (*ingest)->Finish(size);
    CHECK(root.has_value());
    return *root;
  }

  // Writes it as a qcow2, which qemu-img must find sound.
  std::string Write(const Root& disk) {
    auto content = store_->Open(disk);
    auto ingest = store_->NewIngest("test/image", "");
    CHECK(content.has_value() && ingest.has_value());
    const auto root = WriteQcow2(**content, **ingest, Never);
    CHECK(root.has_value());
    WriteFile(directory_ / "image", ReadBack(*store_, "test/image"));
    const std::string checked = RunTool({"qemu-img", "check", "-f", "qcow2", directory_ / "image"});
    EXPECT_NE(checked.find("No errors were found"), std::string::npos) << checked;
    EXPECT_EQ(checked.find("leak"), std::string::npos) << checked;
    return ReadBack(*store_, "test/image");
  }

  // As qemu-img reads it.
  void ExpectSameDisk() {
    WriteFile(directory_ / "disk", ReadBack(*store_, "test/disk"));
    EXPECT_EQ(RunTool({"qemu-img", "compare", "-f", "qcow2", "-F", "raw", directory_ / "image",
                       directory_ / "disk"}),
              "Images are identical.\n");
  }

  const support::TempDir directory_;
  chunkstore::MemoryBlobStore blobs_;
  chunkstore::MemoryMetaStore meta_;
  base::Metrics metrics_;
  std::unique_ptr<chunkstore::ChunkStore> store_;
};

TEST_F(Qcow2WriterTest, HoldsTheDisk) {
  for (const auto& [chunks, size] :
       {std::pair<std::vector<uint64_t>, uint64_t>{{0, 1, 2}, 3 * kChunkBytes},
        {{1, 3}, 3 * kChunkBytes + 512},  // ends in a cluster's first sector
        {{0}, 512},                       // one sector
        {{2}, 10 * kMiB + 65536},         // on a cluster's border
        {{0, 130, 259}, 1040 * kMiB},     // several L2 tables, one of them absent
        {{}, 8 * kMiB}}) {
    const Root disk = Disk(chunks, size);
    Write(disk);
    ExpectSameDisk();
    ASSERT_OK(store_->Release("test/disk"));
    ASSERT_OK(store_->Release("test/image"));
  }
}

TEST_F(Qcow2WriterTest, SharesTheDisksChunks) {
  const Root disk = Disk({0, 1, 5, 6, 7, 40}, kGiB);
  ASSERT_OK_AND_ASSIGN(const auto before, store_->Stats());
  Write(disk);
  ASSERT_OK_AND_ASSIGN(const auto after, store_->Stats());
  EXPECT_EQ(after.chunks, before.chunks + 1) << "the tables, and no more";
}

TEST_F(Qcow2WriterTest, AHoleOf500GiBIsNothing) {
  const Root disk = Disk({7}, 500 * kGiB);
  const std::string image = Write(disk);
  EXPECT_EQ(image.size(), 2 * kChunkBytes);
  imaged::formats::Inspector inspector("qcow2", "bare");
  ASSERT_OK(inspector.Head(base::AsBytes(image).first(kChunkBytes)));
  ASSERT_OK_AND_ASSIGN(const auto size,
                       inspector.Finish(image.size(), base::AsBytes(image).last(1024)));
  EXPECT_EQ(size, 500 * kGiB);
}

TEST_F(Qcow2WriterTest, StopsWhenItIsCalledOff) {
  ASSERT_OK_AND_ASSIGN(const auto content, store_->Open(Disk({0, 1}, 2 * kChunkBytes)));
  ASSERT_OK_AND_ASSIGN(const auto ingest, store_->NewIngest("test/image", ""));
  EXPECT_ERROR(WriteQcow2(*content, *ingest, [] { return true; }), Code::kCancelled);
}

}  // namespace
}  // namespace controlplane::convert
