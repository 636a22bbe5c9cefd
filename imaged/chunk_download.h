#pragma once

#include "base/http/router.h"
#include "base/result.h"
#include "chunkstore/chunk_store.h"
#include "imaged/data_path.h"

// Downloads of what the client lacks (API.md, "Chunk transfer"): it reads the ids of an image's
// chunks, and fetches those that it has nowhere. Both calls have the rights of GET .../file, and
// tell of that image alone.

namespace imaged {

// The list of a content's ids from number ?from=N on: of an image here, of a snapshot elsewhere.
base::Result<base::http::Response> AnswerChunkList(chunkstore::Content& content,
                                                   const base::http::Request& request);

// GET /v2/quarry/images/{image_id}/chunks?from=N. A job of the pool.
base::http::Route ChunkMapRoute(DataPath& path);

// POST /v2/quarry/images/{image_id}/chunks.
base::http::Route FetchRoute(DataPath& path);

}  // namespace imaged
