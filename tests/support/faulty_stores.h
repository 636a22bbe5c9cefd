#pragma once

#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/thread_annotations.h"
#include "chunkstore/blob_store.h"
#include "chunkstore/meta_store.h"

// Layers that fail as told, over any BlobStore and MetaStore. One plan may stand behind several
// layers: then "the n-th operation" counts over all of them, and a loop over n reaches every point
// of a workload:
//
//   FaultPlan plan;
//   FaultyBlobStore blobs(real_blobs, plan);
//   FaultyMetaStore meta(real_meta, plan);
//   plan.FailAt(n, base::Error(base::Code::kIo, "injected"), FaultPlan::When::kBefore);

namespace support {

// Which operation fails, and how. Thread-safe.
class FaultPlan {
 public:
  enum class When {
    kBefore,  // it did nothing
    kAfter,   // it did all, but says it failed: as when an answer is lost
    kTorn,    // Put left half of the blob behind; for all else as kBefore
  };

  // The n-th operation from now (1 is the next) fails; only that one, or it and all after it.
  void FailAt(uint64_t n, base::Error error, When when) { Set(n, 1, std::move(error), when); }
  void FailFrom(uint64_t n, base::Error error, When when) {
    Set(n, UINT64_MAX, std::move(error), when);
  }
  // The n-th operation from now, if it is a read of a blob, answers with one bit flipped.
  void FlipBitAt(uint64_t n) {
    base::MutexLock lock(mutex_);
    flip_at_ = operations_ + n;
  }
  void Clear() {
    base::MutexLock lock(mutex_);
    error_.reset();
    flip_at_ = 0;
  }
  // Since it was made.
  uint64_t operations() {
    base::MutexLock lock(mutex_);
    return operations_;
  }

  struct Fault {
    std::optional<base::Error> error;
    When when = When::kBefore;
    bool flip_bit = false;
  };
  // For the layers: begins an operation.
  Fault Next() {
    base::MutexLock lock(mutex_);
    ++operations_;
    Fault fault;
    fault.flip_bit = operations_ == flip_at_;
    if (error_ && operations_ >= first_ && operations_ - first_ < count_) {
      fault.error = error_;
      fault.when = when_;
    }
    return fault;
  }

 private:
  void Set(uint64_t n, uint64_t count, base::Error error, When when) {
    base::MutexLock lock(mutex_);
    first_ = operations_ + n;
    count_ = count;
    error_ = std::move(error);
    when_ = when;
  }

  base::Mutex mutex_;
  uint64_t operations_ GUARDED_BY(mutex_) = 0;
  uint64_t first_ GUARDED_BY(mutex_) = 0;
  uint64_t count_ GUARDED_BY(mutex_) = 0;
  uint64_t flip_at_ GUARDED_BY(mutex_) = 0;
  std::optional<base::Error> error_ GUARDED_BY(mutex_);
  When when_ GUARDED_BY(mutex_) = When::kBefore;
};

// Runs `operation` as the plan has it: instead of it, or in spite of it, the error.
template <typename Operation>
auto RunFaulty(const FaultPlan::Fault& fault, const Operation& operation) -> decltype(operation()) {
  if (fault.error && fault.when != FaultPlan::When::kAfter) return *fault.error;
  auto result = operation();
  if (fault.error) return *fault.error;
  return result;
}

// Borrows what it wraps. Thread-safe.
class FaultyBlobStore : public chunkstore::BlobStore {
 public:
  FaultyBlobStore(chunkstore::BlobStore& inner, FaultPlan& plan) : inner_(inner), plan_(plan) {}

  const Properties& properties() const override { return inner_.properties(); }

  base::Result<void> Put(std::string_view name, std::span<const base::ByteView> pieces) override {
    FaultPlan::Fault fault = plan_.Next();
    if (fault.error && fault.when == FaultPlan::When::kTorn) {
      std::vector<base::ByteView> half(pieces.begin(), pieces.begin() + (pieces.size() + 1) / 2);
      half.back() = half.back().first(half.back().size() / 2);
      (void)inner_.Put(name, half).has_value();
    }
    return RunFaulty(fault, [&] { return inner_.Put(name, pieces); });
  }
  base::Result<void> Get(std::string_view name, uint64_t offset,
                         base::MutableByteView into) override {
    FaultPlan::Fault fault = plan_.Next();
    auto result = RunFaulty(fault, [&] { return inner_.Get(name, offset, into); });
    if (fault.flip_bit && !into.empty()) into[into.size() / 2] ^= 0x10;
    return result;
  }
  // Each request counts.
  void GetMany(std::span<GetRequest> requests) override {
    for (GetRequest& request : requests) {
      request.result = Get(request.name, request.offset, request.into);
    }
  }
  base::Result<uint64_t> Size(std::string_view name) override {
    return RunFaulty(plan_.Next(), [&] { return inner_.Size(name); });
  }
  base::Result<void> Remove(std::string_view name) override {
    return RunFaulty(plan_.Next(), [&] { return inner_.Remove(name); });
  }
  base::Result<void> List(const Visitor& visit) override {
    return RunFaulty(plan_.Next(), [&] { return inner_.List(visit); });
  }
  base::Result<std::shared_ptr<base::File>> OpenFile(std::string_view name) override {
    return RunFaulty(plan_.Next(), [&] { return inner_.OpenFile(name); });
  }
  base::Result<base::SpaceInfo> Space() override {
    return RunFaulty(plan_.Next(), [&] { return inner_.Space(); });
  }

 private:
  chunkstore::BlobStore& inner_;
  FaultPlan& plan_;
};

// Borrows what it wraps. Thread-safe.
class FaultyMetaStore : public chunkstore::MetaStore {
 public:
  FaultyMetaStore(chunkstore::MetaStore& inner, FaultPlan& plan) : inner_(inner), plan_(plan) {}

  base::Result<std::string> Get(std::string_view partition, std::string_view key) override {
    return RunFaulty(plan_.Next(), [&] { return inner_.Get(partition, key); });
  }
  base::Result<void> Scan(std::string_view partition, std::string_view from, std::string_view to,
                          size_t limit, const Visitor& visit) override {
    return RunFaulty(plan_.Next(), [&] { return inner_.Scan(partition, from, to, limit, visit); });
  }
  base::Result<void> ScanReverse(std::string_view partition, std::string_view from,
                                 std::string_view to, size_t limit, const Visitor& visit) override {
    return RunFaulty(plan_.Next(),
                     [&] { return inner_.ScanReverse(partition, from, to, limit, visit); });
  }
  base::Result<void> Commit(std::string_view partition,
                            const chunkstore::MetaBatch& batch) override {
    return RunFaulty(plan_.Next(), [&] { return inner_.Commit(partition, batch); });
  }
  base::Result<void> Sync() override {
    return RunFaulty(plan_.Next(), [&] { return inner_.Sync(); });
  }
  base::Result<std::vector<std::string>> Partitions(std::string_view prefix) override {
    return RunFaulty(plan_.Next(), [&] { return inner_.Partitions(prefix); });
  }

 private:
  chunkstore::MetaStore& inner_;
  FaultPlan& plan_;
};

}  // namespace support
