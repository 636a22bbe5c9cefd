#include "blockd/nbd/channel.h"

#include <algorithm>
#include <cerrno>
#include <climits>
#include <utility>

#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include "base/check.h"
#include "base/clock.h"

namespace blockd::nbd {
namespace {

constexpr size_t kMaxGathered = 64;  // replies in one sendmsg
constexpr size_t kCipherInBytes = 64 * base::kKiB;
constexpr size_t kMaxGatheredBytes = 1 * base::kMiB;  // and what the last one has more
constexpr size_t kMaxSealedBytes = 256 * base::kKiB;  // encrypted ahead of the socket
// Of batches that the socket did not take; beyond it the reader waits.
constexpr size_t kMaxBehindBytes = 256 * base::kKiB;

int64_t NowNs() { return base::SystemClock().MonotonicNs(); }

// For poll: -1 waits for ever.
int PollMs(int64_t deadline_ns) {
  if (deadline_ns == 0) return -1;
  const int64_t left_ms = (deadline_ns - NowNs() + 999'999) / 1'000'000;
  return static_cast<int>(std::clamp<int64_t>(left_ms, 0, INT_MAX));
}

size_t SizeOf(const Reply& reply) { return reply.head.size() + reply.body.size(); }

}  // namespace

Channel::Channel(int descriptor, Patience patience, Sent sent)
    : descriptor_(descriptor),
      wake_(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)),
      patience_(patience),
      sent_(std::move(sent)) {
  if (wake_ < 0) Cut();  // out of descriptors: this connection ends before it began
}

Channel::~Channel() {
  DropAll();
  ::close(descriptor_);
  if (wake_ >= 0) ::close(wake_);
}

void Channel::Wake() {
  const uint64_t one = 1;
  // It can only fail when it is woken already.
  [[maybe_unused]] const ssize_t ignored = ::write(wake_, &one, sizeof(one));
}

void Channel::Cut() {
  cut_.store(true, std::memory_order_release);
  ::shutdown(descriptor_, SHUT_RDWR);
  Wake();
}

Channel::Event Channel::Wait(bool want_input, int64_t deadline_ns, bool* readable) {
  *readable = false;
  while (true) {
    if (cut()) return Event::kEnd;
    const bool blocked = blocked_.load(std::memory_order_acquire);
    const int64_t stall_ns = blocked ? blocked_until_ns_.load() : 0;
    int64_t until_ns = deadline_ns;
    if (blocked) until_ns = deadline_ns == 0 ? stall_ns : std::min(deadline_ns, stall_ns);
    pollfd waiting[2] = {{wake_, POLLIN, 0}, {descriptor_, 0, 0}};
    if (blocked) waiting[1].events |= POLLOUT;
    if (want_input && !blocked) waiting[1].events |= POLLIN;
    const int ready = ::poll(waiting, 2, PollMs(until_ns));
    if (ready < 0 && errno != EINTR) return Event::kEnd;
    if (ready == 0) {
      if (blocked && NowNs() >= stall_ns) {
        stalled_ = true;
        return Event::kStalled;
      }
      if (deadline_ns != 0 && NowNs() >= deadline_ns) return Event::kTimeout;
      continue;
    }
    if (ready < 0) continue;
    if (waiting[0].revents != 0) {
      uint64_t count = 0;
      [[maybe_unused]] const ssize_t ignored = ::read(wake_, &count, sizeof(count));
    }
    const short events = waiting[1].revents;
    if (blocked && (events & (POLLOUT | POLLERR | POLLHUP)) != 0) {
      blocked_.store(false, std::memory_order_release);
      Drain();
      // Whoever waits for all to be sent has to look again.
      if (!want_input) return Event::kWoken;
    }
    if (want_input && !blocked && events != 0) {
      *readable = true;
      return Event::kBytes;
    }
    if ((events & (POLLERR | POLLHUP)) != 0) return Event::kEnd;
    if (waiting[0].revents != 0) return Event::kWoken;
  }
}

Channel::Event Channel::Receive(base::MutableByteView into, size_t* count, int64_t deadline_ns) {
  *count = 0;
  while (true) {
    if (tls_ != nullptr && !into.empty()) {
      const base::Result<size_t> plain = tls_->Read(into);
      if (!plain.has_value()) return Event::kEnd;
      if (*plain > 0) {
        *count = *plain;
        return Event::kBytes;
      }
    }
    bool readable = false;
    const Event event = Wait(!into.empty(), deadline_ns, &readable);
    if (!readable) return event;
    const base::MutableByteView raw = tls_ == nullptr ? into : cipher_in_.view();
    const ssize_t got = ::recv(descriptor_, raw.data(), raw.size(), MSG_DONTWAIT);
    if (got < 0 && (errno == EAGAIN || errno == EINTR)) continue;
    if (got <= 0) return Event::kEnd;
    if (tls_ == nullptr) {
      *count = static_cast<size_t>(got);
      return Event::kBytes;
    }
    tls_->Feed(raw.first(static_cast<size_t>(got)));
  }
}

base::Result<void> Channel::StartTls(const TlsContext& context, int64_t deadline_ns) {
  ASSIGN_OR_RETURN(tls_, context.NewSession());
  cipher_in_ = base::Buffer(kCipherInBytes);
  while (true) {
    const base::Result<bool> done = tls_->Handshake();
    PostBatch({});  // what the handshake has to say, its failure too
    if (!done.has_value()) return done.error();
    if (*done) return {};
    bool readable = false;
    const Event event = Wait(true, deadline_ns, &readable);
    if (event == Event::kWoken) continue;
    if (!readable) {
      return base::Error(base::Code::kUnavailable, "the client gave up in the TLS handshake");
    }
    const ssize_t got = ::recv(descriptor_, cipher_in_.data(), cipher_in_.size(), MSG_DONTWAIT);
    if (got < 0 && (errno == EAGAIN || errno == EINTR)) continue;
    if (got <= 0) {
      return base::Error(base::Code::kUnavailable, "the client hung up in the TLS handshake");
    }
    tls_->Feed(cipher_in_.view().first(static_cast<size_t>(got)));
  }
}

void Channel::Post(Reply reply) {
  {
    base::MutexLock lock(mutex_);
    queue_.push_back(std::move(reply));
    if (sending_) return;
    sending_ = true;
  }
  Drain();
}

// One piece of its stream may ask for far more than the client takes: without a look at the socket
// in between all of it would be copied.
void Channel::AwaitBatches() {
  bool waited = false;
  while (batch_bytes_.load() > kMaxBehindBytes) {
    size_t ignored = 0;
    const Event event = Receive({}, &ignored);
    waited = true;
    if (event == Event::kWoken) continue;
    Cut();
    return;
  }
  if (waited) Wake();  // whatever for: whose turn it is to wait looks again
}

void Channel::PostBatch(base::ByteView batch) {
  AwaitBatches();
  if (cut()) return;
  bool mine = false;
  {
    base::MutexLock lock(mutex_);
    mine = !sending_ && queue_.empty();
    if (mine) sending_ = true;
  }
  const char* data = reinterpret_cast<const char*>(batch.data());
  if (!mine) {
    batch_bytes_.fetch_add(batch.size());
    Post({.head = std::string(data, batch.size()), .body = {}, .batch_bytes = batch.size()});
    return;
  }
  size_t sent = 0;
  if (tls_ == nullptr && !batch.empty()) {
    const Progress progress = SendBytes(data, batch.size(), &sent);
    if (progress == Progress::kBroken) sent = batch.size();
  }
  if (sent < batch.size()) {
    const size_t left = batch.size() - sent;
    batch_bytes_.fetch_add(left);
    current_.push_back({.head = std::string(data + sent, left), .body = {}, .batch_bytes = left});
  }
  Drain();
}

Channel::Progress Channel::SendBytes(const char* data, size_t size, size_t* sent) {
  while (*sent < size) {
    const ssize_t count =
        ::send(descriptor_, data + *sent, size - *sent, MSG_DONTWAIT | MSG_NOSIGNAL);
    if (count >= 0) {
      *sent += static_cast<size_t>(count);
    } else if (errno == EAGAIN) {
      return Progress::kBlocked;
    } else if (errno != EINTR) {
      return Progress::kBroken;
    }
  }
  return Progress::kAll;
}

// Gathers what current_ still has to send; empty replies are skipped.
Channel::Progress Channel::SendCurrent() {
  if (tls_ != nullptr) return SendSealed();
  while (!current_.empty()) {
    iovec pieces[2 * kMaxGathered];
    size_t used = 0;
    size_t skip = current_sent_;
    size_t left = 0;
    const auto add = [&](const void* data, size_t size) {
      const size_t gone = std::min(skip, size);
      skip -= gone;
      left += size - gone;
      if (size > gone) {
        pieces[used++] = {const_cast<char*>(static_cast<const char*>(data) + gone), size - gone};
      }
    };
    for (const Reply& reply : current_) {
      add(reply.head.data(), reply.head.size());
      add(reply.body.view().data(), reply.body.size());
    }
    msghdr message{};
    message.msg_iov = pieces;
    message.msg_iovlen = used;
    const ssize_t count = ::sendmsg(descriptor_, &message, MSG_DONTWAIT | MSG_NOSIGNAL);
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) return errno == EAGAIN ? Progress::kBlocked : Progress::kBroken;
    current_sent_ += static_cast<size_t>(count);
    if (static_cast<size_t>(count) == left) {
      current_.clear();
      current_sent_ = 0;
    }
  }
  return Progress::kAll;
}

// Encrypts some of what current_ still has; all of it is through when there is nothing left.
bool Channel::SealSome() {
  size_t skip = current_sent_;
  size_t sealed = 0;
  for (const Reply& reply : current_) {
    for (const base::ByteView part : {base::AsBytes(reply.head), reply.body.view()}) {
      const size_t gone = std::min(skip, part.size());
      skip -= gone;
      const size_t here = std::min(part.size() - gone, kMaxSealedBytes - sealed);
      if (here == 0) continue;
      if (!tls_->Write(part.subspan(gone, here)).has_value()) return false;
      sealed += here;
    }
  }
  current_sent_ += sealed;
  if (sealed == 0) {
    current_.clear();
    current_sent_ = 0;
  }
  tls_->TakeOutput(&cipher_out_);
  return true;
}

Channel::Progress Channel::SendSealed() {
  while (true) {
    if (cipher_out_.empty() && !SealSome()) return Progress::kBroken;
    if (cipher_out_.empty()) return Progress::kAll;
    size_t sent = 0;
    const Progress progress = SendBytes(cipher_out_.data(), cipher_out_.size(), &sent);
    cipher_out_.erase(0, sent);
    if (progress != Progress::kAll) return progress;
  }
}

void Channel::Drain() {
  while (true) {
    uint32_t requests = 0;
    uint64_t bytes = 0;
    size_t batches = 0;
    for (const Reply& reply : current_) {
      batches += reply.batch_bytes;
      requests += reply.charge_requests;
      bytes += reply.charge_bytes;
    }
    const Progress progress = cut() ? Progress::kBroken : SendCurrent();
    if (progress == Progress::kBlocked) {
      Park();
      return;
    }
    if (batch_bytes_.fetch_sub(batches) > kMaxBehindBytes) Wake();  // the reader may wait for that
    if (requests > 0) sent_(requests, bytes);
    if (progress == Progress::kBroken) {
      current_.clear();
      current_sent_ = 0;
      cipher_out_.clear();
      if (!cut()) Cut();
    }
    current_until_ns_ = 0;
    base::MutexLock lock(mutex_);
    if (queue_.empty()) {
      sending_ = false;
      return;
    }
    size_t gathered = 0;
    while (!queue_.empty() && current_.size() < kMaxGathered && gathered < kMaxGatheredBytes) {
      gathered += SizeOf(queue_.front());
      current_.push_back(std::move(queue_.front()));
      queue_.pop_front();
    }
  }
}

// The charges of what stays in current_ are counted again when it is sent at last.
void Channel::Park() {
  const int64_t now_ns = NowNs();
  if (current_until_ns_ == 0) {
    size_t left = cipher_out_.size();
    for (const Reply& reply : current_) left += SizeOf(reply);
    current_until_ns_ = patience_.UntilNs(now_ns, left);
  }
  blocked_until_ns_.store(std::min(now_ns + patience_.stall_ns, current_until_ns_));
  blocked_.store(true, std::memory_order_release);
  Wake();
}

bool Channel::ReadyToSend() {
  base::MutexLock lock(mutex_);
  return sending_ || !queue_.empty();
}

void Channel::Finish() {
  while (!cut() && ReadyToSend()) {
    // A worker that sends just now needs but a moment; a parked right is for us to take up.
    size_t ignored = 0;
    const bool parked = blocked_.load(std::memory_order_acquire);
    const int64_t deadline_ns = parked ? 0 : NowNs() + 1'000'000;
    const Event event = Receive({}, &ignored, deadline_ns);
    if (event == Event::kEnd || event == Event::kStalled) return;
  }
}

void Channel::LetGo() {
  if (blocked_.exchange(false)) Drain();
}

void Channel::DropAll() {
  base::MutexLock lock(mutex_);
  queue_.clear();
  current_.clear();
}

}  // namespace blockd::nbd
