#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "base/http/body_budget.h"
#include "base/http/message.h"
#include "base/http/stream.h"
#include "base/http/wire.h"

namespace base::http {

// The body of the request whose head `parser` has taken, read from `stream`. A body with a length
// goes straight from the socket into the reader's buffer. Internal to base/http. One thread;
// borrows both.
class RequestBody final : public BodyReader {
 public:
  RequestBody(Stream* stream, MessageParser* parser, int64_t stall_timeout_ms,
              int64_t min_bytes_per_second);

  std::optional<uint64_t> content_length() const override { return head_->content_length; }
  async::Task<Result<size_t>> Read(MutableByteView into) override;

  // All of it; kTooLarge beyond max_bytes, kUnavailable when its share can't grow to it. A body
  // with a length takes that at once, so that none is given up halfway; a chunked one as it comes.
  async::Task<Result<std::string>> ReadAll(size_t max_bytes, BodyBudget::Share* share);
  // Reads on to the end if that is near (kMaxDrainBytes); false if it is not, or never came: the
  // connection can't be used again then.
  async::Task<bool> Drain();

  // Nothing of it is left on the wire.
  bool ended() const { return ended_; }
  uint64_t received_bytes() const { return received_bytes_; }
  // It was given up since the client sent nothing, or too little, for too long.
  bool too_slow() const { return too_slow_; }

 private:
  async::Task<Result<void>> SendContinue();
  // Counts what one wait for the client took and brought. kUnavailable: it sends too slowly.
  Result<void> CountWait(int64_t began_ms, size_t bytes);
  async::Task<Result<size_t>> ReadSized(MutableByteView into);
  async::Task<Result<size_t>> ReadChunked(MutableByteView into);

  Stream* const stream_;
  MessageParser* const parser_;
  const MessageHead* const head_;
  const int64_t stall_timeout_ms_;
  const int64_t min_bytes_per_second_;
  size_t chunked_buffer_bytes_;
  bool wants_continue_ = false;
  bool ended_ = false;
  bool broken_ = false;
  bool too_slow_ = false;
  uint64_t received_bytes_ = 0;
  int64_t waited_ms_ = 0;  // for the client, not for whoever takes the body
  uint64_t waited_bytes_ = 0;
};

}  // namespace base::http
