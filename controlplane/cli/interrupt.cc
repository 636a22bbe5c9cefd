#include "controlplane/cli/interrupt.h"

namespace controlplane::cli {
namespace {

constexpr int kSignalExitBase = 128;

volatile std::sig_atomic_t came = 0;

void Note(int signal) { came = signal; }

}  // namespace

InterruptScope::InterruptScope() {
  came = 0;
  struct sigaction action{};
  action.sa_handler = Note;
  // No SA_RESTART: a read that waits for a pipe is to notice.
  action.sa_flags = static_cast<int>(SA_RESETHAND);
  sigemptyset(&action.sa_mask);
  sigaction(SIGINT, &action, &before_int_);
  sigaction(SIGTERM, &action, &before_term_);
}

InterruptScope::~InterruptScope() {
  sigaction(SIGINT, &before_int_, nullptr);
  sigaction(SIGTERM, &before_term_, nullptr);
}

base::Result<void> CheckInterrupt() {
  if (came == 0) return {};
  return base::Error(base::Code::kCancelled, came == SIGINT ? "Ctrl-C" : "told to stop (SIGTERM)");
}

int ExitCodeAfterInterrupt(int otherwise) {
  return came == 0 ? otherwise : kSignalExitBase + static_cast<int>(came);
}

}  // namespace controlplane::cli
