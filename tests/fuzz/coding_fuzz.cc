#include <cstddef>
#include <cstdint>

#include "base/check.h"
#include "base/coding.h"

namespace {

// The first byte of each round picks what is read next, so that any mixture can come up.
void ReadMixture(std::string_view input) {
  base::Decoder decoder(input);
  while (decoder.remaining() > 0) {
    size_t before = decoder.remaining();
    uint8_t kind = decoder.Fixed<uint8_t>().value();
    bool fine = false;
    switch (kind % 4) {
      case 0:
        fine = decoder.Varint().has_value();
        break;
      case 1:
        fine = decoder.String().has_value();
        break;
      case 2:
        fine = decoder.Fixed<uint64_t>().has_value();
        break;
      default:
        fine = decoder.Bytes(kind).has_value();
        break;
    }
    CHECK(decoder.remaining() < before);
    if (!fine) return;
  }
  CHECK(decoder.ExpectEnd().has_value());
}

void GoRound(std::string_view input) {
  CHECK(base::FromHex(base::ToHex(input)).value() == input);
  CHECK(base::FromBase64Url(base::ToBase64Url(input)).value() == input);
  // One text for each string of bytes, else a signed token has twins.
  auto decoded = base::FromBase64Url(input);
  if (decoded.has_value()) CHECK(base::ToBase64Url(*decoded) == input);
  std::string encoded;
  base::PutString(&encoded, input);
  base::Decoder decoder(encoded);
  CHECK(decoder.String().value() == input);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  std::string_view input(reinterpret_cast<const char*>(data), size);
  ReadMixture(input);
  GoRound(input);
  return 0;
}
