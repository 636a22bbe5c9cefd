#include "base/http/turned_away.h"

#include <cerrno>
#include <utility>

#include <fcntl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/http/errors.h"
#include "base/http/server.h"
#include "base/http/stream.h"
#include "base/http/wire.h"

namespace base::http {
namespace {

// What is swallowed of one client at a time, so that a fast one does not hold up the others.
constexpr int kMaxSwallowsAtOnce = 16;
constexpr size_t kSwallowBytes = 16 * kKiB;

std::string AnswerText() {
  Response response =
      PlainError(503, "The service has all the connections it can take; try again.");
  response.headers.Set("Retry-After", "1");
  response.headers.Set("Connection", "close");
  response.headers.Set("Content-Length", std::to_string(response.body.size()));
  return FormatResponseHead(response.status, response.headers) + response.body;
}

int OpenSpare() { return ::open("/dev/null", O_RDONLY | O_CLOEXEC); }

// False once the client has closed or broken off.
bool Swallow(int socket) {
  char scratch[kSwallowBytes];
  for (int i = 0; i < kMaxSwallowsAtOnce; ++i) {
    const ssize_t count = ::recv(socket, scratch, sizeof(scratch), MSG_DONTWAIT);
    if (count == 0) return false;
    if (count < 0 && errno != EINTR) return errno == EAGAIN || errno == EWOULDBLOCK;
  }
  return true;
}

}  // namespace

TurnedAway::TurnedAway(Counter& answered, size_t max_kept)
    : answered_(answered), max_kept_(max_kept), answer_(AnswerText()), spare_(OpenSpare()) {}

TurnedAway::~TurnedAway() {
  CloseAll();
  if (spare_ >= 0) ::close(spare_);
}

bool TurnedAway::Answer(int socket) {
  answered_.Add();
  // A new socket's buffer has room for it.
  const ssize_t sent = ::send(socket, answer_.data(), answer_.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
  if (sent != static_cast<ssize_t>(answer_.size())) return false;
  ::shutdown(socket, SHUT_WR);
  return Swallow(socket);
}

void TurnedAway::Take(int socket) {
  if (!Answer(socket)) {
    ::close(socket);
    return;
  }
  if (kept_.size() == max_kept_) CloseOldest();
  kept_.push_back({socket, CoarseNowMs() + kLingerTimeoutMs});
}

bool TurnedAway::MakeRoom(int listener) {
  if (!kept_.empty()) {
    CloseOldest();
    return true;
  }
  if (spare_ < 0) spare_ = OpenSpare();
  if (spare_ < 0) return false;
  ::close(std::exchange(spare_, -1));
  const int socket = ::accept4(listener, nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK);
  if (socket >= 0) {
    // It can't be kept: the next one needs the descriptor.
    Answer(socket);
    ::close(socket);
  }
  spare_ = OpenSpare();
  return socket >= 0;
}

void TurnedAway::Sweep(int64_t now_ms) {
  std::erase_if(kept_, [now_ms](const Kept& one) {
    if (Swallow(one.socket) && now_ms < one.close_at_ms) return false;
    ::close(one.socket);
    return true;
  });
}

void TurnedAway::CloseOldest() {
  Swallow(kept_.front().socket);
  ::close(kept_.front().socket);
  kept_.pop_front();
}

void TurnedAway::CloseAll() {
  while (!kept_.empty()) CloseOldest();
}
}  // namespace base::http
