#include "chunkstore/ceph/ceph_blob_store.h"

#include <algorithm>
#include <cerrno>
#include <ctime>
#include <string>
#include <utility>
#include <vector>

#include <fmt/format.h>
#include <rados/librados.h>

#include "base/clock.h"
#include "base/json.h"
#include "base/thread_annotations.h"

namespace chunkstore::ceph {

using base::Code;
using base::Error;
using base::MutexLock;
using base::Result;

namespace {

constexpr std::string_view kPrefix = "blob.";
// BlueStore's allocation unit, on any disk.
constexpr uint64_t kAllocationBytes = 4 * base::kKiB;
constexpr size_t kParallelGets = 16;
constexpr size_t kParallelStats = 64;
constexpr int64_t kSpaceAgeNs = 5'000'000'000;
// What Space says when nobody knows.
constexpr uint64_t kPlentyBytes = uint64_t{1} << 60;

struct WriteOpDeleter {
  void operator()(void* op) const { rados_release_write_op(op); }
};
struct CompletionDeleter {
  void operator()(void* completion) const { rados_aio_release(completion); }
};
using Completion = std::unique_ptr<void, CompletionDeleter>;

std::string ObjectOf(std::string_view name) { return fmt::format("{}{}", kPrefix, name); }

Error BlobError(int r, std::string_view what, std::string_view name) {
  if (r == -ENOENT) return Error(Code::kNotFound, fmt::format("no blob {}", name));
  // Every copy that was read failed its checksum.
  if (r == -EIO) {
    return Error(Code::kCorruption,
                 fmt::format("blob {} can't be read: see `ceph health detail`", name));
  }
  return RadosError(r, fmt::format("{} blob {}", what, name));
}

Error CutShort(std::string_view name) {
  return Error(Code::kCorruption, fmt::format("blob {} is cut short", name));
}

// One operation in flight.
Completion NewCompletion() {
  rados_completion_t made = nullptr;
  // It fails only where memory can't be had, which ends us anyway.
  return Completion(rados_aio_create_completion2(nullptr, nullptr, &made) < 0 ? nullptr : made);
}

int Wait(const Completion& completion) {
  rados_aio_wait_for_complete(completion.get());
  return rados_aio_get_return_value(completion.get());
}

class CephBlobStore : public BlobStore {
 public:
  explicit CephBlobStore(std::shared_ptr<Cluster> cluster)
      : cluster_(std::move(cluster)), pool_(cluster_->blob_pool()) {}

  const Properties& properties() const override { return properties_; }
  Result<void> Put(std::string_view name, std::span<const base::ByteView> pieces) override;
  Result<void> Get(std::string_view name, uint64_t offset, base::MutableByteView into) override;
  void GetMany(std::span<GetRequest> requests) override;
  Result<uint64_t> Size(std::string_view name) override;
  Result<void> Remove(std::string_view name) override;
  Result<void> List(const Visitor& visit) override;
  Result<std::shared_ptr<base::File>> OpenFile(std::string_view name) override;
  Result<base::SpaceInfo> Space() override;

 private:
  void GetAtOnce(std::span<GetRequest> requests);
  // False: the visitor wants no more.
  Result<bool> VisitAll(const std::vector<std::string>& names, const Visitor& visit);
  Result<base::SpaceInfo> AskSpace();

  const std::shared_ptr<Cluster> cluster_;
  const rados_ioctx_t pool_;
  const Properties properties_{.has_files = false,
                               .parallel_gets = kParallelGets,
                               .allocation_unit_bytes = kAllocationBytes};
  base::Mutex mutex_;
  base::SpaceInfo space_ GUARDED_BY(mutex_);
  int64_t space_asked_ns_ GUARDED_BY(mutex_) = 0;
};

Result<void> CephBlobStore::Put(std::string_view name, std::span<const base::ByteView> pieces) {
  RETURN_IF_ERROR(CheckBlobName(name));
  ASSIGN_OR_RETURN(uint64_t size, CheckedBlobSize(pieces));
  // librados copies this once more, and rightly: what has timed out may still be on its way.
  std::string joined;
  if (pieces.size() > 1) {
    joined.reserve(size);
    for (base::ByteView piece : pieces) joined.append(base::AsText(piece));
  }
  std::string_view bytes = joined;
  if (pieces.size() == 1) bytes = base::AsText(pieces.front());
  std::unique_ptr<void, WriteOpDeleter> op(rados_create_write_op());
  rados_write_op_create(op.get(), LIBRADOS_CREATE_EXCLUSIVE, nullptr);
  rados_write_op_set_alloc_hint2(op.get(), size, size,
                                 LIBRADOS_ALLOC_HINT_FLAG_IMMUTABLE |
                                     LIBRADOS_ALLOC_HINT_FLAG_LONGLIVED |
                                     LIBRADOS_ALLOC_HINT_FLAG_INCOMPRESSIBLE);
  rados_write_op_write_full(op.get(), bytes.data(), bytes.size());
  int r = rados_write_op_operate2(op.get(), pool_, ObjectOf(name).c_str(), nullptr,
                                  LIBRADOS_OPERATION_FULL_TRY);
  if (r < 0) return RadosError(r, fmt::format("put blob {}", name));
  return {};
}

Result<void> CephBlobStore::Get(std::string_view name, uint64_t offset,
                                base::MutableByteView into) {
  GetRequest request{.name = std::string(name), .offset = offset, .into = into, .result = {}};
  GetAtOnce({&request, 1});
  return std::move(request.result);
}

void CephBlobStore::GetMany(std::span<GetRequest> requests) {
  while (!requests.empty()) {
    size_t count = std::min(requests.size(), kParallelGets);
    GetAtOnce(requests.first(count));
    requests = requests.subspan(count);
  }
}

void CephBlobStore::GetAtOnce(std::span<GetRequest> requests) {
  std::vector<Completion> reads(requests.size());
  for (size_t i = 0; i < requests.size(); ++i) {
    GetRequest& request = requests[i];
    request.result = CheckBlobName(request.name);
    // RADOS takes an empty read for one of all; and no blob reaches so far.
    if (request.result && (request.into.empty() || request.offset > kMaxBlobBytes)) {
      Result<uint64_t> size = Size(request.name);
      if (!size) {
        request.result = size.error();
      } else if (request.offset > *size) {
        request.result = CutShort(request.name);
      }
      continue;
    }
    if (!request.result) continue;
    reads[i] = NewCompletion();
    int r = rados_aio_read(pool_, ObjectOf(request.name).c_str(), reads[i].get(),
                           reinterpret_cast<char*>(request.into.data()), request.into.size(),
                           request.offset);
    if (r < 0) {
      request.result = BlobError(r, "get", request.name);
      reads[i] = nullptr;
    }
  }
  for (size_t i = 0; i < requests.size(); ++i) {
    if (reads[i] == nullptr) continue;
    int r = Wait(reads[i]);
    if (r < 0) {
      requests[i].result = BlobError(r, "get", requests[i].name);
    } else if (static_cast<size_t>(r) < requests[i].into.size()) {
      requests[i].result = CutShort(requests[i].name);
    }
  }
}

Result<uint64_t> CephBlobStore::Size(std::string_view name) {
  RETURN_IF_ERROR(CheckBlobName(name));
  uint64_t size = 0;
  int r = rados_stat(pool_, ObjectOf(name).c_str(), &size, nullptr);
  if (r < 0) return BlobError(r, "look at", name);
  return size;
}

Result<void> CephBlobStore::Remove(std::string_view name) {
  RETURN_IF_ERROR(CheckBlobName(name));
  int r = rados_remove(pool_, ObjectOf(name).c_str());
  if (r < 0 && r != -ENOENT) return RadosError(r, fmt::format("remove blob {}", name));
  return {};
}

Result<bool> CephBlobStore::VisitAll(const std::vector<std::string>& names, const Visitor& visit) {
  std::vector<Completion> stats;
  std::vector<uint64_t> sizes(names.size());
  for (size_t i = 0; i < names.size(); ++i) {
    stats.push_back(NewCompletion());
    int r = rados_aio_stat(pool_, ObjectOf(names[i]).c_str(), stats[i].get(), &sizes[i], nullptr);
    if (r < 0) {
      stats.pop_back();
      for (const Completion& begun : stats) Wait(begun);
      return BlobError(r, "look at", names[i]);
    }
  }
  std::vector<int> results;
  results.reserve(stats.size());
  for (const Completion& stat : stats) results.push_back(Wait(stat));
  for (size_t i = 0; i < names.size(); ++i) {
    if (results[i] == -ENOENT) continue;  // removed meanwhile
    if (results[i] < 0) return BlobError(results[i], "look at", names[i]);
    if (!visit(names[i], sizes[i])) return false;
  }
  return true;
}

Result<void> CephBlobStore::List(const Visitor& visit) {
  rados_list_ctx_t made = nullptr;
  int r = rados_nobjects_list_open(pool_, &made);
  if (r < 0) return RadosError(r, "list blobs");
  auto close = [](void* listing) { rados_nobjects_list_close(listing); };
  std::unique_ptr<void, decltype(close)> listing(made, close);
  std::vector<std::string> names;
  for (;;) {
    const char* object = nullptr;
    r = rados_nobjects_list_next(listing.get(), &object, nullptr, nullptr);
    if (r < 0 && r != -ENOENT) return RadosError(r, "list blobs");
    bool is_end = r == -ENOENT;
    if (!is_end && std::string_view(object).starts_with(kPrefix)) {
      std::string_view name = std::string_view(object).substr(kPrefix.size());
      if (CheckBlobName(name)) names.emplace_back(name);  // others are not ours
    }
    if (names.size() >= kParallelStats || is_end) {
      ASSIGN_OR_RETURN(bool go_on, VisitAll(names, visit));
      if (!go_on || is_end) return {};
      names.clear();
    }
  }
}

Result<std::shared_ptr<base::File>> CephBlobStore::OpenFile(std::string_view name) {
  RETURN_IF_ERROR(CheckBlobName(name));
  return Error(Code::kInvalidArgument, "blobs in RADOS are no files");
}

Result<base::SpaceInfo> CephBlobStore::AskSpace() {
  ASSIGN_OR_RETURN(std::string answer,
                   cluster_->MonitorCommand(R"({"prefix": "df", "format": "json"})"));
  ASSIGN_OR_RETURN(base::Json json, base::ParseJson(answer));
  const base::Json* stats = base::Find(json, "stats");
  const bool is_known = stats != nullptr && base::FindUint(*stats, "total_bytes").value_or(0) > 0;
  const base::Json* pools = base::Find(json, "pools");
  if (is_known && pools != nullptr && pools->is_array()) {
    for (const base::Json& pool : pools->as_array()) {
      if (base::FindString(pool, "name") != cluster_->blob_pool_name()) continue;
      const base::Json* of_pool = base::Find(pool, "stats");
      if (of_pool == nullptr) break;
      uint64_t available = base::FindUint(*of_pool, "max_avail").value_or(0);
      uint64_t stored = base::FindUint(*of_pool, "stored").value_or(0);
      return base::SpaceInfo{.capacity_bytes = stored + available, .available_bytes = available};
    }
  }
  return base::SpaceInfo{.capacity_bytes = kPlentyBytes, .available_bytes = kPlentyBytes};
}

Result<base::SpaceInfo> CephBlobStore::Space() {
  MutexLock lock(mutex_);
  const int64_t now_ns = base::SystemClock().MonotonicNs();
  if (space_asked_ns_ != 0 && now_ns - space_asked_ns_ < kSpaceAgeNs) return space_;
  ASSIGN_OR_RETURN(space_, AskSpace());
  space_asked_ns_ = now_ns;
  return space_;
}

}  // namespace

std::unique_ptr<BlobStore> OpenCephBlobStore(std::shared_ptr<Cluster> cluster) {
  return std::make_unique<CephBlobStore>(std::move(cluster));
}

}  // namespace chunkstore::ceph
