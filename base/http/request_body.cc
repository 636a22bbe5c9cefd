#include "base/http/request_body.h"

#include <algorithm>

#include "base/http/server.h"
#include "base/http/target.h"

namespace base::http {
namespace {

// What is read at once of a chunked body. Clients send chunks of 8 to 64 KiB: several fit.
constexpr size_t kChunkedBufferBytes = 256 * kKiB;
// The same of one that is collected: it is held beside the body, whose memory is counted.
constexpr size_t kCollectBufferBytes = 16 * kKiB;
constexpr size_t kDrainBufferBytes = 16 * kKiB;

Error EndedEarly() {
  return Error(Code::kInvalidArgument, "the request's body ended before all of it had come");
}

Error TooLarge(size_t max_bytes) {
  return Error(Code::kTooLarge,
               "the request's body may have " + std::to_string(max_bytes) + " bytes");
}

MutableByteView AsWritable(std::string* text, size_t from) {
  return MutableByteView(reinterpret_cast<uint8_t*>(text->data()), text->size()).subspan(from);
}

}  // namespace

RequestBody::RequestBody(Stream* stream, MessageParser* parser, int64_t stall_timeout_ms,
                         int64_t min_bytes_per_second)
    : stream_(stream),
      parser_(parser),
      head_(&parser->head()),
      stall_timeout_ms_(stall_timeout_ms),
      min_bytes_per_second_(min_bytes_per_second),
      chunked_buffer_bytes_(kChunkedBufferBytes) {
  ended_ = !head_->chunked && head_->content_length.value_or(0) == 0;
  wants_continue_ =
      !ended_ && head_->version == 11 && EqualsNoCase(head_->headers.Get("Expect"), "100-continue");
}

async::Task<Result<void>> RequestBody::SendContinue() {
  constexpr std::string_view kContinue = "HTTP/1.1 100 Continue\r\n\r\n";
  wants_continue_ = false;
  if (!stream_->buffered().empty()) co_return Result<void>();  // it did not wait for us
  const Stream::Gather pieces = {AsBytes(kContinue)};
  Result<void> sent = co_await stream_->Write(pieces, false, stall_timeout_ms_);
  co_return sent;
}

async::Task<Result<size_t>> RequestBody::Read(MutableByteView into) {
  if (broken_) co_return EndedEarly();
  if (ended_ || into.empty()) co_return Result<size_t>(0);
  if (wants_continue_) {
    Result<void> sent = co_await SendContinue();
    if (!sent.has_value()) {
      broken_ = true;
      co_return EndedEarly();
    }
  }
  Result<size_t> count = 0;
  if (head_->chunked) {
    count = co_await ReadChunked(into);
  } else {
    count = co_await ReadSized(into);
  }
  if (count.has_value()) {
    received_bytes_ += *count;
    co_return count;
  }
  broken_ = true;
  too_slow_ = count.error().code() == Code::kUnavailable;
  if (count.error().code() == Code::kCancelled) co_return EndedEarly();
  co_return count;
}

Result<void> RequestBody::CountWait(int64_t began_ms, size_t bytes) {
  waited_ms_ += CoarseNowMs() - began_ms;
  waited_bytes_ += bytes;
  const auto due_bytes = static_cast<uint64_t>(waited_ms_ * min_bytes_per_second_ / 1000);
  if (waited_ms_ <= stall_timeout_ms_ || waited_bytes_ >= due_bytes) return {};
  return Error(Code::kUnavailable, "the request's body comes too slowly: fewer than " +
                                       std::to_string(min_bytes_per_second_) + " bytes a second");
}

async::Task<Result<size_t>> RequestBody::ReadSized(MutableByteView into) {
  const uint64_t left = *head_->content_length - received_bytes_;
  into = into.first(std::min<uint64_t>(into.size(), left));
  size_t done = 0;
  while (done < into.size()) {
    const int64_t began_ms = CoarseNowMs();
    Result<size_t> count = co_await stream_->ReadSome(into.subspan(done), stall_timeout_ms_);
    if (!count.has_value()) co_return count;
    if (*count == 0) co_return EndedEarly();
    CO_RETURN_IF_ERROR(CountWait(began_ms, *count));
    done += *count;
  }
  ended_ = done == left;
  co_return done;
}

async::Task<Result<size_t>> RequestBody::ReadChunked(MutableByteView into) {
  size_t done = 0;
  while (true) {
    const MessageParser::BodyStep step =
        parser_->ChunkedBody(stream_->buffered(), into.subspan(done));
    stream_->Consume(step.consumed);
    done += step.produced;
    ended_ = step.done;
    if (ended_ || done == into.size()) co_return done;
    if (step.broken || stream_->buffered().size() >= chunked_buffer_bytes_)
      co_return Error(Code::kInvalidArgument, "the request's body is not rightly chunked");
    const int64_t began_ms = CoarseNowMs();
    Result<size_t> count = co_await stream_->Fill(chunked_buffer_bytes_, stall_timeout_ms_);
    if (!count.has_value()) co_return count;
    if (*count == 0) co_return EndedEarly();
    CO_RETURN_IF_ERROR(CountWait(began_ms, *count));
  }
}

async::Task<Result<std::string>> RequestBody::ReadAll(size_t max_bytes, BodyBudget::Share* share) {
  if (content_length().value_or(0) > max_bytes) co_return TooLarge(max_bytes);
  std::string body;
  if (!head_->chunked) {
    const size_t size = content_length().value_or(0);
    CO_RETURN_IF_ERROR(share->GrowTo(size));
    body.resize(size);
    Result<size_t> count = co_await Read(AsWritable(&body, 0));
    if (!count.has_value()) co_return std::move(count).error();
    co_return body;
  }
  chunked_buffer_bytes_ = kCollectBufferBytes;
  while (!ended_) {
    const size_t held = body.size();
    const size_t size = std::min(held + std::max(held, kFreeBodyBytes), max_bytes + 1);
    CO_RETURN_IF_ERROR(share->GrowTo(size));
    body.resize(size);
    Result<size_t> count = co_await Read(AsWritable(&body, held));
    if (!count.has_value()) co_return std::move(count).error();
    body.resize(held + *count);
    if (body.size() > max_bytes) co_return TooLarge(max_bytes);
    if (body.size() < size) break;
  }
  co_return body;
}

async::Task<bool> RequestBody::Drain() {
  if (ended_) co_return true;
  if (broken_ || wants_continue_) co_return false;
  if (content_length().value_or(0) - received_bytes_ > kMaxDrainBytes && content_length())
    co_return false;
  const int64_t give_up_ms = CoarseNowMs() + stall_timeout_ms_;
  Buffer scratch(kDrainBufferBytes);
  uint64_t drained = 0;
  while (!ended_ && drained <= kMaxDrainBytes && CoarseNowMs() < give_up_ms) {
    Result<size_t> count = co_await Read(scratch.view());
    if (!count.has_value()) co_return false;
    drained += *count;
  }
  co_return ended_;
}

}  // namespace base::http
