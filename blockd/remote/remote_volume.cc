#include "blockd/remote/remote_volume.h"

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <utility>

#include <fmt/format.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/thread_annotations.h"
#include "blockd/remote/connection.h"

namespace blockd::remote {

using base::ByteView;
using base::Code;
using base::Error;
using base::MutableByteView;
using base::Result;

namespace {

// Pieces of long requests: what else is asked meanwhile waits for one of them at most.
constexpr uint64_t kPieceBytes = 1 * base::kMiB;
// Of what moves no bytes; a length is 32 bits on the wire.
constexpr uint64_t kRangeBytes = 1 * base::kGiB;
constexpr size_t kMaxConnections = 16;
// How often it is looked whether a connection is there, besides when one is told.
constexpr int64_t kLookAgainMs = 10;

constexpr const char* kAllocation = "base:allocation";
constexpr uint32_t kHole = 1 << 0;  // bits of base:allocation
constexpr uint32_t kZero = 1 << 1;

constexpr std::array<uint8_t, kPieceBytes> kZeros = {};

int64_t NowMs() { return base::SystemClock().MonotonicNs() / 1'000'000; }

const char* KindName(Operation::Kind kind) {
  switch (kind) {
    case Operation::Kind::kRead:
      return "a read";
    case Operation::Kind::kWrite:
      return "a write";
    case Operation::Kind::kZero:
      return "zeroing";
    case Operation::Kind::kFlush:
      return "a flush";
    case Operation::Kind::kStatus:
      break;
  }
  return "block status";
}

// The errors that NBD has.
Code CodeOf(int number) {
  switch (number) {
    case EINVAL:
    case EOVERFLOW:
    case ENOTSUP:
      return Code::kInvalidArgument;
    case EPERM:
      return Code::kPermissionDenied;
    case ENOSPC:
      return Code::kOutOfSpace;
    case ENOMEM:
      return Code::kUnavailable;
    default:
      return Code::kIo;
  }
}

Error ToError(const Operation& operation) {
  return Error(
      CodeOf(operation.error),
      fmt::format("the volume's server answers {} of {} bytes at {}: {}", KindName(operation.kind),
                  operation.length, operation.offset, std::strerror(operation.error)));
}

}  // namespace

// --- the connections

struct RemoteVolume::Impl : public ConnectionEvents {
  explicit Impl(RemoteSettings given) : settings(std::move(given)) {}

  Result<void> Open();
  void Connected(const ExportFacts& now) override EXCLUDES(mutex);
  void Lost(const Error& why) override EXCLUDES(mutex);
  void Failed(const Error& why) override EXCLUDES(mutex);

  Result<void> Run(std::span<Operation> operations);
  Result<void> RunOne(Operation operation) { return Run({&operation, 1}); }
  Result<void> Send(Operation& operation, Waiter& waiter);
  Result<void> AwaitConnection() EXCLUDES(mutex);
  Result<void> CheckRange(uint64_t offset, uint64_t length) const;
  void Cut(Operation whole, uint64_t piece_bytes, std::vector<Operation>* pieces) const;

  const RemoteSettings settings;
  // For ever, but for the size.
  ExportFacts first;
  std::atomic<uint64_t> size_bytes = 0;
  std::vector<std::unique_ptr<Connection>> connections;

  base::Mutex mutex;
  base::CondVar changed;
  size_t live GUARDED_BY(mutex) = 0;
  int64_t down_since_ms GUARDED_BY(mutex) = 0;  // while none is live
  std::string last_error GUARDED_BY(mutex);
};

Result<void> RemoteVolume::Impl::Open() {
  connections.push_back(std::make_unique<Connection>(settings, *this));
  ASSIGN_OR_RETURN(first, connections.front()->Connect());
  size_bytes.store(first.size_bytes);
  {
    base::MutexLock lock(mutex);
    live = 1;
  }
  const size_t count =
      first.can_multi_conn ? std::clamp<size_t>(settings.connections, 1, kMaxConnections) : 1;
  while (connections.size() < count)
    connections.push_back(std::make_unique<Connection>(settings, *this));
  for (const auto& connection : connections) connection->Start();
  return {};
}

void RemoteVolume::Impl::Connected(const ExportFacts& now) {
  size_bytes.store(now.size_bytes);
  base::MutexLock lock(mutex);
  if (live == 0)
    LOG(kInfo, "remote", "the volume's server is back after {} ms", NowMs() - down_since_ms);
  ++live;
  changed.NotifyAll();
}

void RemoteVolume::Impl::Lost(const Error& why) {
  base::MutexLock lock(mutex);
  last_error = why.message();
  if (--live > 0) return;
  down_since_ms = NowMs();
  LOG(kWarn, "remote", "the volume's server is gone: {}", why.message());
}

void RemoteVolume::Impl::Failed(const Error& why) {
  base::MutexLock lock(mutex);
  last_error = why.message();
}

// Until there is one, or none came in time.
Result<void> RemoteVolume::Impl::AwaitConnection() {
  base::MutexLock lock(mutex);
  if (live > 0) {  // it breaks right now, or another is not told yet
    (void)changed.WaitForMs(mutex, kLookAgainMs);
    return {};
  }
  while (live == 0) {
    const int64_t left_ms = down_since_ms + settings.reconnect_ms - NowMs();
    if (left_ms <= 0) {
      return Error(
          Code::kUnavailable,
          "the volume's server can't be reached, or does not serve it any more: " + last_error);
    }
    (void)changed.WaitForMs(mutex, left_ms);
  }
  return {};
}

Result<void> RemoteVolume::Impl::Send(Operation& operation, Waiter& waiter) {
  while (true) {
    Connection* best = nullptr;
    for (const auto& connection : connections) {
      if (!connection->live()) continue;
      if (best == nullptr || connection->in_flight() < best->in_flight()) best = connection.get();
    }
    if (best != nullptr && best->Send(operation, waiter)) return {};
    RETURN_IF_ERROR(AwaitConnection());
  }
}

// Beside each other; what was lost with its connection once more.
Result<void> RemoteVolume::Impl::Run(std::span<Operation> operations) {
  std::vector<Operation*> to_do;
  for (Operation& operation : operations) to_do.push_back(&operation);
  int64_t give_up_ms = 0;
  while (!to_do.empty()) {
    Waiter waiter;
    Result<void> sent;
    for (size_t i = 0; i < to_do.size() && sent.has_value(); ++i) sent = Send(*to_do[i], waiter);
    waiter.Wait();
    RETURN_IF_ERROR(sent);
    std::erase_if(to_do, [](const Operation* operation) { return operation->error == 0; });
    for (const Operation* operation : to_do)
      if (operation->error != kConnectionLost) return ToError(*operation);
    if (give_up_ms == 0) give_up_ms = NowMs() + settings.reconnect_ms;
    if (!to_do.empty() && NowMs() > give_up_ms) {
      return Error(Code::kUnavailable,
                   fmt::format("the connection to the volume's server broke again and again for "
                               "{} ms",
                               settings.reconnect_ms));
    }
  }
  return {};
}

Result<void> RemoteVolume::Impl::CheckRange(uint64_t offset, uint64_t length) const {
  const uint64_t size = size_bytes.load();
  const bool on_grid = offset % kSectorBytes == 0 && length % kSectorBytes == 0;
  if (on_grid && offset <= size && length <= size - offset) return {};
  return Error(
      Code::kInvalidArgument,
      fmt::format("{} bytes at {} are not whole sectors inside of {} bytes", length, offset, size));
}

void RemoteVolume::Impl::Cut(Operation whole, uint64_t piece_bytes,
                             std::vector<Operation>* pieces) const {
  while (whole.length > 0) {
    const uint64_t here = std::min(whole.length, piece_bytes);
    Operation piece = whole;
    piece.length = here;
    pieces->push_back(piece);
    whole.offset += here;
    whole.length -= here;
    if (whole.into != nullptr) whole.into += here;
    if (whole.from != nullptr) whole.from += here;
  }
}

// --- the volume

RemoteVolume::RemoteVolume(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}

RemoteVolume::~RemoteVolume() {
  for (const auto& connection : impl_->connections) connection->Stop();
}

Result<std::shared_ptr<RemoteVolume>> RemoteVolume::Open(RemoteSettings settings) {
  auto impl = std::make_unique<Impl>(std::move(settings));
  Result<void> opened = impl->Open();
  if (!opened.has_value()) return std::move(opened).error().Annotate("opening a volume over NBD");
  return std::shared_ptr<RemoteVolume>(new RemoteVolume(std::move(impl)));
}

uint64_t RemoteVolume::size_bytes() const { return impl_->size_bytes.load(); }
bool RemoteVolume::read_only() const { return impl_->first.read_only; }
bool RemoteVolume::HasContext() const { return impl_->first.has_context; }

Result<void> RemoteVolume::Read(uint64_t offset, MutableByteView into) {
  const Part part{offset, into};
  return ReadParts({&part, 1});
}

Result<void> RemoteVolume::ReadParts(std::span<const Part> parts) {
  std::vector<Operation> reads;
  for (const Part& part : parts) {
    RETURN_IF_ERROR(impl_->CheckRange(part.offset, part.into.size()));
    Operation whole;
    whole.kind = Operation::Kind::kRead;
    whole.offset = part.offset;
    whole.length = part.into.size();
    whole.into = part.into.data();
    impl_->Cut(whole, std::min(kPieceBytes, impl_->first.max_io_bytes), &reads);
  }
  return impl_->Run(reads);
}

Result<bool> RemoteVolume::TryRead(uint64_t offset, MutableByteView into) {
  RETURN_IF_ERROR(impl_->CheckRange(offset, into.size()));
  return false;
}

Result<void> RemoteVolume::Write(uint64_t offset, ByteView data) {
  RETURN_IF_ERROR(impl_->CheckRange(offset, data.size()));
  Operation whole;
  whole.kind = Operation::Kind::kWrite;
  whole.offset = offset;
  whole.length = data.size();
  whole.from = data.data();
  std::vector<Operation> writes;
  impl_->Cut(whole, std::min(kPieceBytes, impl_->first.max_io_bytes), &writes);
  return impl_->Run(writes);
}

Result<void> RemoteVolume::Zero(uint64_t offset, uint64_t length, bool free_space) {
  RETURN_IF_ERROR(impl_->CheckRange(offset, length));
  if (!impl_->first.can_zero) {
    while (length > 0) {
      const uint64_t here = std::min(length, kPieceBytes);
      RETURN_IF_ERROR(Write(offset, ByteView(kZeros).first(here)));
      offset += here;
      length -= here;
    }
    return {};
  }
  Operation whole;
  whole.kind = Operation::Kind::kZero;
  whole.offset = offset;
  whole.length = length;
  whole.free_space = free_space;
  std::vector<Operation> zeroings;
  impl_->Cut(whole, kRangeBytes, &zeroings);
  return impl_->Run(zeroings);
}

// A server that can't flush has no cache of its own.
Result<void> RemoteVolume::Flush() {
  if (!impl_->first.can_flush) return {};
  return impl_->RunOne(Operation{});
}

void RemoteVolume::Prefetch(uint64_t offset, uint64_t length) {}

// The server tells as much as it likes at once, at most a little more than it was asked for.
Result<void> RemoteVolume::VisitStatus(const std::string& context, uint64_t offset, uint64_t length,
                                       const StatusVisitor& visit) {
  while (length > 0) {
    Operation status;
    status.kind = Operation::Kind::kStatus;
    status.offset = offset;
    status.length = std::min(length, kRangeBytes);
    status.context = context;
    RETURN_IF_ERROR(impl_->Run({&status, 1}));
    const uint64_t asked = status.length;
    uint64_t told = 0;
    for (const auto& [run, flags] : status.runs) {
      const uint64_t here = std::min<uint64_t>(run, asked - told);
      if (here == 0) break;
      if (!visit(here, flags)) return {};
      told += here;
    }
    if (told == 0 || told % kSectorBytes != 0)
      return Error(Code::kIo, "the volume's server tells nonsense of its blocks");
    offset += told;
    length -= told;
  }
  return {};
}

Result<void> RemoteVolume::VisitExtents(uint64_t offset, uint64_t length,
                                        const ExtentVisitor& visit) {
  RETURN_IF_ERROR(impl_->CheckRange(offset, length));
  if (!impl_->first.has_allocation) {
    if (length > 0) visit({offset, length, true, false});
    return {};
  }
  return VisitStatus(kAllocation, offset, length, [&](uint64_t run, uint32_t flags) {
    const Extent extent{offset, run, (flags & kHole) == 0, (flags & kZero) != 0};
    offset += run;
    return visit(extent);
  });
}

Result<void> RemoteVolume::VisitContext(uint64_t offset, uint64_t length,
                                        const StatusVisitor& visit) {
  RETURN_IF_ERROR(impl_->CheckRange(offset, length));
  if (!HasContext())
    return Error(Code::kNotFound, "the volume's server has no context " + impl_->settings.context);
  return VisitStatus(impl_->settings.context, offset, length, visit);
}

}  // namespace blockd::remote
