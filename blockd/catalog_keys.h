#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

#include "base/coding.h"
#include "base/result.h"
#include "base/uuid.h"
#include "blockd/records.h"

// The keys of the partition (catalog.h lists them), and what differs between the kinds of records.
// For the catalog's own files.

namespace blockd {

// A project's id as a part of a key: Keystone's are hex, but another identity service may have any.
std::string ProjectPart(std::string_view project_id);

inline std::string UsageKey(std::string_view project_id) { return "U/" + ProjectPart(project_id); }
inline std::string LimitsKey(std::string_view project_id) { return "Q/" + ProjectPart(project_id); }
constexpr std::string_view kClassKey = "C/default";

template <typename Record>
struct KindOf;
template <>
struct KindOf<VolumeRecord> {
  static constexpr std::string_view kName = "Volume";
  static constexpr std::string_view kRecordPrefix = "v/";
  static constexpr std::string_view kIndexPrefix = "i/v/";
  static base::Result<VolumeRecord> Decode(std::string_view bytes) { return DecodeVolume(bytes); }
};
template <>
struct KindOf<SnapshotRecord> {
  static constexpr std::string_view kName = "Snapshot";
  static constexpr std::string_view kRecordPrefix = "s/";
  static constexpr std::string_view kIndexPrefix = "i/s/";
  static base::Result<SnapshotRecord> Decode(std::string_view bytes) {
    return DecodeSnapshot(bytes);
  }
};
template <>
struct KindOf<BackupRecord> {
  static constexpr std::string_view kName = "Backup";
  static constexpr std::string_view kRecordPrefix = "b/";
  static constexpr std::string_view kIndexPrefix = "i/b/";
  static base::Result<BackupRecord> Decode(std::string_view bytes) { return DecodeBackup(bytes); }
};
template <>
struct KindOf<AttachmentRecord> {
  static constexpr std::string_view kName = "Volume attachment";
  static constexpr std::string_view kRecordPrefix = "a/";
  static constexpr std::string_view kIndexPrefix = "i/t/";
  static base::Result<AttachmentRecord> Decode(std::string_view bytes) {
    return DecodeAttachment(bytes);
  }
};

// Records that their volume counts among what stands on it.
template <typename Record>
constexpr bool kStandsOnVolume =
    std::is_same_v<Record, SnapshotRecord> || std::is_same_v<Record, AttachmentRecord>;

constexpr size_t kRecordIdBytes = 36;  // with dashes; other forms name nothing
inline bool IsRecordId(std::string_view id) {
  return id.size() == kRecordIdBytes && base::IsUuid(id);
}

template <typename Record>
base::Error NotThere(std::string_view id) {
  constexpr size_t kMaxEchoBytes = 255;
  return base::Error(base::Code::kNotFound, std::string(KindOf<Record>::kName) + " " +
                                                std::string(id.substr(0, kMaxEchoBytes)) +
                                                " could not be found.");
}

template <typename Record>
std::string KeyFor(std::string_view id) {
  return std::string(KindOf<Record>::kRecordPrefix).append(id);
}

// "i/v/a/" or "i/v/p:<project>/".
template <typename Record>
std::string ScopePrefix(const std::optional<std::string>& project_id) {
  std::string prefix(KindOf<Record>::kIndexPrefix);
  prefix += project_id.has_value() ? "p:" + ProjectPart(*project_id) : "a";
  return prefix + "/";
}

// The end of a record's keys in every scope: sorts by creation.
template <typename Record>
std::string IndexSuffix(const Record& record) {
  std::string suffix;
  base::PutOrdered64(&suffix, static_cast<uint64_t>(record.created_at_us));
  return suffix + record.id;
}

inline std::string OfVolumePrefix(std::string_view volume_id) {
  return std::string("i/o/").append(volume_id).append("/");
}

template <typename Record>
std::vector<std::string> IndexKeys(const Record& record) {
  const std::string suffix = IndexSuffix(record);
  std::vector<std::string> keys = {ScopePrefix<Record>(std::nullopt) + suffix,
                                   ScopePrefix<Record>(record.project_id) + suffix};
  if constexpr (std::is_same_v<Record, SnapshotRecord>)
    keys.push_back(OfVolumePrefix(record.volume_id) + record.id);
  return keys;
}

}  // namespace blockd
