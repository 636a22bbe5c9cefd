#pragma once

#include <cstdint>
#include <deque>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/async/task.h"
#include "base/http/message.h"
#include "base/http/range.h"
#include "base/result.h"
#include "chunkstore/chunk_store.h"
#include "imaged/data_path.h"

namespace imaged {

// An image whose bytes the caller may download.
struct OpenedImage {
  Image image;
  std::shared_ptr<chunkstore::Content> content;  // null: the image has no bytes yet
};
// The image that the path names as {image_id}. kNotFound, kPermissionDenied (policy.h). Blocking.
base::Result<OpenedImage> OpenImage(DataPath& path, const base::http::Request& request);

// How bytes leave: as they are, or as a zstd stream of them that is made of what is stored.
enum class Coding { kIdentity, kZstd };
constexpr std::string_view kZstdCoding = "zstd";  // as Content-Encoding has it

// The bytes of an image on their way to a client, a slice at a time. While one slice is sent the
// next ones are read, verified and (for kIdentity) decoded on the data pool. What lies raw in a
// file leaves as a run of it, a hole as zeros; what is in memory is counted against the budget of
// its project, and a download goes on with one small slice at a time when that is used up.
//
// Every byte was verified before it is handed out; an error breaks the connection, so a client sees
// a short body and never a wrong one. Used by one connection.
class DownloadSource : public base::http::BodySource {
 public:
  // Of one download; admitted with the smaller one, which it keeps.
  static constexpr uint64_t kSmallSliceBytes = 1 * base::kMiB;
  static constexpr uint64_t kLargeSliceBytes = 4 * base::kMiB;
  static constexpr size_t kSlicesAhead = 3;

  // What to send of a content, in order. kZstd is for ranges of whole chunks.
  struct What {
    std::vector<base::http::ByteRange> ranges;
    Coding coding = Coding::kIdentity;
  };

  // Waits for memory (DataOptions::admission_ms) from the share of `project`, then kUnavailable.
  // What has one small slice has memory of its own. `holder` is kept meanwhile.
  static base::async::Task<base::Result<std::unique_ptr<DownloadSource>>> Open(
      DataPath& path, std::string project, std::string holder,
      std::shared_ptr<chunkstore::Content> content, What what);
  ~DownloadSource() override;

  // Waits until the first slice is there: what can't be read is then an answer with a status, and
  // no broken body.
  base::async::Task<base::Result<void>> Prime();

  // Not known of a zstd stream, whose frames are found on the way.
  std::optional<uint64_t> size_bytes() const override {
    if (what_.coding == Coding::kZstd) return std::nullopt;
    return total_bytes_;
  }
  base::async::Task<base::Result<base::http::Piece>> Next() override;

 private:
  struct Slice;
  struct Shared;

  DownloadSource(DataPath& path, std::string project, FairBudget::Share admitted,
                 std::string holder, std::shared_ptr<chunkstore::Content> content, What what);
  void ReadAhead();
  bool Submit(uint64_t offset, uint64_t length, FairBudget::Share reservation);
  base::async::Task<base::Result<void>> AwaitFront();

  DataPath& path_;
  const std::string project_;
  const FairBudget::Share admitted_;
  const std::shared_ptr<chunkstore::Content> content_;
  const What what_;
  const uint64_t total_bytes_;  // of all ranges
  DataPath::Reading reading_;
  const std::shared_ptr<Shared> shared_;
  // Slices were asked for up to here: all of the ranges before this one, and so much of it.
  size_t range_ = 0;
  uint64_t asked_of_range_ = 0;
  std::deque<std::shared_ptr<Slice>> slices_;
};

}  // namespace imaged
