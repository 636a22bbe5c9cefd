#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/config.h"
#include "base/result.h"
#include "controlplane/cli/cloud.h"
#include "controlplane/cli/command.h"

namespace controlplane::cli {

// In which order a cloud is looked for (FindCloud), after --cloud.
constexpr std::string_view kCloudElse =
    "--data-dir, OS_CLOUD, OS_AUTH_URL and its family, QUARRY_DATA_DIR, ./quarry-data";

// What every command that logs in can be told. Borrows the builder.
struct CloudOptions {
  explicit CloudOptions(base::ConfigBuilder& options)
      : cloud(options.String(
            "cloud", "",
            "name of a cloud in clouds.yaml; else the first of: " + std::string(kCloudElse))),
        data_dir(options.String(
            "data_dir", "", "of a service on this machine: its clouds.yaml says how to log in")),
        json(options.Bool("json", false, "answer in JSON on stdout, without progress")) {}

  // Parses the command line, with `min` to `max` words besides options, and logs in. Null: the
  // command ends with *exit_code.
  std::unique_ptr<ApiClient> LogIn(const Command& command, base::ConfigBuilder& options,
                                   const std::vector<std::string>& args, size_t min, size_t max,
                                   int* exit_code) const {
    if (!ParseOptions(command, options, args, base::ConfigBuilder::Unknown::kIgnore, min, max,
                      exit_code))
      return nullptr;
    const bool told = options.OnCommandLine("data_dir");
    base::Result<Cloud> found = FindCloud({*cloud, told ? *data_dir : "", told ? "" : *data_dir});
    auto client = found.has_value() ? ApiClient::Login(*found) : std::move(found).error();
    if (client.has_value()) return *std::move(client);
    *exit_code = Fail(client.error());
    return nullptr;
  }

  base::ConfigBuilder::Option<std::string>& cloud;
  base::ConfigBuilder::Option<std::string>& data_dir;
  base::ConfigBuilder::Option<bool>& json;
};

}  // namespace controlplane::cli
