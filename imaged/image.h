#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "chunkstore/chunk_store.h"
#include "imaged/status.h"

// The record of one image: everything that the Image API shows of it, and where its bytes are. A
// value; the catalog (catalog.h) keeps it.

namespace imaged {

enum class Visibility : uint8_t { kPrivate, kShared, kCommunity, kPublic };
std::string_view VisibilityName(Visibility visibility);  // "private", ...
std::optional<Visibility> ParseVisibility(std::string_view name);

enum class MemberStatus : uint8_t { kPending, kAccepted, kRejected };
std::string_view MemberStatusName(MemberStatus status);  // "pending", ...
std::optional<MemberStatus> ParseMemberStatus(std::string_view name);

// A project that an image is shared with.
struct Member {
  std::string project_id;
  MemberStatus status = MemberStatus::kPending;
  int64_t created_at_us = 0;
  int64_t updated_at_us = 0;
  bool operator==(const Member&) const = default;
};

// Bytes that a holder of the chunk store keeps for this image.
struct StoredData {
  std::string holder;  // as holder.h names them
  chunkstore::Root root;
  bool operator==(const StoredData&) const = default;
};

// What is filling the image now. Whoever began it renews the lease; once it has run out, anybody
// may call it off (Catalog::FailUpload with the same holder).
enum class UploadKind : uint8_t {
  kData,    // PUT .../file: status saving
  kStage,   // PUT .../stage: status uploading
  kImport,  // POST .../import: status importing
};
struct Upload {
  UploadKind kind = UploadKind::kData;
  std::string holder;  // in the chunk store; what it holds is nobody's yet
  int64_t lease_until_us = 0;
  uint64_t reserved_bytes = 0;  // counted against the owner's quota meanwhile
  std::string keep_for;  // the project that a part is kept for if it breaks off; empty: none is
  bool operator==(const Upload&) const = default;
};

struct Image {
  std::string id;  // UUID with dashes, lower case
  std::optional<std::string> name;
  std::string owner;  // project id; empty: nobody's
  Status status = Status::kQueued;
  Visibility visibility = Visibility::kShared;
  bool is_protected = false;
  bool is_hidden = false;
  int32_t min_disk_gb = 0;
  int32_t min_ram_mb = 0;
  std::optional<std::string> disk_format;
  std::optional<std::string> container_format;

  // Known once the image is active (virtual_size where the format tells it).
  std::optional<uint64_t> size_bytes;
  std::optional<uint64_t> virtual_size_bytes;
  std::optional<std::string> checksum;  // MD5, hex
  std::optional<std::string> os_hash_algo;
  std::optional<std::string> os_hash_value;  // hex
  std::vector<std::string> stores;           // ids as /v2/info/stores names them

  int64_t created_at_us = 0;
  int64_t updated_at_us = 0;
  std::vector<std::string> tags;  // sorted, each once
  // Custom properties, and the reserved ones ("os_glance_...") that only the service sets. Some may
  // be null.
  std::map<std::string, std::optional<std::string>, std::less<>> properties;
  std::vector<Member> members;  // by project id

  std::optional<StoredData> data;    // of an active or deactivated image
  std::optional<StoredData> staged;  // lies ready for an import (glance-direct)
  // The disk that `data` describes, byte for byte: made when a volume is first wanted of an image
  // that is not raw. Clients of the Image API never see it.
  std::optional<StoredData> raw;
  uint64_t raw_bytes = 0;        // of its chunks, without holes: counts as the image's bytes do
  std::optional<Upload> upload;  // on its way

  const Member* FindMember(std::string_view project_id) const;
  Member* FindMember(std::string_view project_id);
  bool operator==(const Image&) const = default;
};

// The form in the store: one JSON object with a version. Encode is a function of the value: equal
// images give equal bytes, so that a compare-and-set by bytes is one by value.
std::string EncodeImage(const Image& image);
// kCorruption.
base::Result<Image> DecodeImage(std::string_view bytes);

// Names that begin so are the service's own: clients read, but never write them.
constexpr std::string_view kReservedPrefix = "os_glance_";
bool IsReservedProperty(std::string_view name);

}  // namespace imaged
