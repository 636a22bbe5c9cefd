#include "controlplane/cli/stop_signals.h"

#include <pthread.h>
#include <signal.h>
#include <sys/resource.h>

#include "base/log.h"

namespace controlplane::cli {

StopSignals::StopSignals() {
  sigemptyset(&signals_);
  sigaddset(&signals_, SIGINT);
  sigaddset(&signals_, SIGTERM);
  pthread_sigmask(SIG_BLOCK, &signals_, nullptr);
  std::signal(SIGPIPE, SIG_IGN);
}

void StopSignals::Wait() const {
  int signal = 0;
  sigwait(&signals_, &signal);
  LOG(kInfo, "quarry", "stopping ({})", signal == SIGINT ? "Ctrl-C" : "SIGTERM");
  std::signal(SIGINT, SIG_DFL);
  std::signal(SIGTERM, SIG_DFL);
  pthread_sigmask(SIG_UNBLOCK, &signals_, nullptr);
}

void RaiseDescriptorLimit() {
  rlimit limit{};
  if (getrlimit(RLIMIT_NOFILE, &limit) != 0) return;
  limit.rlim_cur = limit.rlim_max;
  if (setrlimit(RLIMIT_NOFILE, &limit) != 0) {
    LOG(kWarn, "quarry", "open files stay limited to their default");
  }
}

}  // namespace controlplane::cli
