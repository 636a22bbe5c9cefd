#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <memory>

#include <fmt/format.h>
#include <stdlib.h>

#include "base/files.h"
#include "base/log.h"
#include "controlplane/cli/command.h"
#include "controlplane/cli/stop_signals.h"
#include "controlplane/compose.h"
#include "controlplane/settings.h"
#include "controlplane/store.h"

namespace controlplane::cli {
namespace {

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
  const StopSignals stop_signals;
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

  stop_signals.Wait();
  // What was acknowledged is durable, should a second signal come.
  (*quarry)->Stop();
  LOG(kInfo, "quarry", "stopped");
  return kOk;
}

}  // namespace controlplane::cli
