#pragma once

#include <cstdint>
#include <string_view>

#include "base/bytes.h"
#include "base/result.h"

// The numbers of the NBD protocol (fixed newstyle), as its specification has them: doc/proto.md of
// the NetworkBlockDevice project. All integers on the wire are big-endian.

namespace blockd::nbd {

// ---- Limits. Every length that a client names is held against one of these.

constexpr uint32_t kMaxIoBytes = 32 * base::kMiB;      // a read or a write; announced
constexpr uint32_t kMaxNameBytes = 4096;               // an export's or a context's name
constexpr uint32_t kMaxOptionBytes = 64 * base::kKiB;  // an option's data
constexpr uint32_t kMaxOptions = 256;                  // in one handshake
constexpr uint32_t kMaxInfoRequests = 64;              // in one INFO or GO
constexpr uint32_t kMaxContextQueries = 64;            // in one LIST or SET_META_CONTEXT
constexpr uint32_t kMaxContexts = 8;                   // negotiated
constexpr uint32_t kMaxExtents = 8192;                 // in one answer to BLOCK_STATUS
constexpr uint32_t kMaxListedExports = 1024;

// ---- Handshake.

constexpr uint64_t kMagic = 0x4e42444d41474943;        // "NBDMAGIC"
constexpr uint64_t kOptionMagic = 0x49484156454f5054;  // "IHAVEOPT"
constexpr uint64_t kOptionReplyMagic = 0x3e889045565a9;

constexpr uint16_t kFlagFixedNewstyle = 1 << 0;  // the server's, and the client's as 32 bits
constexpr uint16_t kFlagNoZeroes = 1 << 1;

enum class Option : uint32_t {
  kExportName = 1,
  kAbort = 2,
  kList = 3,
  kStartTls = 5,
  kInfo = 6,
  kGo = 7,
  kStructuredReply = 8,
  kListMetaContext = 9,
  kSetMetaContext = 10,
};

enum class OptionReply : uint32_t {
  kAck = 1,
  kServer = 2,
  kInfo = 3,
  kMetaContext = 4,
  kErrUnsup = 0x80000001,
  kErrPolicy = 0x80000002,
  kErrInvalid = 0x80000003,
  kErrTlsReqd = 0x80000005,
  kErrUnknown = 0x80000006,
  kErrShutdown = 0x80000007,
  kErrTooBig = 0x80000009,
};

constexpr uint16_t kInfoExport = 0;
constexpr uint16_t kInfoName = 1;
constexpr uint16_t kInfoBlockSize = 3;

// What an export can do: transmission flags.
constexpr uint16_t kHasFlags = 1 << 0;
constexpr uint16_t kReadOnly = 1 << 1;
constexpr uint16_t kSendFlush = 1 << 2;
constexpr uint16_t kSendFua = 1 << 3;
constexpr uint16_t kSendTrim = 1 << 5;
constexpr uint16_t kSendWriteZeroes = 1 << 6;
constexpr uint16_t kSendDf = 1 << 7;
constexpr uint16_t kCanMultiConn = 1 << 8;
constexpr uint16_t kSendCache = 1 << 10;
constexpr uint16_t kSendFastZero = 1 << 11;

// ---- Transmission.

constexpr uint32_t kRequestMagic = 0x25609513;
constexpr uint32_t kSimpleReplyMagic = 0x67446698;
constexpr uint32_t kStructuredReplyMagic = 0x668e33ef;
constexpr size_t kRequestBytes = 28;
constexpr size_t kSimpleReplyBytes = 16;
constexpr size_t kChunkHeaderBytes = 20;

enum class Command : uint16_t {
  kRead = 0,
  kWrite = 1,
  kDisconnect = 2,
  kFlush = 3,
  kTrim = 4,
  kCache = 5,
  kWriteZeroes = 6,
  kBlockStatus = 7,
};

constexpr uint16_t kCommandFua = 1 << 0;
constexpr uint16_t kCommandNoHole = 1 << 1;
constexpr uint16_t kCommandDf = 1 << 2;
constexpr uint16_t kCommandReqOne = 1 << 3;
constexpr uint16_t kCommandFastZero = 1 << 4;

constexpr uint16_t kChunkDone = 1 << 0;
constexpr uint16_t kChunkNone = 0;
constexpr uint16_t kChunkOffsetData = 1;
constexpr uint16_t kChunkOffsetHole = 2;
constexpr uint16_t kChunkBlockStatus = 5;
constexpr uint16_t kChunkError = (1 << 15) + 1;

// Errors on the wire. The set is closed; a client takes any other number for EINVAL.
enum class WireError : uint32_t {
  kOk = 0,
  kPerm = 1,
  kIo = 5,
  kNoMem = 12,
  kInval = 22,
  kNoSpc = 28,
  kOverflow = 75,
  kNotSup = 95,
  kShutdown = 108,
};

// What a volume's error becomes.
WireError ToWire(base::Code code);

// bits of base:allocation
constexpr uint32_t kStateHole = 1 << 0;
constexpr uint32_t kStateZero = 1 << 1;
// the bit of quarry:changed-since..., the one that QEMU gives dirty bitmaps
constexpr uint32_t kStateDirty = 1 << 0;

constexpr std::string_view kAllocationContext = "base:allocation";
constexpr std::string_view kChangedSincePrefix = "quarry:changed-since/";
constexpr std::string_view kChangedSinceImagePrefix = "quarry:changed-since-image/";

// "READ" and the like, for logs and labels; "OTHER" for a number that is none.
std::string_view CommandName(Command command);

// Big-endian integers at `at`; the caller has checked that they are there.
template <typename T>
T LoadBig(const uint8_t* at) {
  T value = 0;
  for (size_t i = 0; i < sizeof(T); ++i) value = static_cast<T>((uint64_t{value} << 8) | at[i]);
  return value;
}
template <typename T>
void StoreBig(uint8_t* at, T value) {
  for (size_t i = 0; i < sizeof(T); ++i)
    at[i] = static_cast<uint8_t>(value >> (8 * (sizeof(T) - 1 - i)));
}

}  // namespace blockd::nbd
