#include "controlplane/convert/to_raw.h"

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
#include "tests/controlplane/convert/disk_images.h"
#include "tests/support/results.h"

namespace controlplane::convert {
namespace {

using base::ByteView;
using base::Code;
using base::Result;
using chunkstore::kChunkBytes;
using chunkstore::Root;

bool Never() { return false; }

class ToRawTest : public testing::Test {
 protected:
  void SetUp() override {
    const std::string why = WhyNotTested();
    if (!why.empty()) GTEST_SKIP() << why;
    chunkstore::ChunkStoreOptions options;
    options.reserve_bytes = 0;
    auto opened =
        chunkstore::ChunkStore::Open(options, blobs_, meta_, base::SystemClock(), metrics_);
    ASSERT_OK(opened);
    store_ = std::move(*opened);
  }

  std::shared_ptr<chunkstore::Content> Store(std::string_view bytes) {
    auto ingest = store_->NewIngest("test/image-" + std::to_string(++images_), "");
    CHECK(ingest.has_value());
    const ByteView all = base::AsBytes(bytes);
    for (size_t at = 0; at < all.size(); at += kChunkBytes) {
      const auto put = (*ingest)->Put(
          at / kChunkBytes, all.subspan(at, std::min<size_t>(kChunkBytes, all.size() - at)));
      CHECK(put.has_value());
    }
    const auto root = (*ingest)->Finish(bytes.size());
    CHECK(root.has_value());
    return store_->Open(*root).value();
  }

  // Into the holder "test/disk".
  Result<Root> Convert(std::string_view format, std::string_view image, uint64_t disk_bytes) {
    RETURN_IF_ERROR(store_->Release("test/disk"));
    ASSIGN_OR_RETURN(std::shared_ptr<chunkstore::Ingest> ingest,
                     store_->NewIngest("test/disk", ""));
    RETURN_IF_ERROR(
        ToRaw(limits_, programs_, format, Store(image), disk_bytes, ingest, cancelled_));
    return ingest->Finish(disk_bytes);
  }

  Limits limits_;
  Programs programs_;
  std::function<bool()> cancelled_ = Never;
  chunkstore::MemoryBlobStore blobs_;
  chunkstore::MemoryMetaStore meta_;
  base::Metrics metrics_;
  std::unique_ptr<chunkstore::ChunkStore> store_;
  int images_ = 0;
};

TEST_F(ToRawTest, MakesTheDiskThatEachFormatDescribes) {
  struct Case {
    std::string format;  // Glance's
    std::string qemu;
    std::vector<std::string> options;
  };
  const std::string disk = SampleDisk();
  for (const Case& one : std::vector<Case>{
           {"qcow2", "qcow2", {}},
           {"qcow2", "qcow2", {"-c"}},
           {"qcow2", "qcow2", {"-c", "-o", "compression_type=zstd,cluster_size=4096"}},
           {"qcow2", "qcow2", {"-o", "extended_l2=on"}},
           {"qcow2", "qcow2", {"-o", "compat=0.10"}},
           {"vmdk", "vmdk", {}},
           {"vmdk", "vmdk", {"-o", "subformat=streamOptimized"}},
           {"vdi", "vdi", {}},
           {"vhd", "vpc", {"-o", "force_size=on"}},
           {"vhd", "vpc", {"-o", "force_size=on,subformat=fixed"}},
           {"vhdx", "vhdx", {}}}) {
    const std::string image = MakeImage(disk, one.qemu, one.options);
    const std::string what = one.format + (one.options.empty() ? "" : " " + one.options.back());
    const auto root = Convert(one.format, image, disk.size());
    ASSERT_OK(root) << what;
    EXPECT_TRUE(ReadBack(*store_, "test/disk") == disk) << what;
    // What is zeros takes nothing.
    ASSERT_OK_AND_ASSIGN(const auto stats, store_->StatsOf("test/disk"));
    EXPECT_EQ(stats.nonzero_bytes, 3 * kChunkBytes + 3 * base::kMiB + 5 * 512) << what;
  }
}

TEST_F(ToRawTest, AFullDiskAndAnEmptyOne) {
  std::string full(9 * base::kMiB, 'x');
  ASSERT_OK(Convert("qcow2", MakeImage(full, "qcow2"), full.size()));
  EXPECT_TRUE(ReadBack(*store_, "test/disk") == full);
  const std::string empty(16 * base::kMiB, '\0');
  ASSERT_OK(Convert("qcow2", MakeImage(empty, "qcow2"), empty.size()));
  EXPECT_TRUE(ReadBack(*store_, "test/disk") == empty);
  ASSERT_OK_AND_ASSIGN(const auto stats, store_->StatsOf("test/disk"));
  EXPECT_EQ(stats.nonzero_bytes, 0u);
}

// Uploads with any of these are refused; here the inspector is not asked.
TEST_F(ToRawTest, ReadsNoOtherFileWhateverTheImageNames) {
  const support::TempDir directory;
  const std::string secret = "the operator's secret" + std::string(65536 - 21, '.');
  WriteFile(directory / "secret", secret);
  const std::string size = std::to_string(secret.size());
  RunTool({"qemu-img", "create", "-f", "qcow2", "-F", "raw", "-b", directory / "secret",
           directory / "backing"});
  RunTool({"qemu-img", "create", "-f", "qcow2", "-o",
           "data_file_raw=on,data_file=" + (directory / "data"), directory / "external", size});
  WriteFile(directory / "data", secret);
  WriteFile(directory / "flat",
            "# Disk DescriptorFile\nversion=1\nCID=fffffffe\nparentCID=ffffffff\n"
            "createType=\"monolithicFlat\"\n\nRW 128 FLAT \"" +
                (directory / "secret") +
                "\" 0\n\nddb.virtualHWVersion = \"4\"\nddb.geometry.cylinders = \"1\"\n"
                "ddb.geometry.heads = \"16\"\nddb.geometry.sectors = \"63\"\n"
                "ddb.adapterType = \"ide\"\n");
  for (const auto& [name, format] : {std::pair<std::string, std::string>{"backing", "qcow2"},
                                     {"external", "qcow2"},
                                     {"flat", "vmdk"}}) {
    // Unconfined, it does read it.
    RunTool(
        {"qemu-img", "convert", "-f", format, "-O", "raw", directory / name, directory / "leaked"});
    ASSERT_NE(ReadFile(directory / "leaked").find("the operator's secret"), std::string::npos)
        << name;
    const auto converted = Convert(format, ReadFile(directory / name), secret.size());
    EXPECT_ERROR(converted, Code::kInvalidArgument) << name;
  }
}

TEST_F(ToRawTest, WhatIsNotOfTheFormatIsAnError) {
  const std::string noise(base::kMiB, 'x');
  for (const char* format : {"qcow2", "vmdk", "vdi", "vhd", "vhdx"}) {
    const auto converted = Convert(format, noise, base::kMiB);
    ASSERT_ERROR(converted, Code::kInvalidArgument) << format;
    EXPECT_NE(converted.error().message().find("qemu-img"), std::string::npos);
  }
  EXPECT_ERROR(Convert("raw", noise, base::kMiB), Code::kInvalidArgument);
  // The format is what the record says, whatever the bytes look like.
  EXPECT_ERROR(Convert("vmdk", MakeImage(SampleDisk(), "qcow2"), SampleDisk().size()),
               Code::kInvalidArgument);
}

TEST_F(ToRawTest, ALargerDiskThanTheRecordSaysIsAnError) {
  const std::string image = MakeImage(SampleDisk(), "qcow2");
  EXPECT_ERROR(Convert("qcow2", image, SampleDisk().size() - 4096), Code::kInvalidArgument);
}

TEST_F(ToRawTest, KeepsItsLimits) {
  const std::string disk = SampleDisk();
  const std::string image = MakeImage(disk, "qcow2");
  limits_.max_disk_bytes = disk.size() - 1;
  EXPECT_ERROR(Convert("qcow2", image, disk.size()), Code::kTooLarge);
  limits_ = {};
  limits_.memory_bytes = 16 * base::kMiB;
  EXPECT_ERROR(Convert("qcow2", image, disk.size()), Code::kInvalidArgument);
  limits_ = {};
  limits_.time_ms = 0;
  EXPECT_ERROR(Convert("qcow2", image, disk.size()), Code::kTooLarge);
  limits_ = {};
  cancelled_ = [] { return true; };
  EXPECT_ERROR(Convert("qcow2", image, disk.size()), Code::kCancelled);
  // Nothing of all that is in the way of the next.
  cancelled_ = Never;
  ASSERT_OK(Convert("qcow2", image, disk.size()));
  EXPECT_TRUE(ReadBack(*store_, "test/disk") == disk);
}

// A name that qemu-img repeats: of a feature that it does not know.
TEST_F(ToRawTest, WhatTheToolSaysIsUtf8) {
  std::string image("QFI\xfb", 4);
  const auto append = [&](uint64_t value, size_t bytes) {
    while (bytes-- > 0) image += static_cast<char>(value >> (8 * bytes));
  };
  append(3, 4);                  // version
  append(0, 8 + 4);              // no backing file
  append(16, 4);                 // bits of a cluster
  append(base::kMiB, 8);         // disk
  append(0, 4);                  // no encryption
  append(1, 4);                  // L1 table
  append(3 << 16, 8);            //   at
  append(1 << 16, 8);            // refcounts at
  append(1, 4);                  //   clusters
  append(0, 4 + 8);              // no snapshots
  append(uint64_t{1} << 60, 8);  // incompatible features
  append(0, 8 + 8);              // other features
  append(4, 4);                  // refcounts of 16 bits
  append(104, 4);                // length of all this
  append(0x6803f857, 4);         // names of features
  append(48, 4);
  append(0, 1);
  append(60, 1);
  image += "bad\xff\xc3name";
  image.resize(size_t{4} << 16);
  const auto converted = Convert("qcow2", image, base::kMiB);
  ASSERT_ERROR(converted, Code::kInvalidArgument);
  EXPECT_NE(converted.error().message().find("bad??name"), std::string::npos)
      << converted.error().message();
}

TEST_F(ToRawTest, SaysWhatToInstall) {
  programs_.qemu_img = "/usr/bin/no-such-qemu-img";
  const auto without = Convert("qcow2", "x", 512);
  ASSERT_ERROR(without, Code::kUnavailable);
  EXPECT_NE(without.error().message().find("qemu-utils"), std::string::npos);
  programs_ = {};
  programs_.bwrap = "/usr/bin/no-such-bwrap";
  const auto unconfined = Convert("qcow2", "x", 512);
  ASSERT_ERROR(unconfined, Code::kUnavailable);
  EXPECT_NE(unconfined.error().message().find("bubblewrap"), std::string::npos);
}

}  // namespace
}  // namespace controlplane::convert
