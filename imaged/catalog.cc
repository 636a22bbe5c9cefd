#include "imaged/catalog.h"

#include <algorithm>
#include <charconv>
#include <functional>
#include <utility>

#include "base/check.h"
#include "base/uuid.h"
#include "imaged/index.h"

namespace imaged {
namespace {

using base::Code;
using base::Error;
using base::Result;
using chunkstore::MetaBatch;

constexpr size_t kIdBytes = 36;  // with dashes; other forms name nothing

Error NotFound(std::string_view id) {
  return Error(Code::kNotFound, "No image found with ID " + std::string(id));
}

std::string Lower(std::string_view text) {
  std::string lower(text);
  for (char& c : lower)
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
  return lower;
}

// "<image id> <lease until, microseconds>".
std::string EncodeUploadEntry(const Image& image) {
  return image.id + " " + std::to_string(image.upload->lease_until_us);
}
Result<std::pair<std::string, int64_t>> DecodeUploadEntry(std::string_view value) {
  const size_t space = value.find(' ');
  int64_t lease_until_us = 0;
  if (space != std::string_view::npos) {
    const std::string_view digits = value.substr(space + 1);
    const auto parsed =
        std::from_chars(digits.data(), digits.data() + digits.size(), lease_until_us);
    if (parsed.ec == std::errc())
      return std::make_pair(std::string(value.substr(0, space)), lease_until_us);
  }
  return Error(Code::kCorruption, "the entry of an upload on its way is not readable");
}

void ChangeIndex(const Image* before, const Image* after, MetaBatch* batch) {
  const std::vector<std::string> old_keys =
      before == nullptr ? std::vector<std::string>() : IndexKeys(*before);
  const std::vector<std::string> new_keys =
      after == nullptr ? std::vector<std::string>() : IndexKeys(*after);
  for (const std::string& key : old_keys)
    if (!std::binary_search(new_keys.begin(), new_keys.end(), key)) batch->Delete(key);
  for (const std::string& key : new_keys)
    if (!std::binary_search(old_keys.begin(), old_keys.end(), key)) batch->Put(key, "");
}

// The entry outlives its image: recovery, or the uploader who finds the image gone, takes it away.
void ChangeUploadEntry(const Image* before, const Image* after, MetaBatch* batch) {
  if (after == nullptr) return;
  if (before != nullptr && before->upload.has_value() &&
      (!after->upload.has_value() || after->upload->holder != before->upload->holder))
    batch->Delete(UploadKey(before->upload->holder));
  if (after->upload.has_value())
    batch->Put(UploadKey(after->upload->holder), EncodeUploadEntry(*after));
}

Status StatusDuring(UploadKind kind) {
  switch (kind) {
    case UploadKind::kData:
      return Status::kSaving;
    case UploadKind::kStage:
      return Status::kUploading;
    case UploadKind::kImport:
      break;
  }
  return Status::kImporting;
}

bool IsUploading(const Image& image, std::string_view holder) {
  return image.upload.has_value() && image.upload->holder == holder;
}

Error CalledOff(std::string_view id) {
  return Error(Code::kNotFound, "Image " + std::string(id) +
                                    " could not be found after upload. The image may have been "
                                    "deleted during the upload.");
}

}  // namespace

Catalog::Catalog(chunkstore::MetaStore& meta, const base::Clock& clock, QuotaLimits limits)
    : meta_(meta), clock_(clock), limits_(limits) {}

base::Mutex& Catalog::StripeOf(std::string_view project_id) {
  return stripes_[std::hash<std::string_view>()(project_id) % kStripes];
}

Result<Catalog::Stored> Catalog::Load(std::string_view id) {
  if (id.size() != kIdBytes || !base::IsUuid(id)) return NotFound(id);
  Result<std::string> bytes = meta_.Get(kImagesPartition, RecordKey(Lower(id)));
  if (!bytes.has_value()) {
    if (bytes.error().code() == Code::kNotFound) return NotFound(id);
    return bytes.error().Annotate("read the record of image " + std::string(id));
  }
  Result<Image> image = DecodeImage(*bytes);
  if (!image.has_value()) return image.error().Annotate("image " + std::string(id));
  return Stored{*std::move(image), *std::move(bytes)};
}

Result<Image> Catalog::Get(std::string_view id) {
  ASSIGN_OR_RETURN(Stored stored, Load(id));
  return std::move(stored.image);
}

Result<void> Catalog::ChangeProject(std::string_view project_id, const Usage& before,
                                    const Usage& after, MetaBatch* batch) {
  if (project_id.empty() || before == after) return {};
  std::string key = UsageKey(project_id);
  Result<std::string> bytes = meta_.Get(kImagesPartition, key);
  Usage used;
  if (bytes.has_value()) {
    ASSIGN_OR_RETURN(used, DecodeUsage(*bytes));
    batch->ExpectValue(key, *bytes);
  } else if (bytes.error().code() == Code::kNotFound) {
    batch->ExpectAbsent(key);
  } else {
    return bytes.error();
  }
  ASSIGN_OR_RETURN(const Usage changed, ChangeUsage(limits_, used, before, after));
  if (changed == Usage())
    batch->Delete(std::move(key));
  else
    batch->Put(std::move(key), EncodeUsage(changed));
  return {};
}

Result<void> Catalog::AddUsage(const Image* before, const Image* after, MetaBatch* batch) {
  const Usage old_usage = before == nullptr ? Usage() : UsageOf(*before);
  const Usage new_usage = after == nullptr ? Usage() : UsageOf(*after);
  if (before != nullptr && after != nullptr && before->owner == after->owner)
    return ChangeProject(before->owner, old_usage, new_usage, batch);
  if (before != nullptr) RETURN_IF_ERROR(ChangeProject(before->owner, old_usage, Usage(), batch));
  if (after != nullptr) RETURN_IF_ERROR(ChangeProject(after->owner, Usage(), new_usage, batch));
  return {};
}

Result<bool> Catalog::CommitOnce(const Stored* before, const Image* after,
                                 const std::vector<std::string>& releases) {
  const Image* old_image = before == nullptr ? nullptr : &before->image;
  std::string key = RecordKey(after == nullptr ? old_image->id : after->id);
  MetaBatch batch;
  if (before == nullptr)
    batch.ExpectAbsent(key).ExpectAbsent(DeletedKey(after->id));
  else
    batch.ExpectValue(key, before->bytes);
  const Result<void> counted = AddUsage(old_image, after, &batch);
  if (!counted.has_value()) {
    // What was read may be of before another process changed it, and the usage of after that.
    const Result<std::string> now = meta_.Get(kImagesPartition, key);
    const bool lost = before != nullptr && (!now.has_value() || *now != before->bytes);
    return lost ? Result<bool>(false) : counted.error();
  }
  ChangeIndex(old_image, after, &batch);
  ChangeUploadEntry(old_image, after, &batch);
  const std::string since = std::to_string(clock_.NowUs());
  for (const std::string& holder : releases) batch.Put(ReleaseKey(holder), since);
  if (after == nullptr)
    batch.Put(DeletedKey(old_image->id), "").Delete(TraceKey(old_image->id)).Delete(std::move(key));
  else
    batch.Put(std::move(key), EncodeImage(*after));
  Result<void> committed = meta_.Commit(kImagesPartition, batch);
  if (committed.has_value()) return true;
  if (committed.error().code() == Code::kConflict) return false;
  return committed.error().Annotate("write the image's record");
}

Result<Image> Catalog::Create(Image image) {
  CHECK(image.id.size() == kIdBytes && base::IsUuid(image.id));
  image.id = Lower(image.id);
  image.created_at_us = clock_.NowUs();
  image.updated_at_us = image.created_at_us;
  for (int attempt = 0; attempt < kMaxAttempts; ++attempt) {
    Result<bool> done = false;
    {
      base::MutexLock lock(StripeOf(image.owner));
      done = CommitOnce(nullptr, &image, {});
    }
    if (!done.has_value()) return done.error();
    if (*done) {
      RETURN_IF_ERROR(meta_.Sync());
      return image;
    }
    // Either the id is taken, or the project's usage changed meanwhile.
    ASSIGN_OR_RETURN(const bool was_deleted, WasDeleted(image.id));
    if (was_deleted || Load(image.id).has_value())
      return Error(Code::kAlreadyExists, "Image ID " + image.id + " already exists!");
  }
  return Error(Code::kUnavailable, "too many changes to this project's images at once; try again");
}

Result<bool> Catalog::WasDeleted(std::string_view id) {
  const Result<std::string> entry = meta_.Get(kImagesPartition, DeletedKey(id));
  if (!entry.has_value() && entry.error().code() != Code::kNotFound) return entry.error();
  return entry.has_value();
}

Result<Image> Catalog::Apply(std::string_view id, bool touch, const Step& step) {
  ASSIGN_OR_RETURN(const Stored first, Load(id));
  base::MutexLock lock(StripeOf(first.image.owner));
  for (int attempt = 0; attempt < kMaxAttempts; ++attempt) {
    ASSIGN_OR_RETURN(const Stored stored, Load(id));
    Image changed = stored.image;
    ASSIGN_OR_RETURN(const Outcome outcome, step(changed));
    if (!outcome.remove && changed == stored.image && outcome.releases.empty()) return changed;
    // Never the same twice: clients and tests tell changes apart by it.
    if (touch) changed.updated_at_us = std::max(clock_.NowUs(), stored.image.updated_at_us + 1);
    ASSIGN_OR_RETURN(const bool done,
                     CommitOnce(&stored, outcome.remove ? nullptr : &changed, outcome.releases));
    if (done) return changed;
  }
  return Error(Code::kUnavailable, "too many changes to this image at once; try again");
}

Result<Image> Catalog::ApplyDurably(std::string_view id, bool touch, const Step& step) {
  ASSIGN_OR_RETURN(Image image, Apply(id, touch, step));
  RETURN_IF_ERROR(meta_.Sync());
  return image;
}

Result<Image> Catalog::Update(std::string_view id, const Change& change) {
  return ApplyDurably(id, true, [&](Image& image) -> Result<Outcome> {
    RETURN_IF_ERROR(change(image));
    return Outcome{};
  });
}

Result<Image> Catalog::Delete(std::string_view id, const Check& check) {
  return ApplyDurably(id, false, [&](Image& image) -> Result<Outcome> {
    RETURN_IF_ERROR(check(image));
    Outcome outcome;
    outcome.remove = true;
    if (image.data.has_value()) outcome.releases.push_back(image.data->holder);
    if (image.staged.has_value()) outcome.releases.push_back(image.staged->holder);
    if (image.raw.has_value()) outcome.releases.push_back(image.raw->holder);
    return outcome;
  });
}

Result<Image> Catalog::BeginUpload(std::string_view id, UploadKind kind, std::string_view holder,
                                   int64_t lease_ms, uint64_t reserve_bytes, const Check& check,
                                   std::string_view keep_for) {
  return ApplyDurably(id, true, [&](Image& image) -> Result<Outcome> {
    RETURN_IF_ERROR(check(image));
    const Status next = StatusDuring(kind);
    RETURN_IF_ERROR(CheckTransition(image.status, next));
    if (image.upload.has_value())
      return Error(Code::kConflict, "Image " + image.id + " is being uploaded already");
    image.status = next;
    image.upload = Upload{kind, std::string(holder), clock_.NowUs() + lease_ms * 1000,
                          reserve_bytes, std::string(keep_for)};
    return Outcome{};
  });
}

Result<void> Catalog::RenewUpload(std::string_view id, std::string_view holder, int64_t lease_ms,
                                  uint64_t reserve_bytes) {
  Result<Image> renewed = Apply(id, false, [&](Image& image) -> Result<Outcome> {
    if (!IsUploading(image, holder)) return CalledOff(id);
    Upload& upload = *image.upload;
    upload.lease_until_us = std::max(upload.lease_until_us, clock_.NowUs() + lease_ms * 1000);
    upload.reserved_bytes = std::max(upload.reserved_bytes, reserve_bytes);
    return Outcome{};
  });
  if (!renewed.has_value()) return renewed.error();
  return {};
}

Result<Image> Catalog::FinishUpload(std::string_view id, std::string_view holder,
                                    std::string_view data_holder, const DataFacts& facts) {
  return ApplyDurably(id, true, [&](Image& image) -> Result<Outcome> {
    // The answer to an earlier try was lost, and not the commit: holders are never used twice.
    if (image.data.has_value() && image.data->holder == data_holder) return Outcome{};
    if (!IsUploading(image, holder)) return CalledOff(id);
    RETURN_IF_ERROR(CheckTransition(image.status, Status::kActive));
    Outcome outcome;
    if (holder != data_holder) outcome.releases.emplace_back(holder);
    if (image.staged.has_value() && image.staged->holder != data_holder)
      outcome.releases.push_back(image.staged->holder);
    image.status = Status::kActive;
    image.upload.reset();
    image.staged.reset();
    image.data = StoredData{std::string(data_holder), facts.root};
    image.size_bytes = facts.root.size_bytes;
    image.virtual_size_bytes = facts.virtual_size_bytes;
    image.checksum = facts.checksum;
    image.os_hash_algo = facts.os_hash_algo;
    image.os_hash_value = facts.os_hash_value;
    image.stores = facts.stores;
    return outcome;
  });
}

Result<Image> Catalog::FinishStage(std::string_view id, std::string_view holder,
                                   const chunkstore::Root& root) {
  return ApplyDurably(id, true, [&](Image& image) -> Result<Outcome> {
    if (!IsUploading(image, holder)) return CalledOff(id);
    CHECK(image.upload->kind == UploadKind::kStage);
    image.upload.reset();
    image.staged = StoredData{std::string(holder), root};
    return Outcome{};
  });
}

Result<bool> Catalog::FailUpload(std::string_view id, std::string_view holder,
                                 const Change& change) {
  return EndUpload(id, holder, std::nullopt, change);
}

Result<bool> Catalog::FailExpiredUpload(std::string_view id, std::string_view holder,
                                        int64_t now_us) {
  return EndUpload(id, holder, now_us, nullptr);
}

Result<bool> Catalog::EndUpload(std::string_view id, std::string_view holder,
                                std::optional<int64_t> expired_by_us, const Change& change) {
  bool lives = false;
  Result<Image> failed = ApplyDurably(id, true, [&](Image& image) -> Result<Outcome> {
    if (!IsUploading(image, holder)) return CalledOff(id);
    lives = expired_by_us.has_value() && image.upload->lease_until_us >= *expired_by_us;
    if (lives) return Outcome{};
    RETURN_IF_ERROR(CheckTransition(image.status, Status::kQueued));
    Outcome outcome;
    outcome.releases.emplace_back(holder);
    if (image.staged.has_value()) outcome.releases.push_back(image.staged->holder);
    image.status = Status::kQueued;
    image.upload.reset();
    image.staged.reset();
    if (change) RETURN_IF_ERROR(change(image));
    return outcome;
  });
  if (failed.has_value()) return !lives;
  if (failed.error().code() != Code::kNotFound) return failed.error();
  // The image is gone or past this upload. The entry says whether the holder still waits for us; it
  // may be the image's data by now, if the upload did finish: then there is no entry.
  Result<std::string> entry = meta_.Get(kImagesPartition, UploadKey(holder));
  if (!entry.has_value()) {
    if (entry.error().code() == Code::kNotFound) return false;
    return entry.error();
  }
  MetaBatch batch;
  batch.ExpectValue(UploadKey(holder), *entry)
      .Delete(UploadKey(holder))
      .Put(ReleaseKey(holder), std::to_string(clock_.NowUs()));
  const Result<void> done = chunkstore::CommitDurably(meta_, kImagesPartition, batch);
  // Another process was faster.
  if (!done.has_value() && done.error().code() != Code::kConflict) return done.error();
  return false;
}

Result<bool> Catalog::SetDigests(std::string_view id, const chunkstore::Root& root,
                                 const DataFacts& facts) {
  bool same = false;
  Result<Image> image = ApplyDurably(id, false, [&](Image& changed) -> Result<Outcome> {
    same = changed.data.has_value() && changed.data->root == root;
    if (!same) return Outcome{};
    if (facts.checksum.has_value()) changed.checksum = facts.checksum;
    if (facts.os_hash_algo.has_value()) changed.os_hash_algo = facts.os_hash_algo;
    if (facts.os_hash_value.has_value()) changed.os_hash_value = facts.os_hash_value;
    return Outcome{};
  });
  if (image.has_value()) return same;
  if (image.error().code() == Code::kNotFound) return false;
  return image.error();
}

Result<bool> Catalog::SetRaw(std::string_view id, const chunkstore::Root& data,
                             const StoredData& raw, uint64_t raw_bytes) {
  bool set = false;
  Result<Image> image = ApplyDurably(id, false, [&](Image& changed) -> Result<Outcome> {
    set = changed.data.has_value() && changed.data->root == data && !changed.raw.has_value();
    if (set) {
      changed.raw = raw;
      changed.raw_bytes = raw_bytes;
    }
    return Outcome{};
  });
  if (image.has_value()) return set;
  if (image.error().code() == Code::kNotFound) return false;
  return image.error();
}

Result<std::vector<UploadInFlight>> Catalog::ExpiredUploads(int64_t now_us, std::string_view after,
                                                            size_t limit) {
  std::vector<UploadInFlight> expired;
  Result<void> bad;
  const std::string from = after.empty() ? std::string(kUploadPrefix) : UploadKey(after) + '\0';
  auto visit = [&](std::string_view key, std::string_view value) {
    auto entry = DecodeUploadEntry(value);
    if (!entry.has_value()) {
      bad = entry.error();
      return false;
    }
    if (entry->second < now_us)
      expired.push_back({std::move(entry->first), std::string(key.substr(kUploadPrefix.size()))});
    return expired.size() < limit;
  };
  RETURN_IF_ERROR(meta_.Scan(kImagesPartition, from, chunkstore::PrefixEnd(kUploadPrefix),
                             std::numeric_limits<size_t>::max(), visit));
  RETURN_IF_ERROR(bad);
  return expired;
}

Result<Usage> Catalog::UsageOfProject(std::string_view project_id) {
  Result<std::string> bytes = meta_.Get(kImagesPartition, UsageKey(project_id));
  if (bytes.has_value()) return DecodeUsage(*bytes);
  if (bytes.error().code() == Code::kNotFound) return Usage();
  return bytes.error();
}

}  // namespace imaged
