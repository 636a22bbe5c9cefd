#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "base/result.h"

// What volumes on RBD keep in the MetaStore: one partition a pool and namespace, so that every
// change is one commit. Values are JSON. Several processes read and change them side by side; none
// remembers them.
//
//   v/<volume>    {"image": name, "size": bytes}
//   s/<snapshot>  {"volume": id, "point": id, "size": bytes}
//   p/<point>     PointRecord
//   i/<image>     ImageRecord
//   c/<root>      ParentRecord
//   u/<volume>    ClaimRecord
//   o/<session>   {"expires": us}
//
// and marks of work to do, each put in the commit that makes it due (Mark):
//
//   g/<image>     being made, or to be removed
//   d/<image>     RBD snapshots of it may not be needed any more; a random value
//   t/<point>     held by a session (PointRecord::session)
//   q/<point>     to be sealed; {"session", "holder"}: somebody is at it
//   h/<holder>    of the chunk store, to be released

namespace blockd::rbd {

struct VolumeRecord {
  static constexpr std::string_view kPrefix = "v/";
  std::string image;
  uint64_t size_bytes = 0;
};

struct SnapshotRecord {
  static constexpr std::string_view kPrefix = "s/";
  std::string volume;
  std::string point;
  uint64_t size_bytes = 0;
};

// A state that never changes: an RBD snapshot named for the point, a content of the chunk store, or
// both. Goes with its last use.
struct PointRecord {
  static constexpr std::string_view kPrefix = "p/";
  std::string image;
  bool snap = false;  // the image has the RBD snapshot
  uint64_t size_bytes = 0;
  std::string holder;   // of the content, once it is sealed
  std::string session;  // that takes it and still needs it: a use
  uint64_t uses = 0;    // by snapshots, images (base, tip), parents, a session
};

enum class ImageState { kMaking, kReady, kGoing };

// An RBD image. Goes when neither a volume nor a point is on it.
struct ImageRecord {
  static constexpr std::string_view kPrefix = "i/";
  ImageState state = ImageState::kMaking;
  std::string session;  // that makes it
  std::string volume;   // that reads and writes it; empty: none (any more)
  std::string base;     // the point that it began as; empty: zeros
  std::string tip;      // its newest sealed point: what the next is compared with
  std::string root;     // the content whose parent it is; empty: a volume's
  uint64_t points = 0;  // with RBD snapshots on it
};

// The image that volumes of one content are clones of.
struct ParentRecord {
  static constexpr std::string_view kPrefix = "c/";
  std::string point;    // empty: being filled
  std::string image;    // of that
  std::string holder;   // of that
  std::string session;  // that fills it
  int64_t used_us = 0;
};

// Who has a volume: there is one at a time.
struct ClaimRecord {
  static constexpr std::string_view kPrefix = "u/";
  std::string session;
  bool open = false;  // for use; else for a change that ends by itself
};

// A process, while it lives.
struct SessionRecord {
  static constexpr std::string_view kPrefix = "o/";
  int64_t expires_us = 0;
};

// Sealing that somebody is at.
struct SealingRecord {
  static constexpr std::string_view kPrefix = "q/";
  std::string session;  // empty: nobody
  std::string holder;
};

std::string Encode(const VolumeRecord& record);
std::string Encode(const SnapshotRecord& record);
std::string Encode(const PointRecord& record);
std::string Encode(const ImageRecord& record);
std::string Encode(const ParentRecord& record);
std::string Encode(const ClaimRecord& record);
std::string Encode(const SessionRecord& record);
std::string Encode(const SealingRecord& record);

// kCorruption.
base::Result<void> Decode(std::string_view text, VolumeRecord* record);
base::Result<void> Decode(std::string_view text, SnapshotRecord* record);
base::Result<void> Decode(std::string_view text, PointRecord* record);
base::Result<void> Decode(std::string_view text, ImageRecord* record);
base::Result<void> Decode(std::string_view text, ParentRecord* record);
base::Result<void> Decode(std::string_view text, ClaimRecord* record);
base::Result<void> Decode(std::string_view text, SessionRecord* record);
base::Result<void> Decode(std::string_view text, SealingRecord* record);

template <typename Record>
std::string KeyOf(const std::string& id) {
  return std::string(Record::kPrefix) + id;
}

}  // namespace blockd::rbd
