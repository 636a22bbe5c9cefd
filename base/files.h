#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "base/bytes.h"
#include "base/result.h"

// The door to the disk. Everything of ours that keeps bytes in files goes through it, so that a
// test can hand in FaultFiles (tests/support): it drops what was never synced, fails the n-th call,
// fills the disk, tears a write.
//
// Durability is the caller's to ask for, as on a real machine: bytes are durable after File::Sync,
// names (a create, a rename, a removal) after SyncDir of their directory.

namespace base {

// An open file. Reads and writes at an offset; Thread-safe. Closed when destroyed.
class File {
 public:
  virtual ~File() = default;

  // Reads exactly into.size() bytes; kCorruption ("cut short") when the file ends before.
  virtual Result<void> ReadAt(uint64_t offset, MutableByteView into) const = 0;
  // The same if the kernel has the bytes in memory; false, with `into` as it may be, where it would
  // have to wait for the disk (or can't tell).
  virtual Result<bool> TryReadAt(uint64_t offset, MutableByteView into) const = 0;
  // Writes all pieces one after the other from `offset`, extending the file.
  virtual Result<void> WriteAt(uint64_t offset, std::span<const ByteView> pieces) = 0;
  // The same for bytes that are synced next and not read back soon: a large first piece on the grid
  // of pages goes past the page cache.
  virtual Result<void> WriteBulkAt(uint64_t offset, std::span<const ByteView> pieces) = 0;
  // The range reads as zeros and gives its space back, as far as whole file system blocks go; the
  // length stays. kIo where the file system can't.
  virtual Result<void> PunchHole(uint64_t offset, uint64_t length) = 0;
  // Takes the space of [0, size_bytes) now and extends the file to it: later writes there don't
  // find the disk full. What was never written reads as zeros. kOutOfSpace.
  virtual Result<void> Allocate(uint64_t size_bytes) = 0;
  // Makes data and length durable (fdatasync).
  virtual Result<void> Sync() = 0;
  // Tells the kernel to begin writing out what was written; promises nothing.
  virtual void StartWriteback() = 0;
  // Tells the kernel that the range will be read soon; promises nothing.
  virtual void WillRead(uint64_t offset, uint64_t length) const = 0;
  virtual Result<void> Truncate(uint64_t size_bytes) = 0;
  virtual Result<uint64_t> Size() const = 0;
  // For sendfile and mmap; -1 where there is none.
  virtual int descriptor() const = 0;
};

struct FileInfo {
  uint64_t size_bytes = 0;
  uint64_t allocated_bytes = 0;  // what it really takes on disk
  int64_t modified_us = 0;
  bool is_directory = false;
};

struct SpaceInfo {
  uint64_t capacity_bytes = 0;
  uint64_t available_bytes = 0;  // to us
};

// Thread-safe. Paths are absolute or relative to the working directory.
class Files {
 public:
  virtual ~Files() = default;

  enum class Mode { kRead, kReadWrite, kCreateNew, kCreateOrOpen };
  // kNotFound, kAlreadyExists (kCreateNew), kOutOfSpace, kIo.
  virtual Result<std::unique_ptr<File>> Open(const std::string& path, Mode mode) = 0;
  virtual Result<void> Remove(const std::string& path) = 0;                         // a file
  virtual Result<void> Rename(const std::string& from, const std::string& to) = 0;  // replaces
  virtual Result<void> CreateDirs(const std::string& path) = 0;  // fine if it exists
  virtual Result<void> SyncDir(const std::string& path) = 0;
  // Names (not paths), unsorted, without . and ..
  virtual Result<std::vector<std::string>> List(const std::string& dir) = 0;
  virtual Result<FileInfo> Stat(const std::string& path) = 0;
  virtual Result<SpaceInfo> Space(const std::string& path) = 0;
};

// The machine's files; lives for ever.
Files& SystemFiles();

// Whole small files. WriteFileDurably writes beside, syncs, renames and syncs the directory: after
// a crash the old content or the new is there, never a mixture. `mode` is the permission bits.
Result<std::string> ReadWholeFile(const std::string& path, uint64_t limit_bytes);
Result<void> WriteFileDurably(const std::string& path, std::string_view content, int mode = 0644);

}  // namespace base
