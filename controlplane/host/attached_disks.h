#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"
#include "base/result.h"
#include "base/thread_annotations.h"
#include "blockd/nbd/attachments.h"
#include "blockd/nbd/server.h"
#include "blockd/remote/remote_volume.h"
#include "controlplane/host/images.h"
#include "controlplane/host/services.h"

namespace controlplane::host {

// What is attached on this host: images and snapshots to read, volumes to read and write, each
// under an NBD export name that is a secret. All of it is remembered in a file, so that after a
// restart, or a kill, guests find their disks under the same names. Thread-safe; calls block.
class AttachedDisks {
 public:
  static constexpr size_t kMaxDisks = 4096;
  static constexpr uint64_t kMaxFileBytes = 16 * base::kMiB;
  // How long a detach waits for a write that is at the service.
  static constexpr int64_t kRevokeTimeoutMs = 5'000;

  enum class Kind { kImage, kSnapshot, kVolume };

  // Value type.
  struct Disk {
    std::string id;
    Kind kind = Kind::kImage;
    std::string object_id;  // of the image, snapshot or volume
    std::string name;       // its name, when it was attached
    std::string secret;     // of the export's name
    // Of a volume.
    std::string image_id;  // that it is read from as far as it is unchanged; may be empty
    std::string remote_uri;
    std::string remote_attachment_id;
  };

  // Borrowed but for the last; all of it outlives this. `exports` is what the server serves.
  struct Parts {
    blockd::nbd::Attachments& exports;
    blockd::nbd::Server& server;
    Images& images;
    Services& services;
    Background& background;
    // How the servers of volumes are reached: with which certificates, for one.
    blockd::remote::RemoteSettings remote;
  };

  // `path` is the file that remembers; `socket`, what the server listens on, goes into URIs. Offers
  // what the file names. kCorruption for a file that says nothing that we know.
  static base::Result<std::unique_ptr<AttachedDisks>> Open(std::string path, std::string socket,
                                                           const Parts& parts);

  // `name`: an id or a name. For one who is told the URI, who is then the one that may connect.
  base::Result<Disk> Attach(Kind kind, const std::string& name);
  // By the id of an attachment, its URI, or what is attached if that is attached once. Whoever is
  // connected is cut off. kNotFound, kConflict; kUnavailable: a write is still on its way, or the
  // service is down; again later.
  base::Result<Disk> Detach(const std::string& what);

  struct Listed {
    Disk disk;
    bool connected = false;
  };
  std::vector<Listed> List();
  std::string UriOf(const Disk& disk) const;

 private:
  struct Entry {
    Disk disk;
    // Keeps an image open, and what is known of it, while nobody is connected.
    std::shared_ptr<ImageVolume> origin;
    std::weak_ptr<void> connected;
  };

  AttachedDisks(std::string path, std::string socket, const Parts& parts)
      : path_(std::move(path)), socket_(std::move(socket)), parts_(parts) {}
  base::Result<void> Load();
  base::Result<void> Save() REQUIRES(changing_);
  base::Result<void> Offer(const Disk& disk);
  base::Result<Disk> Describe(Kind kind, const std::string& name);
  base::Result<blockd::nbd::Export> OpenDisk(const Disk& disk);
  base::Result<std::shared_ptr<ImageVolume>> OriginOf(const Disk& disk);
  base::Result<std::shared_ptr<blockd::Volume>> OpenRemoteVolume(const Disk& disk);
  base::Result<Disk> FindDisk(const std::string& what);

  const std::string path_;
  const std::string socket_;
  const Parts parts_;

  base::Mutex changing_;  // one attaches or detaches at a time; taken before mutex_
  base::Mutex mutex_;
  std::map<std::string, Entry> entries_ GUARDED_BY(mutex_);
};

std::string_view NameOf(AttachedDisks::Kind kind);

// The disk as the command line is told of it; the secrets are in no answer but the URI's.
base::JsonObject ViewOf(const AttachedDisks::Disk& disk, const std::string& uri);

}  // namespace controlplane::host
