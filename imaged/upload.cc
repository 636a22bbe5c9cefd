#include "imaged/upload.h"

#include <algorithm>
#include <utility>
#include <vector>

#include <fmt/format.h>

#include "base/async/offload.h"
#include "base/async/signal.h"
#include "base/async/sleep.h"
#include "base/log.h"
#include "imaged/kept_parts.h"

namespace imaged {

using base::ByteView;
using base::Code;
using base::Error;
using base::MutexLock;
using base::Result;
using base::async::Task;
using chunkstore::Root;

namespace {

// How many chunks decide whether these bytes are likely to be in the store already, as a whole: the
// first ones of a disk hold what differs between disks (partition table, superblock with its
// times). If all are known, the digests are put off: a root that turns out known needs none. Until
// that is clear they run: to keep the chunks for later would be memory that a slow client fills.
constexpr size_t kProbeChunks = 4;
// What a chunked upload reserves of the quota ahead of what has arrived.
constexpr uint64_t kReserveStepBytes = 64 * base::kMiB;
constexpr int64_t kFullPoolPauseMs = 10;
constexpr int kFullPoolPauses = 1000;

// What the jobs of one upload share with its coroutine. Thread-safe.
struct Shared {
  std::shared_ptr<chunkstore::Ingest> ingest;
  base::Mutex mutex;
  std::shared_ptr<BufferLane> lane GUARDED_BY(mutex);
  base::async::Signal changed;  // before there is a lane, and after the last buffer was read
  size_t puts_pending GUARDED_BY(mutex) = 0;
  size_t puts_done GUARDED_BY(mutex) = 0;
  bool all_known GUARDED_BY(mutex) = true;
  bool any_stored GUARDED_BY(mutex) = false;  // a known chunk that is no hole
  uint64_t known_bytes GUARDED_BY(mutex) = 0;
  bool any_data GUARDED_BY(mutex) = false;  // a chunk that is no hole
  std::optional<Error> error GUARDED_BY(mutex);

  void Fail(const Error& why) {
    {
      MutexLock lock(mutex);
      if (!error.has_value()) error = why;
    }
    Notify();
  }
  // The coroutine waits for either, depending on where it is.
  void Notify() {
    std::shared_ptr<BufferLane> waited;
    {
      MutexLock lock(mutex);
      waited = lane;
    }
    if (waited != nullptr) waited->returned().Notify();
    changed.Notify();
  }
  std::optional<Error> failure() {
    MutexLock lock(mutex);
    return error;
  }
  size_t pending() {
    MutexLock lock(mutex);
    return puts_pending;
  }
};

// `id` is the chunk's SHA-256 where a digest has computed it on the way.
void PutChunk(const std::shared_ptr<Shared>& shared, std::shared_ptr<const ChunkBuffer> chunk,
              const std::optional<base::Digest256>& id) {
  bool go_on = !shared->failure().has_value();
  Result<chunkstore::Ingest::PutInfo> put = chunkstore::Ingest::PutInfo{};
  if (go_on) {
    put = id.has_value() ? shared->ingest->PutHashed(chunk->index, chunk->view(), *id)
                         : shared->ingest->Put(chunk->index, chunk->view());
  }
  {
    MutexLock lock(shared->mutex);
    --shared->puts_pending;
    ++shared->puts_done;
    if (!put.has_value() && !shared->error.has_value()) shared->error = put.error();
    if (put.has_value() && put->known) shared->known_bytes += chunk->size;
    if (!put.has_value() || !put->known) shared->all_known = false;
    if (put.has_value() && put->known && !put->hole) shared->any_stored = true;
    if (go_on && put.has_value() && !put->hole) shared->any_data = true;
  }
  chunk.reset();
  shared->Notify();
}

class Receiver {
 public:
  Receiver(DataPath& path, base::http::BodyReader& body, std::unique_ptr<chunkstore::Ingest> ingest,
           ReceiveOptions options)
      : path_(path),
        body_(body),
        options_(std::move(options)),
        shared_(std::make_shared<Shared>()),
        inspector_(options_.disk_format, options_.container_format) {
    shared_->ingest = std::move(ingest);
  }

  Task<ReceiveOutcome> Run() {
    auto shared = shared_;
    auto called_off = [shared] {
      shared->Fail(Error(Code::kNotFound, "the upload was called off: the image is gone"));
    };
    DataPath::Active active(path_, options_.image_id, options_.holder, std::move(called_off),
                            shared->ingest);
    Result<void> read = co_await ReadAll();
    if (!read.has_value()) shared_->Fail(read.error());
    while (shared_->pending() > 0) co_await shared_->changed.Wait();
    ReceiveOutcome outcome;
    Result<Received> received = co_await Finish();
    outcome.bytes = total_;
    {
      MutexLock lock(shared_->mutex);
      outcome.known_bytes = shared_->known_bytes;
    }
    if (received.has_value()) {
      outcome.received = std::move(*received);
    } else {
      outcome.failure = ReceiveFailure{received.error(), bad_format_};
      const bool keep = IsWorthKeeping(received.error().code());
      auto abort = [this, shared, keep]() -> Result<void> {
        if (shared->ingest == nullptr) return {};
        Result<void> kept;
        if (keep) kept = KeepPart(path_, options_.keep_for, options_.holder);
        RETURN_IF_ERROR(shared->ingest->Abort());
        shared->ingest.reset();
        return kept;
      };
      Result<void> aborted = co_await base::async::Offload(path_.data_pool(), std::move(abort));
      if (!aborted.has_value()) {
        LOG(kWarn, "imaged", "left to the collector after the failed upload of image {}: {}",
            options_.image_id, aborted.error().ToString());
      }
    }
    co_return outcome;
  }

 private:
  enum class Digesting { kProbing, kRunning, kPutOff };

  // Whether the next try may want what came of this one: not where the store failed, or the image
  // is not wanted any more.
  bool IsWorthKeeping(Code why) {
    const bool broke_off =
        why == Code::kInvalidArgument || why == Code::kUnavailable || why == Code::kConflict;
    if (options_.keep_for.empty() || !broke_off || bad_format_) return false;
    MutexLock lock(shared_->mutex);
    return shared_->any_data;
  }

  Task<Result<void>> ReadAll() {
    Result<std::shared_ptr<BufferLane>> lane = co_await BufferLane::Admit(
        path_.upload_buffers(), options_.sharer, path_.options().admission_ms);
    if (!lane.has_value()) co_return lane.error();
    lane_ = std::move(*lane);
    {
      MutexLock lock(shared_->mutex);
      shared_->lane = lane_;
    }
    Result<void> begun = BeginDigests();
    if (!begun.has_value()) co_return begun.error();
    for (uint64_t index = 0;; ++index) {
      std::shared_ptr<ChunkBuffer> chunk = co_await NextBuffer();
      std::optional<Error> failed = shared_->failure();
      if (failed.has_value()) co_return *failed;
      Result<size_t> read = co_await body_.Read(chunk->buffer.view());
      if (!read.has_value()) co_return read.error();
      chunk->size = *read;
      chunk->index = index;
      total_ += *read;
      bool ended = *read < chunk->buffer.size();
      Result<void> accepted = Accept(*chunk);
      if (!accepted.has_value()) co_return accepted.error();
      Result<void> reserved = co_await Reserve(ended);
      if (!reserved.has_value()) co_return reserved.error();
      if (chunk->size > 0) {
        Result<void> submitted = co_await Submit(chunk);
        if (!submitted.has_value()) co_return submitted.error();
      }
      if (ended) break;
    }
    co_return CheckEnd();
  }

  // A buffer is always found: this upload's own come back when their jobs are done. Null once the
  // upload has failed.
  Task<std::shared_ptr<ChunkBuffer>> NextBuffer() {
    for (;;) {
      SettleProbe();
      std::shared_ptr<ChunkBuffer> chunk = lane_->TryTake();
      if (chunk != nullptr) co_return chunk;
      if (shared_->failure().has_value()) co_return nullptr;
      co_await lane_->returned().Wait();
    }
  }

  Result<void> Accept(const ChunkBuffer& chunk) {
    if (total_ > path_.options().max_image_bytes) {
      return Error(Code::kTooLarge, fmt::format("the image is larger than the {} bytes allowed",
                                                path_.options().max_image_bytes));
    }
    if (options_.expected_bytes.has_value() && total_ > *options_.expected_bytes) {
      return Error(
          Code::kInvalidArgument,
          fmt::format("the body is longer than the {} bytes announced", *options_.expected_bytes));
    }
    tail_.Feed(chunk.view());
    if (chunk.index != 0 || options_.disk_format.empty()) return {};
    Result<void> head = inspector_.Head(chunk.view());
    bad_format_ = !head.has_value();
    return head;
  }

  // A body of announced length was reserved as a whole.
  Task<Result<void>> Reserve(bool ended) {
    if (total_ <= options_.reserved_bytes) co_return Result<void>();
    if (!path_.catalog().limits().bytes.has_value() &&
        !path_.catalog().limits().staged_bytes.has_value()) {
      co_return Result<void>();
    }
    uint64_t wanted = ended ? total_ : total_ + kReserveStepBytes;
    Result<void> renewed = co_await RenewTo(wanted);
    if (!renewed.has_value() && renewed.error().code() == Code::kQuotaExceeded && wanted > total_) {
      wanted = total_;
      renewed = co_await RenewTo(wanted);
    }
    if (renewed.has_value()) options_.reserved_bytes = wanted;
    co_return renewed;
  }

  Task<Result<void>> RenewTo(uint64_t bytes) {
    auto renew = [this, bytes] {
      return path_.catalog().RenewUpload(options_.image_id, options_.holder,
                                         path_.options().lease_ms, bytes);
    };
    Result<void> renewed = co_await base::async::Offload(path_.data_pool(), std::move(renew));
    co_return renewed;
  }

  Task<Result<void>> Submit(std::shared_ptr<ChunkBuffer> chunk) {
    {
      MutexLock lock(shared_->mutex);
      ++shared_->puts_pending;
    }
    // The digest that names the chunk as well comes first, and hands the chunk on.
    DigestChain* naming = nullptr;
    for (auto& chain : chains_) {
      if (digesting_ == Digesting::kPutOff) break;
      if (chain->HashesChunks()) {
        naming = chain.get();
      } else {
        chain->Push(chunk);
      }
    }
    if (naming != nullptr) {
      auto put = [shared = shared_, &pool = path_.data_pool()](
                     std::shared_ptr<const ChunkBuffer> hashed,
                     const std::optional<base::Digest256>& id) {
        // A full pool: then the digest waits for the disk.
        if (!pool.TrySubmit([shared, hashed, id] { PutChunk(shared, hashed, id); })) {
          PutChunk(shared, std::move(hashed), id);
        }
      };
      naming->Push(std::move(chunk), std::move(put));
      co_return Result<void>();
    }
    bool taken = false;
    for (int pause = 0; !taken && pause < kFullPoolPauses; ++pause) {
      taken = path_.data_pool().TrySubmit([shared = shared_, chunk]() mutable {
        PutChunk(shared, std::move(chunk), std::nullopt);
      });
      if (!taken) co_await base::async::SleepMs(kFullPoolPauseMs);
    }
    if (!taken) {
      MutexLock lock(shared_->mutex);
      --shared_->puts_pending;
      co_return Error(Code::kUnavailable, "the service has more work than it can take; try again");
    }
    co_return Result<void>();
  }

  // Decides whether the digests go on beside the upload or wait for its root.
  void SettleProbe() {
    if (digesting_ != Digesting::kProbing) return;
    size_t done;
    bool all_known;
    bool any_stored;
    {
      MutexLock lock(shared_->mutex);
      done = shared_->puts_done;
      all_known = shared_->all_known;
      any_stored = shared_->any_stored;
    }
    if (all_known && done < kProbeChunks) return;
    // Zeros say nothing about what follows.
    digesting_ = all_known && any_stored ? Digesting::kPutOff : Digesting::kRunning;
  }

  Result<void> BeginDigests() {
    for (const std::string& algorithm : path_.NeededDigests()) {
      ASSIGN_OR_RETURN(auto chain, DigestChain::Create(algorithm, path_.data_pool()));
      chains_.push_back(std::move(chain));
    }
    return {};
  }

  Result<void> CheckEnd() {
    if (options_.expected_bytes.has_value() && total_ != *options_.expected_bytes) {
      return Error(Code::kInvalidArgument, fmt::format("the body has {} bytes; {} were announced",
                                                       total_, *options_.expected_bytes));
    }
    if (options_.disk_format.empty()) return {};
    auto virtual_bytes = inspector_.Finish(total_, tail_.view());
    bad_format_ = !virtual_bytes.has_value();
    if (bad_format_) return virtual_bytes.error();
    virtual_bytes_ = *virtual_bytes;
    return {};
  }

  // All puts are done.
  Task<Result<Received>> Finish() {
    std::optional<Error> failed = shared_->failure();
    Received received;
    // Digests must let go of their chunks in any case.
    for (auto& chain : chains_) {
      std::string hex = co_await chain->Finish();
      if (digesting_ != Digesting::kPutOff) received.digests[chain->algorithm()] = std::move(hex);
    }
    if (failed.has_value()) co_return *failed;
    received.virtual_bytes = virtual_bytes_;
    auto shared = shared_;
    auto finish = [this, shared, digests = received.digests]() -> Result<Received> {
      Received done;
      ASSIGN_OR_RETURN(done.root, shared->ingest->Finish(total_));
      shared->ingest.reset();
      auto called_off = [shared] { return shared->failure().has_value(); };
      Result<Digests> all = path_.CompleteDigests(done.root, digests, called_off);
      // The bytes are held by now, and the ingest can't abort them any more.
      if (!all.has_value()) {
        RETURN_IF_ERROR(path_.store().Release(options_.holder));
        return all.error();
      }
      done.digests = std::move(*all);
      return done;
    };
    Result<Received> finished = co_await base::async::Offload(path_.data_pool(), std::move(finish));
    if (finished.has_value()) finished->virtual_bytes = virtual_bytes_;
    co_return finished;
  }

  DataPath& path_;
  base::http::BodyReader& body_;
  ReceiveOptions options_;
  const std::shared_ptr<Shared> shared_;
  std::shared_ptr<BufferLane> lane_;
  formats::Inspector inspector_;
  formats::Tail tail_;
  uint64_t total_ = 0;
  std::optional<uint64_t> virtual_bytes_;
  bool bad_format_ = false;
  Digesting digesting_ = Digesting::kProbing;
  std::vector<std::shared_ptr<DigestChain>> chains_;
};

}  // namespace

Task<ReceiveOutcome> ReceiveBody(DataPath& path, base::http::BodyReader& body,
                                 std::unique_ptr<chunkstore::Ingest> ingest,
                                 ReceiveOptions options) {
  Receiver receiver(path, body, std::move(ingest), std::move(options));
  ReceiveOutcome outcome = co_await receiver.Run();
  co_return outcome;
}

}  // namespace imaged
