#include "chunkstore/local/local_blob_store.h"

#include <algorithm>
#include <unordered_set>
#include <utility>

#include <fmt/format.h>

#include "base/hash.h"

namespace chunkstore::local {

using base::Code;
using base::Error;
using base::Files;
using base::Result;

namespace {

constexpr int kFolders = 256;

std::string FolderName(int number) { return fmt::format("{:02x}", number); }

// The folder that holds `path`. ("." has none that we would have to sync.)
std::string Parent(const std::string& path) {
  size_t slash = path.rfind('/');
  if (slash == std::string::npos) return ".";
  return slash == 0 ? "/" : path.substr(0, slash);
}

// Durable when it returns, because a blob's sync reaches no further than its own folder.
Result<void> MakeFolders(Files& files, const std::string& dir, const std::string& root) {
  RETURN_IF_ERROR(files.CreateDirs(root));
  ASSIGN_OR_RETURN(auto names, files.List(root));
  std::unordered_set<std::string> there(names.begin(), names.end());
  for (int number = 0; number < kFolders; ++number) {
    std::string name = FolderName(number);
    if (!there.contains(name)) RETURN_IF_ERROR(files.CreateDirs(root + "/" + name));
  }
  RETURN_IF_ERROR(files.SyncDir(root));
  return files.SyncDir(dir);
}

// Makes `dir` and what is missing above it, durably. Folders above that are there already may be
// ones that an earlier attempt did not live to sync; they need not be ours to open.
Result<void> MakeDirDurably(Files& files, const std::string& dir) {
  std::string parent = Parent(dir);
  bool is_top = parent == dir || parent == ".";
  if (!is_top) RETURN_IF_ERROR(MakeDirDurably(files, parent));
  bool was_there = files.Stat(dir).has_value();
  if (!was_there) RETURN_IF_ERROR(files.CreateDirs(dir));
  Result<void> synced = files.SyncDir(parent);
  return was_there ? Result<void>() : synced;
}

Error NoBlob(std::string_view name) {
  return Error(Code::kNotFound, fmt::format("no blob {}", name));
}

}  // namespace

LocalBlobStore::LocalBlobStore(Files& files, const std::string& dir, StoreLock lock)
    : files_(files),
      root_(dir + "/blobs"),
      lock_(std::move(lock)),
      properties_{.has_files = true, .parallel_gets = 1, .allocation_unit_bytes = 4 * base::kKiB} {}

Result<std::unique_ptr<LocalBlobStore>> LocalBlobStore::Open(Files& files, const std::string& dir) {
  RETURN_IF_ERROR(MakeDirDurably(files, dir));
  ASSIGN_OR_RETURN(StoreLock lock, StoreLock::Acquire(files, dir + "/LOCK"));
  std::unique_ptr<LocalBlobStore> store(new LocalBlobStore(files, dir, std::move(lock)));
  RETURN_IF_ERROR(MakeFolders(files, dir, store->root_));
  return store;
}

std::string LocalBlobStore::FolderOf(std::string_view name) const {
  uint64_t hash = base::Xxh3(base::AsBytes(name)).low;
  return root_ + "/" + FolderName(static_cast<int>(hash % kFolders));
}

std::string LocalBlobStore::PathOf(std::string_view name) const {
  return FolderOf(name) + "/" + std::string(name);
}

Result<void> LocalBlobStore::Put(std::string_view name, std::span<const base::ByteView> pieces) {
  RETURN_IF_ERROR(CheckBlobName(name));
  RETURN_IF_ERROR(CheckedBlobSize(pieces));
  std::string folder = FolderOf(name);
  std::string path = folder + "/" + std::string(name);
  ASSIGN_OR_RETURN(auto file, files_.Open(path, Files::Mode::kCreateNew));
  Result<void> stored = file->WriteBulkAt(0, pieces);
  if (stored) {
    file->StartWriteback();
    // Each caller syncs its own: the file system's journal commits for all at once who wait. One
    // thread that syncs for all was three to eight times slower with eight callers, for it pays a
    // commit for each file.
    stored = file->Sync();
    if (stored) stored = files_.SyncDir(folder);
  }
  if (!stored) {
    // Whether or not it goes, it is garbage by now; giving the space back matters most when there
    // is none.
    Result<void> removed = files_.Remove(path);
    if (!removed) return stored.error().Annotate(removed.error().message());
  }
  return stored;
}

Result<std::shared_ptr<base::File>> LocalBlobStore::OpenFile(std::string_view name) {
  RETURN_IF_ERROR(CheckBlobName(name));
  Result<std::unique_ptr<base::File>> file = files_.Open(PathOf(name), Files::Mode::kRead);
  if (file) return std::shared_ptr<base::File>(std::move(*file));
  if (file.error().code() == Code::kNotFound) return NoBlob(name);
  return std::move(file).error();
}

Result<void> LocalBlobStore::Get(std::string_view name, uint64_t offset,
                                 base::MutableByteView into) {
  ASSIGN_OR_RETURN(auto file, OpenFile(name));
  if (offset > kMaxBlobBytes) {  // further than a file system may count
    return Error(Code::kCorruption, fmt::format("blob {} is cut short", name));
  }
  return file->ReadAt(offset, into);
}

void LocalBlobStore::GetMany(std::span<GetRequest> requests) {
  for (GetRequest& request : requests) {
    request.result = Get(request.name, request.offset, request.into);
  }
}

Result<uint64_t> LocalBlobStore::Size(std::string_view name) {
  RETURN_IF_ERROR(CheckBlobName(name));
  Result<base::FileInfo> info = files_.Stat(PathOf(name));
  if (info) return info->size_bytes;
  if (info.error().code() == Code::kNotFound) return NoBlob(name);
  return std::move(info).error();
}

Result<void> LocalBlobStore::Remove(std::string_view name) {
  RETURN_IF_ERROR(CheckBlobName(name));
  Result<void> removed = files_.Remove(PathOf(name));
  if (!removed && removed.error().code() == Code::kNotFound) return {};
  return removed;
}

Result<void> LocalBlobStore::List(const Visitor& visit) {
  for (int number = 0; number < kFolders; ++number) {
    ASSIGN_OR_RETURN(auto names, files_.List(root_ + "/" + FolderName(number)));
    for (const std::string& name : names) {
      if (!CheckBlobName(name)) continue;  // not ours
      Result<uint64_t> size = Size(name);
      if (!size && size.error().code() == Code::kNotFound) continue;  // removed meanwhile
      if (!size) return std::move(size).error();
      if (!visit(name, *size)) return {};
    }
  }
  return {};
}

Result<base::SpaceInfo> LocalBlobStore::Space() { return files_.Space(root_); }

}  // namespace chunkstore::local
