#include "controlplane/convert/disks.h"

#include <algorithm>
#include <utility>

namespace controlplane::convert {

using base::ByteView;
using base::Code;
using base::Error;
using base::MutableByteView;
using base::MutexLock;
using base::Result;
using blockd::kSectorBytes;
using chunkstore::kChunkBytes;

namespace {

uint64_t RoundUp(uint64_t bytes, uint64_t grid) { return (bytes + grid - 1) / grid * grid; }

Result<void> CheckRange(uint64_t offset, uint64_t length, uint64_t size_bytes) {
  if (offset <= size_bytes && length <= size_bytes - offset) return {};
  return Error(Code::kInvalidArgument, "beyond the end of the disk");
}

}  // namespace

// --- the image

ContentDisk::ContentDisk(std::shared_ptr<chunkstore::Content> content)
    : content_(std::move(content)),
      size_bytes_(RoundUp(content_->root().size_bytes, kSectorBytes)) {}

std::optional<Error> ContentDisk::error() {
  MutexLock lock(mutex_);
  return error_;
}

Result<void> ContentDisk::Note(Result<void> result) {
  if (result.has_value()) return result;
  MutexLock lock(mutex_);
  if (!error_.has_value()) error_ = result.error();
  return result;
}

uint64_t ContentDisk::InContent(uint64_t offset, uint64_t length) const {
  const uint64_t size = content_->root().size_bytes;
  return offset >= size ? 0 : std::min(length, size - offset);
}

Result<void> ContentDisk::Read(uint64_t offset, MutableByteView into) {
  RETURN_IF_ERROR(CheckRange(offset, into.size(), size_bytes_));
  const uint64_t there = InContent(offset, into.size());
  if (there > 0) RETURN_IF_ERROR(Note(content_->ReadAt(offset, into.first(there))));
  std::fill(into.begin() + static_cast<ptrdiff_t>(there), into.end(), 0);
  return {};
}

Result<bool> ContentDisk::TryRead(uint64_t offset, MutableByteView into) {
  RETURN_IF_ERROR(CheckRange(offset, into.size(), size_bytes_));
  const uint64_t there = InContent(offset, into.size());
  std::fill(into.begin() + static_cast<ptrdiff_t>(there), into.end(), 0);
  if (there == 0) return true;
  return content_->TryReadAt(offset, into.first(there));
}

Result<void> ContentDisk::Write(uint64_t /*offset*/, ByteView /*data*/) {
  return Error(Code::kPermissionDenied, "the image is only read");
}

Result<void> ContentDisk::Zero(uint64_t /*offset*/, uint64_t /*length*/, bool /*free_space*/) {
  return Error(Code::kPermissionDenied, "the image is only read");
}

Result<void> ContentDisk::VisitExtents(uint64_t offset, uint64_t length,
                                       const ExtentVisitor& visit) {
  RETURN_IF_ERROR(CheckRange(offset, length, size_bytes_));
  const uint64_t end = offset + length;
  bool go_on = true;
  const auto tell_to = [&](uint64_t to, bool hole) {
    to = std::min(to, end);
    if (go_on && to > offset) go_on = visit({offset, to - offset, !hole, hole});
    offset = std::max(offset, to);
    return go_on;
  };
  const uint64_t chunks = RoundUp(offset + InContent(offset, length), kChunkBytes) / kChunkBytes;
  RETURN_IF_ERROR(Note(content_->VisitChunks(
      offset / kChunkBytes, std::max(chunks, offset / kChunkBytes),
      [&](uint64_t index, const base::Digest256&) {
        return tell_to(index * kChunkBytes, true) && tell_to((index + 1) * kChunkBytes, false);
      })));
  tell_to(end, true);
  return {};
}

// --- the disk that it describes

IngestDisk::IngestDisk(std::shared_ptr<chunkstore::Ingest> ingest, uint64_t size_bytes)
    : ingest_(std::move(ingest)), size_bytes_(size_bytes), puts_(*ingest_) {}

Result<void> IngestDisk::Read(uint64_t /*offset*/, MutableByteView /*into*/) {
  return Error(Code::kPermissionDenied, "the disk is only written");
}

Result<bool> IngestDisk::TryRead(uint64_t /*offset*/, MutableByteView /*into*/) { return false; }

Result<void> IngestDisk::PutCurrent() {
  if (!current_.has_value()) return {};
  const uint64_t number = *current_;
  const uint64_t length = std::min<uint64_t>(kChunkBytes, size_bytes_ - number * kChunkBytes);
  current_.reset();
  next_ = number + 1;
  return puts_.Put(number, std::move(chunk_), length);
}

Result<void> IngestDisk::Reach(uint64_t chunk) {
  if (current_ == chunk) return {};
  if (chunk < next_ || (current_.has_value() && chunk < *current_))
    return Error(Code::kIo, "the converter went back to what it had written");
  RETURN_IF_ERROR(PutCurrent());
  chunk_ = puts_.Take();
  const MutableByteView bytes = chunk_.view();
  std::fill(bytes.begin(), bytes.end(), 0);
  current_ = chunk;
  return {};
}

Result<void> IngestDisk::WriteLocked(uint64_t offset, ByteView data) {
  while (!data.empty()) {
    const uint64_t within = offset % kChunkBytes;
    const size_t piece = std::min<uint64_t>(data.size(), kChunkBytes - within);
    RETURN_IF_ERROR(Reach(offset / kChunkBytes));
    std::copy_n(data.begin(), piece, chunk_.view().begin() + static_cast<ptrdiff_t>(within));
    offset += piece;
    data = data.subspan(piece);
  }
  return {};
}

Result<void> IngestDisk::Write(uint64_t offset, ByteView data) {
  RETURN_IF_ERROR(CheckRange(offset, data.size(), size_bytes_));
  MutexLock lock(mutex_);
  if (error_.has_value()) return *error_;
  const Result<void> written = WriteLocked(offset, data);
  if (!written.has_value()) error_ = written.error();
  return written;
}

// Zeros are what everything is that wasn't written, so only the chunk at hand can have others.
Result<void> IngestDisk::Zero(uint64_t offset, uint64_t length, bool /*free_space*/) {
  RETURN_IF_ERROR(CheckRange(offset, length, size_bytes_));
  MutexLock lock(mutex_);
  if (error_.has_value()) return *error_;
  if (length > 0 && offset / kChunkBytes < next_) {
    error_ = Error(Code::kIo, "the converter went back to what it had written");
    return *error_;
  }
  if (!current_.has_value()) return {};
  const uint64_t begin = *current_ * kChunkBytes;
  const uint64_t from = std::max(offset, begin);
  const uint64_t to = std::min(offset + length, begin + kChunkBytes);
  if (from < to) std::fill_n(chunk_.data() + (from - begin), to - from, 0);
  return {};
}

Result<void> IngestDisk::VisitExtents(uint64_t offset, uint64_t length,
                                      const ExtentVisitor& visit) {
  RETURN_IF_ERROR(CheckRange(offset, length, size_bytes_));
  if (length > 0) visit({offset, length, true, false});
  return {};
}

Result<void> IngestDisk::Finish() {
  MutexLock lock(mutex_);
  if (error_.has_value()) return *error_;
  RETURN_IF_ERROR(PutCurrent());
  return puts_.Finish();
}

}  // namespace controlplane::convert
