#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

// What the Block Storage API knows of volumes, snapshots, attachments and backups: values, kept by
// the catalog (catalog.h). The bytes of a volume are VolumeStore's, those of a backup
// BackupTarget's, under the same ids.

namespace blockd {

using Metadata = std::map<std::string, std::string>;

// Cinder's statuses. The transitional ones always have something behind them that ends them: a job
// of the journal, or a lease (VolumeRecord::lease_until_us); reconcile.h.
enum class VolumeStatus : uint8_t {
  kCreating,  // job
  kAvailable,
  kReserved,   // for an attachment without a connector yet
  kAttaching,  // lease
  kInUse,
  kDetaching,    // job, or a lease (begin_detaching)
  kExtending,    // job
  kReverting,    // job
  kUploading,    // job: to an image
  kDownloading,  // job: reimage
  kRetyping,
  kBackingUp,        // job
  kRestoringBackup,  // job
  kAwaitingTransfer,
  kMaintenance,
  kDeleting,  // job
  kError,
  kErrorDeleting,
  kErrorExtending,
  kErrorRestoring,
};
std::string_view VolumeStatusName(VolumeStatus status);  // "in-use", "backing-up", ...
std::optional<VolumeStatus> ParseVolumeStatus(std::string_view name);

enum class SnapshotStatus : uint8_t { kCreating, kAvailable, kDeleting, kError, kErrorDeleting };
std::string_view SnapshotStatusName(SnapshotStatus status);  // "available", ...
std::optional<SnapshotStatus> ParseSnapshotStatus(std::string_view name);

// What a volume began as; more than one never.
enum class SourceKind : uint8_t { kNothing, kImage, kSnapshot, kVolume, kBackup };

struct VolumeRecord {
  std::string id;  // UUID with dashes, lower case
  std::string project_id;
  std::string user_id;
  std::optional<std::string> name;
  std::optional<std::string> description;
  uint64_t size_gb = 0;
  // Of an extend on its way: counted against the quota already. 0: none.
  uint64_t reserved_size_gb = 0;
  VolumeStatus status = VolumeStatus::kCreating;
  // What a job that fails or ends goes back to.
  VolumeStatus previous_status = VolumeStatus::kAvailable;
  // Of kAttaching and of kDetaching without a job: past it, the reconciler takes it back. 0: none.
  int64_t lease_until_us = 0;
  std::string type_id;  // of a volume type (type_directory.h)
  std::string availability_zone;
  SourceKind source_kind = SourceKind::kNothing;
  std::string source_id;  // of what it was made of
  bool bootable = false;
  bool read_only = false;  // set by os-update_readonly_flag
  bool multi_attach = false;
  bool thick = false;
  std::string back_end;  // that it is on; empty in records of old: the one on the chunk store
  Metadata metadata;
  Metadata image_metadata;  // volume_image_metadata
  int64_t created_at_us = 0;
  int64_t updated_at_us = 0;  // 0: never
  // What stands on it; changed in the same commit as those records.
  std::vector<std::string> attachment_ids;
  uint64_t snapshots = 0;
  uint64_t holds = 0;  // see HoldOf

  bool operator==(const VolumeRecord&) const = default;
};

// The back end that it is on, by name.
std::string BackEndOf(const VolumeRecord& volume);

struct SnapshotRecord {
  std::string id;
  std::string volume_id;
  std::string project_id;
  std::string user_id;
  std::optional<std::string> name;
  std::optional<std::string> description;
  uint64_t size_gb = 0;  // the volume's, when it was taken
  std::string type_id;   // the volume's
  SnapshotStatus status = SnapshotStatus::kCreating;
  int32_t progress_percent = 0;
  Metadata metadata;
  int64_t created_at_us = 0;
  int64_t updated_at_us = 0;  // 0: never
  uint64_t holds = 0;         // see HoldOf

  bool operator==(const SnapshotRecord&) const = default;
};

enum class AttachStatus : uint8_t { kReserved, kAttaching, kAttached, kDetaching, kErrorAttaching };
std::string_view AttachStatusName(AttachStatus status);  // "reserved", ...

struct AttachmentRecord {
  std::string id;
  std::string volume_id;
  std::string project_id;
  std::string instance_id;  // may be empty
  std::string host_name;    // from the connector
  std::string mount_point;  // "/dev/vdb"
  AttachStatus status = AttachStatus::kReserved;
  bool read_only = false;  // attach_mode "ro"
  // Made by os-initialize_connection, not by the attachments API.
  bool legacy = false;
  // The secret part of the export's name. Empty: no connector yet, or the export was withdrawn.
  std::string secret;
  int64_t lease_until_us = 0;  // of kAttaching
  int64_t created_at_us = 0;
  int64_t attached_at_us = 0;  // 0: never
  // The processes that a client reached the volume through; none where there is only one process
  // (serving.h).
  std::vector<std::string> servers;

  bool operator==(const AttachmentRecord&) const = default;
};

enum class BackupStatus : uint8_t {
  kCreating,  // job
  kAvailable,
  kRestoring,  // job, of the volume that is made of it
  kDeleting,   // job
  kError,
  kErrorDeleting,
};
std::string_view BackupStatusName(BackupStatus status);  // "available", ...

// Whatever is needed to make a volume again stands in here, since it is also kept beside the bytes:
// a service that has lost its records, or another one, finds the backup by that.
struct BackupRecord {
  std::string id;
  std::string project_id;
  std::string user_id;
  std::optional<std::string> name;
  std::optional<std::string> description;
  std::string volume_id;    // which may be gone
  std::string snapshot_id;  // that it was made of; empty: of the volume as it was
  std::string parent_id;    // that only differences were moved against; empty: a full one
  std::string container;    // as the client said; means nothing
  std::string availability_zone;
  uint64_t size_gb = 0;
  BackupStatus status = BackupStatus::kCreating;
  std::string fail_reason;   // of kError and kErrorDeleting
  std::string restoring_to;  // of kRestoring: the volume
  Metadata metadata;
  // The volume's.
  bool bootable = false;
  Metadata volume_metadata;
  Metadata image_metadata;
  // Of the bytes: how many chunks there are in all.
  uint64_t object_count = 0;
  int64_t data_timestamp_us = 0;  // when the volume was as it is in here; 0: not taken yet
  int64_t created_at_us = 0;
  int64_t updated_at_us = 0;  // 0: never
  // Proves that whoever has an exported record was given it: random, 256 bits, hex.
  std::string key;

  bool operator==(const BackupRecord&) const = default;
};

// A snapshot or volume that a record on its way is still to be made of, and that therefore isn't
// deleted: its `holds` counts these. Changed in the same commit as the status of whoever holds, so
// that no hold is ever forgotten.
struct SourceHold {
  SourceKind kind = SourceKind::kNothing;  // kSnapshot or kVolume
  std::string id;
  bool operator==(const SourceHold&) const = default;
};
std::optional<SourceHold> HoldOf(const VolumeRecord& volume);
std::optional<SourceHold> HoldOf(const BackupRecord& backup);
inline std::optional<SourceHold> HoldOf(const SnapshotRecord&) { return std::nullopt; }
inline std::optional<SourceHold> HoldOf(const AttachmentRecord&) { return std::nullopt; }

// The forms in the store: one JSON object with a version. Equal records give equal bytes, so that a
// compare-and-set by bytes is one by value. Decode: kCorruption.
std::string Encode(const VolumeRecord& volume);
std::string Encode(const SnapshotRecord& snapshot);
std::string Encode(const AttachmentRecord& attachment);
std::string Encode(const BackupRecord& backup);
base::Result<VolumeRecord> DecodeVolume(std::string_view bytes);
base::Result<SnapshotRecord> DecodeSnapshot(std::string_view bytes);
base::Result<AttachmentRecord> DecodeAttachment(std::string_view bytes);
base::Result<BackupRecord> DecodeBackup(std::string_view bytes);

}  // namespace blockd
