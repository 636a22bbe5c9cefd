#include "controlplane/identity/token_codec.h"

#include <algorithm>

#include <sodium.h>

#include "base/check.h"
#include "base/coding.h"
#include "controlplane/identity/options.h"

namespace controlplane::identity {

using base::Code;
using base::Error;
using base::Result;

namespace {

constexpr uint8_t kVersion = 1;
constexpr size_t kHeaderBytes = 1 + kTokenKeyIdBytes;
constexpr size_t kSealBytes = crypto_aead_xchacha20poly1305_ietf_ABYTES;
static_assert(kTokenNonceBytes == crypto_aead_xchacha20poly1305_ietf_NPUBBYTES);
static_assert(kTokenKeyBytes == crypto_aead_xchacha20poly1305_ietf_KEYBYTES);

// The library chooses its code for this processor once.
void StartSodium() {
  static const bool started = sodium_init() >= 0;
  CHECK(started);
}

// Ids are nearly always 32 hex digits, which take half the room as bytes. 0xff says so; else it is
// a length.
constexpr uint8_t kHexId = 0xff;

void PutId(std::string* out, std::string_view id) {
  auto raw = base::FromHex(id);
  if (raw.has_value() && raw->size() == 16 && base::ToHex(*raw) == id) {
    out->push_back(static_cast<char>(kHexId));
    out->append(*raw);
    return;
  }
  CHECK(id.size() < kHexId);
  out->push_back(static_cast<char>(id.size()));
  out->append(id);
}

Result<std::string> GetId(base::Decoder& in) {
  ASSIGN_OR_RETURN(uint8_t length, in.Fixed<uint8_t>());
  ASSIGN_OR_RETURN(std::string_view raw, in.Bytes(length == kHexId ? 16 : length));
  return length == kHexId ? base::ToHex(raw) : std::string(raw);
}

Error NoToken() { return Error(Code::kUnauthenticated, "this is not a token of this service"); }

Result<std::string> DecodeText(std::string_view token) {
  if (token.size() > kMaxTokenBytes) return NoToken();
  auto raw = base::FromBase64Url(token);
  // One token, one text: bits left over in the last character do not make another spelling of it.
  if (!raw.has_value() || base::ToBase64Url(*raw) != token) return NoToken();
  if (raw->size() < kHeaderBytes + kTokenNonceBytes + kSealBytes) return NoToken();
  if (static_cast<uint8_t>((*raw)[0]) != kVersion) return NoToken();
  return *std::move(raw);
}

Result<TokenPayload> DecodePayload(std::string_view plain) {
  base::Decoder in(plain);
  TokenPayload payload;
  ASSIGN_OR_RETURN(payload.methods, in.Fixed<uint8_t>());
  ASSIGN_OR_RETURN(uint8_t scope, in.Fixed<uint8_t>());
  if (scope > static_cast<uint8_t>(ScopeKind::kSystem)) return NoToken();
  payload.scope = static_cast<ScopeKind>(scope);
  ASSIGN_OR_RETURN(payload.user_id, GetId(in));
  ASSIGN_OR_RETURN(payload.scope_id, GetId(in));
  ASSIGN_OR_RETURN(payload.application_credential_id, GetId(in));
  ASSIGN_OR_RETURN(payload.trust_id, GetId(in));
  ASSIGN_OR_RETURN(uint64_t issued, in.Varint());
  ASSIGN_OR_RETURN(uint64_t lifetime, in.Varint());
  payload.issued_at_us = static_cast<int64_t>(issued);
  payload.expires_at_us = static_cast<int64_t>(issued + lifetime);
  ASSIGN_OR_RETURN(std::string_view audit, in.Bytes(kAuditIdBytes));
  payload.audit_id = audit;
  if (in.remaining() > 0) {
    ASSIGN_OR_RETURN(std::string_view parent, in.Bytes(kAuditIdBytes));
    payload.parent_audit_id = parent;
  }
  RETURN_IF_ERROR(in.ExpectEnd());
  return payload;
}

}  // namespace

std::string SealToken(const TokenPayload& payload, std::string_view key, std::string_view key_id,
                      std::string_view nonce) {
  CHECK(payload.audit_id.size() == kAuditIdBytes);
  CHECK(payload.expires_at_us >= payload.issued_at_us && payload.issued_at_us >= 0);
  std::string encoded;
  base::PutFixed(&encoded, payload.methods);
  base::PutFixed(&encoded, static_cast<uint8_t>(payload.scope));
  PutId(&encoded, payload.user_id);
  PutId(&encoded, payload.scope_id);
  PutId(&encoded, payload.application_credential_id);
  PutId(&encoded, payload.trust_id);
  base::PutVarint(&encoded, static_cast<uint64_t>(payload.issued_at_us));
  base::PutVarint(&encoded, static_cast<uint64_t>(payload.expires_at_us - payload.issued_at_us));
  encoded.append(payload.audit_id);
  encoded.append(payload.parent_audit_id);
  return SealEncoded(encoded, key, key_id, nonce);
}

std::string SealEncoded(std::string_view encoded, std::string_view key, std::string_view key_id,
                        std::string_view nonce) {
  StartSodium();
  CHECK(key.size() == kTokenKeyBytes && key_id.size() == kTokenKeyIdBytes);
  CHECK(nonce.size() == kTokenNonceBytes);
  std::string token(1, static_cast<char>(kVersion));
  token.append(key_id);
  std::string sealed(encoded.size() + kSealBytes, '\0');
  unsigned long long sealed_size = 0;
  crypto_aead_xchacha20poly1305_ietf_encrypt(
      reinterpret_cast<uint8_t*>(sealed.data()), &sealed_size,
      reinterpret_cast<const uint8_t*>(encoded.data()), encoded.size(),
      reinterpret_cast<const uint8_t*>(token.data()), token.size(), nullptr,
      reinterpret_cast<const uint8_t*>(nonce.data()), reinterpret_cast<const uint8_t*>(key.data()));
  token.append(nonce);
  token.append(sealed);
  return base::ToBase64Url(token);
}

Result<std::string> TokenKeyId(std::string_view token) {
  ASSIGN_OR_RETURN(std::string raw, DecodeText(token));
  return raw.substr(1, kTokenKeyIdBytes);
}

Result<TokenPayload> OpenToken(std::string_view token, std::string_view key) {
  StartSodium();
  CHECK(key.size() == kTokenKeyBytes);
  ASSIGN_OR_RETURN(std::string raw, DecodeText(token));
  const auto* bytes = reinterpret_cast<const uint8_t*>(raw.data());
  size_t sealed_at = kHeaderBytes + kTokenNonceBytes;
  std::string plain(raw.size() - sealed_at - kSealBytes, '\0');
  unsigned long long plain_size = 0;
  if (crypto_aead_xchacha20poly1305_ietf_decrypt(
          reinterpret_cast<uint8_t*>(plain.data()), &plain_size, nullptr, bytes + sealed_at,
          raw.size() - sealed_at, bytes, kHeaderBytes, bytes + kHeaderBytes,
          reinterpret_cast<const uint8_t*>(key.data())) != 0)
    return NoToken();
  auto payload = DecodePayload(plain);
  if (!payload.has_value()) return NoToken();
  return payload;
}

}  // namespace controlplane::identity
