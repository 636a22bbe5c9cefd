#include "blockd/chunk/changed_since.h"

#include <algorithm>
#include <optional>

namespace blockd::chunk {

using base::Digest256;
using base::Result;
using chunkstore::Content;
using chunkstore::kChunkBytes;
using chunkstore::Root;

namespace {

std::optional<Root> RootOf(const Stack& stack) {
  return stack.base() ? std::optional(stack.base()->root()) : std::nullopt;
}

// Marks the chunks in which two contents differ; nothing is one without chunks.
Result<void> MarkDifferent(chunkstore::ChunkStore& chunks, const std::shared_ptr<Content>& a,
                           const std::shared_ptr<Content>& b, std::vector<bool>* different) {
  const auto mark = [&](uint64_t index) {
    if (different->size() <= index) different->resize(index + 1);
    (*different)[index] = true;
    return true;
  };
  if (a && b) {
    return chunks.Diff(a->root(), b->root(), 0,
                       [&](uint64_t index, const std::optional<Digest256>&,
                           const std::optional<Digest256>&) { return mark(index); });
  }
  const std::shared_ptr<Content>& one = a ? a : b;
  if (!one) return {};
  const uint64_t count = (one->root().size_bytes + kChunkBytes - 1) / kChunkBytes;
  return one->VisitChunks(0, count, [&](uint64_t index, const Digest256&) { return mark(index); });
}

}  // namespace

// Layers that one of the two has and the other has not. What they share is at their ends.
ChangedSince::Layers ChangedSince::NotShared(const Stacks& stacks) {
  Layers now = stacks.now->layers();
  Layers then = stacks.then->layers();
  while (!now.empty() && !then.empty() && now.back() == then.back()) {
    now.pop_back();
    then.pop_back();
  }
  now.insert(now.end(), then.begin(), then.end());
  return now;
}

Result<std::shared_ptr<const ChangedSince::ChunkSet>> ChangedSince::ChangedBelow(
    const Stacks& stacks) {
  const Bases bases(RootOf(*stacks.now), RootOf(*stacks.then));
  {
    base::MutexLock lock(mutex_);
    if (changed_ && compared_ == bases) return changed_;
  }
  // Without the lock: it reads from the disk.
  auto changed = std::make_shared<ChunkSet>();
  RETURN_IF_ERROR(MarkDifferent(chunks_, stacks.now->base(), stacks.then->base(), changed.get()));
  base::MutexLock lock(mutex_);
  compared_ = bases;
  changed_ = changed;
  return changed_;
}

Result<ChangedSince::Run> ChangedSince::RunAt(const Layers& layers, const ChunkSet& below,
                                              uint64_t offset, uint64_t length) {
  const uint64_t block = offset / kBlockBytes;
  const uint64_t end_block = (offset + length + kBlockBytes - 1) / kBlockBytes;
  uint64_t blocks = end_block - block;
  Run run;
  for (const std::shared_ptr<Layer>& layer : layers) {
    ASSIGN_OR_RETURN(const LayerMap::Run here, layer->map().RunAt(block, blocks));
    blocks = here.blocks;
    run.changed = here.state != BlockState::kAbsent;
    if (run.changed) break;
  }
  const uint64_t chunk = offset / kChunkBytes;
  if (!run.changed && chunk < below.size()) {
    run.changed = below[chunk];
    const uint64_t chunk_end = (chunk + 1) * (kChunkBytes / kBlockBytes);
    blocks = std::min(blocks, chunk_end - block);
  }
  run.length = std::min(length, (block + blocks) * kBlockBytes - offset);
  return run;
}

Result<void> ChangedSince::Visit(uint64_t offset, uint64_t length, const Visitor& visit) {
  ASSIGN_OR_RETURN(const Stacks stacks, source_());
  const Layers layers = NotShared(stacks);
  ASSIGN_OR_RETURN(const std::shared_ptr<const ChunkSet> below, ChangedBelow(stacks));
  while (length > 0) {
    ASSIGN_OR_RETURN(const Run run, RunAt(layers, *below, offset, length));
    if (!visit(run.length, run.changed)) return {};
    offset += run.length;
    length -= run.length;
  }
  return {};
}

}  // namespace blockd::chunk
