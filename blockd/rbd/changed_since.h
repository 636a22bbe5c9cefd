#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "base/result.h"
#include "base/thread_annotations.h"
#include "blockd/rbd/cluster.h"
#include "blockd/rbd/ledger.h"
#include "blockd/volume.h"
#include "chunkstore/chunk_store.h"

namespace blockd::rbd {

// Where a volume may differ from one of its snapshots or from a content. Both are followed down to
// something that both stand on, or to contents, which are compared by their maps; on the way each
// RBD image tells from its object maps what was written to it. By whole objects.
//
// Thread-safe; a lock only guards what is remembered of the contents.
class ChangedSince : public ChangedBlocks {
 public:
  // One of the two.
  struct Then {
    std::string snapshot;
    std::string holder;
  };
  using Connect = std::function<base::Result<std::shared_ptr<Cluster>>()>;

  // All borrowed, and by `connect` too.
  ChangedSince(Ledger& ledger, chunkstore::ChunkStore& chunks, Connect connect,
               std::string volume_id, Then then)
      : ledger_(ledger),
        chunks_(chunks),
        connect_(std::move(connect)),
        volume_id_(std::move(volume_id)),
        then_(std::move(then)) {}

  base::Result<void> Visit(uint64_t offset, uint64_t length, const Visitor& visit) override
      EXCLUDES(mutex_);

 private:
  using Root = chunkstore::Root;
  using ObjectSet = std::vector<bool>;  // by number; what lies beyond its end is not in it
  struct Range {
    uint64_t offset = 0;
    uint64_t length = 0;
  };
  // An image as an RBD snapshot has it, or as it is.
  struct Place {
    std::string image;
    std::string snap;
  };
  // What was met on the way down: the point that was looked for, a content, or (neither) nothing.
  struct Ground {
    bool met = false;
    std::optional<Root> root;
  };
  base::Result<ObjectSet> Changed(const Range& range) EXCLUDES(mutex_);
  base::Result<Ground> Descend(Place place, const std::string& wanted, const Range& range,
                               ObjectSet* changed);
  base::Result<std::optional<Ground>> StepDown(Place* place, const std::string& wanted,
                                               const Range& range, ObjectSet* changed);
  base::Result<Ground> GroundAt(const PointRecord& point);
  base::Result<Root> RootOf(const std::string& holder);
  base::Result<std::shared_ptr<const ObjectSet>> Compare(const std::optional<Root>& a,
                                                         const std::optional<Root>& b)
      EXCLUDES(mutex_);

  Ledger& ledger_;
  chunkstore::ChunkStore& chunks_;
  const Connect connect_;
  const std::string volume_id_;
  const Then then_;

  using Roots = std::pair<std::optional<Root>, std::optional<Root>>;
  base::Mutex mutex_;
  Roots compared_ GUARDED_BY(mutex_);  // at the last visit (at most 512 KiB)
  std::shared_ptr<const ObjectSet> different_ GUARDED_BY(mutex_);
};

}  // namespace blockd::rbd
