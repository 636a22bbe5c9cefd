#pragma once

#include <concepts>
#include <cstdint>
#include <cstring>
#include <string>
#include <string_view>

#include "base/result.h"

// Encoding of the formats that Quarry keeps: little-endian fixed-width integers, LEB128 varints and
// length-prefixed strings, as chunkstore/FORMAT.md writes them down. (The machine is little-endian:
// checked at compile time in coding.cc.)

namespace base {

template <std::unsigned_integral T>
void PutFixed(std::string* out, T value) {
  out->append(reinterpret_cast<const char*>(&value), sizeof(value));
}
void PutVarint(std::string* out, uint64_t value);
void PutString(std::string* out, std::string_view value);  // varint length, then the bytes

// Big-endian, so that the order of keys is the order of numbers.
void PutOrdered64(std::string* out, uint64_t value);

std::string ToHex(std::string_view bytes);
Result<std::string> FromHex(std::string_view hex);  // lower or upper case; kInvalidArgument

// Base64url without padding (RFC 4648 section 5).
std::string ToBase64Url(std::string_view bytes);
Result<std::string> FromBase64Url(std::string_view text);

// Characters, not bytes, of valid UTF-8.
size_t CountCharacters(std::string_view text);

// Reads what the functions above wrote. Input is hostile: every read checks what is left, and
// answers kCorruption when it is cut short or a varint is longer than 64 bits. Borrows its input.
// One thread.
class Decoder {
 public:
  explicit Decoder(std::string_view input) : input_(input) {}

  template <std::unsigned_integral T>
  Result<T> Fixed() {
    ASSIGN_OR_RETURN(std::string_view raw, Bytes(sizeof(T)));
    T value;
    std::memcpy(&value, raw.data(), sizeof(T));
    return value;
  }
  Result<uint64_t> Varint();
  Result<std::string_view> String();
  Result<std::string_view> Bytes(size_t count);

  size_t remaining() const { return input_.size(); }
  // kCorruption unless all was read.
  Result<void> ExpectEnd() const;

 private:
  std::string_view input_;
};

}  // namespace base
