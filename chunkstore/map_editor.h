#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "base/hash.h"
#include "base/result.h"
#include "chunkstore/chunk_store.h"
#include "chunkstore/map.h"

namespace chunkstore {

// Makes the map of a content out of another content's map (or of nothing) and the chunks that
// changed. Subtrees without a change are taken over by reference and not even read; so what a run
// costs follows the changes, and the root that comes out follows the content alone: the same
// chunks and size give the same pages, whichever way they came.
//
// Holds one page a level. Used once, by one thread.
class MapEditor {
 public:
  struct Change {
    uint64_t index = 0;
    std::optional<base::Digest256> chunk;  // nothing: a hole
  };
  // The next change, nothing after the last. REQUIRES: ascending, below ChunkCount(size_bytes).
  using Source = std::function<base::Result<std::optional<Change>>()>;
  // A page of the base, by its id.
  using Reader =
      std::function<base::Result<std::shared_ptr<const MapPage>>(const base::Digest256& id)>;
  // Takes a page that may be new, with its id and encoding: children before their parents, the
  // root last.
  using Sink = std::function<base::Result<void>(const base::Digest256& id, std::string encoded,
                                                MapPage page)>;

  // REQUIRES: a chunk whose length the change of size changes is among the changes, or a hole in
  // the base.
  MapEditor(const std::optional<Root>& base, uint64_t size_bytes, Reader read, Source changes,
            Sink sink);

  struct Outcome {
    base::Digest256 root;
    // Plain bytes of chunks that came and went: by how much the content's bytes outside of holes
    // differ from the base's. A chunk that is looked at and stays counts in both.
    uint64_t added_bytes = 0;
    uint64_t removed_bytes = 0;
  };
  // kCorruption if the base's pages are not of one map; what read, changes and sink return.
  base::Result<Outcome> Run();

 private:
  // What stands in place of `before` (nothing: a hole, or no page) in the new map. Pages and chunks
  // beyond the new size go.
  base::Result<std::optional<base::Digest256>> Page(uint8_t level, uint64_t number,
                                                    const std::optional<base::Digest256>& before);
  base::Result<std::optional<base::Digest256>> Chunk(uint64_t index,
                                                     const std::optional<base::Digest256>& before);
  base::Result<MapPage> Edited(const MapPage& before, uint8_t level, uint64_t number);
  base::Result<std::shared_ptr<const MapPage>> Load(uint8_t level,
                                                    const std::optional<base::Digest256>& id);
  base::Result<base::Digest256> Emit(MapPage page);
  bool HasChange(uint64_t first, uint64_t end) const {
    return next_ && next_->index >= first && next_->index < end;
  }
  base::Result<void> Advance();

  const std::optional<Root> base_;
  const uint64_t size_bytes_;
  const uint64_t count_;  // of chunks
  const uint64_t base_count_;
  const uint8_t root_level_;
  const Reader read_;
  const Source changes_;
  const Sink sink_;
  std::optional<Change> next_;
  Outcome outcome_;
};

}  // namespace chunkstore
