#include "base/sha256_stream.h"

#include <array>
#include <cstring>

#include "base/coding.h"

#if defined(__x86_64__)
#include <cpuid.h>
#include <immintrin.h>
#endif

namespace base {

namespace {

constexpr size_t kBlockBytes = 64;

// FIPS 180-4, 5.3.3.
constexpr std::array<uint32_t, 8> kInitial = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
                                              0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};

#if defined(__x86_64__)

#define QUARRY_SHA __attribute__((target("sha,sse4.1,ssse3")))

// FIPS 180-4, 4.2.2.
alignas(16) constexpr uint32_t kRound[64] = {
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
    0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
    0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
    0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
    0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
    0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
    0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
    0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2};

// The eight words in the two registers that the instructions want.
struct Lanes {
  __m128i abef;
  __m128i cdgh;
};

QUARRY_SHA inline Lanes Load(const std::array<uint32_t, 8>& state) {
  __m128i low = _mm_loadu_si128(reinterpret_cast<const __m128i*>(state.data()));       // dcba
  __m128i high = _mm_loadu_si128(reinterpret_cast<const __m128i*>(state.data() + 4));  // hgfe
  low = _mm_shuffle_epi32(low, 0xb1);                                                  // cdab
  high = _mm_shuffle_epi32(high, 0x1b);                                                // efgh
  return {_mm_alignr_epi8(low, high, 8), _mm_blend_epi16(high, low, 0xf0)};
}

QUARRY_SHA inline void Store(const Lanes& lanes, std::array<uint32_t, 8>* state) {
  __m128i feba = _mm_shuffle_epi32(lanes.abef, 0x1b);
  __m128i dchg = _mm_shuffle_epi32(lanes.cdgh, 0xb1);
  _mm_storeu_si128(reinterpret_cast<__m128i*>(state->data()), _mm_blend_epi16(feba, dchg, 0xf0));
  _mm_storeu_si128(reinterpret_cast<__m128i*>(state->data() + 4), _mm_alignr_epi8(dchg, feba, 8));
}

// Four rounds.
QUARRY_SHA inline void Rounds(Lanes* lanes, __m128i low, __m128i high) {
  lanes->cdgh = _mm_sha256rnds2_epu32(lanes->cdgh, lanes->abef, low);
  lanes->abef = _mm_sha256rnds2_epu32(lanes->abef, lanes->cdgh, high);
}

// Words 4i .. 4i+3 of the schedule; `words` holds the last 16.
QUARRY_SHA inline __m128i Schedule(__m128i* words, int i) {
  __m128i& word = words[i % 4];
  __m128i next = _mm_sha256msg1_epu32(word, words[(i + 1) % 4]);
  __m128i last = words[(i + 3) % 4];
  next = _mm_add_epi32(next, _mm_alignr_epi8(last, words[(i + 2) % 4], 4));
  word = _mm_sha256msg2_epu32(next, last);
  return word;
}

template <bool kBoth>
QUARRY_SHA void Compress(std::array<uint32_t, 8>* one, std::array<uint32_t, 8>* two,
                         const uint8_t* bytes, size_t blocks) {
  const __m128i swap = _mm_set_epi64x(0x0c0d0e0f08090a0b, 0x0405060700010203);
  Lanes a = Load(*one);
  Lanes b = kBoth ? Load(*two) : a;
  for (; blocks > 0; --blocks, bytes += kBlockBytes) {
    const Lanes a_before = a;
    const Lanes b_before = b;
    __m128i words[4];
#pragma clang loop unroll(full)
    for (int i = 0; i < 16; ++i) {
      __m128i word;
      if (i < 4) {
        word = _mm_loadu_si128(reinterpret_cast<const __m128i*>(bytes + 16 * i));
        word = _mm_shuffle_epi8(word, swap);
        words[i] = word;
      } else {
        word = Schedule(words, i);
      }
      const __m128i round = _mm_load_si128(reinterpret_cast<const __m128i*>(kRound + 4 * i));
      const __m128i low = _mm_add_epi32(word, round);
      const __m128i high = _mm_shuffle_epi32(low, 0x0e);
      Rounds(&a, low, high);
      if constexpr (kBoth) Rounds(&b, low, high);
    }
    a.abef = _mm_add_epi32(a.abef, a_before.abef);
    a.cdgh = _mm_add_epi32(a.cdgh, a_before.cdgh);
    if constexpr (kBoth) {
      b.abef = _mm_add_epi32(b.abef, b_before.abef);
      b.cdgh = _mm_add_epi32(b.cdgh, b_before.cdgh);
    }
  }
  Store(a, one);
  if constexpr (kBoth) Store(b, two);
}

// CPUID leaf 7: EBX bit 29 is SHA; leaf 1: ECX bits 9 and 19 are SSSE3 and SSE4.1.
bool HasShaInstructions() {
  uint32_t a, b, c, d;
  if (!__get_cpuid(1, &a, &b, &c, &d) || !(c & (1u << 9)) || !(c & (1u << 19))) return false;
  return __get_cpuid_count(7, 0, &a, &b, &c, &d) && (b & (1u << 29)) != 0;
}

#else

template <bool kBoth>
void Compress(std::array<uint32_t, 8>*, std::array<uint32_t, 8>*, const uint8_t*, size_t) {}
bool HasShaInstructions() { return false; }

#endif

// FIPS 180-4, 5.1.1: a one bit, zeros, the length in bits; one block more, or two.
std::array<uint32_t, 8> Finish(std::array<uint32_t, 8> state, ByteView rest, uint64_t total_bytes) {
  uint8_t end[2 * kBlockBytes] = {};
  if (!rest.empty()) std::memcpy(end, rest.data(), rest.size());
  end[rest.size()] = 0x80;
  size_t blocks = rest.size() + 9 > kBlockBytes ? 2 : 1;
  for (int i = 0; i < 8; ++i) {
    end[blocks * kBlockBytes - 1 - i] = static_cast<uint8_t>((total_bytes * 8) >> (8 * i));
  }
  Compress<false>(&state, nullptr, end, blocks);
  return state;
}

Digest256 ToDigest(const std::array<uint32_t, 8>& state) {
  Digest256 digest;
  for (size_t i = 0; i < 32; ++i) {
    digest.bytes[i] = static_cast<uint8_t>(state[i / 4] >> (24 - 8 * (i % 4)));
  }
  return digest;
}

}  // namespace

struct Sha256Stream::Impl {
  std::unique_ptr<Digester> digester;  // where there are no instructions for it
  std::array<uint32_t, 8> state = kInitial;
  uint64_t total_bytes = 0;
  size_t held_bytes = 0;  // of a block that is not full
  uint8_t held[kBlockBytes];

  void Absorb(ByteView part) {
    if (part.empty()) return;  // its data may be null
    total_bytes += part.size();
    if (held_bytes > 0) {
      size_t fill = std::min(kBlockBytes - held_bytes, part.size());
      std::memcpy(held + held_bytes, part.data(), fill);
      held_bytes += fill;
      part = part.subspan(fill);
      if (held_bytes < kBlockBytes) return;
      Compress<false>(&state, nullptr, held, 1);
      held_bytes = 0;
    }
    Compress<false>(&state, nullptr, part.data(), part.size() / kBlockBytes);
    Hold(part.subspan(part.size() / kBlockBytes * kBlockBytes));
  }
  void Hold(ByteView rest) {
    held_bytes = rest.size();
    if (!rest.empty()) std::memcpy(held, rest.data(), rest.size());
  }
};

bool Sha256Stream::IsFast() {
  static const bool fast = HasShaInstructions();
  return fast;
}

Sha256Stream::Sha256Stream() : impl_(std::make_unique<Impl>()) {
  if (!IsFast()) impl_->digester = std::move(*Digester::Create("sha256"));
}
Sha256Stream::~Sha256Stream() = default;

Digest256 Sha256Stream::UpdateBoth(ByteView part) {
  // Off the grid of blocks the two see different blocks.
  if (impl_->digester != nullptr || impl_->held_bytes > 0) {
    Update(part);
    return Sha256(part);
  }
  std::array<uint32_t, 8> alone = kInitial;
  size_t blocks = part.size() / kBlockBytes;
  Compress<true>(&alone, &impl_->state, part.data(), blocks);
  ByteView rest = part.subspan(blocks * kBlockBytes);
  impl_->total_bytes += part.size();
  impl_->Hold(rest);
  return ToDigest(Finish(alone, rest, part.size()));
}

void Sha256Stream::Update(ByteView part) {
  if (impl_->digester != nullptr) {
    impl_->digester->Update(part);
  } else {
    impl_->Absorb(part);
  }
}

std::string Sha256Stream::FinishHex() {
  if (impl_->digester != nullptr) return impl_->digester->FinishHex();
  return ToDigest(Finish(impl_->state, {impl_->held, impl_->held_bytes}, impl_->total_bytes)).hex();
}

}  // namespace base
