#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

#include "base/bytes.h"
#include "base/hash.h"

namespace base {

// The SHA-256 of a long stream that comes in parts, and of each part alone, for little more than
// the price of one of the two.
//
// An upload needs both: the id of each chunk, and the digest of the whole image. Both hash the same
// 64-byte blocks, so they share the message schedule; and the two chains of rounds do not depend on
// each other, so a core with SHA instructions, which waits for the result of each round, runs them
// side by side. Without such instructions it is two hashes by OpenSSL.
//
// One thread at a time.
class Sha256Stream {
 public:
  Sha256Stream();
  ~Sha256Stream();

  // Takes the part into the stream; returns the part's own digest.
  Digest256 UpdateBoth(ByteView part);
  // Takes it into the stream alone.
  void Update(ByteView part);
  // The stream's digest, hex. Once, last.
  std::string FinishHex();

  // True if this machine runs both at once.
  static bool IsFast();

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace base
