#pragma once

#include <array>
#include <compare>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>

#include "base/bytes.h"
#include "base/result.h"

// The two hashes of Quarry and what each is for. SHA-256 names content (chunks, map pages); whoever
// takes bytes across a trust boundary checks it. XXH3-128 checks each stored block on each read,
// and proposes blocks to share. It is fast and not collision-resistant: it never names anything for
// a client.

namespace base {

// A SHA-256. Value type, ordered, hashable: names a chunk or a map page.
struct Digest256 {
  std::array<uint8_t, 32> bytes{};

  auto operator<=>(const Digest256&) const = default;
  std::string_view view() const { return {reinterpret_cast<const char*>(bytes.data()), 32}; }
  std::string hex() const;
  static Result<Digest256> FromHex(std::string_view hex);
  static Result<Digest256> FromBytes(std::string_view raw);  // exactly 32
};

Digest256 Sha256(ByteView bytes);

struct Hash128 {
  uint64_t low = 0;
  uint64_t high = 0;
  auto operator<=>(const Hash128&) const = default;
};

Hash128 Xxh3(ByteView bytes);

// An incremental digest by name, for what the Image API shows: "md5", "sha1", "sha256", "sha512",
// "blake2b". One thread at a time.
class Digester {
 public:
  // kInvalidArgument for a name that is not in the list above.
  static Result<std::unique_ptr<Digester>> Create(std::string_view algorithm);
  ~Digester();
  void Update(ByteView bytes);
  std::string FinishHex();  // once

 private:
  struct Impl;
  explicit Digester(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

// HMAC-SHA-256; `Equal` compares secrets without telling by time where they differ.
std::array<uint8_t, 32> HmacSha256(std::string_view key, std::string_view message);
bool SecretsEqual(std::string_view a, std::string_view b);

// Bytes from the system's random generator: for ids, keys and passwords.
void FillRandom(MutableByteView out);
std::string RandomBytes(size_t count);

}  // namespace base

template <>
struct std::hash<base::Digest256> {
  size_t operator()(const base::Digest256& digest) const noexcept {
    size_t value;
    __builtin_memcpy(&value, digest.bytes.data(), sizeof(value));
    return value;
  }
};
