#include "blockd/nbd/block_status.h"

#include <algorithm>
#include <utility>

#include "blockd/nbd/reply.h"

namespace blockd::nbd {
namespace {

struct Run {
  uint32_t length;
  uint32_t state;
};

// Takes runs in order, and stops when there are enough.
class Runs {
 public:
  explicit Runs(size_t limit) : limit_(limit) {}

  bool Add(uint64_t length, uint32_t state) {
    if (length == 0) return true;
    if (!runs_.empty() && runs_.back().state == state) {
      runs_.back().length += static_cast<uint32_t>(length);
      return true;
    }
    if (runs_.size() == limit_) return false;
    runs_.push_back({static_cast<uint32_t>(length), state});
    return true;
  }

  std::string Encode(const Request& request, bool last, uint32_t context_id) const {
    std::string out = ChunkHead(request, last ? kChunkDone : 0, kChunkBlockStatus,
                                static_cast<uint32_t>(4 + 8 * runs_.size()));
    PutBig(&out, context_id);
    for (const Run& run : runs_) {
      PutBig(&out, run.length);
      PutBig(&out, run.state);
    }
    return out;
  }

 private:
  const size_t limit_;
  std::vector<Run> runs_;  // sums to no more than a request's length: fits 32 bits
};

uint32_t AllocationState(const Extent& extent) {
  return (extent.allocated ? 0 : kStateHole) | (extent.zero ? kStateZero : 0);
}

}  // namespace

base::Result<std::string> BlockStatusReply(const Session& session, const Request& request) {
  const size_t limit = (request.flags & kCommandReqOne) != 0 ? 1 : kMaxExtents;
  std::string out;
  for (size_t i = 0; i < session.contexts.size(); ++i) {
    const Context& context = session.contexts[i];
    Runs runs(limit);
    if (context.changed == nullptr) {
      RETURN_IF_ERROR(session.exported->volume->VisitExtents(
          request.offset, request.length,
          [&](const Extent& extent) { return runs.Add(extent.length, AllocationState(extent)); }));
    } else {
      RETURN_IF_ERROR(context.changed->Visit(request.offset, request.length,
                                             [&](uint64_t length, bool changed) {
                                               return runs.Add(length, changed ? kStateDirty : 0);
                                             }));
    }
    out += runs.Encode(request, i + 1 == session.contexts.size(), static_cast<uint32_t>(i));
  }
  return out;
}

}  // namespace blockd::nbd
