#include "blockd/remote/derived_volume.h"

#include <algorithm>
#include <utility>

#include "base/log.h"

namespace blockd::remote {

using base::ByteView;
using base::Code;
using base::Error;
using base::MutableByteView;
using base::Result;

namespace {

constexpr uint32_t kChanged = 1 << 0;  // of the context's flags
// What is unchanged between two changed runs is read with them if it is shorter: one request
// instead of two.
constexpr uint64_t kMinGapBytes = 64 * base::kKiB;

}  // namespace

std::string ChangedSinceImage(const std::string& image_id, const std::string& data_name) {
  return "quarry:changed-since-image/" + image_id + (data_name.empty() ? "" : "/" + data_name);
}

DerivedVolume::DerivedVolume(std::shared_ptr<Volume> origin, std::shared_ptr<RemoteVolume> remote)
    : origin_(std::move(origin)),
      remote_(std::move(remote)),
      changed_(std::min(origin_->size_bytes(), remote_->size_bytes()), kMaxChangedMapBytes) {}

Result<std::shared_ptr<DerivedVolume>> DerivedVolume::Open(std::shared_ptr<Volume> origin,
                                                           std::shared_ptr<RemoteVolume> remote) {
  std::shared_ptr<DerivedVolume> volume(new DerivedVolume(std::move(origin), std::move(remote)));
  uint64_t at = 0;
  RETURN_IF_ERROR(volume->remote_->VisitContext(0, volume->changed_.size_bytes(),
                                                [&](uint64_t length, uint32_t flags) {
                                                  if ((flags & kChanged) != 0)
                                                    volume->changed_.Mark(at, length);
                                                  at += length;
                                                  return true;
                                                }));
  return volume;
}

Result<void> DerivedVolume::CheckRange(uint64_t offset, uint64_t length) const {
  const uint64_t size = size_bytes();
  const bool on_grid = offset % kSectorBytes == 0 && length % kSectorBytes == 0;
  if (on_grid && offset <= size && length <= size - offset) return {};
  return Error(Code::kInvalidArgument, "not whole sectors inside of the volume");
}

// Every byte of the range is in one of the two afterwards.
DerivedVolume::Plan DerivedVolume::PlanRead(uint64_t offset, MutableByteView into) const {
  Plan plan;
  while (!into.empty()) {
    const ChangedMap::Run run = changed_.RunAt(offset, into.size());
    const MutableByteView here = into.first(run.length);
    into = into.subspan(run.length);
    std::vector<Part>& remote = plan.remote;
    const bool goes_on =
        !remote.empty() && remote.back().offset + remote.back().into.size() == offset;
    const bool gap = goes_on && run.length < kMinGapBytes && !into.empty();
    if (!run.changed && !gap) {
      plan.origin.push_back({offset, here});
    } else if (goes_on) {
      MutableByteView& last = remote.back().into;
      last = MutableByteView(last.data(), last.size() + here.size());
    } else {
      remote.push_back({offset, here});
    }
    offset += run.length;
  }
  return plan;
}

Result<void> DerivedVolume::Read(uint64_t offset, MutableByteView into) {
  RETURN_IF_ERROR(CheckRange(offset, into.size()));
  Plan plan = PlanRead(offset, into);
  for (const Part& part : plan.origin) {
    const Result<void> read = origin_->Read(part.offset, part.into);
    if (read.has_value()) {
      origin_bytes_.fetch_add(part.into.size());
      if (failing_.load()) failing_.store(false);
      continue;
    }
    failed_over_.fetch_add(1);
    if (!failing_.exchange(true)) {
      LOG(kWarn, "remote",
          "the image of a volume can't be read here, so the volume's server is: {}",
          read.error().ToString());
    }
    plan.remote.push_back(part);
  }
  if (plan.remote.empty()) return {};
  RETURN_IF_ERROR(remote_->ReadParts(plan.remote));
  for (const Part& part : plan.remote) remote_bytes_.fetch_add(part.into.size());
  return {};
}

Result<bool> DerivedVolume::TryRead(uint64_t offset, MutableByteView into) {
  RETURN_IF_ERROR(CheckRange(offset, into.size()));
  const ChangedMap::Run run = changed_.RunAt(offset, into.size());
  if (run.changed || run.length < into.size()) return false;
  const Result<bool> read = origin_->TryRead(offset, into);
  if (!read.has_value() || !*read) return false;  // Read will find another way
  origin_bytes_.fetch_add(into.size());
  return true;
}

Result<void> DerivedVolume::Write(uint64_t offset, ByteView data) {
  RETURN_IF_ERROR(CheckRange(offset, data.size()));
  changed_.Mark(offset, data.size());
  return remote_->Write(offset, data);
}

Result<void> DerivedVolume::Zero(uint64_t offset, uint64_t length, bool free_space) {
  RETURN_IF_ERROR(CheckRange(offset, length));
  changed_.Mark(offset, length);
  return remote_->Zero(offset, length, free_space);
}

void DerivedVolume::Prefetch(uint64_t offset, uint64_t length) {
  if (!CheckRange(offset, length).has_value()) return;
  while (length > 0) {
    const ChangedMap::Run run = changed_.RunAt(offset, length);
    if (!run.changed) origin_->Prefetch(offset, run.length);
    offset += run.length;
    length -= run.length;
  }
}

DerivedVolume::Counts DerivedVolume::counts() const {
  return {origin_bytes_.load(), remote_bytes_.load(), failed_over_.load()};
}

uint64_t DerivedVolume::changed_bytes() const { return changed_.CountChangedBytes(); }

}  // namespace blockd::remote
