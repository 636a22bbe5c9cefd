#pragma once

#include <array>
#include <cstdint>
#include <limits>
#include <optional>
#include <string>

#include <boost/asio/ip/tcp.hpp>

#include "base/async/task.h"
#include "base/bytes.h"
#include "base/result.h"

// One client's socket: what came and is not used yet, timeouts, and file runs by sendfile. System
// calls are made directly and only a full or empty socket waits in Asio: a GB/s stream then costs
// no scheduling. Internal to base/http. One thread: that of the socket's io_context.

namespace base::http {

// Milliseconds that never go back, in steps of a few: good enough for timeouts, and nearly free.
int64_t CoarseNowMs();

// "127.0.0.1:80", "[::1]:80".
std::string EndpointText(const boost::asio::ip::tcp::endpoint& endpoint);

class Stream {
 public:
  explicit Stream(boost::asio::ip::tcp::socket socket);

  // Errors of all that waits: kUnavailable when nothing moved for timeout_ms, kCancelled when the
  // peer broke off or Close was called.

  // What came and was not consumed. Valid until the next Fill or ReadSome.
  ByteView buffered() const { return buffer_.view().subspan(begin_, end_ - begin_); }
  void Consume(size_t count) { begin_ += count; }
  // Reads more behind what is buffered, into a buffer of at least `capacity`; how many bytes came,
  // 0 at the end of what the peer sends. REQUIRES: buffered().size() < capacity.
  async::Task<Result<size_t>> Fill(size_t capacity, int64_t timeout_ms);
  // Lets go of a buffer that a body made large. REQUIRES: nothing is buffered.
  void ShrinkBuffer();

  // Takes from the buffer first, then straight from the socket; 0 at the end of what the peer
  // sends.
  async::Task<Result<size_t>> ReadSome(MutableByteView into, int64_t timeout_ms);

  // From here on, writes end with kUnavailable when the client takes fewer bytes a second than that
  // (0: any number will do), counted over the time that we wait for it, once that is longer than
  // the timeout. What counts is what the client's side took, not what fits into the socket's
  // buffer.
  void BeginPacedWrites(int64_t min_bytes_per_second);
  // A write ended so, or with nothing taken at all for the timeout.
  bool too_slow() const { return too_slow_; }

  using Gather = std::array<ByteView, 3>;
  // All of the pieces. `more`: something follows at once, so that the last packet may wait for it.
  async::Task<Result<void>> Write(Gather pieces, bool more, int64_t timeout_ms);
  // kIo: the file is shorter than that.
  async::Task<Result<void>> SendFile(int descriptor, uint64_t offset, uint64_t length,
                                     int64_t timeout_ms);

  // Tells the peer that nothing more comes; it can still be read.
  void ShutdownSend();
  void Close();
  // For the one who watches the clock: what has waited past its time ends with kUnavailable.
  void ExpireIfDue(int64_t now_ms);

 private:
  static constexpr int64_t kNever = std::numeric_limits<int64_t>::max();

  // Non-blocking; nothing when it would block.
  std::optional<Result<size_t>> TryReceive(MutableByteView into);
  async::Task<Result<size_t>> Receive(MutableByteView into, int64_t timeout_ms);
  async::Task<Result<void>> WaitWritable(int64_t timeout_ms);
  // Bytes that were written and not yet taken by the peer's side.
  int64_t QueuedBytes();
  Error Broken() const;

  boost::asio::ip::tcp::socket socket_;
  Buffer buffer_;
  size_t begin_ = 0;
  size_t end_ = 0;
  int64_t deadline_ms_ = kNever;
  bool expired_ = false;
  int64_t min_bytes_per_second_ = 0;
  int64_t write_waited_ms_ = 0;
  int64_t taken_bytes_ = 0;  // while we waited
  bool too_slow_ = false;
};

}  // namespace base::http
