#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "base/result.h"
#include "base/thread_annotations.h"
#include "blockd/chunk/stack.h"
#include "blockd/volume.h"
#include "chunkstore/chunk_store.h"

namespace blockd::chunk {

// Where a volume may differ from one of its snapshots, without reading either. Both are stacks; the
// layers that both have at the bottom never change, so what differs was written to one of the
// others, or lies in a chunk in which the contents below are not the same. Exact to the block for
// layers, to the chunk for contents; a block that was written with the bytes it had counts.
//
// Thread-safe; a lock only guards what is remembered of the contents. Errors: those of the source,
// of LayerMap, and of ChunkStore::Diff.
class ChangedSince : public ChangedBlocks {
 public:
  struct Stacks {
    std::shared_ptr<const Stack> now;
    std::shared_ptr<const Stack> then;
  };
  // Both as they are at one moment. Asked at every visit: a volume gets new layers while somebody
  // is connected, and the sealer takes old ones away.
  using Source = std::function<base::Result<Stacks>()>;

  // `chunks` is borrowed, and so is what the source borrows.
  ChangedSince(Source source, chunkstore::ChunkStore& chunks)
      : source_(std::move(source)), chunks_(chunks) {}

  base::Result<void> Visit(uint64_t offset, uint64_t length, const Visitor& visit) override
      EXCLUDES(mutex_);

 private:
  using Layers = std::vector<std::shared_ptr<Layer>>;
  using ChunkSet = std::vector<bool>;  // by number; what lies beyond its end is not in it
  struct Run {
    uint64_t length = 0;
    bool changed = false;
  };
  using Bases = std::pair<std::optional<chunkstore::Root>, std::optional<chunkstore::Root>>;
  static Layers NotShared(const Stacks& stacks);
  static base::Result<Run> RunAt(const Layers& layers, const ChunkSet& below, uint64_t offset,
                                 uint64_t length);
  base::Result<std::shared_ptr<const ChunkSet>> ChangedBelow(const Stacks& stacks) EXCLUDES(mutex_);

  const Source source_;
  chunkstore::ChunkStore& chunks_;
  base::Mutex mutex_;
  // How the contents compared that lay below at the last visit (at most 512 KiB). By their roots,
  // so that nothing is kept in the chunk store on account of this.
  Bases compared_ GUARDED_BY(mutex_);
  std::shared_ptr<const ChunkSet> changed_ GUARDED_BY(mutex_);
};

}  // namespace blockd::chunk
