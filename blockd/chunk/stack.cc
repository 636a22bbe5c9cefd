#include "blockd/chunk/stack.h"

#include <algorithm>
#include <cstring>

namespace blockd::chunk {

using base::MutableByteView;
using base::Result;
using chunkstore::kChunkBytes;

namespace {

constexpr uint64_t kPrefetchPieceBytes = 256 * base::kKiB;

uint64_t BlocksOf(uint64_t offset, uint64_t length) {
  return (offset % kBlockBytes + length + kBlockBytes - 1) / kBlockBytes;
}

// The bytes of `blocks` blocks from the one with `offset` on, from there and at most `length`.
uint64_t BytesOf(uint64_t offset, uint64_t length, uint64_t blocks) {
  return std::min(length, blocks * kBlockBytes - offset % kBlockBytes);
}

}  // namespace

Result<Stack::Source> Stack::Find(uint64_t offset, uint64_t length) const {
  uint64_t blocks = BlocksOf(offset, length);
  for (const std::shared_ptr<Layer>& layer : layers_) {
    ASSIGN_OR_RETURN(const LayerMap::Run run, layer->map().RunAt(offset / kBlockBytes, blocks));
    blocks = run.blocks;
    if (run.state == BlockState::kAbsent) continue;
    const auto kind = run.state == BlockState::kData ? Source::Kind::kLayer : Source::Kind::kZeros;
    return Source{kind, layer.get(), BytesOf(offset, length, blocks)};
  }
  return Source{Source::Kind::kBase, nullptr, BytesOf(offset, length, blocks)};
}

Result<bool> Stack::TryFind(uint64_t offset, uint64_t length, Source* source) const {
  uint64_t blocks = BlocksOf(offset, length);
  for (const std::shared_ptr<Layer>& layer : layers_) {
    LayerMap::Run run;
    ASSIGN_OR_RETURN(const bool known, layer->map().TryRunAt(offset / kBlockBytes, blocks, &run));
    if (!known) return false;
    blocks = run.blocks;
    if (run.state == BlockState::kAbsent) continue;
    const auto kind = run.state == BlockState::kData ? Source::Kind::kLayer : Source::Kind::kZeros;
    *source = {kind, layer.get(), BytesOf(offset, length, blocks)};
    return true;
  }
  *source = {Source::Kind::kBase, nullptr, BytesOf(offset, length, blocks)};
  return true;
}

uint64_t Stack::InBase(uint64_t offset, uint64_t length) const {
  if (!base_ || offset >= base_->root().size_bytes) return 0;
  return std::min(length, base_->root().size_bytes - offset);
}

Result<void> Stack::Read(uint64_t offset, MutableByteView into) const {
  while (!into.empty()) {
    ASSIGN_OR_RETURN(const Source source, Find(offset, into.size()));
    const MutableByteView piece = into.first(source.length);
    if (source.kind == Source::Kind::kLayer) {
      RETURN_IF_ERROR(source.layer->ReadAt(offset, piece));
    } else {
      const bool from_base = source.kind == Source::Kind::kBase;
      const uint64_t there = from_base ? InBase(offset, piece.size()) : 0;
      if (there > 0) RETURN_IF_ERROR(base_->ReadAt(offset, piece.first(there)));
      std::fill(piece.begin() + static_cast<ptrdiff_t>(there), piece.end(), 0);
    }
    offset += source.length;
    into = into.subspan(source.length);
  }
  return {};
}

Result<bool> Stack::TryRead(uint64_t offset, MutableByteView into) const {
  while (!into.empty()) {
    Source source;
    ASSIGN_OR_RETURN(bool known, TryFind(offset, into.size(), &source));
    if (!known) return false;
    const MutableByteView piece = into.first(source.length);
    if (source.kind == Source::Kind::kLayer) {
      ASSIGN_OR_RETURN(known, source.layer->TryReadAt(offset, piece));
      if (!known) return false;
    } else {
      const bool from_base = source.kind == Source::Kind::kBase;
      const uint64_t there = from_base ? InBase(offset, piece.size()) : 0;
      if (there > 0) {
        ASSIGN_OR_RETURN(known, base_->TryReadAt(offset, piece.first(there)));
        if (!known) return false;
      }
      std::fill(piece.begin() + static_cast<ptrdiff_t>(there), piece.end(), 0);
    }
    offset += source.length;
    into = into.subspan(source.length);
  }
  return true;
}

void Stack::Prefetch(uint64_t offset, uint64_t length) const {
  while (length > 0) {
    Result<Source> source = Find(offset, length);
    if (!source) return;
    if (source->kind == Source::Kind::kLayer) source->layer->WillRead(offset, source->length);
    if (source->kind == Source::Kind::kBase) {
      base::Buffer scratch(std::min(kPrefetchPieceBytes, source->length));
      const uint64_t there = InBase(offset, source->length);
      for (uint64_t done = 0; done < there;) {
        const uint64_t piece = std::min<uint64_t>(scratch.size(), there - done);
        if (!base_->ReadAt(offset + done, scratch.view().first(piece))) return;
        done += piece;
      }
    }
    offset += source->length;
    length -= source->length;
  }
}

Result<void> Stack::VisitExtents(uint64_t offset, uint64_t length,
                                 const Volume::ExtentVisitor& visit) const {
  while (length > 0) {
    ASSIGN_OR_RETURN(const Source source, Find(offset, length));
    bool go_on = true;
    if (source.kind == Source::Kind::kBase) {
      ASSIGN_OR_RETURN(go_on, VisitBase(offset, source.length, visit));
    } else {
      const bool zeros = source.kind == Source::Kind::kZeros;
      go_on = visit({offset, source.length, !zeros, zeros});
    }
    if (!go_on) return {};
    offset += source.length;
    length -= source.length;
  }
  return {};
}

Result<bool> Stack::VisitBase(uint64_t offset, uint64_t length,
                              const Volume::ExtentVisitor& visit) const {
  uint64_t end = offset + InBase(offset, length);
  const uint64_t real_end = offset + length;
  bool go_on = true;
  const auto tell = [&](uint64_t to, bool zeros) {
    if (go_on && to > offset) go_on = visit({offset, to - offset, !zeros, zeros});
    offset = std::max(offset, to);
    return go_on;
  };
  if (end > offset) {
    const uint64_t to_chunk = (end + kChunkBytes - 1) / kChunkBytes;
    RETURN_IF_ERROR(base_->VisitChunks(
        offset / kChunkBytes, to_chunk, [&](uint64_t index, const base::Digest256&) {
          return tell(index * kChunkBytes, true) &&
                 tell(std::min((index + 1) * kChunkBytes, end), false);
        }));
  }
  tell(real_end, true);
  return go_on;
}

}  // namespace blockd::chunk
