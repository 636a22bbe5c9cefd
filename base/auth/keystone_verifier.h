#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

#include "base/auth/verifier.h"
#include "base/clock.h"

namespace base::auth {

struct KeystoneVerifierOptions {
  std::string auth_url;  // http://host:port/v3 or http://host/identity; "/v3" may be left out
  std::string username;  // the service user that asks (role service or admin)
  std::string password;  // secret
  std::string user_domain = "Default";
  std::string project = "service";
  std::string project_domain = "Default";
  int64_t cache_ms = 1000;  // an answer is believed this long: a revocation takes effect within it
  size_t cache_entries = 10'000;
  int64_t timeout_ms = 5000;
};

// Validates against a Keystone v3 by GET /auth/tokens with X-Subject-Token, as every OpenStack
// service does. Logs in again when its own token ends. What is the Keystone's own trouble (it does
// not answer, refuses our login, answers nonsense) is kUnavailable, and logged. Thread-safe.
std::unique_ptr<TokenVerifier> MakeKeystoneVerifier(KeystoneVerifierOptions options,
                                                    const Clock& clock);

}  // namespace base::auth
