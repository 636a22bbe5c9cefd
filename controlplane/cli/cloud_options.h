#pragma once

#include <memory>
#include <string>

#include "base/config.h"
#include "base/result.h"
#include "controlplane/cli/cloud.h"

namespace controlplane::cli {

// What every command that logs in can be told. Borrows the builder.
struct CloudOptions {
  explicit CloudOptions(base::ConfigBuilder& options)
      : cloud(options.String("cloud", "", "name of a cloud in clouds.yaml (OS_CLOUD)")),
        data_dir(options.String(
            "data_dir", "",
            "of a service on this machine, whose clouds.yaml is used if no cloud is named")),
        json(options.Bool("json", false, "answer in JSON on stdout, without progress")) {}

  base::Result<std::unique_ptr<ApiClient>> LogIn() const {
    ASSIGN_OR_RETURN(const Cloud found, FindCloud(*cloud, *data_dir));
    return ApiClient::Login(found);
  }

  base::ConfigBuilder::Option<std::string>& cloud;
  base::ConfigBuilder::Option<std::string>& data_dir;
  base::ConfigBuilder::Option<bool>& json;
};

}  // namespace controlplane::cli
