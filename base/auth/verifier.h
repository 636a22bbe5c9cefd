#pragma once

#include <memory>
#include <string_view>

#include "base/auth/caller.h"
#include "base/result.h"

namespace base::auth {

// Turns a token into the one who calls. Two real ones: controlplane/identity in the same process,
// and any Keystone by URL (auth/keystone_verifier.h); a service does not know which it was handed.
// Thread-safe; may block (on the network, for a Keystone), so it is called on a Pool's thread.
class TokenVerifier {
 public:
  virtual ~TokenVerifier() = default;
  // The Caller may be limited by access rules: whoever serves him asks Allows
  // (auth/access_rules.h).
  // kUnauthenticated: unknown, expired, revoked or malformed. kUnavailable: the identity service
  // does not answer.
  virtual Result<std::shared_ptr<const Caller>> Verify(std::string_view token) = 0;
};

}  // namespace base::auth
