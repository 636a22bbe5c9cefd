#include <algorithm>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <memory>

#include <fmt/format.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/resource.h>

#include "base/files.h"
#include "base/log.h"
#include "controlplane/cli/command.h"
#include "controlplane/compose.h"
#include "controlplane/embedded_store.h"
#include "controlplane/settings.h"

namespace controlplane::cli {
namespace {

// Blocks SIGINT and SIGTERM in this thread and all that it starts, so that one place waits for
// them. A peer that goes away is an error of that connection, not a signal.
sigset_t BlockStopSignals() {
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGINT);
  sigaddset(&signals, SIGTERM);
  pthread_sigmask(SIG_BLOCK, &signals, nullptr);
  std::signal(SIGPIPE, SIG_IGN);
  return signals;
}

// Each connection takes a descriptor, and so does each blob in flight: the usual soft limit of 1024
// is less than we serve. What the hard limit allows is ours.
void RaiseDescriptorLimit() {
  rlimit limit{};
  if (getrlimit(RLIMIT_NOFILE, &limit) != 0) return;
  limit.rlim_cur = limit.rlim_max;
  if (setrlimit(RLIMIT_NOFILE, &limit) != 0) {
    LOG(kWarn, "quarry", "open files stay limited to their default");
  }
}

// What is not as it comes out of the box.
void LogSettings(std::string_view described) {
  while (!described.empty()) {
    const size_t end = std::min(described.find('\n'), described.size());
    const std::string_view line = described.substr(0, end);
    if (!line.ends_with("# from default")) LOG(kInfo, "quarry", "setting {}", line);
    described.remove_prefix(std::min(end + 1, described.size()));
  }
}

// How to begin where the identity is our own.
void Welcome(const Quarry& quarry, const std::string& data_dir) {
  fmt::print(
      "\nQuarry serves on {0}\n"
      "credentials: {1}/clouds.yaml{2}\n\n"
      "Try, in another terminal:\n"
      "  export OS_CLIENT_CONFIG_FILE={1}/clouds.yaml OS_CLOUD=quarry\n"
      "  openstack image create --file DISK.raw --disk-format raw --container-format bare first\n"
      "  openstack image list\n\n"
      "Ctrl-C stops it.\n\n",
      quarry.base_url(), data_dir, quarry.first_start() ? " (made just now; user admin)" : "");
}

// How to begin beside a Keystone: what it has to know of us. tests/e2e/test_keystone.py runs it as
// it is printed.
void WelcomeBesideKeystone(const Quarry& quarry, const Settings& settings) {
  fmt::print(
      "\nQuarry serves on {0}\n"
      "credentials: those of the Keystone at {1}\n\n"
      "The Keystone has to know it. Once, as the Keystone's admin:\n"
      "  openstack role create --or-show service\n"
      "  openstack project create --or-show --domain {2} {3}\n"
      "  openstack user create --or-show --domain {4} --password \"$QUARRY_AUTH_PASSWORD\" {5}\n"
      "  openstack role add --project {3} --project-domain {2} --user {5} --user-domain {4} "
      "service\n"
      "  openstack service create --name quarry image\n",
      quarry.base_url(), *settings.auth_url, *settings.auth_project_domain, *settings.auth_project,
      *settings.auth_user_domain, *settings.auth_username);
  for (const char* interface : {"public", "internal", "admin"}) {
    fmt::print("  openstack endpoint create --region {} image {} {}/image\n", *settings.region,
               interface, quarry.public_url());
  }
  fmt::print(
      "Then every client of that Keystone finds it: openstack image list\n\n"
      "Ctrl-C stops it.\n\n");
}

std::string AbsolutePath(const std::string& path) {
  char* resolved = realpath(path.c_str(), nullptr);
  if (resolved == nullptr) return path;
  std::string absolute(resolved);
  std::free(resolved);
  return absolute;
}

}  // namespace

int RunServe(const Command& command, const std::vector<std::string>& args) {
  base::ConfigBuilder options;
  const Settings settings(options);
  int exit_code = kOk;
  if (!ParseOptions(command, options, args, base::ConfigBuilder::Unknown::kRefuse, 0, 0,
                    &exit_code))
    return exit_code;
  base::SetLogLevel(*settings.log_level);
  const sigset_t stop_signals = BlockStopSignals();
  RaiseDescriptorLimit();

  base::Result<std::unique_ptr<Quarry>> quarry = Quarry::Start(settings);
  if (!quarry.has_value()) return Fail(ExplainDamage(quarry.error(), *settings.data_dir));
  LogSettings(options.Describe());
  if (*settings.auth_mode == "keystone") {
    WelcomeBesideKeystone(**quarry, settings);
  } else {
    Welcome(**quarry, AbsolutePath(*settings.data_dir));
  }
  std::fflush(stdout);

  int signal = 0;
  sigwait(&stop_signals, &signal);
  LOG(kInfo, "quarry", "stopping ({})", signal == SIGINT ? "Ctrl-C" : "SIGTERM");
  // A second signal ends the process at once: what was acknowledged is durable anyway.
  std::signal(SIGINT, SIG_DFL);
  std::signal(SIGTERM, SIG_DFL);
  pthread_sigmask(SIG_UNBLOCK, &stop_signals, nullptr);
  (*quarry)->Stop();
  LOG(kInfo, "quarry", "stopped");
  return kOk;
}

}  // namespace controlplane::cli
