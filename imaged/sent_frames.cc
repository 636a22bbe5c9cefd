#include "imaged/sent_frames.h"

#include <algorithm>
#include <array>
#include <memory>
#include <optional>

#include <fmt/format.h>

#include "base/check.h"
#include "base/coding.h"

namespace imaged {

using base::ByteView;
using base::Code;
using base::Error;
using base::MutableByteView;
using base::Result;

static_assert(kFramePlainBytes == chunkstore::kMaxRawFrameBytes);

std::string SentFramesWriter::Encode(ByteView plain) {
  CHECK(!plain.empty());
  std::string lengths;
  std::string frames;
  for (; !plain.empty(); plain = plain.subspan(std::min<size_t>(plain.size(), kFramePlainBytes))) {
    const ByteView run = plain.first(std::min<size_t>(plain.size(), kFramePlainBytes));
    const ByteView stored = framer_.Frame(run).value_or(run);
    base::PutFixed<uint32_t>(&lengths, static_cast<uint32_t>(stored.size()));
    frames.append(base::AsText(stored));
  }
  return lengths + frames;
}

Result<SentFrames> SentFrames::Of(ByteView lengths, size_t plain_bytes) {
  CHECK(lengths.size() == kFrameLengthBytes * FrameCount(plain_bytes));
  base::Decoder decoder(base::AsText(lengths));
  SentFrames frames;
  for (size_t left = plain_bytes; left > 0;) {
    const size_t run = std::min<size_t>(left, kFramePlainBytes);
    ASSIGN_OR_RETURN(const uint32_t length, decoder.Fixed<uint32_t>());
    if (length == 0 || length > run) {
      return Error(Code::kInvalidArgument,
                   fmt::format("a frame of {} bytes for {}: it is never longer", length, run));
    }
    frames.lengths_.push_back(length);
    frames.stored_bytes_ += length;
    left -= run;
  }
  return frames;
}

MutableByteView SentFrames::PlaceIn(MutableByteView plain) const {
  return lengths_.empty() ? plain : plain.last(stored_bytes_);
}

Result<void> SentFrames::Decode(MutableByteView plain) const {
  MutableByteView stored = PlaceIn(plain);
  thread_local const auto scratch = std::make_unique<std::array<uint8_t, kFramePlainBytes>>();
  for (const uint32_t length : lengths_) {
    const MutableByteView run = plain.first(std::min<size_t>(plain.size(), kFramePlainBytes));
    // Of the frames behind this one, none lies before the end of the run; this one may.
    std::copy_n(stored.begin(), length, scratch->begin());
    const ByteView frame(scratch->data(), length);
    if (length == run.size()) {
      std::ranges::copy(frame, run.begin());
    } else {
      RETURN_IF_ERROR(chunkstore::DecodeFrame(frame, run));
    }
    stored = stored.subspan(length);
    plain = plain.subspan(run.size());
  }
  return {};
}

}  // namespace imaged
