#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "base/auth/caller.h"
#include "base/clock.h"
#include "base/http/router.h"
#include "base/result.h"
#include "blockd/api/route.h"
#include "chunkstore/chunk_store.h"
#include "controlplane/snapshot_lookup.h"
#include "imaged/catalog.h"

namespace controlplane {

// Runs on a page of an answer: what a client gets that does not say, and the most it may ask for.
constexpr uint64_t kChangedRuns = 1000;
constexpr uint64_t kMaxChangedRuns = 10'000;
// A page ends early where it has so many chunks that differ (those of 1 TiB), however few runs they
// make: so its cost has a bound.
constexpr uint64_t kMaxChangedChunks = 262'144;
// How long a page's token leads on.
constexpr int64_t kPageTokenMs = 60 * 60'000;

// What is different in an image or snapshot since another one, for backup tools: one comparison of
// maps behind a route of either API. Any two that the caller may read, with or without a common
// past. To the chunk (4 MiB); costs what differs. API.md of imaged says what a client sees.
//
// A page's token says where the next page begins and until when it may be asked for. It is bound to
// both contents by an HMAC under their roots, so it leads nowhere else, on any server, after any
// restart; and it is no capability: both sides are looked up, and the caller's rights with them,
// for every page.
//
// Thread-safe. Routes borrow this.
class ChangedBlocks {
 public:
  // Borrowed; they outlive it.
  struct Parts {
    chunkstore::ChunkStore& store;
    imaged::Catalog& images;
    SnapshotLookup snapshots;
    const base::Clock& clock;
    uint64_t page_chunks = kMaxChangedChunks;
  };
  explicit ChangedBlocks(const Parts& parts) : parts_(parts) {}

  // GET /v2/images/{image_id}/changed, for the Image API.
  base::http::Route ImageRoute();
  // GET /snapshots/{snapshot_id}/changed, for the Block Storage API.
  blockd::api::Route SnapshotRoute();

 private:
  using Root = chunkstore::Root;
  enum class Kind : uint8_t { kImage, kSnapshot };
  struct Sides {
    Root now;
    std::optional<Root> then;  // nothing: compared with zeros
  };
  // kNotFound, also for what the caller may not see; kPermissionDenied for an image that is
  // deactivated; kConflict and kInvalidArgument for what has no bytes yet; kUnavailable for a
  // snapshot that is still being put into the chunk store.
  base::Result<Root> Find(const base::auth::Caller& caller, Kind kind, std::string_view id);
  base::Result<Root> FindEither(const base::auth::Caller& caller, std::string_view id);
  base::Result<Sides> FindSides(const base::auth::Caller& caller, Kind kind, std::string_view id,
                                std::optional<std::string_view> since);
  base::Result<uint64_t> PlaceOf(std::string_view token, const Sides& sides);
  base::Result<base::http::Response> Answer(const base::auth::Caller& caller, Kind kind,
                                            std::string_view id,
                                            const base::http::Request& request);

  const Parts parts_;
};

}  // namespace controlplane
