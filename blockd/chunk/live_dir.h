#pragma once

#include <atomic>
#include <memory>
#include <string>
#include <vector>

#include "base/metrics.h"

namespace blockd::chunk {

// The directory, on a file system in memory, where the pages of open layers' maps live (LivePages),
// so that they outlive the process: one for each directory of layers,
// `<parent>/quarry-<uid>-<st_dev>-<st_ino>` (the last two in hex, of the layers' directory).
//
// It is ours alone: what is there already must be a directory (no link) that we own and nobody else
// may write to. If it can't be used (another user made it first, say) that is logged, and all pages
// are in the process's own memory.
//
// While it is in use, `<layers>/live` names it and the boot. A process that was killed leaves both,
// and who comes next goes on with that directory, whatever the setting says now. A directory that
// no such mark names is emptied before it is used: what lies there may be older than the layers.
//
// Thread-safe.
class LiveDir {
 public:
  // Null: none was asked for (`parent` is empty), and no process before us has left one. Of pages
  // that should be here and are not, `private_pages` counts how many there are.
  static std::shared_ptr<LiveDir> Open(const std::string& layers, const std::string& parent,
                                       base::Gauge& private_pages,
                                       const std::string& boot_id = BootId());
  // Takes back the directory and its mark, unless a file is left in it.
  ~LiveDir();
  LiveDir(const LiveDir&) = delete;
  LiveDir& operator=(const LiveDir&) = delete;

  // Of this run of the machine; empty if it does not tell.
  static std::string BootId();

  const std::string& path() const { return path_; }
  const std::string& boot_id() const { return boot_id_; }
  // Negative: it can't be used.
  int descriptor() const { return descriptor_; }

  // The layers that have a file here.
  std::vector<std::string> Ids() const;
  // A layer's file, if it is there.
  void Remove(const std::string& id);

  // Pages could not be made to live (`why`), or such pages are gone again.
  void AddPrivatePage(const std::string& why);
  void RemovePrivatePages(size_t pages);

 private:
  LiveDir(std::string path, int descriptor, std::string mark, std::string boot_id,
          base::Gauge& private_pages)
      : path_(std::move(path)),
        descriptor_(descriptor),
        mark_(std::move(mark)),
        boot_id_(std::move(boot_id)),
        private_pages_(private_pages) {}

  const std::string path_;
  const int descriptor_;
  const std::string mark_;  // path of the file that names it
  const std::string boot_id_;
  base::Gauge& private_pages_;
  std::atomic<size_t> private_now_ = 0;
};

}  // namespace blockd::chunk
