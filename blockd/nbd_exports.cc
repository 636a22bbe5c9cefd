#include "blockd/nbd_exports.h"

#include <algorithm>
#include <utility>

namespace blockd {

using base::Code;
using base::Error;
using base::JsonObject;
using base::Result;

namespace {

// How long a withdrawal waits for writes at the back end before it says "again later".
constexpr int64_t kRevokeTimeoutMs = 5'000;
constexpr size_t kMaxKeptVolumes = 10'000;

}  // namespace

NbdExports::KeptProject& NbdExports::ProjectOf(std::string_view project_id) {
  KeptProject& kept = projects_[std::string(project_id)];
  if (kept.project == nullptr) kept.project = qos::Project::Create(pace_.clock, pace_.timer);
  return kept;
}

// What nobody is connected to is forgotten when there is too much.
void NbdExports::MakeRoom() {
  if (volumes_.size() < kMaxKeptVolumes) return;
  std::erase_if(volumes_, [](const auto& entry) { return entry.second.limiter.use_count() == 1; });
  std::erase_if(projects_, [](const auto& entry) {
    return !entry.second.limited && entry.second.project.use_count() == 1;
  });
}

std::shared_ptr<qos::VolumeLimiter> NbdExports::LimiterOf(const ExportSpec& spec,
                                                          const qos::Limits& limits) {
  const auto found = volumes_.find(spec.volume_id);
  if (found != volumes_.end() && found->second.project_id == spec.project_id) {
    found->second.limiter->SetLimits(limits);
    return found->second.limiter;
  }
  MakeRoom();
  Kept kept;
  kept.project_id = spec.project_id;
  kept.limiter =
      ProjectOf(spec.project_id).project->AddVolume(spec.volume_id, limits, pace_.metrics);
  if (pace_.metrics != nullptr)
    kept.metrics = std::make_shared<nbd::VolumeMetrics>(*pace_.metrics, spec.volume_id);
  return volumes_.insert_or_assign(spec.volume_id, std::move(kept)).first->second.limiter;
}

void NbdExports::ListensOn(uint16_t port) {
  base::MutexLock lock(mutex_);
  address_.port = port;
}

JsonObject NbdExports::DataOf(const ExportSpec& spec, const std::string& name) const {
  const bool v6 = address_.host.find(':') != std::string::npos;
  const std::string host = v6 ? "[" + address_.host + "]" : address_.host;
  const std::string scheme = address_.tls ? "nbds://" : "nbd://";
  JsonObject data = {{"transport", "tcp"},
                     {"host", address_.host},
                     {"port", address_.port},
                     {"export", name},
                     {"tls", address_.tls},
                     {"uri", scheme + host + ":" + std::to_string(address_.port) + "/" + name},
                     {"format", "raw"},
                     {"volume_id", spec.volume_id}};
  if (!address_.socket.empty()) data.emplace("socket", address_.socket);
  return data;
}

Result<std::shared_ptr<ChangedBlocks>> NbdExports::ChangedSince(const std::string& project_id,
                                                                const std::string& volume_id,
                                                                std::string_view snapshot_id) {
  if (snapshot_right_ != nullptr) {
    ASSIGN_OR_RETURN(const bool theirs, snapshot_right_(project_id, snapshot_id));
    if (!theirs) return Error(Code::kNotFound, "no such snapshot");
  }
  return store_.ChangedSince(volume_id, std::string(snapshot_id));
}

Result<std::shared_ptr<ChangedBlocks>> NbdExports::ChangedSinceImage(const std::string& project_id,
                                                                     const std::string& volume_id,
                                                                     std::string_view image_id) {
  if (image_holder_ == nullptr) return Error(Code::kNotFound, "no such image");
  ASSIGN_OR_RETURN(const std::string holder, image_holder_(project_id, image_id));
  return store_.ChangedSinceContent(volume_id, holder);
}

Result<JsonObject> NbdExports::Publish(const ExportSpec& spec) {
  ASSIGN_OR_RETURN(const qos::Limits limits, qos::ParseSpec(spec.qos, spec.size_gb));
  base::MutexLock lock(mutex_);
  const auto present = published_.find(spec.attachment_id);
  if (present != published_.end()) {
    if (!present->second.withdrawn) return DataOf(spec, present->second.name);
    return Error(Code::kConflict, "attachment " + spec.attachment_id + " is being withdrawn");
  }
  const auto watch = std::make_shared<std::weak_ptr<void>>();
  nbd::Attachments::Spec attachment;
  attachment.volume_id = spec.volume_id;
  attachment.read_only = spec.read_only;
  attachment.multi_attach = spec.multi_attach;
  attachment.open = [this, watch, attachment_id = spec.attachment_id, volume_id = spec.volume_id,
                     project_id = spec.project_id,
                     limiter = LimiterOf(spec, limits)]() -> Result<nbd::Export> {
    if (before_open_) RETURN_IF_ERROR(before_open_(attachment_id));
    nbd::Export exported;
    ASSIGN_OR_RETURN(exported.volume, store_.Open(volume_id));
    exported.tenant = project_id;
    exported.limiter = limiter;
    exported.claim = std::make_shared<int>();
    exported.changed_since = [this, volume_id, project_id](std::string_view snapshot_id) {
      return ChangedSince(project_id, volume_id, snapshot_id);
    };
    exported.changed_since_image = [this, volume_id, project_id](std::string_view image_id) {
      return ChangedSinceImage(project_id, volume_id, image_id);
    };
    base::MutexLock watch_lock(mutex_);
    *watch = exported.claim;
    return exported;
  };
  ASSIGN_OR_RETURN(const std::string name,
                   attachments_.AddAgain(spec.attachment_id, spec.secret, std::move(attachment)));
  published_[spec.attachment_id] = Entry{name, spec.volume_id, false, watch};
  return DataOf(spec, name);
}

Result<void> NbdExports::Withdraw(std::string_view attachment_id) {
  std::string name;
  {
    base::MutexLock lock(mutex_);
    const auto found = published_.find(attachment_id);
    if (found == published_.end()) return {};
    name = found->second.name;
    if (!found->second.withdrawn) {
      const Result<std::string> removed = attachments_.Remove(found->first);
      if (!removed.has_value() && removed.error().code() != Code::kNotFound) return removed.error();
      found->second.withdrawn = true;
    }
  }
  // Without the lock: it may wait. A second one beside us does no harm.
  RETURN_IF_ERROR(server_.Revoke(name, kRevokeTimeoutMs));
  base::MutexLock lock(mutex_);
  const auto found = published_.find(attachment_id);
  if (found != published_.end() && found->second.name == name) published_.erase(found);
  return {};
}

bool NbdExports::IsConnected(std::string_view attachment_id) {
  base::MutexLock lock(mutex_);
  const auto found = published_.find(attachment_id);
  return found != published_.end() && !found->second.connected->expired();
}

std::vector<std::string> NbdExports::Published() {
  base::MutexLock lock(mutex_);
  std::vector<std::string> ids;
  for (const auto& [id, published] : published_) ids.push_back(id);
  return ids;
}

Result<void> NbdExports::SetLimits(std::string_view volume_id, uint64_t size_gb,
                                   const std::map<std::string, std::string>& qos) {
  ASSIGN_OR_RETURN(const qos::Limits limits, qos::ParseSpec(qos, size_gb));
  base::MutexLock lock(mutex_);
  const auto found = volumes_.find(volume_id);
  if (found != volumes_.end()) found->second.limiter->SetLimits(limits);
  return {};
}

Result<void> NbdExports::SetProjectLimits(std::string_view project_id,
                                          const std::map<std::string, std::string>& qos) {
  ASSIGN_OR_RETURN(const qos::Limits limits, qos::ParseSpec(qos, 0));
  base::MutexLock lock(mutex_);
  KeptProject& kept = ProjectOf(project_id);
  kept.limited = limits.limited();
  kept.project->SetLimits(limits);
  return {};
}

void NbdExports::Forget(std::string_view volume_id) {
  base::MutexLock lock(mutex_);
  const auto found = volumes_.find(volume_id);
  if (found != volumes_.end()) volumes_.erase(found);
}

}  // namespace blockd
