#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string_view>

#include "base/result.h"

// The life of an image, as Glance's clients know it: one closed set and one table of what may
// follow what.

namespace imaged {

enum class Status : uint8_t {
  kQueued,         // a record, no bytes
  kSaving,         // PUT .../file is on its way
  kUploading,      // bytes are being staged, or lie staged and wait for an import
  kImporting,      // an import works on it
  kActive,         // bytes are there and visible
  kDeactivated,    // the bytes are there, only an administrator gets them
  kKilled,         // not made by us; old records may have it
  kPendingDelete,  // likewise
  kDeleted,        // never stored: a deleted image has no record
};
constexpr size_t kStatusCount = 9;

// "queued", "pending_delete", ...
std::string_view StatusName(Status status);
std::optional<Status> ParseStatus(std::string_view name);

// True if the table lets `to` follow `from`.
bool MayFollow(Status from, Status to);

// kConflict with Glance's sentence: "Image status transition from active to saving is not allowed".
base::Result<void> CheckTransition(Status from, Status to);

}  // namespace imaged
