#include "blockd/records.h"

#include <array>
#include <type_traits>

#include "base/json.h"
#include "blockd/type_directory.h"

namespace blockd {
namespace {

using base::Code;
using base::Error;
using base::Json;
using base::JsonObject;
using base::Result;

constexpr uint64_t kRecordVersion = 1;

constexpr std::array<std::string_view, 20> kVolumeStatuses = {
    "creating",  "available",  "reserved",         "attaching",         "in-use",
    "detaching", "extending",  "reverting",        "uploading",         "downloading",
    "retyping",  "backing-up", "restoring-backup", "awaiting-transfer", "maintenance",
    "deleting",  "error",      "error_deleting",   "error_extending",   "error_restoring"};
constexpr std::array<std::string_view, 5> kSnapshotStatuses = {"creating", "available", "deleting",
                                                               "error", "error_deleting"};
constexpr std::array<std::string_view, 5> kSourceKinds = {"nothing", "image", "snapshot", "volume",
                                                          "backup"};
constexpr std::array<std::string_view, 5> kAttachStatuses = {"reserved", "attaching", "attached",
                                                             "detaching", "error_attaching"};

constexpr std::array<std::string_view, 6> kBackupStatuses = {
    "creating", "available", "restoring", "deleting", "error", "error_deleting"};

constexpr const auto& NamesOf(VolumeStatus) { return kVolumeStatuses; }
constexpr const auto& NamesOf(SnapshotStatus) { return kSnapshotStatuses; }
constexpr const auto& NamesOf(SourceKind) { return kSourceKinds; }
constexpr const auto& NamesOf(AttachStatus) { return kAttachStatuses; }
constexpr const auto& NamesOf(BackupStatus) { return kBackupStatuses; }

template <typename Enum>
std::string_view NameOf(Enum value) {
  return NamesOf(value)[static_cast<size_t>(value)];
}
template <typename Enum>
std::optional<Enum> Parse(std::string_view name) {
  const auto& names = NamesOf(Enum());
  for (size_t i = 0; i < names.size(); ++i)
    if (names[i] == name) return static_cast<Enum>(i);
  return std::nullopt;
}

// The fields of a record are listed once (Fields below), and a Writer or a Reader goes over them.
class Writer {
 public:
  Writer() { object_.emplace("version", kRecordVersion); }

  template <typename Value>
  void Field(std::string_view name, const Value& value) {
    if constexpr (std::is_enum_v<Value>) {
      object_.emplace(name, NameOf(value));
    } else if constexpr (std::is_same_v<Value, std::optional<std::string>>) {
      if (value.has_value()) object_.emplace(name, *value);
    } else if constexpr (std::is_same_v<Value, Metadata>) {
      JsonObject metadata;
      for (const auto& [key, text] : value) metadata.emplace(key, text);
      if (!metadata.empty()) object_.emplace(name, std::move(metadata));
    } else if constexpr (std::is_same_v<Value, std::vector<std::string>>) {
      base::JsonArray array;
      for (const std::string& text : value) array.emplace_back(text);
      if (!array.empty()) object_.emplace(name, std::move(array));
    } else if (value != Value()) {
      object_.emplace(name, value);
    }
  }
  std::string Text() const { return base::ToText(object_); }

 private:
  JsonObject object_;
};

// What a Writer left out reads as the empty value; what has a wrong type spoils the record.
class Reader {
 public:
  explicit Reader(const Json& json) : json_(json) {
    if (base::FindUint(json, "version") != kRecordVersion) good_ = false;
  }

  template <typename Value>
  void Field(std::string_view name, Value& value) {
    value = Value();
    const Json* found = base::Find(json_, name);
    if (found != nullptr && !Take(*found, value)) good_ = false;
  }
  bool good() const { return good_; }

 private:
  template <typename Enum>
    requires std::is_enum_v<Enum>
  static bool Take(const Json& json, Enum& value) {
    const auto parsed =
        json.is_string() ? Parse<Enum>(base::View(json.get_string())) : std::optional<Enum>();
    if (parsed.has_value()) value = *parsed;
    return parsed.has_value();
  }
  static bool Take(const Json& json, std::string& value) {
    if (!json.is_string()) return false;
    value = base::View(json.get_string());
    return true;
  }
  static bool Take(const Json& json, std::optional<std::string>& value) {
    return Take(json, value.emplace());
  }
  static bool Take(const Json& json, bool& value) {
    if (json.is_bool()) value = json.get_bool();
    return json.is_bool();
  }
  template <typename Number>
    requires std::is_integral_v<Number>
  static bool Take(const Json& json, Number& value) {
    boost::system::error_code error;
    const auto number = json.to_number<Number>(error);
    if (!error) value = number;
    return !error;
  }
  static bool Take(const Json& json, Metadata& value) {
    const JsonObject* object = json.if_object();
    if (object == nullptr) return false;
    for (const auto& [key, text] : *object)
      if (!Take(text, value[std::string(key)])) return false;
    return true;
  }
  static bool Take(const Json& json, std::vector<std::string>& value) {
    const base::JsonArray* array = json.if_array();
    if (array == nullptr) return false;
    for (const Json& text : *array)
      if (!Take(text, value.emplace_back())) return false;
    return true;
  }

  const Json& json_;
  bool good_ = true;
};

template <typename Archive, typename Record>
  requires std::is_same_v<std::remove_const_t<Record>, VolumeRecord>
void Fields(Archive& archive, Record& volume) {
  archive.Field("id", volume.id);
  archive.Field("project", volume.project_id);
  archive.Field("user", volume.user_id);
  archive.Field("name", volume.name);
  archive.Field("description", volume.description);
  archive.Field("size_gb", volume.size_gb);
  archive.Field("reserved_size_gb", volume.reserved_size_gb);
  archive.Field("status", volume.status);
  archive.Field("previous_status", volume.previous_status);
  archive.Field("lease_until_us", volume.lease_until_us);
  archive.Field("type", volume.type_id);
  archive.Field("zone", volume.availability_zone);
  archive.Field("source_kind", volume.source_kind);
  archive.Field("source", volume.source_id);
  archive.Field("bootable", volume.bootable);
  archive.Field("read_only", volume.read_only);
  archive.Field("multi_attach", volume.multi_attach);
  archive.Field("thick", volume.thick);
  archive.Field("back_end", volume.back_end);
  archive.Field("metadata", volume.metadata);
  archive.Field("image_metadata", volume.image_metadata);
  archive.Field("created_at_us", volume.created_at_us);
  archive.Field("updated_at_us", volume.updated_at_us);
  archive.Field("attachments", volume.attachment_ids);
  archive.Field("snapshots", volume.snapshots);
  archive.Field("holds", volume.holds);
}

template <typename Archive, typename Record>
  requires std::is_same_v<std::remove_const_t<Record>, SnapshotRecord>
void Fields(Archive& archive, Record& snapshot) {
  archive.Field("id", snapshot.id);
  archive.Field("volume", snapshot.volume_id);
  archive.Field("project", snapshot.project_id);
  archive.Field("user", snapshot.user_id);
  archive.Field("name", snapshot.name);
  archive.Field("description", snapshot.description);
  archive.Field("size_gb", snapshot.size_gb);
  archive.Field("type", snapshot.type_id);
  archive.Field("status", snapshot.status);
  archive.Field("progress_percent", snapshot.progress_percent);
  archive.Field("metadata", snapshot.metadata);
  archive.Field("created_at_us", snapshot.created_at_us);
  archive.Field("updated_at_us", snapshot.updated_at_us);
  archive.Field("holds", snapshot.holds);
}

template <typename Archive, typename Record>
  requires std::is_same_v<std::remove_const_t<Record>, AttachmentRecord>
void Fields(Archive& archive, Record& attachment) {
  archive.Field("id", attachment.id);
  archive.Field("volume", attachment.volume_id);
  archive.Field("project", attachment.project_id);
  archive.Field("instance", attachment.instance_id);
  archive.Field("host", attachment.host_name);
  archive.Field("mount_point", attachment.mount_point);
  archive.Field("status", attachment.status);
  archive.Field("read_only", attachment.read_only);
  archive.Field("legacy", attachment.legacy);
  archive.Field("secret", attachment.secret);
  archive.Field("lease_until_us", attachment.lease_until_us);
  archive.Field("created_at_us", attachment.created_at_us);
  archive.Field("attached_at_us", attachment.attached_at_us);
  archive.Field("servers", attachment.servers);
}

template <typename Archive, typename Record>
  requires std::is_same_v<std::remove_const_t<Record>, BackupRecord>
void Fields(Archive& archive, Record& backup) {
  archive.Field("id", backup.id);
  archive.Field("project", backup.project_id);
  archive.Field("user", backup.user_id);
  archive.Field("name", backup.name);
  archive.Field("description", backup.description);
  archive.Field("volume", backup.volume_id);
  archive.Field("snapshot", backup.snapshot_id);
  archive.Field("parent", backup.parent_id);
  archive.Field("container", backup.container);
  archive.Field("zone", backup.availability_zone);
  archive.Field("size_gb", backup.size_gb);
  archive.Field("status", backup.status);
  archive.Field("fail_reason", backup.fail_reason);
  archive.Field("restoring_to", backup.restoring_to);
  archive.Field("metadata", backup.metadata);
  archive.Field("bootable", backup.bootable);
  archive.Field("volume_metadata", backup.volume_metadata);
  archive.Field("image_metadata", backup.image_metadata);
  archive.Field("object_count", backup.object_count);
  archive.Field("data_timestamp_us", backup.data_timestamp_us);
  archive.Field("created_at_us", backup.created_at_us);
  archive.Field("updated_at_us", backup.updated_at_us);
  archive.Field("key", backup.key);
}

template <typename Record>
std::string EncodeRecord(const Record& record) {
  Writer writer;
  Fields(writer, record);
  return writer.Text();
}

template <typename Record>
Result<Record> DecodeRecord(std::string_view bytes, std::string_view what) {
  const Error bad(Code::kCorruption, "the record of a " + std::string(what) + " is not readable");
  const Result<Json> json = base::ParseJson(bytes);
  if (!json.has_value()) return bad;
  Reader reader(*json);
  Record record;
  Fields(reader, record);
  if (!reader.good() || record.id.empty()) return bad;
  return record;
}

}  // namespace

std::string_view VolumeStatusName(VolumeStatus status) { return NameOf(status); }
std::optional<VolumeStatus> ParseVolumeStatus(std::string_view name) {
  return Parse<VolumeStatus>(name);
}
std::string_view SnapshotStatusName(SnapshotStatus status) { return NameOf(status); }
std::optional<SnapshotStatus> ParseSnapshotStatus(std::string_view name) {
  return Parse<SnapshotStatus>(name);
}
std::string_view AttachStatusName(AttachStatus status) { return NameOf(status); }

std::string_view BackupStatusName(BackupStatus status) { return NameOf(status); }

std::string BackEndOf(const VolumeRecord& volume) {
  return volume.back_end.empty() ? std::string(kBackEndName) : volume.back_end;
}

std::optional<SourceHold> HoldOf(const VolumeRecord& volume) {
  const bool held =
      volume.source_kind == SourceKind::kSnapshot || volume.source_kind == SourceKind::kVolume;
  if (volume.status != VolumeStatus::kCreating || !held) return std::nullopt;
  return SourceHold{volume.source_kind, volume.source_id};
}
// Without a snapshot of the client's, a volume is held by its own status until one was taken.
std::optional<SourceHold> HoldOf(const BackupRecord& backup) {
  if (backup.status != BackupStatus::kCreating || backup.snapshot_id.empty()) return std::nullopt;
  return SourceHold{SourceKind::kSnapshot, backup.snapshot_id};
}

std::string Encode(const VolumeRecord& volume) { return EncodeRecord(volume); }
std::string Encode(const SnapshotRecord& snapshot) { return EncodeRecord(snapshot); }
std::string Encode(const AttachmentRecord& attachment) { return EncodeRecord(attachment); }
std::string Encode(const BackupRecord& backup) { return EncodeRecord(backup); }
Result<VolumeRecord> DecodeVolume(std::string_view bytes) {
  return DecodeRecord<VolumeRecord>(bytes, "volume");
}
Result<SnapshotRecord> DecodeSnapshot(std::string_view bytes) {
  return DecodeRecord<SnapshotRecord>(bytes, "snapshot");
}
Result<AttachmentRecord> DecodeAttachment(std::string_view bytes) {
  return DecodeRecord<AttachmentRecord>(bytes, "attachment");
}
Result<BackupRecord> DecodeBackup(std::string_view bytes) {
  return DecodeRecord<BackupRecord>(bytes, "backup");
}

}  // namespace blockd
