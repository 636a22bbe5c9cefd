#include <cstddef>
#include <cstdint>
#include <string>

#include "base/check.h"
#include "controlplane/identity/token_codec.h"

namespace controlplane::identity {
namespace {

const std::string& Key() {
  static const std::string& key = *new std::string(kTokenKeyBytes, 'k');
  return key;
}

// What came from the network is read without harm; nobody can make one that opens without the key.
void OpenText(std::string_view text) {
  auto payload = OpenToken(text, Key());
  CHECK(!payload.has_value() || TokenKeyId(text).has_value());
}

// The inside of a token, as one who had the key could make it: it is read without harm, and what
// was read can be sealed and reads the same again.
void OpenSealed(std::string_view plain) {
  std::string nonce(kTokenNonceBytes, 'n');
  auto payload = OpenToken(SealEncoded(plain, Key(), "kkkk", nonce), Key());
  if (!payload.has_value()) return;
  if (payload->issued_at_us < 0 || payload->expires_at_us < payload->issued_at_us) return;
  std::string again = SealToken(*payload, Key(), "kkkk", nonce);
  auto reopened = OpenToken(again, Key());
  CHECK(reopened.has_value() && *reopened == *payload);
}

}  // namespace
}  // namespace controlplane::identity

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  std::string_view input(reinterpret_cast<const char*>(data), size);
  controlplane::identity::OpenText(input);
  controlplane::identity::OpenSealed(input);
  return 0;
}
