#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <list>
#include <memory>
#include <string>
#include <thread>

#include "base/bytes.h"
#include "base/json.h"
#include "base/result.h"
#include "base/thread_annotations.h"

// How the command line talks to the agent of its host: over a unix socket of mode 0600, so whoever
// may connect is the agent's own user, or root. One request a connection, as one line of JSON; the
// answer is lines of {"done": N, "total": N} while it works, lines of {"bytes": N, ...} with N
// bytes behind each where bytes were asked for, and last {"ok": ...} or {"error": {"code":
// "NOT_FOUND", "message": "..."}}.

namespace controlplane::host {

constexpr size_t kMaxControlLineBytes = 64 * base::kKiB;      // of a request
constexpr uint64_t kMaxControlAnswerBytes = 16 * base::kMiB;  // a line of an answer
constexpr uint64_t kMaxControlPieceBytes = 4 * base::kMiB;    // behind a line of an answer
constexpr size_t kMaxControlClients = 64;                     // at once; one more is refused
constexpr int64_t kControlStallMs = 10'000;  // to send a request, or to take an answer

// How far the work is; false: whoever asked has gone.
using ControlProgress = std::function<bool(uint64_t done, uint64_t total)>;
// Bytes, and what they are; at most kMaxControlPieceBytes. False as above.
using ControlBytes = std::function<bool(const base::JsonObject& head, base::ByteView bytes)>;
// What comes before the end of an answer. One thread at a time.
struct ControlOutput {
  ControlProgress progress;
  ControlBytes bytes;
};
using ControlHandler =
    std::function<base::Result<base::Json>(const base::Json& request, const ControlOutput&)>;

// One thread a client. Thread-safe.
class ControlServer {
 public:
  // A socket that nobody listens on any more is replaced. kConflict while somebody does.
  static base::Result<std::unique_ptr<ControlServer>> Start(const std::string& path,
                                                            ControlHandler handler);
  ~ControlServer();  // Stop
  // Hangs up, and returns when no handler runs any more. Idempotent.
  void Stop();

 private:
  struct Client {
    int descriptor = -1;
    bool ended = false;
    std::thread thread;
  };

  ControlServer(int listener, int wake, ControlHandler handler);
  void Accept();
  void Welcome(int descriptor);
  void Serve(Client& client);
  void Reap();

  const int listener_;
  const int wake_;  // an eventfd
  const ControlHandler handler_;
  base::Mutex mutex_;
  bool stopping_ GUARDED_BY(mutex_) = false;
  std::list<Client> clients_ GUARDED_BY(mutex_);
  std::thread accepting_;
};

// Asks the agent that listens at `path`; `output` hears how far it is, and gets what bytes were
// asked for (else it needs none). kUnavailable when nobody listens there; the agent's own errors.
base::Result<base::Json> AskAgent(const std::string& path, const base::Json& request,
                                  const ControlOutput& output);

}  // namespace controlplane::host
