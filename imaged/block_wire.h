#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/bytes.h"
#include "base/result.h"
#include "chunkstore/blob_format.h"
#include "chunkstore/layers/block_source.h"

// The bodies of blocks and boot traces, as API.md ("Blocks", "Boot traces") writes them down. Both
// sides use this file: imaged with controlplane, and a compute host. Numbers are little-endian;
// what comes in is hostile. Bodies that a service takes are answered kInvalidArgument, answers that
// a host takes kCorruption, each with a sentence.

namespace imaged {

constexpr std::string_view kBlocksType = "application/vnd.quarry.blocks.v1";
constexpr std::string_view kTraceType = "application/vnd.quarry.boot-trace.v1";
constexpr uint16_t kBlockWireVersion = 1;

// --- the request: chunks, and what is wanted of each

constexpr size_t kBlockRequestHeadBytes = 16;
constexpr size_t kBlockItemBytes = 8;
// Of one request: chunks, and numbers of blocks in all of them.
constexpr size_t kMaxBlockItems = 1024;
constexpr size_t kMaxBlockNumbers = 16'384;
constexpr size_t kMaxBlockRequestBytes =
    kBlockRequestHeadBytes + kBlockItemBytes * kMaxBlockItems + 2 * kMaxBlockNumbers;

struct BlockItem {
  uint32_t chunk = 0;
  // Places in the chunk's table, ascending, at least one; nothing: the table itself.
  std::vector<uint16_t> numbers;
  bool wants_table() const { return numbers.empty(); }
  bool operator==(const BlockItem&) const = default;
};
// REQUIRES: within the limits.
std::string EncodeBlockRequest(const std::vector<BlockItem>& items);
// `chunks`: how many the image has.
base::Result<std::vector<BlockItem>> DecodeBlockRequest(std::string_view body, uint64_t chunks);

// --- the answer: a head, then for every item in the order of the request a head of its own, the
// entries of its blocks and, where these were asked for, behind them their stored bytes

constexpr size_t kBlockAnswerHeadBytes = 32;
constexpr size_t kBlockEntryBytes = 44;

// What a service calls the bytes of an image, under its secret. Equal for equal bytes.
struct DataName {
  std::array<uint8_t, 16> bytes{};
  auto operator<=>(const DataName&) const = default;
};

struct BlockAnswerHead {
  uint64_t size_bytes = 0;  // of the image
  DataName data;
  bool operator==(const BlockAnswerHead&) const = default;
};
enum class BlockHow : uint16_t {
  kTable = 0,   // of all blocks of the chunk; none: a hole
  kBlocks = 1,  // those asked for
  kOther = 2,   // none: the chunk has not all of these numbers
};
using chunkstore::layers::BlockInfo;
using chunkstore::layers::BlockName;

std::string EncodeBlockAnswerHead(const BlockAnswerHead& head);
void AppendBlockItemHead(std::string* out, uint32_t chunk, BlockHow how, size_t entries);
// `number` is its place in the chunk's table.
void AppendBlockEntry(std::string* out, size_t number, const BlockInfo& block);

// A host's side of an answer: takes it apart as it arrives. The service may lie as it likes: what
// it says is checked against what was asked, and memory is bounded by a table and a block. One
// thread.
class BlockReceiver {
 public:
  // Errors of these end the transfer. `item` counts within the request.
  struct Sinks {
    std::function<base::Result<void>(size_t item, std::vector<BlockInfo> table)> table;
    // With exactly block.stored_length bytes, that nobody checked.
    std::function<base::Result<void>(size_t item, size_t number, const BlockInfo& block,
                                     base::ByteView stored)>
        block;
  };
  // `asked` is what the request named; borrowed. `size_bytes`: of the image, if it is known.
  BlockReceiver(const std::vector<BlockItem>& asked, std::optional<uint64_t> size_bytes,
                Sinks sinks);

  // The next bytes of the answer's body. kCorruption; kInvalidArgument if the service says that a
  // chunk has not the numbers asked for; or what a sink says.
  base::Result<void> Take(base::ByteView bytes);
  // After the last: kCorruption if something is missing.
  base::Result<void> End();

  // Of the answer. REQUIRES: End succeeded.
  const BlockAnswerHead& head() const { return *head_; }

 private:
  enum class State : uint8_t { kHead, kItem, kEntries, kBytes, kDone };
  // How many bytes the present state needs at once.
  size_t Needed() const;
  base::Result<void> Step(std::string_view bytes);
  base::Result<void> TakeHead(std::string_view bytes);
  base::Result<void> TakeItem(std::string_view bytes);
  base::Result<void> TakeEntries(std::string_view bytes);
  base::Result<void> EndItem();
  void NextItem();

  const std::vector<BlockItem>& asked_;
  const std::optional<uint64_t> known_size_bytes_;
  const Sinks sinks_;
  State state_ = State::kHead;
  std::optional<BlockAnswerHead> head_;
  size_t item_ = 0;
  size_t entry_count_ = 0;
  std::vector<BlockInfo> entries_;
  size_t block_ = 0;  // of the item's blocks, the next
  std::string kept_;  // less than Needed(), of the state
};

// --- boot traces: which blocks of an image a boot reads first, in order

constexpr size_t kTraceHeadBytes = 32;
constexpr size_t kTraceRunBytes = 8;
constexpr size_t kMaxTraceBytes = 1 * base::kMiB;
constexpr size_t kMaxTraceBlocks = 131'072;  // of all runs: 4 GiB of usual blocks

// Blocks first .. first + count - 1 of a chunk.
struct BlockRun {
  uint32_t chunk = 0;
  uint16_t first = 0;
  uint16_t count = 0;
  bool operator==(const BlockRun&) const = default;
};
struct BootTrace {
  DataName data;  // of the bytes that it was recorded of
  std::vector<BlockRun> runs;
  bool operator==(const BootTrace&) const = default;
};
// REQUIRES: within the limits.
std::string EncodeTrace(const BootTrace& trace);
// Runs are within an image of so many chunks, and no block stands in two of them. Whether a chunk
// has as many blocks is its reader's to see.
base::Result<BootTrace> DecodeTrace(std::string_view body, uint64_t chunks);

}  // namespace imaged
