#include "base/coding.h"

#include <algorithm>
#include <array>
#include <bit>

namespace base {
namespace {

static_assert(std::endian::native == std::endian::little,
              "the formats are little-endian and are written by copying integers");

constexpr std::string_view kHexDigits = "0123456789abcdef";
constexpr std::string_view kBase64UrlDigits =
    "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
constexpr uint8_t kNoDigit = 0xff;

constexpr std::array<uint8_t, 256> MakeHexValues() {
  std::array<uint8_t, 256> values{};
  values.fill(kNoDigit);
  for (uint8_t i = 0; i < 16; ++i) values[static_cast<uint8_t>(kHexDigits[i])] = i;
  for (uint8_t i = 10; i < 16; ++i) values['A' + i - 10] = i;
  return values;
}

constexpr std::array<uint8_t, 256> MakeBase64UrlValues() {
  std::array<uint8_t, 256> values{};
  values.fill(kNoDigit);
  for (uint8_t i = 0; i < 64; ++i) values[static_cast<uint8_t>(kBase64UrlDigits[i])] = i;
  return values;
}

constexpr std::array<uint8_t, 256> kHexValues = MakeHexValues();
constexpr std::array<uint8_t, 256> kBase64UrlValues = MakeBase64UrlValues();

}  // namespace

void PutVarint(std::string* out, uint64_t value) {
  while (value >= 0x80) {
    out->push_back(static_cast<char>(value | 0x80));
    value >>= 7;
  }
  out->push_back(static_cast<char>(value));
}

void PutString(std::string* out, std::string_view value) {
  PutVarint(out, value.size());
  out->append(value);
}

void PutOrdered64(std::string* out, uint64_t value) { PutFixed(out, __builtin_bswap64(value)); }

size_t CountCharacters(std::string_view text) {
  return static_cast<size_t>(std::count_if(text.begin(), text.end(), [](char c) {
    return (static_cast<unsigned char>(c) & 0xc0) != 0x80;
  }));
}

std::string ToHex(std::string_view bytes) {
  std::string hex;
  hex.reserve(bytes.size() * 2);
  for (char c : bytes) {
    uint8_t byte = static_cast<uint8_t>(c);
    hex.push_back(kHexDigits[byte >> 4]);
    hex.push_back(kHexDigits[byte & 15]);
  }
  return hex;
}

Result<std::string> FromHex(std::string_view hex) {
  if (hex.size() % 2 != 0)
    return Error(Code::kInvalidArgument, "hex text must have an even number of digits");
  std::string bytes;
  bytes.reserve(hex.size() / 2);
  for (size_t i = 0; i < hex.size(); i += 2) {
    uint8_t high = kHexValues[static_cast<uint8_t>(hex[i])];
    uint8_t low = kHexValues[static_cast<uint8_t>(hex[i + 1])];
    if (high == kNoDigit || low == kNoDigit)
      return Error(Code::kInvalidArgument, "hex text may only hold the digits 0-9 and a-f");
    bytes.push_back(static_cast<char>(high << 4 | low));
  }
  return bytes;
}

std::string ToBase64Url(std::string_view bytes) {
  std::string text;
  text.reserve((bytes.size() * 4 + 2) / 3);
  uint32_t pending = 0;
  int pending_bits = 0;
  for (char c : bytes) {
    pending = pending << 8 | static_cast<uint8_t>(c);
    pending_bits += 8;
    while (pending_bits >= 6) {
      pending_bits -= 6;
      text.push_back(kBase64UrlDigits[pending >> pending_bits & 63]);
    }
  }
  if (pending_bits > 0) text.push_back(kBase64UrlDigits[pending << (6 - pending_bits) & 63]);
  return text;
}

Result<std::string> FromBase64Url(std::string_view text) {
  if (text.size() % 4 == 1) return Error(Code::kInvalidArgument, "base64url text is cut short");
  std::string bytes;
  bytes.reserve(text.size() * 3 / 4);
  uint32_t pending = 0;
  int pending_bits = 0;
  for (char c : text) {
    uint8_t digit = kBase64UrlValues[static_cast<uint8_t>(c)];
    if (digit == kNoDigit)
      return Error(Code::kInvalidArgument, "base64url text holds a character that is no digit");
    pending = pending << 6 | digit;
    pending_bits += 6;
    if (pending_bits < 8) continue;
    pending_bits -= 8;
    bytes.push_back(static_cast<char>(pending >> pending_bits));
  }
  // Else two texts would stand for the same bytes, and a signed token could be altered unnoticed.
  if ((pending & ((1u << pending_bits) - 1)) != 0)
    return Error(Code::kInvalidArgument, "base64url text has stray bits at its end");
  return bytes;
}

Result<uint64_t> Decoder::Varint() {
  uint64_t value = 0;
  for (int shift = 0; shift < 64; shift += 7) {
    if (input_.empty()) return Error(Code::kCorruption, "a varint is cut short");
    uint8_t byte = static_cast<uint8_t>(input_.front());
    if (shift == 63 && byte > 1) break;
    input_.remove_prefix(1);
    value |= static_cast<uint64_t>(byte & 0x7f) << shift;
    if (byte < 0x80) return value;
  }
  return Error(Code::kCorruption, "a varint is longer than 64 bits");
}

Result<std::string_view> Decoder::String() {
  ASSIGN_OR_RETURN(uint64_t size_bytes, Varint());
  if (size_bytes > input_.size()) return Error(Code::kCorruption, "a string is cut short");
  return Bytes(size_bytes);
}

Result<std::string_view> Decoder::Bytes(size_t count) {
  if (count > input_.size()) return Error(Code::kCorruption, "a record is cut short");
  std::string_view bytes = input_.substr(0, count);
  input_.remove_prefix(count);
  return bytes;
}

Result<void> Decoder::ExpectEnd() const {
  if (!input_.empty()) return Error(Code::kCorruption, "a record has bytes after its end");
  return {};
}

}  // namespace base
