#include "base/http/response_writer.h"

#include <ctime>
#include <utility>

#include "base/http/wire.h"

namespace base::http {
namespace {

// "Date" of this second; each thread keeps its own.
const std::string& DateNow() {
  thread_local std::string text;
  thread_local int64_t of_second = -1;
  timespec now{};
  clock_gettime(CLOCK_REALTIME_COARSE, &now);
  if (now.tv_sec != of_second) {
    of_second = now.tv_sec;
    text = FormatHttpDate(of_second);
  }
  return text;
}

}  // namespace

ResponseWriter::ResponseWriter(Stream* stream, Response* response, To to, int64_t stall_timeout_ms)
    : stream_(stream), response_(response), to_(to), stall_timeout_ms_(stall_timeout_ms) {
  SetFraming();
  head_ = FormatResponseHead(response_->status, response_->headers);
}

void ResponseWriter::SetFraming() {
  const int status = response_->status;
  std::optional<uint64_t> size = response_->body.size();
  if (response_->source != nullptr) size = response_->source->size_bytes();
  bodiless_ = to_.head_only || status == 204 || status == 304;
  const bool may_chunk = to_.version == 11;

  Headers& headers = response_->headers;
  headers.Add("Date", DateNow());
  if (!size && may_chunk) {
    chunked_ = true;
    headers.Set("Transfer-Encoding", "chunked");
  } else if (!size) {
    to_.keep_alive = false;  // HTTP/1.0 has no chunks: the body ends where the connection does
  } else if (status == 204 || status == 304) {
    headers.Remove("Content-Length");
  } else if (!(to_.head_only && headers.Has("Content-Length"))) {
    headers.Set("Content-Length", std::to_string(*size));
  }
  if (!to_.keep_alive) {
    headers.Set("Connection", "close");
  } else if (to_.version == 10) {
    headers.Set("Connection", "keep-alive");
  }
}

async::Task<Result<void>> ResponseWriter::Send(Piece first) {
  if (response_->source != nullptr && !bodiless_) {
    Result<void> sent = co_await SendSource(std::move(first));
    co_return sent;
  }
  Stream::Gather pieces = {AsBytes(head_)};
  if (!bodiless_) pieces[1] = AsBytes(response_->body);
  Result<void> sent = co_await stream_->Write(pieces, false, stall_timeout_ms_);
  if (sent.has_value()) sent_bytes_ = pieces[1].size();
  co_return sent;
}

async::Task<Result<void>> ResponseWriter::SendSource(Piece piece) {
  const std::optional<uint64_t> size = response_->source->size_bytes();
  std::string before = std::move(head_);
  while (!piece.empty()) {
    const uint64_t length = piece.descriptor >= 0 ? piece.length : piece.bytes.size();
    // One byte more than announced would be taken for the next answer.
    if (size && length > *size - sent_bytes_)
      co_return Error(Code::kIo, "a body is longer than was announced");
    if (chunked_) before += FormatChunkHead(length);
    Result<void> sent = co_await SendPiece(&piece, before, chunked_ ? "\r\n" : "");
    if (!sent.has_value()) co_return sent;
    before.clear();
    sent_bytes_ += length;
    if (size && sent_bytes_ == *size) break;
    Result<Piece> next = co_await response_->source->Next();
    if (!next.has_value()) co_return std::move(next).error();
    piece = std::move(*next);
  }
  if (size && sent_bytes_ < *size)
    co_return Error(Code::kIo, "a body is shorter than was announced");
  if (chunked_) before += "0\r\n\r\n";
  const Stream::Gather rest = {AsBytes(before)};
  Result<void> sent = co_await stream_->Write(rest, false, stall_timeout_ms_);
  co_return sent;
}

async::Task<Result<void>> ResponseWriter::SendPiece(const Piece* piece, std::string_view before,
                                                    std::string_view after) {
  if (piece->descriptor < 0) {
    const Stream::Gather pieces = {AsBytes(before), piece->bytes, AsBytes(after)};
    Result<void> sent = co_await stream_->Write(pieces, false, stall_timeout_ms_);
    co_return sent;
  }
  const Stream::Gather head = {AsBytes(before)};
  Result<void> sent = co_await stream_->Write(head, true, stall_timeout_ms_);
  if (!sent.has_value()) co_return sent;
  sent = co_await stream_->SendFile(piece->descriptor, piece->offset, piece->length,
                                    stall_timeout_ms_);
  if (!sent.has_value()) co_return sent;
  const Stream::Gather tail = {AsBytes(after)};
  sent = co_await stream_->Write(tail, false, stall_timeout_ms_);
  co_return sent;
}

}  // namespace base::http
