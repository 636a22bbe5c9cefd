#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/result.h"
#include "chunkstore/layers/block_source.h"

// What the agent of a compute host knows of an image or snapshot: a seam between the volumes that
// it serves and the service that has the bytes.

namespace controlplane::host {

// How a content is laid out. Value type; immutable once told: an image's bytes never change.
struct Shape {
  uint64_t size_bytes = 0;
  std::vector<bool> holes;  // by chunk number: true reads as zeros, and nobody is asked
  std::string data_name;    // what the service calls these bytes, in hex; empty: it has no name
};

// Blocks `first` to `first + count - 1` of one chunk.
struct BlockRun {
  uint64_t chunk = 0;
  uint32_t first = 0;
  uint32_t count = 0;
  auto operator<=>(const BlockRun&) const = default;
};

// What a boot read, in the order in which it did.
using BootTrace = std::vector<BlockRun>;

// An image or a snapshot at a service. Thread-safe; calls block. Errors as of BlockSource.
class RemoteImage : public chunkstore::layers::BlockSource {
 public:
  using Table = std::vector<chunkstore::layers::BlockInfo>;

  virtual base::Result<Shape> ReadShape() = 0;
  // As Table, of several chunks in one go: as many as were asked for, in that order.
  virtual base::Result<std::vector<Table>> Tables(std::span<const uint64_t> chunks) = 0;
  // Nothing: none was recorded yet.
  virtual base::Result<std::optional<BootTrace>> ReadTrace() = 0;
  virtual base::Result<void> WriteTrace(const BootTrace& trace) = 0;
};

}  // namespace controlplane::host
