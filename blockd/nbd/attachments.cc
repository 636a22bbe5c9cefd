#include "blockd/nbd/attachments.h"

#include <utility>

#include "base/coding.h"
#include "base/hash.h"

namespace blockd::nbd {
namespace {

constexpr size_t kSecretBytes = 32;
constexpr char kSeparator = '.';

std::string NameOf(const std::string& id, const std::string& secret) {
  return id + kSeparator + secret;
}

base::Error Unknown() { return base::Error(base::Code::kNotFound, "no such export"); }

}  // namespace

base::Result<std::string> Attachments::Add(const std::string& id, Spec spec) {
  return AddAgain(id, base::ToBase64Url(base::RandomBytes(kSecretBytes)), std::move(spec));
}

base::Result<std::string> Attachments::AddAgain(const std::string& id, const std::string& secret,
                                                Spec spec) {
  if (id.empty() || id.find(kSeparator) != std::string::npos || secret.empty()) {
    return base::Error(base::Code::kInvalidArgument, "an attachment has an id without dots");
  }
  base::MutexLock lock(mutex_);
  if (by_id_.contains(id)) {
    return base::Error(base::Code::kAlreadyExists, "attachment " + id + " is there already");
  }
  for (const auto& [other_id, other] : by_id_) {
    if (other->spec.volume_id != spec.volume_id) continue;
    const bool both_share = spec.multi_attach && other->spec.multi_attach;
    const bool both_read = spec.read_only && other->spec.read_only;
    if (!both_share && !both_read) {
      return base::Error(base::Code::kConflict,
                         "volume " + spec.volume_id + " is attached, and not for several at once");
    }
  }
  auto attachment = std::make_shared<Attachment>();
  attachment->secret = secret;
  attachment->spec = std::move(spec);
  by_id_.emplace(id, std::move(attachment));
  return NameOf(id, secret);
}

base::Result<std::string> Attachments::Remove(const std::string& id) {
  std::shared_ptr<Attachment> removed;  // ends outside the lock
  base::MutexLock lock(mutex_);
  const auto found = by_id_.find(id);
  if (found == by_id_.end()) {
    return base::Error(base::Code::kNotFound, "no attachment " + id);
  }
  removed = std::move(found->second);
  by_id_.erase(found);
  return NameOf(id, removed->secret);
}

std::shared_ptr<Attachments::Attachment> Attachments::Find(const std::string& id) {
  base::MutexLock lock(mutex_);
  const auto found = by_id_.find(id);
  return found == by_id_.end() ? nullptr : found->second;
}

base::Result<std::shared_ptr<const Export>> Attachments::Open(std::string_view name) {
  const size_t separator = name.find(kSeparator);
  if (separator == std::string_view::npos) return Unknown();
  const std::string id(name.substr(0, separator));
  std::shared_ptr<Attachment> attachment = Find(id);
  if (attachment == nullptr && finder_) {
    finder_(id);
    attachment = Find(id);
  }
  if (attachment == nullptr) return Unknown();
  if (!base::SecretsEqual(attachment->secret, name.substr(separator + 1))) return Unknown();
  base::MutexLock lock(attachment->mutex);
  if (std::shared_ptr<const Export> there = attachment->opened.lock()) return there;
  ASSIGN_OR_RETURN(Export made, attachment->spec.open());
  made.volume_id = attachment->spec.volume_id;
  made.read_only |= attachment->spec.read_only;
  auto opened = std::make_shared<const Export>(std::move(made));
  attachment->opened = opened;
  return opened;
}

}  // namespace blockd::nbd
