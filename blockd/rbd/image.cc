#include "blockd/rbd/image.h"

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <optional>
#include <utility>

#include <rbd/librbd.h>

#include "base/log.h"
#include "blockd/rbd/cluster.h"

namespace blockd::rbd {

using base::Code;
using base::Error;
using base::Result;

namespace {

constexpr int kSnapsAtFirst = 32;
constexpr size_t kMaxLockOwners = 8;

}  // namespace

// An operation that librbd has. Ends once, by its callback or because the lock is lost.
struct Image::Pending {
  Image* image = nullptr;
  const char* what = nullptr;
  Done done;
  std::atomic<bool> ended{false};
  bool listed = false;
  std::list<std::shared_ptr<Pending>>::iterator place;
};

// ---- open and close

Image::Image(std::shared_ptr<Cluster> cluster, void* handle, std::string name)
    : cluster_(std::move(cluster)), handle_(handle), name_(std::move(name)) {}

Result<std::unique_ptr<Image>> Image::Adopt(std::shared_ptr<Cluster> cluster, void* handle,
                                            std::string name) {
  std::unique_ptr<Image> image(new Image(std::move(cluster), handle, std::move(name)));
  image->LearnSize();
  const int watched = rbd_update_watch(
      handle, &image->watch_, [](void* self) { static_cast<Image*>(self)->LearnSize(); },
      image.get());
  if (watched < 0) return image->ErrorOf(watched, "watch");
  image->watching_ = true;
  return image;
}

Image::~Image() {
  if (lock_lost_.load()) {
    FailPending();
    base::MutexLock lock(mutex_);
    if (!pending_.empty()) {
      // It would wait for what never ends. The handle stays, and can do nothing.
      LOG(kWarn, "rbd", "RBD image {} stays open until this process ends: its lock was lost",
          name_);
      return;
    }
  }
  if (watching_) rbd_update_unwatch(handle_, watch_);
  const int closed = rbd_close(handle_);
  if (closed < 0 && closed != -ESHUTDOWN)
    LOG(kWarn, "rbd", "{}", ErrorOf(closed, "close").ToString());
}

bool Image::lost() const { return lock_lost_.load() || cluster_->fenced(); }

Error Image::ErrorOf(int result, const char* what) const {
  return cluster_->ErrorOf(result, std::string(what) + " RBD image " + name_);
}

void Image::LearnSize() {
  uint64_t size_bytes = 0;
  if (rbd_get_size(handle_, &size_bytes) >= 0) size_bytes_.store(size_bytes);
}

// ---- bytes

template <typename Start>
void Image::Run(const char* what, bool needs_lock, Done done, const Start& start) {
  auto pending = std::make_shared<Pending>();
  pending->image = this;
  pending->what = what;
  pending->done = std::move(done);
  if (needs_lock && locked_.load()) {
    CheckLock();
    if (lock_lost_.load()) return pending->done(LockLost());
    base::MutexLock lock(mutex_);
    pending->place = pending_.insert(pending_.end(), pending);
    pending->listed = true;
  }
  auto argument = std::make_unique<std::shared_ptr<Pending>>(pending);
  rbd_completion_t completion = nullptr;
  rbd_aio_create_completion(argument.get(), OnDone, &completion);
  const int started = start(completion);
  if (started >= 0) {
    (void)argument.release();  // OnDone's
    return;
  }
  rbd_aio_release(completion);
  End(*pending, started);
}

void Image::OnDone(void* completion, void* argument) {
  const std::unique_ptr<std::shared_ptr<Pending>> pending(
      static_cast<std::shared_ptr<Pending>*>(argument));
  const auto result = static_cast<int>(rbd_aio_get_return_value(completion));
  rbd_aio_release(completion);
  (*pending)->image->End(**pending, result);
}

void Image::End(Pending& pending, int result) {
  if (pending.listed) {
    base::MutexLock lock(mutex_);
    pending_.erase(pending.place);
  }
  if (pending.ended.exchange(true)) return;
  const Done done = std::move(pending.done);
  done(result >= 0 ? Result<void>() : ErrorOf(result, pending.what));
}

// ---- a lock that is lost

Error Image::LockLost() const {
  return Error(Code::kUnavailable,
               "RBD image " + name_ + ": another process took over the volume: open it again");
}

void Image::CheckLock() {
  if (!locked_.load() || lock_lost_.load()) return;
  int is_owner = 0;
  const int asked = rbd_is_exclusive_lock_owner(handle_, &is_owner);
  if (asked >= 0 && is_owner != 0) return;
  if (!lock_lost_.exchange(true)) LOG(kError, "rbd", "{}", LockLost().message());
  FailPending();
}

// They stay on the list: librbd may end them yet.
void Image::FailPending() {
  std::vector<Done> failed;
  {
    base::MutexLock lock(mutex_);
    for (const std::shared_ptr<Pending>& pending : pending_) {
      if (!pending->ended.exchange(true)) failed.push_back(std::move(pending->done));
    }
  }
  for (const Done& done : failed) done(LockLost());
}

void Image::ReadAsync(uint64_t offset, base::MutableByteView into, Done done) {
  Run("read", false, std::move(done), [&](rbd_completion_t completion) {
    return rbd_aio_read(handle_, offset, into.size(), reinterpret_cast<char*>(into.data()),
                        completion);
  });
}

void Image::WriteAsync(uint64_t offset, base::ByteView data, Done done) {
  Run("write", true, std::move(done), [&](rbd_completion_t completion) {
    return rbd_aio_write(handle_, offset, data.size(), reinterpret_cast<const char*>(data.data()),
                         completion);
  });
}

// Not a discard: that passes over what is smaller than its granularity.
void Image::ZeroAsync(uint64_t offset, uint64_t length, bool free_space, Done done) {
  Run("zero", true, std::move(done), [&](rbd_completion_t completion) {
    return rbd_aio_write_zeroes(handle_, offset, length, completion,
                                free_space ? 0 : RBD_WRITE_ZEROES_FLAG_THICK_PROVISION, 0);
  });
}

void Image::FlushAsync(Done done) {
  Run("flush", true, std::move(done),
      [&](rbd_completion_t completion) { return rbd_aio_flush(handle_, completion); });
}

template <typename Begin>
Result<void> Image::Await(const Begin& begin) {
  base::Mutex mutex;
  base::CondVar ended;
  std::optional<Result<void>> outcome;
  begin([&](Result<void> result) {
    base::MutexLock lock(mutex);
    outcome = std::move(result);
    ended.NotifyAll();
  });
  base::MutexLock lock(mutex);
  while (!outcome) ended.Wait(mutex);
  return std::move(*outcome);
}

Result<void> Image::Read(uint64_t offset, base::MutableByteView into) {
  return Await([&](Done done) { ReadAsync(offset, into, std::move(done)); });
}
Result<void> Image::Write(uint64_t offset, base::ByteView data) {
  return Await([&](Done done) { WriteAsync(offset, data, std::move(done)); });
}
Result<void> Image::Zero(uint64_t offset, uint64_t length, bool free_space) {
  return Await([&](Done done) { ZeroAsync(offset, length, free_space, std::move(done)); });
}
Result<void> Image::Flush() {
  return Await([&](Done done) { FlushAsync(std::move(done)); });
}

// ---- size and snapshots

Result<void> Image::Resize(uint64_t size_bytes) {
  CheckLock();
  if (lock_lost_.load()) return LockLost();
  const int resized = rbd_resize2(handle_, size_bytes, false, nullptr, nullptr);
  if (resized < 0) return ErrorOf(resized, "resize");
  LearnSize();
  return {};
}

Result<void> Image::CreateSnap(const std::string& name) {
  CheckLock();
  if (lock_lost_.load()) return LockLost();
  const int made = rbd_snap_create(handle_, name.c_str());
  if (made < 0) return ErrorOf(made, "take a snapshot of");
  return {};
}

Result<void> Image::RemoveSnap(const std::string& name) {
  const int removed = rbd_snap_remove(handle_, name.c_str());
  if (removed < 0 && removed != -ENOENT) return ErrorOf(removed, "remove a snapshot of");
  return {};
}

Result<std::vector<Image::Snap>> Image::Snaps() {
  int capacity = kSnapsAtFirst;
  std::vector<rbd_snap_info_t> infos(static_cast<size_t>(capacity));
  int count = rbd_snap_list(handle_, infos.data(), &capacity);
  while (count == -ERANGE) {
    infos.resize(static_cast<size_t>(capacity));
    count = rbd_snap_list(handle_, infos.data(), &capacity);
  }
  if (count < 0) return ErrorOf(count, "list snapshots of");
  infos.resize(static_cast<size_t>(count));
  std::sort(infos.begin(), infos.end(), [](const auto& a, const auto& b) { return a.id < b.id; });
  std::vector<Snap> snaps;
  for (const rbd_snap_info_t& info : infos) snaps.push_back({info.name, info.size});
  for (const rbd_snap_info_t& info : infos) free(const_cast<char*>(info.name));
  return snaps;
}

Result<void> Image::Diff(const std::string& from, uint64_t offset, uint64_t length, bool parents,
                         const DiffVisitor& visit) {
  const auto call = [](uint64_t at, size_t count, int exists, void* argument) {
    (*static_cast<const DiffVisitor*>(argument))(at, count, exists != 0);
    return 0;
  };
  const int differed =
      rbd_diff_iterate2(handle_, from.empty() ? nullptr : from.c_str(), offset, length,
                        parents ? 1 : 0, 1, call, const_cast<DiffVisitor*>(&visit));
  if (differed < 0) return ErrorOf(differed, "find the differences of");
  return {};
}

// ---- the lock

Result<void> Image::BreakLock() {
  rbd_lock_mode_t mode = RBD_LOCK_MODE_EXCLUSIVE;
  char* owners[kMaxLockOwners];
  size_t count = kMaxLockOwners;
  const int found = rbd_lock_get_owners(handle_, &mode, owners, &count);
  if (found == -ENOENT) return {};
  if (found < 0) return ErrorOf(found, "find the owner of");
  Result<void> result;
  for (size_t i = 0; i < count; ++i) {
    LOG(kWarn, "rbd", "fencing off {}, which has image {} and is gone", owners[i], name_);
    const int broken = rbd_lock_break(handle_, RBD_LOCK_MODE_EXCLUSIVE, owners[i]);
    if (broken < 0 && broken != -ENOENT) result = ErrorOf(broken, "break the lock of");
  }
  rbd_lock_get_owners_cleanup(owners, count);
  return result;
}

Result<void> Image::Lock(bool break_others) {
  if (break_others) RETURN_IF_ERROR(BreakLock());
  const int locked = rbd_lock_acquire(handle_, RBD_LOCK_MODE_EXCLUSIVE);
  if (locked < 0) return ErrorOf(locked, "lock");
  locked_.store(true);
  return {};
}

void Image::Unlock() {
  if (!locked_.exchange(false) || lost()) return;
  const int released = rbd_lock_release(handle_);
  if (released < 0 && released != -ESHUTDOWN)
    LOG(kWarn, "rbd", "{}", ErrorOf(released, "unlock").ToString());
}

}  // namespace blockd::rbd
