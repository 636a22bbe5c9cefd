#include "chunkstore/memory/memory_blob_store.h"

#include <cstring>
#include <utility>
#include <vector>

#include <fmt/format.h>

#include "base/check.h"

namespace chunkstore {

using base::Code;
using base::Error;
using base::MutexLock;
using base::Result;

MemoryBlobStore::MemoryBlobStore(uint64_t capacity_bytes) : capacity_bytes_(capacity_bytes) {}

Result<void> MemoryBlobStore::Put(std::string_view name, std::span<const base::ByteView> pieces) {
  RETURN_IF_ERROR(CheckBlobName(name));
  ASSIGN_OR_RETURN(uint64_t size, CheckedBlobSize(pieces));
  auto blob = std::make_shared<std::string>();
  blob->reserve(size);
  for (base::ByteView piece : pieces) blob->append(base::AsText(piece));

  MutexLock lock(mutex_);
  if (blobs_.contains(name)) {
    return Error(Code::kAlreadyExists, fmt::format("blob {} exists", name));
  }
  if (used_bytes_ + size > capacity_bytes_) {
    return Error(Code::kOutOfSpace, fmt::format("no space for blob {} of {} bytes", name, size));
  }
  used_bytes_ += size;
  blobs_.emplace(name, std::move(blob));
  return {};
}

Result<MemoryBlobStore::Blob> MemoryBlobStore::Find(std::string_view name) {
  RETURN_IF_ERROR(CheckBlobName(name));
  MutexLock lock(mutex_);
  auto found = blobs_.find(name);
  if (found == blobs_.end()) return Error(Code::kNotFound, fmt::format("no blob {}", name));
  return found->second;
}

Result<void> MemoryBlobStore::Get(std::string_view name, uint64_t offset,
                                  base::MutableByteView into) {
  ASSIGN_OR_RETURN(Blob blob, Find(name));
  if (offset > blob->size() || into.size() > blob->size() - offset) {
    return Error(Code::kCorruption,
                 fmt::format("blob {} is cut short: it has {} bytes", name, blob->size()));
  }
  if (!into.empty()) std::memcpy(into.data(), blob->data() + offset, into.size());
  return {};
}

void MemoryBlobStore::GetMany(std::span<GetRequest> requests) {
  for (GetRequest& request : requests) {
    request.result = Get(request.name, request.offset, request.into);
  }
}

Result<uint64_t> MemoryBlobStore::Size(std::string_view name) {
  ASSIGN_OR_RETURN(Blob blob, Find(name));
  return blob->size();
}

Result<void> MemoryBlobStore::Remove(std::string_view name) {
  RETURN_IF_ERROR(CheckBlobName(name));
  MutexLock lock(mutex_);
  auto found = blobs_.find(name);
  if (found == blobs_.end()) return {};
  used_bytes_ -= found->second->size();
  blobs_.erase(found);
  return {};
}

Result<void> MemoryBlobStore::List(const Visitor& visit) {
  std::vector<std::pair<std::string, uint64_t>> names;
  {
    MutexLock lock(mutex_);
    for (const auto& [name, blob] : blobs_) names.emplace_back(name, blob->size());
  }
  for (const auto& [name, size] : names) {
    if (!visit(name, size)) break;
  }
  return {};
}

Result<std::shared_ptr<base::File>> MemoryBlobStore::OpenFile(std::string_view name) {
  return Error(Code::kInvalidArgument, "a store in memory has no files");
}

Result<base::SpaceInfo> MemoryBlobStore::Space() {
  MutexLock lock(mutex_);
  uint64_t available = capacity_bytes_ > used_bytes_ ? capacity_bytes_ - used_bytes_ : 0;
  return base::SpaceInfo{.capacity_bytes = capacity_bytes_, .available_bytes = available};
}

void MemoryBlobStore::SetCapacity(uint64_t capacity_bytes) {
  MutexLock lock(mutex_);
  capacity_bytes_ = capacity_bytes;
}

void MemoryBlobStore::FlipBit(std::string_view name, uint64_t offset, uint8_t mask) {
  MutexLock lock(mutex_);
  auto found = blobs_.find(name);
  CHECK(found != blobs_.end() && offset < found->second->size());
  auto changed = std::make_shared<std::string>(*found->second);
  (*changed)[offset] = static_cast<char>((*changed)[offset] ^ mask);
  found->second = std::move(changed);
}

}  // namespace chunkstore
