#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <string_view>

#include "base/result.h"
#include "base/thread_annotations.h"
#include "blockd/nbd/export.h"

namespace blockd::nbd {

// An ExportProvider whose names are capabilities: an attachment's id (public) and a secret of 256
// random bits. Whoever knows the name is who attached. Thread-safe.
class Attachments : public ExportProvider {
 public:
  // Opens the volume of an attachment when its client connects: once, and again when all its
  // connections were gone. May block; called without a lock. The Export's claim may hold what keeps
  // the volume open.
  using OpenVolume = std::function<base::Result<Export>()>;
  // Returns the export's name, to be told to who attached and to nobody else; `id` has no '.'.
  // Attachments that may write share a volume only if all of them declared multi_attach:
  // kConflict. kAlreadyExists for an id that is there.
  struct Spec {
    std::string volume_id;
    bool read_only = false;
    bool multi_attach = false;
    OpenVolume open;
  };
  base::Result<std::string> Add(const std::string& id, Spec spec);
  // The same with a secret that was made before: after a restart.
  base::Result<std::string> AddAgain(const std::string& id, const std::string& secret, Spec spec);
  // The name opens nothing from here on. Returns it, for Server::Revoke, which cuts who is
  // connected; only after that may the volume be given to somebody else. kNotFound.
  base::Result<std::string> Remove(const std::string& id);

  // Asked for the id of a name that is not there, before it is said to be unknown: it may Add it
  // (who attached did so through another process). Set before the server listens.
  void SetFinder(std::function<void(const std::string& id)> finder) { finder_ = std::move(finder); }

  base::Result<std::shared_ptr<const Export>> Open(std::string_view name) override;

 private:
  struct Attachment {
    std::string secret;
    Spec spec;
    base::Mutex mutex;  // held while the volume is opened
    std::weak_ptr<const Export> opened GUARDED_BY(mutex);
  };

  std::shared_ptr<Attachment> Find(const std::string& id) EXCLUDES(mutex_);

  std::function<void(const std::string& id)> finder_;
  base::Mutex mutex_;
  std::map<std::string, std::shared_ptr<Attachment>, std::less<>> by_id_ GUARDED_BY(mutex_);
};

}  // namespace blockd::nbd
