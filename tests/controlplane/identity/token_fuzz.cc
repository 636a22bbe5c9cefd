#include <cstddef>
#include <cstdint>
#include <string>

#include <sodium.h>

#include "base/check.h"
#include "base/coding.h"
#include "controlplane/identity/token_codec.h"

namespace controlplane::identity {
namespace {

const std::string& Key() {
  static const std::string& key = *new std::string(kTokenKeyBytes, 'k');
  return key;
}

// What came from the network: it opens only if it is, character for character, what we sealed.
void OpenText(std::string_view text) {
  auto payload = OpenToken(text, Key());
  CHECK(payload.has_value() == TokenKeyId(text).has_value() || !payload.has_value());
}

// The inside of a token, as one who had the key could make it: it is read without harm, and what
// was read can be sealed and reads the same again.
void OpenSealed(std::string_view plain) {
  std::string token(
      "\x01"
      "kkkk",
      5);
  std::string nonce(kTokenNonceBytes, 'n');
  std::string sealed(plain.size() + crypto_aead_xchacha20poly1305_ietf_ABYTES, '\0');
  unsigned long long size = 0;
  crypto_aead_xchacha20poly1305_ietf_encrypt(
      reinterpret_cast<uint8_t*>(sealed.data()), &size,
      reinterpret_cast<const uint8_t*>(plain.data()), plain.size(),
      reinterpret_cast<const uint8_t*>(token.data()), token.size(), nullptr,
      reinterpret_cast<const uint8_t*>(nonce.data()),
      reinterpret_cast<const uint8_t*>(Key().data()));
  auto payload = OpenToken(base::ToBase64Url(token + nonce + sealed), Key());
  if (!payload.has_value()) return;
  if (payload->issued_at_us < 0 || payload->expires_at_us < payload->issued_at_us) return;
  std::string again = SealToken(*payload, Key(), "kkkk", nonce);
  auto reopened = OpenToken(again, Key());
  CHECK(reopened.has_value() && *reopened == *payload);
}

}  // namespace
}  // namespace controlplane::identity

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const bool started = sodium_init() >= 0;
  CHECK(started);
  std::string_view input(reinterpret_cast<const char*>(data), size);
  controlplane::identity::OpenText(input);
  controlplane::identity::OpenSealed(input);
  return 0;
}
