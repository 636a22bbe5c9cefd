#include "chunkstore/zstd_frames.h"

#include <algorithm>

#include <fmt/format.h>
#include <zstd.h>

#include "base/check.h"
#include "base/coding.h"

namespace chunkstore {
namespace {

using base::Code;
using base::Error;
using base::Result;

// RFC 8878, 3.1.1: the content's size in four bytes, no check sum, no dictionary; a window of 128
// KiB (exponent 7, mantissa 0), so that a block may have as many bytes.
constexpr uint32_t kMagic = 0xFD2FB528;
constexpr uint8_t kDescriptor = 0x80;
constexpr uint8_t kWindow = 7 << 3;

enum class BlockType : uint32_t { kRaw = 0, kRepeated = 1 };

void AppendFrameHead(std::string* out, uint32_t content_bytes) {
  base::PutFixed<uint32_t>(out, kMagic);
  base::PutFixed<uint8_t>(out, kDescriptor);
  base::PutFixed<uint8_t>(out, kWindow);
  base::PutFixed<uint32_t>(out, content_bytes);
}

// 3.1.1.2: three bytes: the last bit, two of the type, the length.
void AppendBlockHead(std::string* out, BlockType type, uint32_t length, bool last) {
  const uint32_t head = (length << 3) | (static_cast<uint32_t>(type) << 1) | (last ? 1 : 0);
  for (int shift = 0; shift < 24; shift += 8) out->push_back(static_cast<char>(head >> shift));
}

constexpr int kMaxWindowLog = 23;

struct FreeDecoder {
  void operator()(ZSTD_DCtx* owned) const { ZSTD_freeDCtx(owned); }
};

}  // namespace

std::string RawFrameHead(uint32_t length) {
  CHECK(length >= 1 && length <= kMaxRawFrameBytes);
  std::string head;
  AppendFrameHead(&head, length);
  AppendBlockHead(&head, BlockType::kRaw, length, true);
  CHECK(head.size() == kRawFrameHeadBytes);
  return head;
}

std::string ZeroFrame(uint32_t length) {
  CHECK(length >= 1);
  std::string frame;
  AppendFrameHead(&frame, length);
  while (length > 0) {
    const uint32_t count = std::min(length, kMaxRawFrameBytes);
    length -= count;
    AppendBlockHead(&frame, BlockType::kRepeated, count, length == 0);
    frame.push_back('\0');
  }
  return frame;
}

struct ZstdFramer::Impl {
  struct FreeContext {
    void operator()(ZSTD_CCtx* owned) const { ZSTD_freeCCtx(owned); }
  };
  std::unique_ptr<ZSTD_CCtx, FreeContext> context;
  std::string scratch;
};

ZstdFramer::ZstdFramer() : impl_(std::make_unique<Impl>()) {
  impl_->context.reset(ZSTD_createCCtx());
  CHECK(impl_->context != nullptr);
  impl_->scratch.resize(ZSTD_compressBound(kMaxRawFrameBytes));
}

ZstdFramer::~ZstdFramer() = default;

std::optional<base::ByteView> ZstdFramer::Frame(base::ByteView plain) {
  CHECK(!plain.empty() && plain.size() <= kMaxRawFrameBytes);
  std::string& scratch = impl_->scratch;
  const size_t size = ZSTD_compress2(impl_->context.get(), scratch.data(), scratch.size(),
                                     plain.data(), plain.size());
  CHECK(!ZSTD_isError(size));
  if (size >= plain.size()) return std::nullopt;
  return base::AsBytes(scratch).first(size);
}

struct ZstdReader::Impl {
  std::unique_ptr<ZSTD_DCtx, FreeDecoder> context;
};

ZstdReader::ZstdReader() : impl_(std::make_unique<Impl>()) {
  impl_->context.reset(ZSTD_createDCtx());
  CHECK(impl_->context != nullptr);
  ZSTD_DCtx_setParameter(impl_->context.get(), ZSTD_d_windowLogMax, kMaxWindowLog);
}

ZstdReader::~ZstdReader() = default;

Result<size_t> ZstdReader::Read(base::ByteView* in, base::MutableByteView out) {
  CHECK(!out.empty());
  ZSTD_inBuffer from{in->data(), in->size(), 0};
  ZSTD_outBuffer to{out.data(), out.size(), 0};
  do {
    const size_t left = ZSTD_decompressStream(impl_->context.get(), &to, &from);
    if (ZSTD_isError(left)) {
      return Error(Code::kInvalidArgument,
                   fmt::format("what came is no zstd stream: {}", ZSTD_getErrorName(left)));
    }
  } while (from.pos < from.size && to.pos < to.size);
  *in = in->subspan(from.pos);
  return to.pos;
}

Result<void> DecodeFrame(base::ByteView frame, base::MutableByteView out) {
  thread_local const std::unique_ptr<ZSTD_DCtx, FreeDecoder> context(ZSTD_createDCtx());
  CHECK(context != nullptr);
  const size_t size =
      ZSTD_decompressDCtx(context.get(), out.data(), out.size(), frame.data(), frame.size());
  if (ZSTD_isError(size)) {
    return Error(Code::kInvalidArgument, fmt::format("what came is no zstd frame of {} bytes: {}",
                                                     out.size(), ZSTD_getErrorName(size)));
  }
  if (size == out.size()) return {};
  return Error(Code::kInvalidArgument,
               fmt::format("a zstd frame has {} bytes, where {} belong", size, out.size()));
}

}  // namespace chunkstore
