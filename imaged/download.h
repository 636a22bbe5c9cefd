#pragma once

#include <cstdint>
#include <deque>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/async/task.h"
#include "base/http/message.h"
#include "base/http/range.h"
#include "base/result.h"
#include "chunkstore/chunk_store.h"
#include "imaged/data_path.h"

namespace imaged {

// The bytes of an image on their way to a client, a slice at a time. While one slice is sent the
// next ones are read, verified and decoded on the data pool. What lies raw in a file leaves as a
// run of it, a hole as zeros; decoded bytes are counted against the budget of its
// project, and a download goes on with one small slice at a time when that is used up.
//
// Every byte was verified before it is handed out; an error breaks the connection, so a client sees
// a short body and never a wrong one. Used by one connection.
class DownloadSource : public base::http::BodySource {
 public:
  // Of one download; admitted with the smaller one, which it keeps.
  static constexpr uint64_t kSmallSliceBytes = 1 * base::kMiB;
  static constexpr uint64_t kLargeSliceBytes = 4 * base::kMiB;
  static constexpr size_t kSlicesAhead = 3;

  // Waits for memory (DataOptions::admission_ms) from the share of `project`, then kUnavailable. A
  // range of one small slice has memory of its own. `holder` is kept meanwhile.
  static base::async::Task<base::Result<std::unique_ptr<DownloadSource>>> Open(
      DataPath& path, std::string project, std::string holder,
      std::shared_ptr<chunkstore::Content> content, base::http::ByteRange range);
  ~DownloadSource() override;

  // Waits until the first slice is there: what can't be read is then an answer with a status, and
  // no broken body.
  base::async::Task<base::Result<void>> Prime();

  std::optional<uint64_t> size_bytes() const override { return range_.length; }
  base::async::Task<base::Result<base::http::Piece>> Next() override;

 private:
  struct Slice;
  struct Shared;

  DownloadSource(DataPath& path, std::string project, FairBudget::Share admitted,
                 std::string holder, std::shared_ptr<chunkstore::Content> content,
                 base::http::ByteRange range);
  void ReadAhead();
  bool Submit(uint64_t length, FairBudget::Share reservation);
  base::async::Task<base::Result<void>> AwaitFront();

  DataPath& path_;
  const std::string project_;
  const FairBudget::Share admitted_;
  const std::shared_ptr<chunkstore::Content> content_;
  const base::http::ByteRange range_;
  DataPath::Reading reading_;
  const std::shared_ptr<Shared> shared_;
  uint64_t asked_ = 0;  // bytes that slices were asked for
  uint64_t given_ = 0;  // bytes that Next handed out
  std::deque<std::shared_ptr<Slice>> slices_;
};

}  // namespace imaged
