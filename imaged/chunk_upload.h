#pragma once

#include <cstdint>
#include <memory>

#include "base/async/task.h"
#include "base/http/message.h"
#include "base/http/router.h"
#include "base/result.h"
#include "imaged/data_path.h"

// Uploads that send only what the service lacks (API.md, "Chunk transfer"). The client lists the
// ids of an image's chunks and is told which are wanted; then it PUTs a stream in which the others
// are only named. Here the stream becomes the plain bytes again, so that everything behind it
// (digests, quota, inspection, the image's states) is the one path of every upload.
//
// A chunk's id proves nothing. A chunk counts as there only if it lies in the data of an image that
// the caller could download at this moment (policy.h), or came from his project in an upload that
// broke off (kept_parts.h); all others are asked for, whether they are stored or not, and
// deduplicated silently. Both requests check it, by the same rule.
//
// In version 2 of the stream a chunk may be assembled of parts of chunks that are there by that
// rule, and bytes that are sent (recipe_wire.h). What comes out must have the announced id.

namespace imaged {

// How long a right to read a named chunk counts after it was looked at: a client that sends slowly
// can't make use of one that has ended.
constexpr int64_t kNamedRightMs = 1'000;

// POST /v2/quarry/images/{image_id}/wanted. A job of the pool.
base::http::Route WantedRoute(DataPath& path);

// Whether a PUT of image data brings a chunk stream and no plain bytes.
bool IsChunkStream(const base::http::Request& request);

// The plain bytes of a chunk stream; content_length() is the image's size. Reads the stream's
// header at once. Each Read must ask for kChunkBytes, as ReceiveBody does. `body` must outlive what
// it answers. Errors, of this and of Read: kInvalidArgument for a stream that is not one, that does
// not end where it says, or whose bytes are not those of the announced id (the chunk's number in
// the message); kConflict for a named chunk that the caller can't read (any more), or an assembled
// one that is not what its id says: ask again which are wanted.
base::async::Task<base::Result<std::unique_ptr<base::http::BodyReader>>> ExpandChunkStream(
    DataPath& path, std::shared_ptr<const base::http::Request> request,
    base::http::BodyReader& body);

}  // namespace imaged
