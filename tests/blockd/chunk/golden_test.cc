#include <gtest/gtest.h>

#include "base/files.h"
#include "blockd/chunk/layer_map.h"
#include "blockd/chunk/records.h"
#include "tests/support/results.h"
#include "tests/support/temp_dir.h"

// What version 1 wrote is read so for ever. The file was made from blockd/chunk/README.md alone, by
// another program.

namespace blockd::chunk {
namespace {

constexpr char kId[] = "golden";

std::string GoldenMap() {
  const auto bytes =
      base::ReadWholeFile(QUARRY_SOURCE_DIR "/tests/golden/layer/v1.map", base::kMiB);
  EXPECT_OK(bytes);
  return bytes.value_or("");
}

// "1 data, 2 zero"
std::string States(LayerMap& map, uint64_t limit) {
  std::string text;
  for (uint64_t block = 0; block < limit;) {
    const auto run = map.RunAt(block, limit - block);
    if (!run.has_value()) return run.error().ToString();
    const char* const names[] = {"absent", "data", "zero"};
    text += (block > 0 ? ", " : "") + std::to_string(run->blocks) + " " +
            names[static_cast<int>(run->state)];
    block += run->blocks;
  }
  return text;
}

TEST(Golden, AMapIsRead) {
  const support::TempDir dir;
  const std::string path = dir.path() + "/golden.map";
  ASSERT_OK(base::WriteFileDurably(path, GoldenMap()));
  ASSERT_OK_AND_ASSIGN(const auto map, LayerMap::Open(base::SystemFiles(), path, kId));
  EXPECT_EQ(States(*map, 16'386),
            "1 data, 1 zero, 1 absent, 1 data, 28 absent, 32 zero, 16319 absent, 1 data, 1 data, 1 "
            "absent");
}

TEST(Golden, AMapIsWrittenSo) {
  const support::TempDir dir;
  const std::string path = dir.path() + "/golden.map";
  ASSERT_OK_AND_ASSIGN(const auto map, LayerMap::Create(base::SystemFiles(), path, kId));
  for (const uint64_t block : {0, 3, 16'383, 16'384})
    ASSERT_OK(map->Set(block, 1, BlockState::kData));
  ASSERT_OK(map->Set(1, 1, BlockState::kZero));
  ASSERT_OK(map->Set(32, 32, BlockState::kZero));
  ASSERT_OK(map->Write(map->TakeDirty(2)));
  const auto written = base::ReadWholeFile(path, base::kMiB);
  ASSERT_OK(written);
  EXPECT_TRUE(*written == GoldenMap());
}

TEST(Golden, RecordsAreReadAndWrittenSo) {
  const std::string layer = R"({"state":"sealed","size":4096,"parent":"","holder":"layer/a/b"})";
  ASSERT_OK_AND_ASSIGN(const LayerRecord layer_read, DecodeLayer(layer));
  EXPECT_EQ(layer_read.state, LayerState::kSealed);
  EXPECT_EQ(layer_read.holder, "layer/a/b");
  EXPECT_EQ(Encode(layer_read), layer);
  const std::string volume = R"({"head":"a","size":1073741824,"thick":true})";
  ASSERT_OK_AND_ASSIGN(const VolumeRecord volume_read, DecodeVolume(volume));
  EXPECT_TRUE(volume_read.thick);
  EXPECT_EQ(Encode(volume_read), volume);
  const std::string snapshot = R"({"volume":"v","layer":"a","size":4096})";
  ASSERT_OK_AND_ASSIGN(const SnapshotRecord snapshot_read, DecodeSnapshot(snapshot));
  EXPECT_EQ(snapshot_read.volume, "v");
  EXPECT_EQ(Encode(snapshot_read), snapshot);
}

}  // namespace
}  // namespace blockd::chunk
