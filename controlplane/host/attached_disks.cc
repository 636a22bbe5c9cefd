#include "controlplane/host/attached_disks.h"

#include <algorithm>
#include <utility>

#include <fmt/format.h>

#include "base/coding.h"
#include "base/files.h"
#include "base/hash.h"
#include "base/http/target.h"
#include "base/log.h"
#include "base/uuid.h"
#include "blockd/remote/derived_volume.h"

namespace controlplane::host {

using base::Code;
using base::Error;
using base::Json;
using base::JsonArray;
using base::JsonObject;
using base::Result;

namespace {

constexpr int kVersion = 1;
constexpr int kPrivate = 0600;
constexpr size_t kSecretBytes = 32;
constexpr std::string_view kKinds[] = {"image", "snapshot", "volume"};

using Disk = AttachedDisks::Disk;
using Kind = AttachedDisks::Kind;

JsonObject ToRecord(const Disk& disk) {
  return {{"id", disk.id},
          {"kind", NameOf(disk.kind)},
          {"object_id", disk.object_id},
          {"name", disk.name},
          {"secret", disk.secret},
          {"image_id", disk.image_id},
          {"remote_uri", disk.remote_uri},
          {"remote_attachment_id", disk.remote_attachment_id}};
}

Result<Disk> FromRecord(const Json& record) {
  const auto text = [&](std::string_view key) {
    return base::FindString(record, key).value_or("");
  };
  Disk disk;
  disk.id = text("id");
  disk.object_id = text("object_id");
  disk.name = text("name");
  disk.secret = text("secret");
  disk.image_id = text("image_id");
  disk.remote_uri = text("remote_uri");
  disk.remote_attachment_id = text("remote_attachment_id");
  const std::string kind = text("kind");
  for (size_t i = 0; i < std::size(kKinds); ++i) {
    if (kind != kKinds[i]) continue;
    disk.kind = static_cast<Kind>(i);
    if (!disk.id.empty() && !disk.secret.empty() && !disk.object_id.empty()) return disk;
  }
  return Error(Code::kCorruption, "it has an attachment without a kind, an id or a secret");
}

std::string ExportOf(const Disk& disk) { return disk.id + "." + disk.secret; }

}  // namespace

std::string_view NameOf(AttachedDisks::Kind kind) { return kKinds[static_cast<size_t>(kind)]; }

JsonObject ViewOf(const Disk& disk, const std::string& uri) {
  return {{"id", disk.id},
          {"kind", NameOf(disk.kind)},
          {NameOf(disk.kind), disk.object_id},
          {"name", disk.name},
          {"read_only", disk.kind != Kind::kVolume},
          {"uri", uri}};
}

Result<std::unique_ptr<AttachedDisks>> AttachedDisks::Open(std::string path, std::string socket,
                                                           const Parts& parts) {
  std::unique_ptr<AttachedDisks> disks(
      new AttachedDisks(std::move(path), std::move(socket), parts));
  RETURN_IF_ERROR(disks->Load());
  return disks;
}

Result<void> AttachedDisks::Load() {
  const Result<std::string> text = base::ReadWholeFile(path_, kMaxFileBytes);
  if (!text.has_value() && text.error().code() == Code::kNotFound) return {};
  RETURN_IF_ERROR(text);
  const std::string advice = path_ + " can't be used; remove it, and attach anew what is in use";
  const Result<Json> parsed = base::ParseJson(*text);
  const Json* disks = parsed.has_value() ? base::Find(*parsed, "disks") : nullptr;
  if (disks == nullptr || !disks->is_array() || base::FindUint(*parsed, "version") != kVersion)
    return Error(Code::kCorruption, advice);
  std::vector<Disk> found;
  for (const Json& record : disks->as_array()) {
    ASSIGN_OR_RETURN(Disk disk, FromRecord(record).Annotate(advice));
    found.push_back(std::move(disk));
  }
  for (const Disk& disk : found) RETURN_IF_ERROR(Offer(disk));
  // Before its guest comes back; what fails here is tried again when he does.
  for (const Disk& disk : found) {
    parts_.background.RunLow([this, disk] {
      const auto origin = OriginOf(disk);
      if (origin.has_value()) return;
      LOG(kWarn, "host", "{} {} is not open again yet: {}", NameOf(disk.kind), disk.object_id,
          origin.error().ToString());
    });
  }
  return {};
}

Result<void> AttachedDisks::Save() {
  JsonArray records;
  {
    base::MutexLock lock(mutex_);
    for (const auto& [id, entry] : entries_) records.push_back(ToRecord(entry.disk));
  }
  const JsonObject file = {{"version", kVersion}, {"disks", std::move(records)}};
  return base::WriteFileDurably(path_, base::ToText(file) + "\n", kPrivate);
}

Result<void> AttachedDisks::Offer(const Disk& disk) {
  blockd::nbd::Attachments::Spec spec;
  spec.volume_id = disk.id;
  spec.read_only = disk.kind != Kind::kVolume;
  spec.open = [this, disk] { return OpenDisk(disk); };
  {
    base::MutexLock lock(mutex_);
    entries_[disk.id] = Entry{disk, nullptr, {}};
  }
  const Result<std::string> added = parts_.exports.AddAgain(disk.id, disk.secret, std::move(spec));
  if (added.has_value()) return {};
  base::MutexLock lock(mutex_);
  entries_.erase(disk.id);
  return added.error();
}

// Of a volume that was made of no image: null.
Result<std::shared_ptr<ImageVolume>> AttachedDisks::OriginOf(const Disk& disk) {
  Origin origin;
  origin.kind = disk.kind == Kind::kSnapshot ? Origin::Kind::kSnapshot : Origin::Kind::kImage;
  origin.id = disk.kind == Kind::kVolume ? disk.image_id : disk.object_id;
  if (origin.id.empty()) return std::shared_ptr<ImageVolume>();
  ASSIGN_OR_RETURN(std::shared_ptr<ImageVolume> volume, parts_.images.Open(origin));
  base::MutexLock lock(mutex_);
  const auto entry = entries_.find(disk.id);
  if (entry != entries_.end()) entry->second.origin = volume;
  return volume;
}

// What is unchanged since the image is read from that, through the cache, where both sides can. The
// service compares with the bytes that are read here, by their name: there may be another image of
// that id by now.
Result<std::shared_ptr<blockd::Volume>> AttachedDisks::OpenRemoteVolume(const Disk& disk) {
  blockd::remote::RemoteSettings settings = parts_.remote;
  settings.uri = disk.remote_uri;
  const Result<std::shared_ptr<ImageVolume>> origin = OriginOf(disk);
  if (!origin.has_value()) {
    LOG(kWarn, "host", "volume {} is read from the service alone, without the cache: {}",
        disk.object_id, origin.error().ToString());
  }
  const bool near = origin.has_value() && *origin != nullptr;
  if (near) {
    settings.context =
        blockd::remote::ChangedSinceImage(disk.image_id, (*origin)->shape().data_name);
  }
  ASSIGN_OR_RETURN(std::shared_ptr<blockd::remote::RemoteVolume> remote,
                   blockd::remote::RemoteVolume::Open(std::move(settings)));
  if (!near || !remote->HasContext()) return std::shared_ptr<blockd::Volume>(std::move(remote));
  ASSIGN_OR_RETURN(std::shared_ptr<blockd::remote::DerivedVolume> derived,
                   blockd::remote::DerivedVolume::Open(*origin, remote));
  return std::shared_ptr<blockd::Volume>(std::move(derived));
}

Result<blockd::nbd::Export> AttachedDisks::OpenDisk(const Disk& disk) {
  blockd::nbd::Export exported;
  if (disk.kind == Kind::kVolume) {
    ASSIGN_OR_RETURN(exported.volume, OpenRemoteVolume(disk));
  } else {
    ASSIGN_OR_RETURN(exported.volume, OriginOf(disk));
  }
  // Each guest is one of those that share the server.
  exported.tenant = disk.id;
  exported.claim = std::make_shared<int>();
  base::MutexLock lock(mutex_);
  const auto entry = entries_.find(disk.id);
  if (entry == entries_.end()) return Error(Code::kNotFound, "no such export");
  entry->second.connected = exported.claim;
  return exported;
}

Result<Disk> AttachedDisks::Describe(Kind kind, const std::string& name) {
  Disk disk;
  disk.id = base::NewUuid();
  disk.kind = kind;
  disk.secret = base::ToBase64Url(base::RandomBytes(kSecretBytes));
  if (kind == Kind::kVolume) {
    ASSIGN_OR_RETURN(const RemoteAttachment made, parts_.services.AttachVolume(name));
    disk.object_id = made.volume_id;
    disk.name = made.volume_name;
    disk.image_id = made.image_id;
    disk.remote_uri = made.uri;
    disk.remote_attachment_id = made.attachment_id;
    return disk;
  }
  ASSIGN_OR_RETURN(const Found found, kind == Kind::kImage ? parts_.services.FindImage(name)
                                                           : parts_.services.FindSnapshot(name));
  disk.object_id = found.id;
  disk.name = found.name;
  return disk;
}

Result<Disk> AttachedDisks::Attach(Kind kind, const std::string& name) {
  base::MutexLock changing(changing_);
  {
    base::MutexLock lock(mutex_);
    if (entries_.size() >= kMaxDisks) {
      return Error(Code::kTooLarge,
                   fmt::format("{} disks are attached: `quarry host detach` some", kMaxDisks));
    }
  }
  ASSIGN_OR_RETURN(const Disk disk, Describe(kind, name));
  Result<void> offered = Offer(disk);
  if (offered.has_value()) offered = Save();
  // Whoever attached is to hear now, not his guest, that it can't be read; and a boot trace comes
  // in from now on. A volume is there without its image.
  if (offered.has_value() && kind != Kind::kVolume) {
    const auto origin = OriginOf(disk);
    if (!origin.has_value()) offered = origin.error();
  } else if (offered.has_value()) {
    parts_.background.RunLow([this, disk] { static_cast<void>(OriginOf(disk)); });
  }
  if (offered.has_value()) return disk;
  // Undone; what can't be undone is left to `quarry volume detach`.
  static_cast<void>(parts_.exports.Remove(disk.id));
  {
    base::MutexLock lock(mutex_);
    entries_.erase(disk.id);
  }
  static_cast<void>(Save());
  if (kind == Kind::kVolume)
    static_cast<void>(parts_.services.DetachVolume(disk.remote_attachment_id));
  return std::move(offered).error();
}

Result<Disk> AttachedDisks::FindDisk(const std::string& what) {
  base::MutexLock lock(mutex_);
  const Disk* found = nullptr;
  size_t count = 0;
  for (const auto& [id, entry] : entries_) {
    const Disk& disk = entry.disk;
    if (id == what || UriOf(disk) == what) return disk;
    if (disk.object_id != what && disk.name != what) continue;
    found = &disk;
    ++count;
  }
  if (count == 1) return *found;
  if (count == 0) {
    return Error(
        Code::kNotFound,
        fmt::format("nothing here is '{}'; `quarry host ls` shows what is attached", what));
  }
  return Error(Code::kConflict,
               fmt::format("'{}' is attached {} times: name one by the id that `quarry host ls` "
                           "shows",
                           what, count));
}

Result<Disk> AttachedDisks::Detach(const std::string& what) {
  base::MutexLock changing(changing_);
  ASSIGN_OR_RETURN(const Disk disk, FindDisk(what));
  const Result<std::string> removed = parts_.exports.Remove(disk.id);
  // A detach that failed after this is called again.
  if (!removed.has_value() && removed.error().code() != Code::kNotFound) return removed.error();
  RETURN_IF_ERROR(parts_.server.Revoke(ExportOf(disk), kRevokeTimeoutMs));
  if (disk.kind == Kind::kVolume)
    RETURN_IF_ERROR(parts_.services.DetachVolume(disk.remote_attachment_id));
  {
    Entry entry;  // ends outside the lock
    base::MutexLock lock(mutex_);
    entry = std::move(entries_[disk.id]);
    entries_.erase(disk.id);
  }
  RETURN_IF_ERROR(Save());
  return disk;
}

std::vector<AttachedDisks::Listed> AttachedDisks::List() {
  base::MutexLock lock(mutex_);
  std::vector<Listed> list;
  for (const auto& [id, entry] : entries_) list.push_back({entry.disk, !entry.connected.expired()});
  return list;
}

std::string AttachedDisks::UriOf(const Disk& disk) const {
  std::string socket = "/";
  for (size_t begin = 1; begin <= socket_.size();) {
    const size_t end = std::min(socket_.find('/', begin), socket_.size());
    socket += base::http::EncodePercent(socket_.substr(begin, end - begin));
    if (end < socket_.size()) socket += '/';
    begin = end + 1;
  }
  return fmt::format("nbd+unix:///{}?socket={}", ExportOf(disk), socket);
}

}  // namespace controlplane::host
