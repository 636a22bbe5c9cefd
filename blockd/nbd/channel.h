#pragma once

#include <atomic>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "base/bytes.h"
#include "base/result.h"
#include "base/thread_annotations.h"
#include "blockd/nbd/buffers.h"
#include "blockd/nbd/memory_budget.h"
#include "blockd/nbd/tls.h"

namespace blockd::nbd {

// An answer on its way out: `head`, then `body`.
struct Reply {
  std::string head;
  MemoryBudget::Share memory = {};  // of the body; given back after it
  Buffers::Loan body;
  size_t batch_bytes = 0;     // of PostBatch
  uint64_t charge_bytes = 0;  // handed to the channel's `sent` once the socket has it
  uint32_t charge_requests = 0;
};

// How slow a client may be; see ServerSettings.
struct Patience {
  // Until when it may take over `bytes`, all of them, from now on.
  int64_t UntilNs(int64_t now_ns, uint64_t bytes) const {
    return now_ns + stall_ns + static_cast<int64_t>(bytes * 1'000'000'000 / min_bytes_per_second);
  }

  int64_t stall_ns = 0;
  uint64_t min_bytes_per_second = 1;
};

// A socket, in clear text or under TLS. One thread, the reader, receives; any thread posts answers,
// and no post ever waits for the client: who finds the socket free sends what has gathered, in one
// sendmsg, and what the socket does not take is left to the reader, which goes on when it can and
// takes no more requests until then. So a client that doesn't read stops only itself, and one that
// reads too slowly is cut off.
class Channel {
 public:
  // Owns `descriptor`. `sent` is told the charges of each reply that is through (or dropped, after
  // a cut); called from any thread, without a lock.
  using Sent = std::function<void(uint32_t requests, uint64_t bytes)>;
  Channel(int descriptor, Patience patience, Sent sent);
  ~Channel();
  Channel(const Channel&) = delete;
  Channel& operator=(const Channel&) = delete;

  enum class Event {
    kBytes,    // some were received
    kWoken,    // somebody called Wake
    kEnd,      // the other side is gone, or Cut was called
    kTimeout,  // nothing came by the deadline
    kStalled,  // the client was too slow to take its answers
  };
  // The reader's. Waits for bytes, at most until `deadline_ns` (monotonic; 0: for ever). With
  // `into` empty it waits for Wake alone.
  Event Receive(base::MutableByteView into, size_t* count, int64_t deadline_ns = 0);

  // The reader's, before anything is posted: the TLS handshake, at most until `deadline_ns`.
  base::Result<void> StartTls(const TlsContext& context, int64_t deadline_ns);

  // Thread-safe.
  void Post(Reply reply);
  // The reader's: many small answers in one piece, copied only if the socket is busy; waits while
  // it is far behind.
  void PostBatch(base::ByteView batch);
  // The reader's: waits until all that was posted is sent, or it is over.
  void Finish();
  // The reader's, after Cut: lets go of what is not sent.
  void LetGo();
  // Makes a Receive that waits return kWoken. Thread-safe.
  void Wake();
  // No byte comes in or goes out any more; Receive returns kEnd. Thread-safe, instant.
  void Cut();
  // The reader's: kStalled was seen.
  bool stalled() const { return stalled_; }
  bool cut() const { return cut_.load(std::memory_order_acquire); }

 private:
  enum class Progress { kAll, kBlocked, kBroken };

  // The right to send, `sending_`, is held by one thread at a time, or parked (`blocked_`) until
  // the reader finds the socket writable. Functions below need it, and give it back.
  void Drain();
  void Park();
  Progress SendCurrent();
  Progress SendSealed();
  bool SealSome();
  void AwaitBatches();
  Progress SendBytes(const char* data, size_t size, size_t* sent);
  void DropAll();
  bool ReadyToSend() EXCLUDES(mutex_);
  Event Wait(bool want_input, int64_t deadline_ns, bool* readable);

  const int descriptor_;
  const int wake_;  // an eventfd
  const Patience patience_;
  const Sent sent_;
  std::unique_ptr<TlsSession> tls_;  // set by the reader before other threads post
  base::Buffer cipher_in_;           // the reader's

  std::atomic<bool> cut_{false};
  std::atomic<bool> blocked_{false};
  std::atomic<int64_t> blocked_until_ns_{0};  // then the client is too slow
  std::atomic<size_t> batch_bytes_{0};        // copied, and not sent yet
  bool stalled_ = false;                      // the reader's
  base::Mutex mutex_;
  bool sending_ GUARDED_BY(mutex_) = false;
  std::deque<Reply> queue_ GUARDED_BY(mutex_);

  // Of whoever has the right to send.
  std::vector<Reply> current_;
  size_t current_sent_ = 0;       // bytes of current_, from its start (under TLS: sealed)
  int64_t current_until_ns_ = 0;  // by when the client must have taken it; 0: as yet it does
  std::string cipher_out_;
};

}  // namespace blockd::nbd
