#include "chunkstore/map_editor.h"

#include <algorithm>

#include "base/check.h"

namespace chunkstore {
namespace {

using base::Code;
using base::Digest256;
using base::Error;
using base::Result;

}  // namespace

MapEditor::MapEditor(const std::optional<Root>& base, uint64_t size_bytes, Reader read,
                     Source changes, Sink sink)
    : base_(base),
      size_bytes_(size_bytes),
      count_(ChunkCount(size_bytes)),
      base_count_(base ? ChunkCount(base->size_bytes) : 0),
      root_level_(RootLevel(size_bytes)),
      read_(std::move(read)),
      changes_(std::move(changes)),
      sink_(std::move(sink)) {}

Result<MapEditor::Outcome> MapEditor::Run() {
  RETURN_IF_ERROR(Advance());
  std::optional<Digest256> before;
  if (base_) before = base_->id;
  // Where the base is higher, all but what lies under its first slots goes.
  for (uint8_t level = base_ ? RootLevel(base_->size_bytes) : 0; level > root_level_; --level) {
    ASSIGN_OR_RETURN(const std::shared_ptr<const MapPage> page, Load(level, before));
    before.reset();
    for (const MapPage::Entry& entry : page->entries) {
      if (entry.slot == 0) {
        before = entry.id;
        continue;
      }
      ASSIGN_OR_RETURN(const auto gone, Page(level - 1, entry.slot, entry.id));
      CHECK(!gone);
    }
  }
  ASSIGN_OR_RETURN(const std::optional<Digest256> root, Page(root_level_, 0, before));
  CHECK(root && !next_);
  outcome_.root = *root;
  return outcome_;
}

Result<std::optional<Digest256>> MapEditor::Page(uint8_t level, uint64_t number,
                                                 const std::optional<Digest256>& before) {
  const uint64_t first = number * SlotSpan(level) * kFanOut;
  const uint64_t end = first + SlotSpan(level) * kFanOut;
  const bool is_root = level == root_level_ && number == 0;
  // A root page says the size: it never stands inside another map.
  const bool was_root = before && *before == base_->id;
  const bool touched = HasChange(first, end) || (end > count_ && base_count_ > count_);
  if (!touched && !is_root && !was_root) return before;
  ASSIGN_OR_RETURN(const std::shared_ptr<const MapPage> page, Load(level, before));
  ASSIGN_OR_RETURN(MapPage edited, Edited(*page, level, number));
  if (is_root) {
    edited.size_bytes = size_bytes_;
  } else {
    if (edited.entries.empty()) return std::optional<Digest256>();
    if (!was_root && edited.entries == page->entries) return before;
  }
  ASSIGN_OR_RETURN(const Digest256 id, Emit(std::move(edited)));
  return std::optional(id);
}

Result<MapPage> MapEditor::Edited(const MapPage& before, uint8_t level, uint64_t number) {
  const uint64_t span = SlotSpan(level);
  const uint64_t first = number * span * kFanOut;
  MapPage edited{.level = level, .size_bytes = {}, .entries = {}};
  edited.entries.reserve(before.entries.size());
  for (auto entry = before.entries.begin();;) {
    uint64_t slot = entry == before.entries.end() ? kFanOut : entry->slot;
    if (HasChange(first, first + span * kFanOut))
      slot = std::min(slot, (next_->index - first) / span);
    if (slot == kFanOut) return edited;
    std::optional<Digest256> child;
    if (entry != before.entries.end() && entry->slot == slot) child = (entry++)->id;
    const uint64_t below = number * kFanOut + slot;
    Result<std::optional<Digest256>> now =
        level == 0 ? Chunk(below, child) : Page(level - 1, below, child);
    RETURN_IF_ERROR(now);
    if (*now) edited.entries.push_back({static_cast<uint16_t>(slot), **now});
  }
}

Result<std::optional<Digest256>> MapEditor::Chunk(uint64_t index,
                                                  const std::optional<Digest256>& before) {
  std::optional<Digest256> now;
  if (next_ && next_->index == index) {
    now = next_->chunk;
    RETURN_IF_ERROR(Advance());
  } else if (index < count_) {
    now = before;
  }
  if (before && index >= base_count_)
    return Error(Code::kCorruption, "map of root " + base_->id.hex() + ": chunk " +
                                        std::to_string(index) + " lies beyond the size");
  if (before) outcome_.removed_bytes += ChunkLength(index, base_->size_bytes);
  if (now) outcome_.added_bytes += ChunkLength(index, size_bytes_);
  return now;
}

// The base's page at a place of this level; where the map has grown higher than the base, a page
// with the base's root in its first slot.
Result<std::shared_ptr<const MapPage>> MapEditor::Load(uint8_t level,
                                                       const std::optional<Digest256>& id) {
  if (!id) return std::make_shared<const MapPage>();
  ASSIGN_OR_RETURN(std::shared_ptr<const MapPage> page, read_(*id));
  const bool is_base_root = *id == base_->id;
  if (page->size_bytes.has_value() != is_base_root ||
      (is_base_root ? page->level > level : page->level != level))
    return Error(Code::kCorruption, "page " + id->hex() + " does not belong where it is");
  if (page->level == level) return page;
  MapPage above{.level = level, .size_bytes = {}, .entries = {{0, *id}}};
  return std::make_shared<const MapPage>(std::move(above));
}

Result<Digest256> MapEditor::Emit(MapPage page) {
  std::string encoded = EncodePage(page);
  const Digest256 id = base::Sha256(base::AsBytes(encoded));
  RETURN_IF_ERROR(sink_(id, std::move(encoded), std::move(page)));
  return id;
}

Result<void> MapEditor::Advance() {
  std::optional<uint64_t> last;
  if (next_) last = next_->index;
  ASSIGN_OR_RETURN(next_, changes_());
  if (next_) CHECK(next_->index < count_ && (!last || *last < next_->index));
  return {};
}

}  // namespace chunkstore
