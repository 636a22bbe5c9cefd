#pragma once

#include <csignal>

#include "base/result.h"

namespace controlplane::cli {

// While one lives, Ctrl-C and SIGTERM don't end the process at once: CheckInterrupt tells of them,
// so that what was begun can be undone. A second one ends it. One at a time, for a whole command.
class InterruptScope {
 public:
  InterruptScope();
  ~InterruptScope();
  InterruptScope(const InterruptScope&) = delete;
  InterruptScope& operator=(const InterruptScope&) = delete;

 private:
  struct sigaction before_int_;
  struct sigaction before_term_;
};

// kCancelled once a signal came. Asked wherever a transfer reads or writes its next bytes.
base::Result<void> CheckInterrupt();

// What a shell expects of a command that a signal ended (130 after Ctrl-C), or `otherwise`.
int ExitCodeAfterInterrupt(int otherwise);

}  // namespace controlplane::cli
