#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "base/hash.h"
#include "base/result.h"
#include "controlplane/cli/cloud.h"
#include "controlplane/cli/image_source.h"

// The client's side of an upload that sends only what the service lacks (imaged/API.md, "Chunk
// transfer"; the bytes are in imaged/chunk_wire.h).

namespace controlplane::cli {

// What a push moved. The image's bytes are zeros, were there already, or had to be sent.
struct PushTotals {
  uint64_t bytes_total = 0;
  uint64_t bytes_zero = 0;
  uint64_t bytes_already_there = 0;
  uint64_t bytes_sent = 0;  // of all request bodies, lists of ids and repeated tries included
};

// A file's chunks by their ids; IsHole for those of zeros. Reads what is not a hole of the file
// system. `progress` hears how far it is.
struct FileChunks {
  uint64_t size_bytes = 0;
  uint64_t zero_bytes = 0;
  std::vector<base::Digest256> ids;
};
base::Result<FileChunks> HashChunks(const ImageSource& source,
                                    const std::function<void(uint64_t done)>& progress);

// Calls `visit` with one chunk after the other: its id and bytes, or a hole's id and none. An error
// of it ends the walk. kCorruption if the file ends before it should.
using FileChunkVisitor = std::function<base::Result<void>(
    uint64_t number, const base::Digest256& id, base::ByteView bytes)>;
base::Result<void> VisitChunks(const ImageSource& source, const FileChunkVisitor& visit);

// Uploads the file's bytes into a queued image, by its ids, and of chunks that are wanted only the
// blocks that are in no image like it. False if the service does not know how
// (Glance does not), or refuses what it had agreed to several times: upload them plainly then.
// Adds what it moved to `totals` in any case. `images_url` is .../v2/images.
base::Result<bool> PushByChunks(ApiClient& client, const std::string& images_url,
                                const std::string& image_id, const ImageSource& source,
                                const std::string& name, bool quiet, PushTotals* totals);

}  // namespace controlplane::cli
