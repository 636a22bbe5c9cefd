#include "imaged/download.h"

#include <algorithm>
#include <iterator>
#include <utility>

#include "base/async/signal.h"
#include "base/async/sleep.h"
#include "base/check.h"
#include "imaged/policy.h"

namespace imaged {

using base::Code;
using base::Error;
using base::Result;
using base::async::Task;
using base::http::ByteRange;
using base::http::Piece;
using chunkstore::Content;
using chunkstore::ContentPiece;

namespace {

constexpr int64_t kAdmissionPollMs = 50;
constexpr int64_t kFullPoolPauseMs = 10;

// Zeros for all holes of all downloads: never written, so it takes no memory.
uint8_t zeros[DownloadSource::kLargeSliceBytes];

uint64_t TotalOf(const std::vector<ByteRange>& ranges) {
  uint64_t total = 0;
  for (const ByteRange& range : ranges) total += range.length;
  return total;
}

// Reads [offset, offset + length) of the content.
Result<void> ReadSlice(Content& content, Coding coding, uint64_t offset, uint64_t length,
                       std::deque<ContentPiece>* pieces) {
  for (const uint64_t end = offset + length; offset < end;) {
    if (coding == Coding::kIdentity) {
      ASSIGN_OR_RETURN(ContentPiece piece, content.PieceAt(offset, end - offset));
      CHECK(piece.length > 0);
      offset += piece.length;
      pieces->push_back(std::move(piece));
      continue;
    }
    const uint64_t of_chunk =
        std::min(end - offset, chunkstore::kChunkBytes - offset % chunkstore::kChunkBytes);
    ASSIGN_OR_RETURN(std::vector<ContentPiece> frames, content.FramesAt(offset, of_chunk));
    std::ranges::move(frames, std::back_inserter(*pieces));
    offset += of_chunk;
  }
  return {};
}

struct PieceOwner {
  std::shared_ptr<const void> bytes;
  FairBudget::Share reservation;
};

// What a download needs to begin with.
FairBudget::Share TryAdmit(const DownloadMemory& memory, const std::string& project,
                           uint64_t length, FairBudget::Refusal* why) {
  const bool is_short = length <= DownloadSource::kSmallSliceBytes;
  if (is_short) {
    FairBudget::Share share = memory.short_reads->TryTake(project, length);
    if (share != nullptr) return share;
  }
  return memory.images->TryTake(project, std::min(length, DownloadSource::kSmallSliceBytes), why);
}

Error Refuse(FairBudget::Refusal why) {
  if (why == FairBudget::Refusal::kShare) {
    return Error(Code::kUnavailable,
                 "the downloads of your project that are on their way have its share of the "
                 "service's memory; try again when one of them has ended");
  }
  return Error(Code::kUnavailable,
               "as many downloads as the service has memory for are on their way; try again");
}

}  // namespace

Result<OpenedImage> OpenImage(DataPath& path, const base::http::Request& request) {
  OpenedImage opened;
  ASSIGN_OR_RETURN(opened.image, path.catalog().Get(request.Param("image_id")));
  RETURN_IF_ERROR(CheckDownload(*request.caller, opened.image));
  if (!opened.image.data.has_value()) return opened;
  ASSIGN_OR_RETURN(opened.content, path.store().Open(opened.image.data->root));
  return opened;
}

struct DownloadSource::Shared {
  base::async::Signal changed;
};

struct DownloadSource::Slice {
  std::atomic<bool> done{false};
  // Written by the job before `done`, then read by the connection.
  Result<void> result;
  std::deque<ContentPiece> pieces;
  FairBudget::Share reservation;
};

DownloadSource::DownloadSource(DataPath& path, std::string project, FairBudget::Share admitted,
                               std::string holder, std::shared_ptr<Content> content, What what)
    : path_(path),
      project_(std::move(project)),
      admitted_(std::move(admitted)),
      content_(std::move(content)),
      what_(std::move(what)),
      total_bytes_(TotalOf(what_.ranges)),
      reading_(path, std::move(holder)),
      shared_(std::make_shared<Shared>()) {
  path_.CountDownloadBegun();
}

// Jobs that still run hold what they need.
DownloadSource::~DownloadSource() { path_.CountDownloadEnded(); }

Task<Result<std::unique_ptr<DownloadSource>>> DownloadSource::Open(DataPath& path,
                                                                   std::string project,
                                                                   std::string holder,
                                                                   std::shared_ptr<Content> content,
                                                                   What what) {
  std::erase_if(what.ranges, [](const ByteRange& range) { return range.length == 0; });
  const uint64_t total_bytes = TotalOf(what.ranges);
  FairBudget::Refusal why = FairBudget::Refusal::kLimit;
  FairBudget::Share admitted = TryAdmit(path.download_memory(), project, total_bytes, &why);
  for (int64_t waited_ms = 0; admitted == nullptr; waited_ms += kAdmissionPollMs) {
    if (waited_ms >= path.options().admission_ms) {
      path.CountDownloadRefused(why);
      co_return Refuse(why);
    }
    co_await base::async::SleepMs(kAdmissionPollMs);
    admitted = TryAdmit(path.download_memory(), project, total_bytes, &why);
  }
  co_return std::unique_ptr<DownloadSource>(
      new DownloadSource(path, std::move(project), std::move(admitted), std::move(holder),
                         std::move(content), std::move(what)));
}

// The first slice in flight needs no more than what the download was admitted with.
void DownloadSource::ReadAhead() {
  FairBudget& budget = *path_.download_memory().images;
  while (range_ < what_.ranges.size() && slices_.size() < kSlicesAhead) {
    const ByteRange& range = what_.ranges[range_];
    const uint64_t left = range.length - asked_of_range_;
    // Half of what one project alone may have.
    bool plenty = budget.used_bytes() < budget.limit_bytes() / 4;
    uint64_t length = std::min(left, plenty ? kLargeSliceBytes : kSmallSliceBytes);
    FairBudget::Share reservation;
    if (total_bytes_ > kSmallSliceBytes) reservation = budget.TryTake(project_, length);
    if (reservation == nullptr) {
      if (!slices_.empty()) return;
      length = std::min(left, kSmallSliceBytes);
    }
    if (!Submit(range.offset + asked_of_range_, length, std::move(reservation))) return;
    asked_of_range_ += length;
    if (asked_of_range_ == range.length) {
      ++range_;
      asked_of_range_ = 0;
    }
  }
}

bool DownloadSource::Submit(uint64_t offset, uint64_t length, FairBudget::Share reservation) {
  auto slice = std::make_shared<Slice>();
  slice->reservation = std::move(reservation);
  auto read = [slice, content = content_, shared = shared_, coding = what_.coding, offset, length] {
    slice->result = ReadSlice(*content, coding, offset, length, &slice->pieces);
    const bool in_memory = std::ranges::any_of(slice->pieces, [](const ContentPiece& piece) {
      return !piece.bytes.empty() && piece.owner != nullptr;
    });
    if (!in_memory) slice->reservation.reset();
    slice->done.store(true, std::memory_order_release);
    shared->changed.Notify();
  };
  if (!path_.data_pool().TrySubmit(std::move(read))) return false;
  slices_.push_back(std::move(slice));
  return true;
}

Task<Result<void>> DownloadSource::AwaitFront() {
  ReadAhead();
  while (slices_.empty()) {  // the pool was full
    co_await base::async::SleepMs(kFullPoolPauseMs);
    ReadAhead();
  }
  while (!slices_.front()->done.load(std::memory_order_acquire)) co_await shared_->changed.Wait();
  co_return slices_.front()->result;
}

Task<Result<void>> DownloadSource::Prime() {
  if (total_bytes_ == 0) co_return Result<void>();
  Result<void> ready = co_await AwaitFront();
  co_return ready;
}

Task<Result<Piece>> DownloadSource::Next() {
  while (true) {
    if (range_ == what_.ranges.size() && slices_.empty()) co_return Piece();
    const Result<void> ready = co_await AwaitFront();
    if (!ready.has_value()) co_return ready.error();
    if (!slices_.front()->pieces.empty()) break;
    // Of frames a slice may have none: then they belong to the one before.
    slices_.pop_front();
  }
  Slice& slice = *slices_.front();
  ContentPiece from = std::move(slice.pieces.front());
  slice.pieces.pop_front();
  Piece piece;
  if (from.hole) {
    // Longer holes are given in parts.
    uint64_t part = std::min<uint64_t>(from.length, sizeof(zeros));
    piece.bytes = {zeros, part};
    from.length -= part;
    if (from.length > 0) slice.pieces.push_front(std::move(from));
  } else if (from.descriptor >= 0) {
    piece.descriptor = from.descriptor;
    piece.offset = from.file_offset;
    piece.length = from.length;
    piece.owner = std::move(from.owner);
  } else {
    piece.bytes = from.bytes;
    auto owner = std::make_shared<PieceOwner>();
    owner->bytes = std::move(from.owner);
    owner->reservation = slice.reservation;
    piece.owner = std::move(owner);
  }
  if (slice.pieces.empty()) slices_.pop_front();
  // The next ones are read while this one is sent.
  ReadAhead();
  path_.CountDownload(piece.bytes.size() + piece.length);
  co_return piece;
}

}  // namespace imaged
