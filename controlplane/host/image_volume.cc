#include "controlplane/host/image_volume.h"

#include <algorithm>
#include <atomic>
#include <utility>
#include <vector>

#include <fmt/format.h>

#include "base/log.h"
#include "chunkstore/blob_format.h"

namespace controlplane::host {

using base::Code;
using base::Error;
using base::Result;
using chunkstore::kChunkBytes;

namespace {

constexpr int64_t kFirstPauseMs = 50;
constexpr int64_t kMaxPauseMs = 1'000;
// One job of what is brought ahead: several go side by side.
constexpr uint32_t kAheadJobBytes = 512 * base::kKiB;

uint64_t NewNumber() {
  static std::atomic<uint64_t> last{0};
  return ++last;
}

uint64_t WholeSectors(uint64_t bytes) {
  return (bytes + blockd::kSectorBytes - 1) / blockd::kSectorBytes * blockd::kSectorBytes;
}

// A map of another length than the size says would be read beyond its end.
Result<void> CheckShape(const Shape& shape) {
  const uint64_t chunks = (shape.size_bytes + kChunkBytes - 1) / kChunkBytes;
  if (shape.size_bytes > blockd::kMaxVolumeBytes || shape.holes.size() != chunks)
    return Error(Code::kCorruption, "the service answered a map that doesn't fit the image's size");
  return {};
}

Error ReadOnly() {
  return Error(Code::kPermissionDenied, "an image can't be written to; attach a volume of it");
}

}  // namespace

// The image for a reader who waits for what he asks of it.
class ImageVolume::Asked : public RemoteImage {
 public:
  Asked(RemoteImage& remote, Background& background) : remote_(remote), background_(background) {}

  Result<std::vector<chunkstore::layers::BlockInfo>> Table(uint64_t index) override {
    const Background::Demand demand(background_);
    // RemoteImage has a type of this name.
    return static_cast<BlockSource&>(remote_).Table(index);
  }
  Result<void> Fetch(uint64_t index, std::span<const size_t> numbers, const Sink& sink) override {
    const Background::Demand demand(background_);
    return remote_.Fetch(index, numbers, sink);
  }
  Result<std::vector<RemoteImage::Table>> Tables(std::span<const uint64_t> chunks) override {
    const Background::Demand demand(background_);
    return remote_.Tables(chunks);
  }
  Result<Shape> ReadShape() override { return remote_.ReadShape(); }
  Result<std::optional<BootTrace>> ReadTrace() override { return remote_.ReadTrace(); }
  Result<void> WriteTrace(const BootTrace& trace) override { return remote_.WriteTrace(trace); }

 private:
  RemoteImage& remote_;
  Background& background_;
};

// The image for one call, that counts what it had to bring.
class ImageVolume::Metered : public chunkstore::layers::BlockSource {
 public:
  Metered(RemoteImage& remote, const ChunkTable& table) : remote_(remote), table_(table) {}

  Result<std::vector<chunkstore::layers::BlockInfo>> Table(uint64_t index) override {
    return static_cast<BlockSource&>(remote_).Table(index);
  }
  Result<void> Fetch(uint64_t index, std::span<const size_t> numbers, const Sink& sink) override {
    const auto count = [&](size_t number, base::ByteView stored) -> Result<void> {
      fetched_.bytes += stored.size();
      if (number < table_.blocks.size()) fetched_.plain_bytes += table_.blocks[number].plain_length;
      return sink(number, stored);
    };
    return remote_.Fetch(index, numbers, count);
  }
  const Fetched& fetched() const { return fetched_; }

 private:
  RemoteImage& remote_;
  const ChunkTable& table_;
  Fetched fetched_;
};

Result<std::shared_ptr<ImageVolume>> ImageVolume::Open(std::shared_ptr<RemoteImage> remote,
                                                       const HostParts& parts, Options options) {
  ASSIGN_OR_RETURN(Shape shape, remote->ReadShape());
  RETURN_IF_ERROR(CheckShape(shape));
  return std::shared_ptr<ImageVolume>(
      new ImageVolume(std::move(remote), parts, std::move(options), std::move(shape)));
}

ImageVolume::ImageVolume(std::shared_ptr<RemoteImage> remote, const HostParts& parts,
                         Options options, Shape shape)
    : remote_(std::move(remote)),
      parts_(parts),
      options_(std::move(options)),
      shape_(std::move(shape)),
      size_bytes_(WholeSectors(shape_.size_bytes)),
      number_(NewNumber()),
      asked_(std::make_unique<Asked>(*remote_, parts_.background)),
      recorder_(options_.trace_window_ms > 0
                    ? std::make_unique<TraceRecorder>(options_.trace_window_ms, parts_.clock)
                    : nullptr),
      read_bytes_(parts_.metrics.GetCounter("quarry_host_read_bytes_total",
                                            "Bytes of images that guests of this host read")),
      failed_reads_(parts_.metrics.GetCounter(
          "quarry_host_failed_reads_total",
          "Reads of guests that neither the cache nor the service could answer")) {}

ImageVolume::~ImageVolume() { parts_.tables.Forget(number_); }

Result<void> ImageVolume::CheckRange(uint64_t offset, uint64_t length) const {
  if ((offset | length) % blockd::kSectorBytes == 0 && offset <= size_bytes_ &&
      length <= size_bytes_ - offset)
    return {};
  return Error(Code::kInvalidArgument,
               fmt::format("{} bytes at {} are off the sectors of an image of {}", length, offset,
                           size_bytes_));
}

Result<Tables::Ref> ImageVolume::TableOf(uint64_t chunk) {
  return parts_.tables.Get(number_, *remote_, shape_, chunk);
}

void ImageVolume::Record(uint64_t chunk, const ChunkTable& table, uint32_t offset,
                         uint32_t length) {
  if (recorder_ == nullptr || length == 0) return;
  recorder_->Note(chunk, table.blocks.size(), table.BlockAt(offset),
                  table.BlockAt(offset + length - 1), length);
}

Result<void> ImageVolume::ReadOnce(uint64_t chunk, uint32_t offset, base::MutableByteView into) {
  ASSIGN_OR_RETURN(const Tables::Ref table, parts_.tables.Get(number_, *asked_, shape_, chunk));
  Record(chunk, *table, offset, static_cast<uint32_t>(into.size()));
  return parts_.cache.Read(*asked_, chunk, table->blocks, offset, into);
}

// False when the patience is over.
bool ImageVolume::Wait(int64_t pause_ms, int64_t until_ns) {
  const int64_t left_ms = (until_ns - parts_.clock.MonotonicNs()) / 1'000'000;
  base::MutexLock lock(mutex_);
  if (gives_up_ || left_ms <= 0) return false;
  given_up_.WaitForMs(mutex_, std::min(pause_ms, left_ms));
  return !gives_up_;
}

void ImageVolume::GiveUp() {
  base::MutexLock lock(mutex_);
  gives_up_ = true;
  given_up_.NotifyAll();
}

Result<void> ImageVolume::ReadPiece(uint64_t chunk, uint32_t offset, base::MutableByteView into) {
  const int64_t until_ns = parts_.clock.MonotonicNs() + options_.patience_ms * 1'000'000;
  bool has_new_table = false;
  for (int64_t pause_ms = kFirstPauseMs;; pause_ms = std::min(2 * pause_ms, kMaxPauseMs)) {
    Result<void> read = ReadOnce(chunk, offset, into);
    if (read.has_value()) return read;
    const Code code = read.error().code();
    if (code == Code::kCorruption && !has_new_table) {
      // The service may have stored the chunk anew, in other blocks than it told us once.
      parts_.tables.Drop(number_, chunk);
      has_new_table = true;
      continue;
    }
    if (code != Code::kUnavailable || !Wait(pause_ms, until_ns)) return read;
  }
}

Result<void> ImageVolume::Read(uint64_t offset, base::MutableByteView into) {
  RETURN_IF_ERROR(CheckRange(offset, into.size()));
  if (const auto ahead = readahead_.Note(offset, into.size()))
    BringAhead(ahead->offset, ahead->length);
  read_bytes_.Add(static_cast<double>(into.size()));
  while (!into.empty()) {
    // Beyond the last byte, up to the end of its sector, there are zeros.
    if (offset >= shape_.size_bytes) {
      std::ranges::fill(into, uint8_t{0});
      return {};
    }
    const uint64_t chunk = offset / kChunkBytes;
    const auto begin = static_cast<uint32_t>(offset % kChunkBytes);
    const size_t length = std::min<size_t>(into.size(), ChunkBytes(shape_, chunk) - begin);
    const base::MutableByteView piece = into.first(length);
    if (shape_.holes[chunk]) {
      std::ranges::fill(piece, uint8_t{0});
    } else if (Result<void> read = ReadPiece(chunk, begin, piece); !read.has_value()) {
      failed_reads_.Add();
      return std::move(read).Annotate("image " + options_.id);
    }
    into = into.subspan(length);
    offset += length;
  }
  return {};
}

// Only holes are answered without a disk.
Result<bool> ImageVolume::TryRead(uint64_t offset, base::MutableByteView into) {
  RETURN_IF_ERROR(CheckRange(offset, into.size()));
  const uint64_t end = std::min(offset + into.size(), shape_.size_bytes);
  for (uint64_t at = offset; at < end; at = (at / kChunkBytes + 1) * kChunkBytes)
    if (!shape_.holes[at / kChunkBytes]) return false;
  std::ranges::fill(into, uint8_t{0});
  return true;
}

Result<void> ImageVolume::Write(uint64_t, base::ByteView) { return ReadOnly(); }

Result<void> ImageVolume::Zero(uint64_t, uint64_t, bool) { return ReadOnly(); }

void ImageVolume::Prefetch(uint64_t offset, uint64_t length) {
  BringAhead(offset, std::min<uint64_t>(length, Readahead::kMaxAheadBytes));
}

Result<void> ImageVolume::Warm(uint64_t chunk, std::span<const size_t> numbers) {
  if (chunk >= shape_.holes.size() || shape_.holes[chunk]) return {};
  ASSIGN_OR_RETURN(const Tables::Ref table, TableOf(chunk));
  std::vector<size_t> there;
  for (const size_t number : numbers)
    if (number < table->blocks.size()) there.push_back(number);
  if (there.empty()) return {};
  return parts_.cache.Warm(*remote_, chunk, table->blocks, there);
}

Result<ImageVolume::Fetched> ImageVolume::CopyChunk(uint64_t chunk, base::MutableByteView into) {
  for (bool has_new_table = false;; has_new_table = true) {
    ASSIGN_OR_RETURN(const Tables::Ref table, TableOf(chunk));
    Metered source(*remote_, *table);
    const Result<void> read = parts_.cache.Read(source, chunk, table->blocks, 0, into);
    if (read.has_value()) return source.fetched();
    // As for a guest: it may have been stored anew.
    if (read.error().code() != Code::kCorruption || has_new_table) return read.error();
    parts_.tables.Drop(number_, chunk);
  }
}

// What it can't bring is asked for again when it is read, and said then.
void ImageVolume::WarmRange(uint64_t chunk, uint32_t offset, uint32_t length) {
  const Result<Tables::Ref> table = TableOf(chunk);
  if (!table.has_value()) return;
  std::vector<size_t> numbers;
  const size_t last = (*table)->BlockAt(offset + length - 1);
  for (size_t number = (*table)->BlockAt(offset); number <= last; ++number)
    numbers.push_back(number);
  const Result<void> warmed = Warm(chunk, numbers);
  if (!warmed.has_value())
    LOG(kDebug, "host", "image {}: nothing read ahead: {}", id(), warmed.error().ToString());
}

void ImageVolume::BringAhead(uint64_t offset, uint64_t length) {
  const uint64_t end = std::min(offset + length, shape_.size_bytes);
  while (offset < end) {
    const uint64_t chunk = offset / kChunkBytes;
    const auto begin = static_cast<uint32_t>(offset % kChunkBytes);
    const uint64_t until =
        std::min({end, (chunk + 1) * kChunkBytes, (offset / kAheadJobBytes + 1) * kAheadJobBytes});
    const auto bytes = static_cast<uint32_t>(until - offset);
    offset = until;
    if (shape_.holes[chunk]) continue;
    if (!parts_.background.ReadAhead([self = shared_from_this(), chunk, begin, bytes] {
          self->WarmRange(chunk, begin, bytes);
        }))
      return;
  }
}

Result<void> ImageVolume::VisitExtents(uint64_t offset, uint64_t length,
                                       const ExtentVisitor& visit) {
  RETURN_IF_ERROR(CheckRange(offset, length));
  const uint64_t end = offset + length;
  const auto is_hole = [&](uint64_t at) {
    return at >= shape_.size_bytes || shape_.holes[at / kChunkBytes];
  };
  while (offset < end) {
    const bool hole = is_hole(offset);
    uint64_t until = offset;
    while (until < end && is_hole(until) == hole)
      until = std::min(end, (until / kChunkBytes + 1) * kChunkBytes);
    if (!visit({offset, until - offset, !hole, hole})) return {};
    offset = until;
  }
  return {};
}

}  // namespace controlplane::host
