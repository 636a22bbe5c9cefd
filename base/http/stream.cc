#include "base/http/stream.h"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <ctime>
#include <utility>

#include <boost/asio/as_tuple.hpp>
#include <boost/asio/buffer.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <fmt/format.h>
#include <linux/sockios.h>
#include <sys/ioctl.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include "base/check.h"

namespace base::http {
namespace {

namespace asio = boost::asio;

constexpr size_t kSmallBufferBytes = 4 * kKiB;
// What one connection sends before others on its thread get their turn.
constexpr uint64_t kFairShareBytes = 16 * kMiB;
constexpr uint64_t kMaxSendfileBytes = 8 * kMiB;

}  // namespace

int64_t CoarseNowMs() {
  timespec now{};
  clock_gettime(CLOCK_MONOTONIC_COARSE, &now);
  return int64_t{now.tv_sec} * 1000 + now.tv_nsec / 1'000'000;
}

std::string EndpointText(const asio::ip::tcp::endpoint& endpoint) {
  const std::string host = endpoint.address().to_string();
  if (endpoint.address().is_v6()) return fmt::format("[{}]:{}", host, endpoint.port());
  return fmt::format("{}:{}", host, endpoint.port());
}

Stream::Stream(asio::ip::tcp::socket socket) : socket_(std::move(socket)) {
  boost::system::error_code ignored;  // a peer that is gone already shows at the first read
  socket_.native_non_blocking(true, ignored);
  socket_.set_option(asio::ip::tcp::no_delay(true), ignored);
}

Error Stream::Broken() const {
  if (expired_) return Error(Code::kUnavailable, "the client did not move a byte for too long");
  return Error(Code::kCancelled, "the client broke off");
}

std::optional<Result<size_t>> Stream::TryReceive(MutableByteView into) {
  while (true) {
    const ssize_t count = ::recv(socket_.native_handle(), into.data(), into.size(), MSG_DONTWAIT);
    if (count >= 0) return Result<size_t>(static_cast<size_t>(count));
    if (errno == EAGAIN || errno == EWOULDBLOCK) return std::nullopt;
    if (errno != EINTR) return Result<size_t>(Broken());
  }
}

async::Task<Result<size_t>> Stream::Receive(MutableByteView into, int64_t timeout_ms) {
  expired_ = false;
  deadline_ms_ = CoarseNowMs() + timeout_ms;
  // Asio tries once itself before it waits.
  auto [error, count] = co_await socket_.async_read_some(asio::buffer(into.data(), into.size()),
                                                         asio::as_tuple(asio::use_awaitable));
  deadline_ms_ = kNever;
  if (error == asio::error::eof) co_return Result<size_t>(0);
  if (error) co_return Broken();
  co_return count;
}

async::Task<Result<size_t>> Stream::Fill(size_t capacity, int64_t timeout_ms) {
  const size_t held = end_ - begin_;
  capacity = std::max(capacity, kSmallBufferBytes);
  CHECK(held < capacity);
  if (buffer_.size() < capacity) {
    Buffer larger(capacity);
    if (held > 0) std::memcpy(larger.data(), buffer_.data() + begin_, held);
    buffer_ = std::move(larger);
  } else if (begin_ > 0 && held > 0) {
    std::memmove(buffer_.data(), buffer_.data() + begin_, held);
  }
  begin_ = 0;
  end_ = held;
  Result<size_t> count = co_await Receive(buffer_.view().subspan(end_), timeout_ms);
  if (count.has_value()) end_ += *count;
  co_return count;
}

void Stream::ShrinkBuffer() {
  CHECK(begin_ == end_);
  begin_ = end_ = 0;
  if (buffer_.size() > kSmallBufferBytes) buffer_ = Buffer();
}

async::Task<Result<size_t>> Stream::ReadSome(MutableByteView into, int64_t timeout_ms) {
  const ByteView held = buffered();
  if (!held.empty()) {
    const size_t count = std::min(held.size(), into.size());
    std::memcpy(into.data(), held.data(), count);
    Consume(count);
    co_return count;
  }
  std::optional<Result<size_t>> at_once = TryReceive(into);
  if (at_once) co_return std::move(*at_once);
  Result<size_t> count = co_await Receive(into, timeout_ms);
  co_return count;
}

void Stream::BeginPacedWrites(int64_t min_bytes_per_second) {
  min_bytes_per_second_ = min_bytes_per_second;
  write_waited_ms_ = 0;
  taken_bytes_ = 0;
  too_slow_ = false;
}

int64_t Stream::QueuedBytes() {
  int queued = 0;
  return ::ioctl(socket_.native_handle(), SIOCOUTQ, &queued) == 0 ? queued : 0;
}

// A full buffer counts as writable again only when a third of it is free: that alone can take a
// slow client, who moves, longer than the timeout. So the queue tells who moves.
async::Task<Result<void>> Stream::WaitWritable(int64_t timeout_ms) {
  while (true) {
    const int64_t began_ms = CoarseNowMs();
    const int64_t queued = QueuedBytes();
    expired_ = false;
    deadline_ms_ = began_ms + timeout_ms;
    auto [error] = co_await socket_.async_wait(asio::ip::tcp::socket::wait_write,
                                               asio::as_tuple(asio::use_awaitable));
    deadline_ms_ = kNever;
    if (error && !expired_) co_return Broken();
    const int64_t taken = std::max<int64_t>(queued - QueuedBytes(), 0);
    taken_bytes_ += taken;
    write_waited_ms_ += CoarseNowMs() - began_ms;
    too_slow_ =
        (error && taken == 0) || (write_waited_ms_ > timeout_ms &&
                                  taken_bytes_ < write_waited_ms_ * min_bytes_per_second_ / 1000);
    if (too_slow_) co_return Error(Code::kUnavailable, "the client reads too slowly");
    if (!error) co_return Result<void>();
  }
}

async::Task<Result<void>> Stream::Write(Gather pieces, bool more, int64_t timeout_ms) {
  std::array<iovec, std::tuple_size_v<Gather>> vectors;
  for (size_t i = 0; i < pieces.size(); ++i)
    vectors[i] = {const_cast<uint8_t*>(pieces[i].data()), pieces[i].size()};
  size_t first = 0;
  while (true) {
    while (first < vectors.size() && vectors[first].iov_len == 0) ++first;
    if (first == vectors.size()) co_return Result<void>();
    msghdr message{};
    message.msg_iov = &vectors[first];
    message.msg_iovlen = vectors.size() - first;
    const int flags = MSG_NOSIGNAL | MSG_DONTWAIT | (more ? MSG_MORE : 0);
    ssize_t sent = ::sendmsg(socket_.native_handle(), &message, flags);
    if (sent < 0 && errno == EINTR) continue;
    if (sent < 0) {
      if (errno != EAGAIN && errno != EWOULDBLOCK) co_return Broken();
      Result<void> writable = co_await WaitWritable(timeout_ms);
      if (!writable.has_value()) co_return writable;
      continue;
    }
    for (size_t i = first; sent > 0; ++i) {
      const size_t taken = std::min<size_t>(sent, vectors[i].iov_len);
      vectors[i].iov_base = static_cast<uint8_t*>(vectors[i].iov_base) + taken;
      vectors[i].iov_len -= taken;
      sent -= static_cast<ssize_t>(taken);
    }
  }
}

async::Task<Result<void>> Stream::SendFile(int descriptor, uint64_t offset, uint64_t length,
                                           int64_t timeout_ms) {
  uint64_t since_yield = 0;
  while (length > 0) {
    off_t position = static_cast<off_t>(offset);
    const ssize_t sent = ::sendfile(socket_.native_handle(), descriptor, &position,
                                    std::min(length, kMaxSendfileBytes));
    if (sent < 0 && errno == EINTR) continue;
    if (sent < 0 && (errno == EPIPE || errno == ECONNRESET || errno == EBADF)) co_return Broken();
    if (sent < 0 && errno != EAGAIN) co_return ErrnoError(errno, "sendfile");
    if (sent == 0) co_return Error(Code::kIo, "a file ends before the part that was to be sent");
    if (sent < 0) {
      Result<void> writable = co_await WaitWritable(timeout_ms);
      if (!writable.has_value()) co_return writable;
      since_yield = 0;
      continue;
    }
    offset += static_cast<uint64_t>(sent);
    length -= static_cast<uint64_t>(sent);
    since_yield += static_cast<uint64_t>(sent);
    if (since_yield >= kFairShareBytes) {
      co_await asio::post(socket_.get_executor(), asio::use_awaitable);
      since_yield = 0;
    }
  }
  co_return Result<void>();
}

void Stream::ShutdownSend() {
  boost::system::error_code ignored;  // a peer that is gone needs no goodbye
  socket_.shutdown(asio::ip::tcp::socket::shutdown_send, ignored);
}

void Stream::Close() {
  boost::system::error_code ignored;
  socket_.close(ignored);
}

void Stream::ExpireIfDue(int64_t now_ms) {
  if (now_ms < deadline_ms_) return;
  deadline_ms_ = kNever;
  expired_ = true;
  boost::system::error_code ignored;
  socket_.cancel(ignored);
}

}  // namespace base::http
