#pragma once

#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "base/http/client.h"
#include "base/json.h"
#include "base/result.h"

// How the command line finds a cloud and calls it: the same files and variables as every OpenStack
// client.

namespace controlplane::cli {

// Where to log in and as whom. `password` is secret.
struct Cloud {
  std::string auth_url;
  std::string username;
  std::string password;
  std::string user_domain = "Default";
  std::string project;
  std::string project_domain = "Default";
  std::string region;
  std::string source;  // where this was found: "quarry-data/clouds.yaml", "OS_AUTH_URL"
  // How another one is named, for whoever finds nobody there; as the options of this command are.
  std::string otherwise = "--cloud, OS_CLOUD or --data-dir name another";
};

// What a command was told of the cloud; empty: nothing.
struct CloudChoice {
  std::string cloud;           // its name
  std::string data_dir;        // of a service on this machine, by the command line
  std::string usual_data_dir;  // the same, by what always holds: QUARRY_DATA_DIR or a file
};

// The first of these that is there to be used:
//   1. the cloud that is named, in OS_CLIENT_CONFIG_FILE, ./clouds.yaml,
//      ~/.config/openstack/clouds.yaml or /etc/openstack/clouds.yaml
//   2. the clouds.yaml that `quarry serve` wrote into data_dir
//   3. the cloud that OS_CLOUD names, in the same files as 1
//   4. OS_AUTH_URL and its family
//   5. the clouds.yaml in usual_data_dir, or else in ./quarry-data
// So whoever sourced an openrc talks to that cloud until the command line says otherwise. kNotFound
// with all the places looked at.
base::Result<Cloud> FindCloud(const CloudChoice& choice);

// The cloud that `quarry serve --data-dir` wrote down.
base::Result<Cloud> CloudOfDataDir(const std::string& data_dir);

// A request with no body, or with one of JSON.
base::http::ClientRequest Ask(std::string method, std::string url,
                              const base::Json& body = nullptr);

// A session with a cloud: a token and its catalog. One thread.
class ApiClient {
 public:
  // Logs in. kUnauthenticated, kUnavailable; the message says what was tried, and where that was
  // taken from.
  static base::Result<std::unique_ptr<ApiClient>> Login(const Cloud& cloud);

  // The public endpoint of a service type ("image"), without a slash at the end. kNotFound.
  base::Result<std::string> Endpoint(std::string_view service_type) const;

  // Of the session; secret.
  const std::string& token() const { return token_; }

  // Sends with the token. A status of 400 or more becomes an Error with the service's own sentence
  // and the request id; a 401 logs in again once.
  base::Result<base::http::Response> Call(base::http::ClientRequest request);
  // The same, for a call that answers JSON.
  base::Result<base::Json> CallJson(base::http::ClientRequest request);

 private:
  explicit ApiClient(Cloud cloud);
  base::Result<void> LogIn();

  Cloud cloud_;
  base::http::Client client_;
  std::string token_;
  std::map<std::string, std::string, std::less<>> endpoints_;
};

}  // namespace controlplane::cli
