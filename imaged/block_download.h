#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/async/task.h"
#include "base/http/message.h"
#include "base/http/router.h"
#include "base/result.h"
#include "chunkstore/chunk_store.h"
#include "imaged/block_names.h"
#include "imaged/block_wire.h"
#include "imaged/data_path.h"
#include "imaged/policy.h"

// Blocks as they are stored, for hosts that keep them (API.md, "Blocks"): tables of chunks, and the
// stored bytes of chosen blocks. Two doors lead here, that of images and that of snapshots; both
// look up what the caller may read, for each request.

namespace imaged {

// A content that the caller may download.
struct BlockSide {
  std::shared_ptr<chunkstore::Content> content;
  std::shared_ptr<const void> keep;  // while it lives, the bytes stay; may be null
};

// Whether the request has the type of a body that is one of this format, and takes such an answer:
// 415 or 406 if not.
std::optional<int> RefusedType(const base::http::Request& request, std::string_view body_type,
                               std::string_view answer_type);
// What to say then.
std::string RefusedTypeSentence(const base::http::Request& request, int status,
                                std::string_view type);

// Answers a request of blocks; its first part is read at once, so what can't be read is an answer
// with a status. kInvalidArgument for a bad body; kUnavailable when there is no memory. Blocking.
base::Result<base::http::Response> AnswerBlocks(DataPath& path, const Caller& caller,
                                                const BlockSide& side, std::string_view body);

// POST /v2/quarry/images/{image_id}/blocks. A job of the pool.
base::http::Route BlocksRoute(DataPath& path);

// The answer on its way, in parts of some items each: while one is sent, the next is read on the
// data pool, if there is memory for it. What lies raw in a file leaves as a run of it. An error
// breaks the connection. Used by one connection.
class BlockStream : public base::http::BodySource {
 public:
  // As many items as are bound to fit stand in one part.
  static constexpr uint64_t kPartBytes = 1 * base::kMiB;

  struct What {
    std::vector<BlockItem> items;
    // Named by where they lie, or (for who may not know that) by the chunk that they are part of.
    bool by_owner = false;
  };
  static base::Result<std::unique_ptr<BlockStream>> Open(DataPath& path, std::string project,
                                                         BlockSide side, What what);
  ~BlockStream() override;

  std::optional<uint64_t> size_bytes() const override { return size_bytes_; }
  base::async::Task<base::Result<base::http::Piece>> Next() override;

 private:
  using Pieces = std::deque<chunkstore::ContentPiece>;
  // Items first .. end - 1, which take at most so many bytes.
  struct Part {
    size_t first = 0;
    size_t end = 0;
    uint64_t bound_bytes = 0;
  };
  struct Reader;
  struct Ahead;

  BlockStream(DataPath& path, std::string project, std::vector<Part> parts,
              FairBudget::Share admitted, std::shared_ptr<const Reader> reader, Pieces first);
  static base::Result<std::vector<Part>> PartsOf(chunkstore::Content& content,
                                                 const std::vector<BlockItem>& items);
  void ReadAhead();
  base::http::Piece TakePiece();

  DataPath& path_;
  const std::string project_;
  const std::vector<Part> parts_;
  const FairBudget::Share admitted_;  // for one part at a time
  const std::shared_ptr<const Reader> reader_;
  std::optional<uint64_t> size_bytes_;
  Pieces pieces_;                  // of the part that is being sent ...
  FairBudget::Share reservation_;  // ... and its memory; null: what was admitted
  std::shared_ptr<Ahead> ahead_;   // the part after it; null: not asked for
  size_t next_part_ = 1;           // to ask for
};

}  // namespace imaged
