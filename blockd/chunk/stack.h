#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "base/result.h"
#include "blockd/chunk/layer.h"
#include "blockd/volume.h"
#include "chunkstore/chunk_store.h"

namespace blockd::chunk {

// What a volume reads through: layers, the newest first, over a content of the chunk store (or over
// nothing). Never changes once it is made; what its layers hold may.
//
// Thread-safe. Ranges may be anything; what lies beyond all layers and the base is zeros. Errors:
// those of Layer and of Content.
class Stack {
 public:
  Stack(std::vector<std::shared_ptr<Layer>> layers, std::shared_ptr<chunkstore::Content> base)
      : layers_(std::move(layers)), base_(std::move(base)) {}

  // The layer that takes writes. REQUIRES: there is one.
  Layer& head() const { return *layers_.front(); }
  const std::vector<std::shared_ptr<Layer>>& layers() const { return layers_; }
  const std::shared_ptr<chunkstore::Content>& base() const { return base_; }

  // Whether a block may show something that lies below the head.
  bool MayHaveBelow(uint64_t block) const {
    return layers_.size() > 1 || (base_ && block * kBlockBytes < base_->root().size_bytes);
  }

  base::Result<void> Read(uint64_t offset, base::MutableByteView into) const;
  base::Result<bool> TryRead(uint64_t offset, base::MutableByteView into) const;

  // Makes the kernel or the block cache read the range.
  void Prefetch(uint64_t offset, uint64_t length) const;

  // Runs of [offset, offset + length) in order, without a gap; neighbours may be equal. `visit`
  // returns false to stop.
  base::Result<void> VisitExtents(uint64_t offset, uint64_t length,
                                  const Volume::ExtentVisitor& visit) const;

 private:
  // Where the bytes from an offset on come from.
  struct Source {
    enum class Kind { kLayer, kZeros, kBase };
    Kind kind = Kind::kBase;
    const Layer* layer = nullptr;
    uint64_t length = 0;  // bytes for which this holds
  };
  base::Result<Source> Find(uint64_t offset, uint64_t length) const;
  // False where a page of a map would have to be read.
  base::Result<bool> TryFind(uint64_t offset, uint64_t length, Source* source) const;
  // How many of `length` bytes the base has from `offset` on.
  uint64_t InBase(uint64_t offset, uint64_t length) const;
  base::Result<bool> VisitBase(uint64_t offset, uint64_t length,
                               const Volume::ExtentVisitor& visit) const;

  const std::vector<std::shared_ptr<Layer>> layers_;
  const std::shared_ptr<chunkstore::Content> base_;
};

}  // namespace blockd::chunk
