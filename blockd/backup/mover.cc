#include "blockd/backup/mover.h"

#include <algorithm>
#include <chrono>
#include <memory>
#include <optional>
#include <thread>

#include "base/bytes.h"
#include "base/clock.h"
#include "base/log.h"
#include "chunkstore/map.h"

namespace blockd::backup {
namespace {

using base::Code;
using base::Digest256;
using base::Error;
using base::Result;
using chunkstore::ChunkStore;
using chunkstore::Root;

constexpr int64_t kNsPerSecond = 1'000'000'000;
constexpr int64_t kLookAgainMs = 50;

// One copy on its way. One thread.
class Mover {
 public:
  Mover(const Move& move, Pacer& pacer, const BackupTarget::Cancelled& cancelled)
      : move_(move), pacer_(pacer), cancelled_(cancelled), buffer_(chunkstore::kChunkBytes) {}

  Result<BackupCopy> All() {
    ASSIGN_OR_RETURN(ingest_, move_.to.NewIngest(move_.holder, move_.attributes));
    ASSIGN_OR_RETURN(const auto content, move_.from.Open(move_.root));
    RETURN_IF_ERROR(content->VisitChunks(0, chunkstore::ChunkCount(move_.root.size_bytes),
                                         [&](uint64_t index, const Digest256& id) {
                                           failed_ = Put(index, id);
                                           return failed_.has_value();
                                         }));
    return Finish();
  }

  Result<BackupCopy> Differences(const Root& like) {
    ASSIGN_OR_RETURN(ingest_, move_.to.NewIngestOver(move_.holder, move_.attributes, move_.like));
    RETURN_IF_ERROR(move_.to.DiffAcross(
        like, move_.from, move_.root,
        [&](uint64_t index, const std::optional<Digest256>&, const std::optional<Digest256>& id) {
          failed_ = id.has_value() ? Put(index, *id) : PutHole(index);
          return failed_.has_value();
        }));
    return Finish();
  }

 private:
  Result<void> PutHole(uint64_t index) {
    ++copy_.chunks;
    return ingest_->PutHole(index);
  }

  Result<void> Put(uint64_t index, const Digest256& id) {
    if (cancelled_()) return Error(Code::kCancelled, "the copy of a backup was stopped");
    ++copy_.chunks;
    const uint32_t length = chunkstore::ChunkLength(index, move_.root.size_bytes);
    ASSIGN_OR_RETURN(const bool known, ingest_->PutKnown(index, length, id));
    if (known) return {};
    const base::MutableByteView bytes = buffer_.view().first(length);
    RETURN_IF_ERROR(move_.from.ReadChunk(id, bytes));
    RETURN_IF_ERROR(ingest_->Put(index, bytes));
    ++copy_.moved_chunks;
    copy_.moved_bytes += length;
    pacer_.Wait(length, cancelled_);
    return {};
  }

  Result<BackupCopy> Finish() {
    RETURN_IF_ERROR(failed_);
    ASSIGN_OR_RETURN(const Root root, ingest_->Finish(move_.root.size_bytes));
    if (root == move_.root) return copy_;
    RETURN_IF_ERROR(move_.to.Release(move_.holder));
    return Error(Code::kCorruption,
                 "the copy " + root.id.hex() + " is not what was copied, " + move_.root.id.hex());
  }

  const Move& move_;
  Pacer& pacer_;
  const BackupTarget::Cancelled& cancelled_;
  base::Buffer buffer_;
  std::unique_ptr<chunkstore::Ingest> ingest_;
  Result<void> failed_;
  BackupCopy copy_;
};

// Nothing: no such holder, or it is not worth anything.
std::optional<Root> RootOf(ChunkStore& store, const std::string& holder) {
  if (holder.empty()) return std::nullopt;
  const Result<ChunkStore::Held> held = store.FindHolder(holder);
  return held.has_value() ? held->root : std::nullopt;
}

}  // namespace

void Pacer::Wait(uint64_t bytes, const BackupTarget::Cancelled& cancelled) {
  if (bytes_per_s_ == 0) return;
  const int64_t cost_ns =
      static_cast<int64_t>(static_cast<double>(bytes) / static_cast<double>(bytes_per_s_) *
                           static_cast<double>(kNsPerSecond));
  // The machine's clock: a disk is spared in real time.
  const base::Clock& clock = base::SystemClock();
  int64_t due_ns = 0;
  {
    base::MutexLock lock(mutex_);
    due_ns_ = std::max(due_ns_, clock.MonotonicNs()) + cost_ns;
    due_ns = due_ns_;
  }
  while (!cancelled()) {
    const int64_t left_ms = (due_ns - clock.MonotonicNs()) / 1'000'000;
    if (left_ms <= 0) return;
    std::this_thread::sleep_for(std::chrono::milliseconds(std::min(left_ms, kLookAgainMs)));
  }
}

Result<BackupCopy> MoveContent(const Move& move, Pacer& pacer,
                               const BackupTarget::Cancelled& cancelled) {
  if (const std::optional<Root> like = RootOf(move.to, move.like); like.has_value()) {
    Result<BackupCopy> copy = Mover(move, pacer, cancelled).Differences(*like);
    if (copy.has_value()) return copy;
    const Code code = copy.error().code();
    // It went meanwhile, or is damaged: what is like it is no more than a help.
    if (code != Code::kNotFound && code != Code::kCorruption) return copy;
    LOG(kWarn, "blockd", "{} is copied without the help of {}: {}", move.holder, move.like,
        copy.error().ToString());
  }
  return Mover(move, pacer, cancelled).All();
}

}  // namespace blockd::backup
