#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "base/result.h"

// A token is what its holder needs to know nothing about: sealed bytes that only this identity
// service can read or make, verified without looking anything up. API.md has the format byte by
// byte; tests/golden keeps it.

namespace controlplane::identity {

enum class ScopeKind : uint8_t { kUnscoped = 0, kProject = 1, kDomain = 2, kSystem = 3 };

// How the holder proved who it is; a token bought with a token has both.
enum Method : uint8_t {
  kMethodPassword = 1,
  kMethodToken = 2,
  kMethodApplicationCredential = 4,
};

struct TokenPayload {
  uint8_t methods = 0;  // Method bits
  ScopeKind scope = ScopeKind::kUnscoped;
  std::string user_id;
  std::string scope_id;  // the project's or the domain's
  std::string application_credential_id;
  std::string trust_id;
  int64_t issued_at_us = 0;
  int64_t expires_at_us = 0;
  std::string audit_id;  // 16 random bytes
  std::string
      parent_audit_id;  // of the first token of the chain this one was bought with; may be empty

  bool operator==(const TokenPayload&) const = default;
};

constexpr size_t kTokenKeyBytes = 32;
constexpr size_t kTokenKeyIdBytes = 4;
constexpr size_t kTokenNonceBytes = 24;
constexpr size_t kAuditIdBytes = 16;

// The text of a token: base64url of version, key id, nonce, ciphertext and tag
// (XChaCha20-Poly1305). REQUIRES: key, key_id and nonce have the sizes above. A nonce is random and
// used once.
std::string SealToken(const TokenPayload& payload, std::string_view key, std::string_view key_id,
                      std::string_view nonce);

// The same from a payload that is encoded already: what a fuzzer feeds in behind the seal.
std::string SealEncoded(std::string_view encoded, std::string_view key, std::string_view key_id,
                        std::string_view nonce);

// The id of the key that a token claims to be sealed with. kUnauthenticated unless it has a token's
// shape.
base::Result<std::string> TokenKeyId(std::string_view token);

// kUnauthenticated if anything about it is not as SealToken made it with this key. Says nothing
// about expiry.
base::Result<TokenPayload> OpenToken(std::string_view token, std::string_view key);

}  // namespace controlplane::identity
