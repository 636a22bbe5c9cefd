#include "imaged/download.h"

#include <algorithm>
#include <utility>

#include "base/async/signal.h"
#include "base/async/sleep.h"
#include "base/check.h"

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
                               std::string holder, std::shared_ptr<Content> content,
                               ByteRange range)
    : path_(path),
      project_(std::move(project)),
      admitted_(std::move(admitted)),
      content_(std::move(content)),
      range_(range),
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
                                                                   ByteRange range) {
  FairBudget::Refusal why = FairBudget::Refusal::kLimit;
  FairBudget::Share admitted = TryAdmit(path.download_memory(), project, range.length, &why);
  for (int64_t waited_ms = 0; admitted == nullptr; waited_ms += kAdmissionPollMs) {
    if (waited_ms >= path.options().admission_ms) {
      path.CountDownloadRefused(why);
      co_return Refuse(why);
    }
    co_await base::async::SleepMs(kAdmissionPollMs);
    admitted = TryAdmit(path.download_memory(), project, range.length, &why);
  }
  co_return std::unique_ptr<DownloadSource>(new DownloadSource(
      path, std::move(project), std::move(admitted), std::move(holder), std::move(content), range));
}

// The first slice in flight needs no more than what the download was admitted with.
void DownloadSource::ReadAhead() {
  FairBudget& budget = *path_.download_memory().images;
  while (asked_ < range_.length && slices_.size() < kSlicesAhead) {
    uint64_t left = range_.length - asked_;
    // Half of what one project alone may have.
    bool plenty = budget.used_bytes() < budget.limit_bytes() / 4;
    uint64_t length = std::min(left, plenty ? kLargeSliceBytes : kSmallSliceBytes);
    FairBudget::Share reservation;
    if (range_.length > kSmallSliceBytes) reservation = budget.TryTake(project_, length);
    if (reservation == nullptr) {
      if (!slices_.empty()) return;
      length = std::min(left, kSmallSliceBytes);
    }
    if (!Submit(length, std::move(reservation))) return;
  }
}

bool DownloadSource::Submit(uint64_t length, FairBudget::Share reservation) {
  auto slice = std::make_shared<Slice>();
  slice->reservation = std::move(reservation);
  uint64_t offset = range_.offset + asked_;
  auto read = [slice, content = content_, shared = shared_, offset, length] {
    bool in_memory = false;
    for (uint64_t done = 0; done < length;) {
      Result<ContentPiece> piece = content->PieceAt(offset + done, length - done);
      if (!piece.has_value()) {
        slice->result = piece.error();
        break;
      }
      CHECK(piece->length > 0);
      done += piece->length;
      in_memory = in_memory || !piece->bytes.empty();
      slice->pieces.push_back(std::move(*piece));
    }
    if (!in_memory) slice->reservation.reset();
    slice->done.store(true, std::memory_order_release);
    shared->changed.Notify();
  };
  if (!path_.data_pool().TrySubmit(std::move(read))) return false;
  slices_.push_back(std::move(slice));
  asked_ += length;
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
  if (range_.length == 0) co_return Result<void>();
  Result<void> ready = co_await AwaitFront();
  co_return ready;
}

Task<Result<Piece>> DownloadSource::Next() {
  if (given_ == range_.length) co_return Piece();
  Result<void> ready = co_await AwaitFront();
  if (!ready.has_value()) co_return ready.error();
  Slice& slice = *slices_.front();
  ContentPiece from = std::move(slice.pieces.front());
  slice.pieces.pop_front();
  Piece piece;
  if (from.hole) {
    // Longer holes are given in parts.
    uint64_t part = std::min<uint64_t>(from.length, sizeof(zeros));
    piece.bytes = {zeros, part};
    from.length -= part;
    given_ += part;
    if (from.length > 0) slice.pieces.push_front(std::move(from));
  } else if (from.descriptor >= 0) {
    piece.descriptor = from.descriptor;
    piece.offset = from.file_offset;
    piece.length = from.length;
    piece.owner = std::move(from.owner);
    given_ += piece.length;
  } else {
    piece.bytes = from.bytes;
    auto owner = std::make_shared<PieceOwner>();
    owner->bytes = std::move(from.owner);
    owner->reservation = slice.reservation;
    piece.owner = std::move(owner);
    given_ += from.bytes.size();
  }
  if (slice.pieces.empty()) slices_.pop_front();
  // The next ones are read while this one is sent.
  ReadAhead();
  path_.CountDownload(piece.bytes.size() + piece.length);
  co_return piece;
}

}  // namespace imaged
