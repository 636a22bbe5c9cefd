#include <cstring>
#include <string>
#include <vector>

#include "base/check.h"
#include "base/coding.h"
#include "chunkstore/blob_format.h"
#include "chunkstore/layers/block_log.h"
#include "tests/support/fault_files.h"

// What somebody wrote into the cache's files: a list of pinned blocks, and the first segment's head
// and table, with check sums as they are and with right ones.

namespace {

using namespace chunkstore::layers;  // NOLINT(google-build-using-namespace): one file, one subject

void ReadPins(base::ByteView bytes) {
  std::string body(base::AsText(bytes));
  for (const bool with_sum : {false, true}) {
    if (with_sum) base::PutFixed<uint64_t>(&body, base::Xxh3(base::AsBytes(body)).low);
    const auto group = DecodePins(body);
    if (!group) continue;
    const auto again = DecodePins(EncodePins(*group));
    CHECK(again && again->name == group->name && again->blocks.size() == group->blocks.size());
  }
}

// The entries' check sums become right, so that what they say is looked at.
std::string Table(base::ByteView bytes) {
  SegmentHead head{.generation = 7};
  if (const auto found = DecodeSegmentHead(bytes)) head = *found;
  std::string table = EncodeSegmentHead(head);
  for (size_t at = 0; at + 16 <= bytes.size() && table.size() < kMinSegmentBytes / 2; at += 16) {
    SegmentEntry entry;
    std::memcpy(&entry.key, bytes.data() + at, 8);
    std::memcpy(&entry.offset, bytes.data() + at + 8, 4);
    std::memcpy(&entry.length, bytes.data() + at + 12, 4);
    table += EncodeEntry(entry, head.generation, at / 16);
  }
  return table;
}

void OpenLog(std::string_view segment) {
  constexpr uint64_t kLimit = 16 * base::kMiB;
  support::FaultFiles files;
  CHECK(files.CreateDirs("/cache"));
  {
    auto file = files.Open("/cache/blocks", base::Files::Mode::kCreateNew);
    CHECK(file && (*file)->Truncate(kCacheHeadBytes + kMinSegmentBytes));
    const std::string head = EncodeCacheHead(kMinSegmentBytes);
    const std::vector<base::ByteView> pieces = {base::AsBytes(head), base::AsBytes(segment)};
    CHECK((*file)->WriteAt(0, pieces));
  }
  base::Metrics metrics;
  CacheCounts counts(metrics);
  PlaceIndex index;
  auto pins = Pins::Open(files, "/cache", {.pinned_bytes = kLimit, .file_bytes = kLimit});
  CHECK(pins.has_value());
  auto log =
      BlockLog::Open({.path = "/cache/blocks", .limit_bytes = kLimit, .max_file_bytes = kLimit},
                     files, base::SystemClock(), index, **pins, counts.evicted_blocks);
  CHECK(log.has_value());
  // Whatever the index says now can be read, dropped and written beside.
  const std::string block(1000, 'b');
  const BlockLog::Stored stored{.key = 1, .bytes = base::AsBytes(block)};
  CHECK((*log)->Append({&stored, 1}) == 1);
  const auto found = index.Find(1);
  std::vector<uint8_t> read(found->place.length);
  CHECK((*log)->ReadAt(found->place, read) && base::AsText(read) == block);
  CHECK((*log)->DropAll());
  CHECK(index.blocks() == 0 && index.bytes() == 0);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const base::ByteView bytes(data, size);
  ReadPins(bytes);
  (void)DecodeCacheHead(bytes);
  if (size > kMinSegmentBytes / 2) return 0;
  OpenLog(base::AsText(bytes));
  OpenLog(Table(bytes));
  return 0;
}
