#include "blockd/rbd/rbd_volume.h"

#include <utility>

#include <fmt/format.h>

namespace blockd::rbd {

using base::Code;
using base::Error;
using base::Result;

Result<void> RbdVolume::Check(uint64_t offset, uint64_t length) const {
  const uint64_t size_bytes = image_->size_bytes();
  if (offset % kSectorBytes == 0 && length % kSectorBytes == 0 && offset <= size_bytes &&
      length <= size_bytes - offset)
    return {};
  return Error(Code::kInvalidArgument,
               fmt::format("{} bytes at {} are off the grid of {} bytes or beyond the end at {}",
                           length, offset, kSectorBytes, size_bytes));
}

Result<void> RbdVolume::Read(uint64_t offset, base::MutableByteView into) {
  RETURN_IF_ERROR(Check(offset, into.size()));
  return image_->Read(offset, into);
}

Result<bool> RbdVolume::TryRead(uint64_t offset, base::MutableByteView into) {
  RETURN_IF_ERROR(Check(offset, into.size()));
  return false;
}

Result<void> RbdVolume::Write(uint64_t offset, base::ByteView data) {
  RETURN_IF_ERROR(Check(offset, data.size()));
  return image_->Write(offset, data);
}

void RbdVolume::ReadAsync(uint64_t offset, base::MutableByteView into, Done done) {
  Result<void> fine = Check(offset, into.size());
  if (!fine) return done(std::move(fine));
  image_->ReadAsync(offset, into, std::move(done));
}

void RbdVolume::WriteAsync(uint64_t offset, base::ByteView data, Done done) {
  Result<void> fine = Check(offset, data.size());
  if (!fine) return done(std::move(fine));
  image_->WriteAsync(offset, data, std::move(done));
}

Result<void> RbdVolume::Zero(uint64_t offset, uint64_t length, bool free_space) {
  RETURN_IF_ERROR(Check(offset, length));
  if (length == 0) return {};
  return image_->Zero(offset, length, free_space);
}

Result<void> RbdVolume::Flush() { return image_->Flush(); }

Result<void> RbdVolume::VisitExtents(uint64_t offset, uint64_t length, const ExtentVisitor& visit) {
  RETURN_IF_ERROR(Check(offset, length));
  uint64_t at = offset;  // up to here it was told
  Extent next;           // the run that is being gathered
  bool more = true;
  const auto add = [&](uint64_t end, bool allocated) {
    if (end <= at) return;
    if (next.length > 0 && next.allocated != allocated) {
      more = more && visit(next);
      next = {};
    }
    if (next.length == 0) next = {at, 0, allocated, !allocated};
    next.length += end - at;
    at = end;
  };
  const uint64_t end = offset + length;
  RETURN_IF_ERROR(
      image_->Diff("", offset, length, true, [&](uint64_t from, uint64_t count, bool exists) {
        if (!exists) return;
        add(std::min(from, end), false);
        add(std::min(from + count, end), true);
      }));
  add(end, false);
  if (more && next.length > 0) visit(next);
  return {};
}

}  // namespace blockd::rbd
