#include "imaged/status.h"

#include <string>

namespace imaged {
namespace {

constexpr std::array<std::string_view, kStatusCount> kNames = {
    "queued",      "saving", "uploading",      "importing", "active",
    "deactivated", "killed", "pending_delete", "deleted",
};

constexpr uint32_t Bit(Status status) { return 1U << static_cast<uint32_t>(status); }

// Row by row what may follow, in the order of the enum.
constexpr std::array<uint32_t, kStatusCount> kNext = {
    /* queued */ Bit(Status::kSaving) | Bit(Status::kUploading) | Bit(Status::kImporting) |
        Bit(Status::kActive) | Bit(Status::kDeleted),
    /* saving */ Bit(Status::kActive) | Bit(Status::kKilled) | Bit(Status::kDeleted) |
        Bit(Status::kQueued),
    /* uploading */ Bit(Status::kImporting) | Bit(Status::kQueued) | Bit(Status::kDeleted),
    /* importing */ Bit(Status::kActive) | Bit(Status::kDeleted) | Bit(Status::kQueued),
    /* active */ Bit(Status::kPendingDelete) | Bit(Status::kDeleted) | Bit(Status::kDeactivated),
    /* deactivated */ Bit(Status::kActive) | Bit(Status::kDeleted),
    /* killed */ Bit(Status::kDeleted),
    /* pending_delete */ Bit(Status::kDeleted),
    /* deleted */ 0,
};

}  // namespace

std::string_view StatusName(Status status) { return kNames[static_cast<size_t>(status)]; }

std::optional<Status> ParseStatus(std::string_view name) {
  for (size_t i = 0; i < kNames.size(); ++i)
    if (kNames[i] == name) return static_cast<Status>(i);
  return std::nullopt;
}

bool MayFollow(Status from, Status to) { return (kNext[static_cast<size_t>(from)] & Bit(to)) != 0; }

base::Result<void> CheckTransition(Status from, Status to) {
  if (MayFollow(from, to)) return {};
  std::string message = "Image status transition from ";
  message.append(StatusName(from)).append(" to ").append(StatusName(to)).append(" is not allowed");
  return base::Error(base::Code::kConflict, std::move(message));
}

}  // namespace imaged
