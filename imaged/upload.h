#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "base/async/task.h"
#include "base/http/message.h"
#include "base/result.h"
#include "chunkstore/chunk_store.h"
#include "imaged/data_path.h"

// Bytes of a request's body into the chunk store.
//
//   socket -> 4 MiB buffer -> { Ingest::Put } on the data pool, many at once
//                          -> { each digest } in order, one thread each
//
// Where the image's digest is SHA-256, as the names of chunks are, one pass computes both, and the
// chunk goes from there to Put.
//
// The coroutine only reads the socket and hands buffers on; it stops reading when this upload's
// buffers are all in use, so memory is bounded whatever the client and the disk do.

namespace imaged {

struct ReceiveOptions {
  std::string image_id;
  std::string holder;
  std::string sharer;       // whose share of the memory for uploads it takes
  std::string disk_format;  // empty: nothing is inspected
  std::string container_format;
  std::string keep_for;  // the project that a part is kept for if it breaks off; empty: none is
  std::optional<uint64_t> expected_bytes;  // what the client said beside Content-Length
  uint64_t reserved_bytes = 0;             // of the quota, so far
};

struct Received {
  chunkstore::Root root;
  std::optional<uint64_t> virtual_bytes;
  Digests digests;  // all that are needed
};

// Why it failed: what the inspector refuses has an HTTP status of its own.
struct ReceiveFailure {
  base::Error error;
  bool bad_format = false;
};

// The outcome is in `received` or else in `failure`: the ingest is finished, or was aborted, or
// what came of it is kept as a part besides (kept_parts.h). Never throws bytes away that are in
// use: when it answers, no job of this upload runs any more.
struct ReceiveOutcome {
  std::optional<Received> received;
  std::optional<ReceiveFailure> failure;
  uint64_t bytes = 0;
  uint64_t known_bytes = 0;
};

// `body` must live until it answers; `ingest` was begun for options.holder.
base::async::Task<ReceiveOutcome> ReceiveBody(DataPath& path, base::http::BodyReader& body,
                                              std::unique_ptr<chunkstore::Ingest> ingest,
                                              ReceiveOptions options);

}  // namespace imaged
