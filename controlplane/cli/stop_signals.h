#pragma once

#include <csignal>

namespace controlplane::cli {

// For a command that serves until it is told to stop: SIGINT and SIGTERM are blocked in this thread
// and all that it starts, so that one place waits for them; and a peer that goes away is an error
// of that connection, not a signal. Make it before the first thread.
class StopSignals {
 public:
  StopSignals();
  // Returns when one came, and says so in the log. A second one then ends the process at once.
  void Wait() const;

 private:
  sigset_t signals_;
};

// Each connection takes a descriptor, and so does each file in use: the usual soft limit of 1024 is
// less than we serve. What the hard limit allows is ours.
void RaiseDescriptorLimit();

}  // namespace controlplane::cli
