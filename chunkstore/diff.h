#pragma once

#include <cstdint>

#include "base/result.h"
#include "chunkstore/chunk_store.h"

namespace chunkstore {

// ChunkStore::Diff from chunk number `from` on, to go on where a visitor stopped. What lies before
// is passed over unread: costs what differs from there on, and a page a level. Thread-safe; errors
// as Diff.
base::Result<void> DiffFrom(ChunkStore& store, const Root& a, const Root& b, uint64_t from,
                            const ChunkStore::DiffVisitor& visit);

}  // namespace chunkstore
