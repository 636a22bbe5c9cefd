#include "controlplane/host/readahead.h"

#include <algorithm>

namespace controlplane::host {

// The stream that the read goes on with, or the one that was idle longest, begun anew.
Readahead::Stream* Readahead::StreamOf(uint64_t offset) {
  Stream* oldest = streams_.data();
  for (Stream& stream : streams_) {
    const bool near = stream.run > 0 && offset + kSlackBytes >= stream.next &&
                      offset <= stream.next + std::min(stream.run, kSlackBytes);
    // A small step back is out of order only where as much was read in sequence before.
    const bool back = offset < stream.next && stream.next - offset > stream.run;
    if (near && !back) return &stream;
    if (stream.used < oldest->used) oldest = &stream;
  }
  *oldest = Stream{.next = offset, .run = 0, .ahead = offset, .used = 0};
  return oldest;
}

std::optional<Readahead::Range> Readahead::Note(uint64_t offset, uint64_t length) {
  base::MutexLock lock(mutex_);
  Stream& stream = *StreamOf(offset);
  const bool goes_on = stream.run > 0;
  stream.used = ++turn_;
  stream.run += length;
  stream.next = std::max(stream.next, offset + length);
  stream.ahead = std::max(stream.ahead, stream.next);
  if (!goes_on) return std::nullopt;
  const uint64_t window = std::clamp(2 * stream.run, kMinAheadBytes, kMaxAheadBytes);
  const uint64_t until = stream.next + window;
  // In pieces worth a request.
  if (until < stream.ahead + std::min(window / 4, kMinAheadBytes)) return std::nullopt;
  const Range range{stream.ahead, until - stream.ahead};
  stream.ahead = until;
  return range;
}

}  // namespace controlplane::host
