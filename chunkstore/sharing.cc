#include <algorithm>
#include <cstring>
#include <functional>
#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include "base/log.h"
#include "chunkstore/chunk_store_impl.h"
#include "chunkstore/zstd_frames.h"

// Which blocks of a new chunk lie in other chunks already. Hashes propose, bytes decide.

namespace chunkstore {
namespace {

using base::ByteView;
using base::Code;
using base::Digest256;
using base::Error;
using base::Result;

// Blocks first..last of the new chunk are equal to as many of the owner, from owner_first on.
struct Run {
  size_t first = 0;
  size_t last = 0;
  size_t owner_first = 0;
};

bool SameBlock(const Block& a, const Block& b) {
  return a.hash == b.hash && a.plain_length == b.plain_length;
}

// Chunks that have something, those that have most first; at most kMaxOwners.
std::vector<Digest256> Candidates(const std::vector<Block>& blocks,
                                  const std::vector<std::optional<BlockIndex::Place>>& places,
                                  const Digest256& own) {
  std::unordered_map<Digest256, uint64_t> bytes_of;
  for (size_t i = 0; i < blocks.size(); ++i) {
    if (places[i] && places[i]->chunk != own) bytes_of[places[i]->chunk] += blocks[i].plain_length;
  }
  std::vector<std::pair<uint64_t, Digest256>> sorted;
  for (const auto& [chunk, bytes] : bytes_of) sorted.emplace_back(bytes, chunk);
  std::sort(sorted.begin(), sorted.end(), std::greater<>());
  if (sorted.size() > kMaxOwners) sorted.resize(kMaxOwners);
  std::vector<Digest256> chunks;
  chunks.reserve(sorted.size());
  for (const auto& [bytes, chunk] : sorted) chunks.push_back(chunk);
  return chunks;
}

// What a blob that stays where it is can lend. A block of zeros compresses to nothing anyway.
bool IsLendable(const Block& theirs, const Block& ours, ByteView plain) {
  return theirs.is_here() && SameBlock(theirs, ours) &&
         !base::IsZero(plain.subspan(ours.plain_offset, ours.plain_length));
}

// Grows runs out of what was proposed to the neighbours that are equal as well (the index may have
// forgotten them, or name another owner), and leaves out what is not worth it.
std::vector<Run> FindRuns(const std::vector<Block>& ours,
                          const std::vector<std::optional<BlockIndex::Place>>& places,
                          const OpenBlob& owner, ByteView plain) {
  const std::vector<Block>& theirs = owner.table.blocks;
  const auto fits = [&](size_t i, size_t j) {
    return i < ours.size() && j < theirs.size() && ours[i].is_here() &&
           IsLendable(theirs[j], ours[i], plain);
  };
  std::vector<Run> runs;
  size_t next = 0;  // the first that no run has
  for (size_t i = 0; i < ours.size(); ++i) {
    if (i < next || !places[i] || places[i]->chunk != owner.ref.id) continue;
    if (places[i]->offset >= owner.table.plain_length) continue;
    const size_t j = owner.table.BlockAt(places[i]->offset);
    if (!fits(i, j)) continue;
    Run run{.first = i, .last = i, .owner_first = j};
    while (run.first > next && run.owner_first > 0 && fits(run.first - 1, run.owner_first - 1)) {
      --run.first;
      --run.owner_first;
    }
    while (fits(run.last + 1, run.owner_first + (run.last + 1 - run.first))) ++run.last;
    next = run.last + 1;
    const uint64_t bytes =
        ours[run.last].plain_offset + ours[run.last].plain_length - ours[run.first].plain_offset;
    if (bytes >= kMinSharedRunBytes) runs.push_back(run);
  }
  return runs;
}

}  // namespace

Result<void> ChunkStoreImpl::BorrowFrom(const Digest256& owner,
                                        const std::vector<std::optional<BlockIndex::Place>>& places,
                                        ByteView plain, SharingPlan* plan) {
  ASSIGN_OR_RETURN(const std::optional<Record> record, references_.Find(owner));
  if (!record || !record->is_whole() || !record->is_wanted() || record->kind != BlobKind::kChunk)
    return {};
  std::vector<Run> equal;
  BlobRef ref;
  std::vector<uint32_t> offsets;  // of each run, in the owner
  const auto compare = [&](const OpenBlob& blob) -> Result<void> {
    equal.clear();
    offsets.clear();
    ref = blob.ref;
    for (const Run& run : FindRuns(plan->blocks, places, blob, plain)) {
      const uint32_t from = plan->blocks[run.first].plain_offset;
      const uint32_t to = plan->blocks[run.last].plain_offset + plan->blocks[run.last].plain_length;
      const uint32_t owner_from = blob.table.blocks[run.owner_first].plain_offset;
      Bytes theirs(to - from);
      RETURN_IF_ERROR(ReadBlocks(blob, owner_from, theirs.view(), /*keep=*/false));
      if (std::memcmp(theirs.data.get(), plain.data() + from, to - from) != 0) continue;
      equal.push_back(run);
      offsets.push_back(owner_from);
    }
    return {};
  };
  RETURN_IF_ERROR(WithBlob(owner, std::cref(compare)));
  if (equal.empty()) return {};

  for (size_t i = 0; i < equal.size(); ++i) {
    const uint32_t from = plan->blocks[equal[i].first].plain_offset;
    for (size_t at = equal[i].first; at <= equal[i].last; ++at) {
      Block& block = plan->blocks[at];
      block.form = Block::Form::kElsewhere;
      block.owner = static_cast<uint16_t>(plan->owners.size());
      block.owner_offset = offsets[i] + (block.plain_offset - from);
    }
  }
  plan->owners.push_back(ref.id);
  plan->suffixes.push_back(ref.suffix);
  return {};
}

std::vector<ChunkStoreImpl::Loan> ChunkStoreImpl::LoansOf(const std::vector<Block>& blocks,
                                                          const std::vector<Digest256>& owners) {
  std::vector<Loan> loans;
  for (const Digest256& owner : owners) loans.push_back({.owner = {owner, 0}, .pages = {}});
  for (const Block& block : blocks) {
    if (block.form == Block::Form::kElsewhere)
      loans[block.owner].pages.push_back(
          static_cast<uint16_t>(block.owner_offset / kBlockGridBytes));
  }
  for (Loan& loan : loans) {
    std::sort(loan.pages.begin(), loan.pages.end());
    loan.pages.erase(std::unique(loan.pages.begin(), loan.pages.end()), loan.pages.end());
  }
  return loans;
}

ChunkStoreImpl::SharingPlan ChunkStoreImpl::PlanSharing(const Digest256& id, ByteView plain) {
  SharingPlan plan;
  plan.blocks = HashBlocks(plain);
  if (!options_.share_blocks) return plan;
  const auto places = block_index_.Find(plan.blocks);
  if (!places.has_value()) {
    LOG(kWarn, "chunkstore", "chunk {} shares no blocks: {}", id.hex(), places.error().ToString());
    return plan;
  }
  for (const Digest256& owner : Candidates(plan.blocks, *places, id)) {
    // An owner that can't be read, or is gone, is none; who reads it for itself will say so.
    const Result<void> borrowed = BorrowFrom(owner, *places, plain, &plan);
    (void)borrowed;
  }
  return plan;
}

// Every borrower's tag is durable before the record that needs it; and the intent, by which the
// tags are found again, before the tags. False: an owner changed since it was looked at.
Result<bool> ChunkStoreImpl::TakeLoans(const BlobRef& borrower, const SharingPlan& plan) {
  if (plan.owners.empty()) return true;
  RETURN_IF_ERROR(meta_.Sync());
  const std::vector<Loan> loans = LoansOf(plan.blocks, plan.owners);
  for (size_t i = 0; i < loans.size(); ++i) {
    const BlobRef owner{plan.owners[i], plan.suffixes[i]};
    ASSIGN_OR_RETURN(const bool lent, references_.Lend(owner, borrower, loans[i].pages));
    if (!lent) return false;
  }
  RETURN_IF_ERROR(meta_.Sync());
  return true;
}

// --- reading what is borrowed

// What is wrong with an owner is wrong with the chunk that borrows. A blob that the cache knows may
// be older than the loan (another process, or another reader, put it there): where what was
// borrowed is not in it, `fits` says so, and the owner is looked at again.
Result<void> ChunkStoreImpl::WithOwner(const Digest256& owner, const BlobReader& read,
                                       const bool& fits) {
  for (int look = 0; look < 2; ++look) {
    if (look > 0) cache_.EraseBlob(owner);
    const Result<void> done = WithBlob(owner, read, Whose::kBorrowers);
    if (!done.has_value() && done.error().code() == Code::kNotFound)
      return Error(Code::kCorruption, "it borrows of chunk " + owner.hex() + ", which is lost");
    if (!done.has_value() || fits) return done;
  }
  return Error(Code::kCorruption, "it borrows of chunk " + owner.hex() + " what that has not");
}

Result<void> ChunkStoreImpl::ReadBorrowed(const BlobTable& table, size_t first, size_t last,
                                          base::MutableByteView into) {
  const Digest256& owner = table.owners[table.blocks[first].owner];
  const uint32_t offset = table.blocks[first].owner_offset;
  bool fits = true;
  const auto read = [&](const OpenBlob& blob) -> Result<void> {
    fits = LiesIn(blob.table, offset, static_cast<uint32_t>(into.size()));
    if (!fits) return {};
    return ReadBlocks(blob, offset, into, /*keep=*/false);
  };
  RETURN_IF_ERROR(WithOwner(owner, std::cref(read), fits));
  for (size_t i = first; i <= last; ++i) {
    const Block& block = table.blocks[i];
    const ByteView plain = into.subspan(block.owner_offset - offset, block.plain_length);
    if (base::Xxh3(plain) != block.hash)
      return Error(Code::kCorruption, "it borrows of chunk " + owner.hex() + " what is not equal");
  }
  return {};
}

// The owner's frames as they lie, where its blocks are the same still; else frames of plain bytes.
Result<ContentPiece> ChunkStoreImpl::BorrowedFrames(const BlobTable& table, size_t first,
                                                    size_t last) {
  const Digest256& owner = table.owners[table.blocks[first].owner];
  const uint32_t begin = table.blocks[first].owner_offset;
  const uint32_t length = table.blocks[last].owner_offset + table.blocks[last].plain_length - begin;
  ContentPiece piece;
  bool fits = true;
  bool same = true;
  const auto read = [&](const OpenBlob& blob) -> Result<void> {
    fits = LiesIn(blob.table, begin, length);
    if (!fits) return {};
    same = true;
    for (size_t i = first; same && i <= last; ++i)
      same = OwnersBlock(blob.table, table.blocks[i]) != nullptr;
    if (!same) return {};
    const size_t from = blob.table.BlockAt(begin);
    ASSIGN_OR_RETURN(piece, StoredFrames(blob, from, from + (last - first)));
    return {};
  };
  RETURN_IF_ERROR(WithOwner(owner, std::cref(read), fits));
  if (same) return piece;
  Bytes plain(length);
  RETURN_IF_ERROR(ReadBorrowed(table, first, last, plain.view()));
  auto frames = std::make_shared<std::string>();
  for (size_t i = first; i <= last; ++i) {
    const Block& block = table.blocks[i];
    *frames += RawFrameHead(block.plain_length);
    *frames += base::AsText(
        base::ByteView(plain.view()).subspan(block.owner_offset - begin, block.plain_length));
  }
  piece.length = frames->size();
  piece.bytes = base::AsBytes(*frames);
  piece.owner = std::move(frames);
  return piece;
}

bool ChunkStoreImpl::LiesIn(const BlobTable& table, uint32_t offset, uint32_t length) {
  if (offset >= table.plain_length || length > table.plain_length - offset) return false;
  for (size_t i = table.BlockAt(offset);
       i < table.blocks.size() && table.blocks[i].plain_offset < offset + length; ++i) {
    if (!table.blocks[i].is_here()) return false;
  }
  return true;
}

const Block* ChunkStoreImpl::OwnersBlock(const BlobTable& owner, const Block& borrowed) {
  if (borrowed.owner_offset >= owner.plain_length) return nullptr;
  const Block& theirs = owner.blocks[owner.BlockAt(borrowed.owner_offset)];
  const bool same = theirs.is_here() && theirs.plain_offset == borrowed.owner_offset &&
                    SameBlock(theirs, borrowed);
  return same ? &theirs : nullptr;
}

size_t ChunkStoreImpl::EndOfLoan(const BlobTable& table, size_t first, size_t last) {
  size_t end = first;
  while (end < last) {
    const Block& block = table.blocks[end];
    const Block& next = table.blocks[end + 1];
    if (next.form != Block::Form::kElsewhere || next.owner != block.owner ||
        next.owner_offset != block.owner_offset + block.plain_length)
      break;
    ++end;
  }
  return end;
}

}  // namespace chunkstore
