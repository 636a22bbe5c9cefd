#include "base/uuid.h"

#include "base/coding.h"
#include "base/hash.h"

namespace base {
namespace {

constexpr size_t kHexDigits = 32;
constexpr size_t kDashedLength = 36;

bool IsDashPosition(size_t i) { return i == 8 || i == 13 || i == 18 || i == 23; }

bool IsHexDigit(char c) {
  return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F');
}

}  // namespace

std::string NewUuidHex() {
  std::string bytes = RandomBytes(16);
  bytes[6] = static_cast<char>((bytes[6] & 0x0f) | 0x40);  // version 4
  bytes[8] = static_cast<char>((bytes[8] & 0x3f) | 0x80);  // variant of RFC 4122
  return ToHex(bytes);
}

std::string NewUuid() {
  std::string uuid = NewUuidHex();
  for (size_t i = 0; i < kDashedLength; ++i)
    if (IsDashPosition(i)) uuid.insert(i, 1, '-');
  return uuid;
}

bool IsUuid(std::string_view text) {
  if (text.size() != kHexDigits && text.size() != kDashedLength) return false;
  bool dashed = text.size() == kDashedLength;
  for (size_t i = 0; i < text.size(); ++i) {
    if (dashed && IsDashPosition(i) ? text[i] != '-' : !IsHexDigit(text[i])) return false;
  }
  return true;
}

}  // namespace base
