#pragma once

#include <functional>

#include "base/result.h"
#include "chunkstore/chunk_store.h"

namespace controlplane::convert {

// Writes a disk as a qcow2 (version 3, clusters of 64 KiB) that holds it, into an ingest, and
// finishes that. Where the disk has holes the qcow2 has nothing, and its data begins on the chunks'
// grid: each chunk of it is a chunk of the disk, so only the tables are new to the store.
//
// Nothing is parsed, so this needs no sandbox as the other direction does. Blocking: reads the
// disk once. kCancelled; kTooLarge; what the store says.
//
// Source: docs/interop/qcow2.txt of QEMU.
base::Result<chunkstore::Root> WriteQcow2(chunkstore::Content& disk, chunkstore::Ingest& ingest,
                                          const std::function<bool()>& cancelled);

}  // namespace controlplane::convert
