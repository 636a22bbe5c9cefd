#include <algorithm>
#include <compare>

#include "blockd/catalog.h"
#include "blockd/catalog_keys.h"

// Pages of records. In the order that clients ask for as a rule, newest first, a page costs a page;
// any other order looks at all that the project has.

namespace blockd {
namespace {

using base::Code;
using base::Error;
using base::Result;
using Key = ListQuery::Key;

constexpr size_t kScanPage = 256;

std::strong_ordering CompareText(const std::optional<std::string>& a,
                                 const std::optional<std::string>& b) {
  if (a.has_value() != b.has_value()) return a.has_value() <=> b.has_value();
  return a.has_value() ? *a <=> *b : std::strong_ordering::equal;
}

std::string_view NameOf(VolumeStatus status) { return VolumeStatusName(status); }
std::string_view NameOf(SnapshotStatus status) { return SnapshotStatusName(status); }
std::string_view NameOf(BackupStatus status) { return BackupStatusName(status); }
std::string_view NameOf(AttachStatus status) { return AttachStatusName(status); }

// What a kind of record has no member for is compared as its id.
template <typename Record>
std::strong_ordering CompareBy(Key key, const Record& a, const Record& b) {
  switch (key) {
    case Key::kCreated:
      return a.created_at_us <=> b.created_at_us;
    case Key::kUpdated:
      if constexpr (requires { a.updated_at_us; }) return a.updated_at_us <=> b.updated_at_us;
      break;
    case Key::kName:
      if constexpr (requires { a.name; }) return CompareText(a.name, b.name);
      break;
    case Key::kStatus:
      return NameOf(a.status) <=> NameOf(b.status);
    case Key::kSize:
      if constexpr (requires { a.size_gb; }) return a.size_gb <=> b.size_gb;
      break;
    case Key::kZone:
      if constexpr (requires { a.availability_zone; })
        return a.availability_zone <=> b.availability_zone;
      break;
    case Key::kBootable:
      if constexpr (requires { a.bootable; }) return a.bootable <=> b.bootable;
      break;
    case Key::kType:
      if constexpr (requires { a.type_id; }) return a.type_id <=> b.type_id;
      break;
    case Key::kSourceId:
    case Key::kVolumeId:
      if constexpr (requires { a.volume_id; })
        return a.volume_id <=> b.volume_id;
      else
        return a.source_id <=> b.source_id;
    case Key::kId:
      break;
  }
  return a.id <=> b.id;
}

template <typename Record>
void Sort(const ListQuery& query, std::vector<Record>* records) {
  const bool ids_descend = query.sort.back().second;
  std::sort(records->begin(), records->end(), [&](const Record& a, const Record& b) {
    for (const auto& [key, descending] : query.sort) {
      const std::strong_ordering order = CompareBy(key, a, b);
      if (order != 0) return descending ? order > 0 : order < 0;
    }
    return ids_descend ? a.id > b.id : a.id < b.id;
  });
}

bool IsIndexOrder(const ListQuery& query) {
  return query.sort.empty() ||
         (query.sort.front() == std::pair(Key::kCreated, true) &&
          (query.sort.size() == 1 || query.sort[1] == std::pair(Key::kId, true)));
}

}  // namespace

template <typename Record>
Result<bool> Catalog::Walk(const std::string& prefix, std::string to,
                           const std::function<bool(Record)>& visit) {
  for (;;) {
    std::vector<std::string> keys;
    RETURN_IF_ERROR(meta_.ScanReverse(kPartition, prefix, to, kScanPage,
                                      [&](std::string_view key, std::string_view) {
                                        keys.emplace_back(key);
                                        return true;
                                      }));
    for (const std::string& key : keys) {
      if (key.size() < kRecordIdBytes) continue;
      Result<Record> record = GetRecord<Record>(key.substr(key.size() - kRecordIdBytes));
      if (!record.has_value()) {
        // It went meanwhile.
        if (record.error().code() == Code::kNotFound) continue;
        return record.error();
      }
      if (!visit(*std::move(record))) return false;
    }
    if (keys.size() < kScanPage) return true;
    to = keys.back();
  }
}

template <typename Record>
Result<std::vector<Record>> Catalog::List(const ListQuery& query,
                                          const std::function<bool(const Record&)>& accept) {
  const std::string prefix = ScopePrefix<Record>(query.project_id);
  std::string to = chunkstore::PrefixEnd(prefix);
  const bool by_index = IsIndexOrder(query);
  if (!query.marker.empty()) {
    ASSIGN_OR_RETURN(const Record marker, GetRecord<Record>(query.marker));
    if (query.project_id.has_value() && marker.project_id != *query.project_id)
      return NotThere<Record>(query.marker);
    if (by_index) to = prefix + IndexSuffix(marker);
  }
  std::vector<Record> records;
  const uint64_t wanted =
      query.offset > UINT64_MAX - query.limit ? UINT64_MAX : query.offset + query.limit;
  if (by_index && query.limit == 0) return records;
  RETURN_IF_ERROR(Walk<Record>(prefix, std::move(to), [&](Record record) {
    if (!accept || accept(record)) records.push_back(std::move(record));
    return !by_index || records.size() < wanted;
  }));
  if (!by_index) {
    Sort(query, &records);
    if (!query.marker.empty()) {
      const auto at = std::find_if(records.begin(), records.end(),
                                   [&](const Record& record) { return record.id == query.marker; });
      if (at == records.end()) return NotThere<Record>(query.marker);
      records.erase(records.begin(), at + 1);
    }
  }
  records.erase(records.begin(), records.begin() + static_cast<std::ptrdiff_t>(std::min<uint64_t>(
                                                       query.offset, records.size())));
  if (records.size() > query.limit) records.resize(query.limit);
  return records;
}

Result<std::vector<VolumeRecord>> Catalog::ListVolumes(
    const ListQuery& query, const std::function<bool(const VolumeRecord&)>& accept) {
  return List<VolumeRecord>(query, accept);
}
Result<std::vector<SnapshotRecord>> Catalog::ListSnapshots(
    const ListQuery& query, const std::function<bool(const SnapshotRecord&)>& accept) {
  return List<SnapshotRecord>(query, accept);
}
Result<std::vector<AttachmentRecord>> Catalog::ListAttachments(
    const ListQuery& query, const std::function<bool(const AttachmentRecord&)>& accept) {
  return List<AttachmentRecord>(query, accept);
}

Result<std::vector<BackupRecord>> Catalog::ListBackups(
    const ListQuery& query, const std::function<bool(const BackupRecord&)>& accept) {
  return List<BackupRecord>(query, accept);
}

Result<std::vector<SnapshotRecord>> Catalog::SnapshotsOf(std::string_view volume_id) {
  std::vector<SnapshotRecord> snapshots;
  const std::string prefix = OfVolumePrefix(volume_id);
  RETURN_IF_ERROR(
      Walk<SnapshotRecord>(prefix, chunkstore::PrefixEnd(prefix), [&](SnapshotRecord snapshot) {
        snapshots.push_back(std::move(snapshot));
        return true;
      }));
  std::reverse(snapshots.begin(), snapshots.end());
  return snapshots;
}

}  // namespace blockd
