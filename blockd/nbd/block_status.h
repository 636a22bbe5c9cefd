#pragma once

#include <string>

#include "base/result.h"
#include "blockd/nbd/handshake.h"
#include "blockd/nbd/request.h"

namespace blockd::nbd {

// The whole answer to a BLOCK_STATUS: one chunk for each context of the session, each with runs of
// [offset, offset + length) from its start, neighbours of the same state merged; at most
// kMaxExtents of them (the client asks on from where they end), one with REQ_ONE. Blocking.
base::Result<std::string> BlockStatusReply(const Session& session, const Request& request);

}  // namespace blockd::nbd
