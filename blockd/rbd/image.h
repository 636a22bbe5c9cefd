#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <list>
#include <memory>
#include <string>
#include <vector>

#include "base/bytes.h"
#include "base/result.h"
#include "base/thread_annotations.h"

namespace blockd::rbd {

class Cluster;

// An open RBD image. Thread-safe. Errors as of Cluster; kUnavailable once another process took the
// exclusive lock.
class Image {
 public:
  // Called once, from a thread of librbd that must not be kept: with what the operation came to.
  using Done = std::function<void(base::Result<void>)>;
  struct Snap {
    std::string name;
    uint64_t size_bytes = 0;
  };

  // Owns `handle`, an rbd_image_t. For Cluster::Open.
  static base::Result<std::unique_ptr<Image>> Adopt(std::shared_ptr<Cluster> cluster, void* handle,
                                                    std::string name);
  ~Image();  // blocking: gives up the lock
  Image(const Image&) = delete;
  Image& operator=(const Image&) = delete;

  const std::string& name() const { return name_; }
  // As librbd heard it last; grows when any process resizes the image.
  uint64_t size_bytes() const { return size_bytes_.load(); }
  // Nothing can be written by this handle any more: another process took the lock or fenced our
  // connection.
  bool lost() const;
  // Looks whether the lock is still ours, if it was taken; if not, what waits to be written fails.
  // Cheap: asks nobody.
  void CheckLock();

  // Do not wait. The memory stays until `done` was called.
  void ReadAsync(uint64_t offset, base::MutableByteView into, Done done);
  void WriteAsync(uint64_t offset, base::ByteView data, Done done);
  // Zeros, whatever their grid; with `free_space` objects go where they can.
  void ZeroAsync(uint64_t offset, uint64_t length, bool free_space, Done done);
  void FlushAsync(Done done);

  // The same for who waits.
  base::Result<void> Read(uint64_t offset, base::MutableByteView into);
  base::Result<void> Write(uint64_t offset, base::ByteView data);
  base::Result<void> Zero(uint64_t offset, uint64_t length, bool free_space);
  base::Result<void> Flush();

  base::Result<void> Resize(uint64_t size_bytes);
  // By whoever has the lock: if that is another process librbd asks it to.
  base::Result<void> CreateSnap(const std::string& name);
  base::Result<void> RemoveSnap(const std::string& name);  // fine if it is not there
  base::Result<std::vector<Snap>> Snaps();                 // oldest first

  // Objects of the image, as it was opened, that are not as `from` has them (empty: that were ever
  // written, here or, with `parents`, in the image that it is a clone of), within a range. Whole
  // objects: from the object map alone. `exists`: the object is there.
  using DiffVisitor = std::function<void(uint64_t offset, uint64_t length, bool exists)>;
  base::Result<void> Diff(const std::string& from, uint64_t offset, uint64_t length, bool parents,
                          const DiffVisitor& visit);

  // Takes the exclusive lock for good: no other process gets it by asking. With `break_others`
  // whoever has it is fenced off first (its connection can't write any more); without, kConflict if
  // one keeps it.
  base::Result<void> Lock(bool break_others);
  // Gives it up; the image is not written to any more. What fails is logged.
  void Unlock();

 private:
  Image(std::shared_ptr<Cluster> cluster, void* handle, std::string name);
  struct Pending;
  template <typename Start>
  void Run(const char* what, bool needs_lock, Done done, const Start& start);
  static void OnDone(void* completion, void* argument);
  void End(Pending& pending, int result);
  void FailPending() EXCLUDES(mutex_);
  base::Error LockLost() const;
  template <typename Begin>
  static base::Result<void> Await(const Begin& begin);
  base::Error ErrorOf(int result, const char* what) const;
  base::Result<void> BreakLock();
  void LearnSize();

  const std::shared_ptr<Cluster> cluster_;
  void* const handle_;
  const std::string name_;
  std::atomic<uint64_t> size_bytes_{0};
  uint64_t watch_ = 0;
  bool watching_ = false;
  std::atomic<bool> locked_{false};
  std::atomic<bool> lock_lost_{false};
  // Of a locked image, what needs the lock: librbd 16 loses what comes just after the lock was
  // lost.
  base::Mutex mutex_;
  std::list<std::shared_ptr<Pending>> pending_ GUARDED_BY(mutex_);
};

}  // namespace blockd::rbd
