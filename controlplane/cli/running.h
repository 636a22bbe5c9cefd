#pragma once

#include <memory>
#include <optional>
#include <string>

#include "base/result.h"
#include "controlplane/cli/cloud.h"

namespace controlplane::cli {

// The service that runs over a data directory, and a session with it.
struct Running {
  std::unique_ptr<ApiClient> client;
  std::string base_url;  // "http://127.0.0.1:9696"
};

// Nothing if none runs: there is no endpoint file, or nobody answers there (a killed service leaves
// its file behind; should it live after all, the store's lock tells). A service that answers but
// can't be asked is an Error, so that nobody goes on as if none ran: kUnavailable when it is busy,
// kUnauthenticated, or kNotFound when there is nothing to log in with.
//
// Logs in with the directory's clouds.yaml; at a service beside a Keystone with what FindCloud
// finds in the environment (OS_CLOUD, OS_AUTH_URL, ...).
base::Result<std::optional<Running>> FindRunning(const std::string& data_dir);

}  // namespace controlplane::cli
