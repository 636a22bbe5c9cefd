#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <string>

#include "base/metrics.h"

// Connections that the server has no place for. Each is told so at once (503, Retry-After, close),
// and its socket is kept for a while only to swallow what the client still sends: a close with
// unread bytes resets the connection, and the answer may be lost on the way. No request is read, no
// coroutine made: a flood of them costs a descriptor each, and of those the server has few.
// Internal to base/http. One thread: that which accepts.

namespace base::http {

// How many wait for their clients to go. One more, and the oldest is closed.
constexpr size_t kMaxTurnedAway = 1024;

class TurnedAway {
 public:
  // Keeps a spare descriptor, for a client that comes when the process has no other left.
  // `answered` counts them; borrowed.
  explicit TurnedAway(Counter& answered, size_t max_kept = kMaxTurnedAway);
  ~TurnedAway();
  TurnedAway(const TurnedAway&) = delete;
  TurnedAway& operator=(const TurnedAway&) = delete;

  // Answers on an accepted socket, which is ours from here on.
  void Take(int socket);
  // The process is out of descriptors: closes the oldest, or, if there is none, answers whoever
  // waits at `listener` (non-blocking) with the spare one. False: neither could be done.
  bool MakeRoom(int listener);
  // Closes those whose client has gone or has had kLingerTimeoutMs to read. To be called now and
  // then.
  void Sweep(int64_t now_ms);
  void CloseAll();

  size_t kept() const { return kept_.size(); }

 private:
  struct Kept {
    int socket;
    int64_t close_at_ms;
  };
  // False when the socket can be closed at once: the answer did not go out.
  bool Answer(int socket);
  void CloseOldest();

  Counter& answered_;
  const size_t max_kept_;
  const std::string answer_;
  int spare_;
  std::deque<Kept> kept_;  // the oldest first
};

}  // namespace base::http
