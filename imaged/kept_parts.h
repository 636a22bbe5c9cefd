#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

#include "base/result.h"
#include "imaged/data_path.h"

// What a negotiated upload had brought when it broke off is kept for a while, so that the next try
// need not send it again: its chunks, one after the other in no order, as a content of its own. It
// belongs to the project that sent it: that one is told of its chunks, and may name them, as of
// those of an image that it could download. It tells nobody anything: who sent the bytes has them.
//
// It is not an image, and not in a quota: a quota that an unseen part fills would refuse the very
// image that the part is kept for. Instead a project's parts have limits of their own (below, and
// DataOptions::kept_bytes); past them the oldest go.
//
// Who keeps it: the upload, if it ends by itself; else, if its process died or stands still, who
// finds that its lease ran out (reconcile.h). The chunk store gives up an ingest later than that.

namespace imaged {

constexpr int64_t kKeptPartUs = 3'600'000'000;  // an hour
constexpr size_t kKeptPartsOfProject = 4;       // then the oldest goes

// Keeps for the project what the unfinished ingest of `holder` has stored so far, whoever's it is,
// and up to DataOptions::kept_bytes of it; leaves the ingest as it is. Of one that is finished, all
// or nothing. Fine if nothing is there. kCancelled when the data path stops. Blocking.
base::Result<void> KeepPart(DataPath& path, const std::string& project_id,
                            const std::string& holder);

// Lets go of parts that are older than kKeptPartUs, or more than a project may have. Reads the
// names of all.
base::Result<void> ReleaseOldParts(DataPath& path);

}  // namespace imaged
