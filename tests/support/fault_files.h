#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "base/clock.h"
#include "base/files.h"
#include "base/thread_annotations.h"

namespace support {

// A disk in memory that can fail, fill up, rot and lose power: hand it to what keeps bytes in
// base::Files.
//
// It is as pessimistic as base::Files allows. Bytes are durable after File::Sync. A name (a create,
// a rename, a removal, a new directory) is durable after SyncDir of its directory; a rename between
// two directories after SyncDir of either. Allocation is by size: holes count. Paths are taken as
// absolute.
//
// The loop that finds crash bugs, for a workload that makes `total` mutating calls:
//
//   for (uint64_t n = 1; n <= total; ++n) {
//     FaultFiles files;
//     files.FailFrom(n, base::Error(base::Code::kIo, "power is gone"));
//     ... run the workload, note what it acknowledged ...
//     files.Crash(/*seed=*/n);
//     ... open again: all that was acknowledged must be there ...
//   }
//
// Thread-safe.
class FaultFiles : public base::Files {
 public:
  explicit FaultFiles(const base::Clock& clock = base::SystemClock());
  ~FaultFiles() override;

  base::Result<std::unique_ptr<base::File>> Open(const std::string& path, Mode mode) override;
  base::Result<void> Remove(const std::string& path) override;
  base::Result<void> Rename(const std::string& from, const std::string& to) override;
  base::Result<void> CreateDirs(const std::string& path) override;
  base::Result<void> SyncDir(const std::string& path) override;
  base::Result<std::vector<std::string>> List(const std::string& dir) override;
  base::Result<base::FileInfo> Stat(const std::string& path) override;
  base::Result<base::SpaceInfo> Space(const std::string& path) override;

  // Mutating calls so far: Open that may create, Remove, Rename, CreateDirs, SyncDir, WriteAt,
  // WriteBulkAt, PunchHole, Allocate, Sync, Truncate.
  uint64_t mutating_calls() const;
  // The n-th mutating call from now (1 is the next) fails with `error`; only that one, or it and
  // all after it. A failing WriteAt has written the first half of its bytes, every other call has
  // done nothing.
  void FailCall(uint64_t n, base::Error error);
  void FailFrom(uint64_t n, base::Error error);
  void ClearFailures();

  // Writes, truncates and creates that would take more than this fail with kOutOfSpace and do
  // nothing. UINT64_MAX (the default) is no limit.
  void SetCapacity(uint64_t capacity_bytes);
  uint64_t used_bytes() const;

  // Writes are atomic in pieces of so many bytes, on that grid of the file (a disk's sectors): a
  // torn one kept some of them, any. 1 (the default): torn at any byte, the end is lost.
  void SetSectorBytes(uint64_t sector_bytes);

  // Flips one bit of the file's content, as durably as can be. The file must be that long.
  void FlipBit(const std::string& path, uint64_t bit);

  enum class Names {
    kDropUnsynced,  // every name that was not synced is as before
    kKeepSome,      // the changes of names up to a random one happened, as a journal may have it
  };
  // Power loss: each write that was not synced is lost, kept, or torn in its middle, as `seed`
  // says. Open files answer kIo from now on. Clears failures; the capacity stays.
  void Crash(uint64_t seed, Names names = Names::kDropUnsynced);
  // kill -9: open files answer kIo from now on, all else is as it was.
  void Kill();

 private:
  friend class FaultFile;
  struct Node;
  struct NameChange;
  using NodePtr = std::shared_ptr<Node>;
  using Tree = std::map<std::string, NodePtr>;

  base::Result<void> BeginMutation() REQUIRES(mutex_);
  base::Result<void> CheckSpace(uint64_t more_bytes) const REQUIRES(mutex_);
  base::Result<NodePtr> FindFile(const std::string& path) const REQUIRES(mutex_);
  base::Result<void> CheckParent(const std::string& path) const REQUIRES(mutex_);
  void ChangeName(NameChange change) REQUIRES(mutex_);
  uint64_t UsedBytes() const REQUIRES(mutex_);
  static void Apply(const NameChange& change, Tree& tree);

  const base::Clock& clock_;
  mutable base::Mutex mutex_;
  Tree live_ GUARDED_BY(mutex_);     // what a process sees
  Tree durable_ GUARDED_BY(mutex_);  // what power loss leaves of the names
  std::vector<NameChange> unsynced_names_ GUARDED_BY(mutex_);
  uint64_t generation_ GUARDED_BY(mutex_) = 0;  // a file opened in an older one is dead
  uint64_t calls_ GUARDED_BY(mutex_) = 0;
  uint64_t fail_first_ GUARDED_BY(mutex_) = UINT64_MAX;
  uint64_t fail_last_ GUARDED_BY(mutex_) = UINT64_MAX;
  base::Error failure_ GUARDED_BY(mutex_);
  uint64_t capacity_bytes_ GUARDED_BY(mutex_) = UINT64_MAX;
  uint64_t sector_bytes_ GUARDED_BY(mutex_) = 1;
};

}  // namespace support
