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
  int64_t timeout_ms = 5000;  // of one verification, a login included
  // How many callers may wait as long as that; any more, only for kKeystonePatienceMs. They hold
  // threads that other work needs: keep it below the pool's size.
  size_t max_waiting = 4;
};

// How long a caller waits for a Keystone that keeps max_waiting others waiting already.
constexpr int64_t kKeystonePatienceMs = 1000;
// After a Keystone was silent, or a login failed, callers are told so at once for this long.
// From then on one asks at a time, and the others are told so still, until it answers again.
constexpr int64_t kKeystoneFailFastMs = 1000;

// Validates against a Keystone v3 by GET /auth/tokens with X-Subject-Token, as every OpenStack
// service does. Logs in again when its own token ends. What is the Keystone's own trouble (it does
// not answer, refuses our login, answers nonsense) is kUnavailable, and logged. Thread-safe.
std::unique_ptr<TokenVerifier> MakeKeystoneVerifier(KeystoneVerifierOptions options,
                                                    const Clock& clock);

}  // namespace base::auth
