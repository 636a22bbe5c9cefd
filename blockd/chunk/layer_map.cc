#include "blockd/chunk/layer_map.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <utility>

#include "base/check.h"
#include "base/coding.h"
#include "base/hash.h"

namespace blockd::chunk {

using base::Code;
using base::Error;
using base::Result;

namespace {

constexpr std::string_view kMagic = "QRLAYER\n";
constexpr uint32_t kVersion = 1;
constexpr uint64_t kBlocksPerWord = 32;
constexpr uint64_t kLowBits = 0x5555555555555555;

std::string EncodeHeader(const std::string& id) {
  std::string header(kMagic);
  base::PutFixed<uint32_t>(&header, kVersion);
  base::PutString(&header, id);
  const uint64_t hash = base::Xxh3(base::AsBytes(header)).low;
  base::PutFixed<uint64_t>(&header, hash);
  header.resize(kMapPageBytes, '\0');
  return header;
}

// 32 times the two bits of a state.
uint64_t Repeat(BlockState state) { return kLowBits * static_cast<uint64_t>(state); }

// The bits of blocks [from, from + count) of a word.
uint64_t Mask(uint64_t from, uint64_t count) {
  const uint64_t ones = count == kBlocksPerWord ? ~uint64_t{0} : (uint64_t{1} << 2 * count) - 1;
  return ones << 2 * from;
}

bool HasBadState(uint64_t word) { return (word & (word >> 1) & kLowBits) != 0; }

}  // namespace

Result<std::unique_ptr<LayerMap>> LayerMap::Create(base::Files& files, const std::string& path,
                                                   const std::string& id,
                                                   std::unique_ptr<LivePages> pages) {
  ASSIGN_OR_RETURN(auto file, files.Open(path, base::Files::Mode::kCreateNew));
  const std::string header = EncodeHeader(id);
  const base::ByteView piece = base::AsBytes(header);
  RETURN_IF_ERROR(file->WriteAt(0, {&piece, 1}));
  return std::unique_ptr<LayerMap>(new LayerMap(std::move(file), kMapPageBytes, std::move(pages)));
}

Result<std::unique_ptr<LayerMap>> LayerMap::Open(base::Files& files, const std::string& path,
                                                 const std::string& id,
                                                 std::unique_ptr<LivePages> pages) {
  ASSIGN_OR_RETURN(auto file, files.Open(path, base::Files::Mode::kReadWrite));
  std::string header(kMapPageBytes, '\0');
  RETURN_IF_ERROR(file->ReadAt(0, {reinterpret_cast<uint8_t*>(header.data()), header.size()}));
  if (header != EncodeHeader(id)) {
    return Error(Code::kCorruption,
                 path + " is not the map of layer " + id + ", or of a version unknown here");
  }
  ASSIGN_OR_RETURN(const uint64_t file_bytes, file->Size());
  std::unique_ptr<LayerMap> map(new LayerMap(std::move(file), file_bytes, std::move(pages)));
  map->Adopt();
  return map;
}

LayerMap::~LayerMap() {
  for (std::atomic<Directory*>& directory : root_) delete directory.load();
}

// Of a page that says what can't be, the others are not to be believed either: it was written by
// somebody else.
void LayerMap::Adopt() {
  for (const LivePages::Found& page : pages_->found()) {
    const bool bad = std::any_of(page.words->begin(), page.words->end(),
                                 [](const auto& word) { return HasBadState(word.load()); });
    if (!bad) continue;
    pages_->DropFound("page " + std::to_string(page.number) + " has a state that is none");
    break;
  }
  base::MutexLock lock(load_mutex_);
  for (const LivePages::Found& page : pages_->found()) {
    Install(page.number, page.words);
    MarkDirty(page.number);
  }
}

MapWords* LayerMap::Find(uint64_t number) const {
  CHECK(number < kMaxMapPages);
  const Directory* directory = root_[number / kFanOut].load(std::memory_order_acquire);
  if (directory == nullptr) return nullptr;
  return directory->pages[number % kFanOut].load(std::memory_order_acquire);
}

Result<MapWords*> LayerMap::Load(uint64_t number) {
  if (MapWords* page = Find(number)) return page;
  base::MutexLock lock(load_mutex_);
  if (MapWords* page = Find(number)) return page;
  LivePages::Words words{};
  RETURN_IF_ERROR(Read(number, &words));
  MapWords* const page = pages_->Make(number, words);
  Install(number, page);
  return page;
}

Result<void> LayerMap::Read(uint64_t number, LivePages::Words* words) const {
  const uint64_t offset = (1 + number) * kMapPageBytes;
  if (offset >= file_bytes_) return {};
  const uint64_t length = std::min(kMapPageBytes, file_bytes_ - offset);
  RETURN_IF_ERROR(file_->ReadAt(offset, {reinterpret_cast<uint8_t*>(words->data()), length}));
  if (std::none_of(words->begin(), words->end(), HasBadState)) return {};
  return Error(Code::kCorruption,
               "a layer's map has a state that is none, on page " + std::to_string(number));
}

void LayerMap::Install(uint64_t number, MapWords* page) {
  std::atomic<Directory*>& entry = root_[number / kFanOut];
  if (entry.load() == nullptr) entry.store(new Directory(), std::memory_order_release);
  entry.load()->pages[number % kFanOut].store(page, std::memory_order_release);
}

LayerMap::Run LayerMap::RunIn(const MapWords& page, uint64_t block, uint64_t limit) {
  const uint64_t first = block % kBlocksPerPage;
  limit = std::min(limit, kBlocksPerPage - first);
  uint64_t word = page[first / kBlocksPerWord].load(std::memory_order_acquire);
  Run run;
  run.state = static_cast<BlockState>(word >> 2 * (first % kBlocksPerWord) & 3);
  const uint64_t same = Repeat(run.state);
  for (uint64_t at = first;;) {
    const uint64_t shift = at % kBlocksPerWord;
    const uint64_t differs = (word ^ same) >> 2 * shift;
    const uint64_t equal = differs == 0 ? kBlocksPerWord - shift
                                        : static_cast<uint64_t>(std::countr_zero(differs)) / 2;
    run.blocks = at - first + equal;
    if (differs != 0 || run.blocks >= limit) break;
    at += equal;
    word = page[at / kBlocksPerWord].load(std::memory_order_acquire);
  }
  run.blocks = std::min(run.blocks, limit);
  return run;
}

Result<LayerMap::Run> LayerMap::RunAt(uint64_t block, uint64_t limit) {
  ASSIGN_OR_RETURN(const MapWords* page, Load(block / kBlocksPerPage));
  return RunIn(*page, block, limit);
}

Result<bool> LayerMap::TryRunAt(uint64_t block, uint64_t limit, Run* run) {
  const uint64_t number = block / kBlocksPerPage;
  const MapWords* page = Find(number);
  if (page == nullptr) {
    if ((1 + number) * kMapPageBytes < file_bytes_) return false;
    *run = {BlockState::kAbsent, std::min(limit, kBlocksPerPage - block % kBlocksPerPage)};
    return true;
  }
  *run = RunIn(*page, block, limit);
  return true;
}

Result<void> LayerMap::Set(uint64_t block, uint64_t count, BlockState state) {
  while (count > 0) {
    const uint64_t number = block / kBlocksPerPage;
    ASSIGN_OR_RETURN(MapWords* const page, Load(number));
    const uint64_t end = std::min(block + count, (number + 1) * kBlocksPerPage);
    count -= end - block;
    bool changed = false;
    while (block < end) {
      const uint64_t from = block % kBlocksPerWord;
      const uint64_t here = std::min(end - block, kBlocksPerWord - from);
      const uint64_t mask = Mask(from, here);
      std::atomic<uint64_t>& word = (*page)[block % kBlocksPerPage / kBlocksPerWord];
      uint64_t was = word.load(std::memory_order_relaxed);
      const uint64_t bits = Repeat(state) & mask;
      if ((was & mask) != bits) {
        // In one step: a block that was never absent must never look so.
        while (!word.compare_exchange_weak(was, (was & ~mask) | bits)) {
        }
        changed = true;
      }
      block += here;
    }
    if (changed) MarkDirty(number);
  }
  return {};
}

// REQUIRES: it is loaded.
void LayerMap::MarkDirty(uint64_t number) {
  Directory& directory = *root_[number / kFanOut].load(std::memory_order_acquire);
  // If it was marked already, TakeDirty has yet to clear the mark, and copies the page after that.
  if (directory.dirty[number % kFanOut].exchange(true)) return;
  base::MutexLock lock(dirty_mutex_);
  dirty_.push_back(number);
}

size_t LayerMap::dirty_pages() const {
  base::MutexLock lock(dirty_mutex_);
  return dirty_.size();
}

LayerMap::Copy LayerMap::TakeDirty(size_t limit) {
  std::vector<uint64_t> numbers;
  {
    base::MutexLock lock(dirty_mutex_);
    const auto end = dirty_.begin() + static_cast<ptrdiff_t>(std::min(limit, dirty_.size()));
    numbers.assign(dirty_.begin(), end);
    dirty_.erase(dirty_.begin(), end);
  }
  std::sort(numbers.begin(), numbers.end());
  Copy copy;
  copy.pages.resize(numbers.size());
  for (size_t i = 0; i < numbers.size(); ++i) {
    root_[numbers[i] / kFanOut].load()->dirty[numbers[i] % kFanOut].exchange(false);
    const MapWords& page = *Find(numbers[i]);
    copy.pages[i].number = numbers[i];
    for (size_t word = 0; word < page.size(); ++word) copy.pages[i].words[word] = page[word].load();
  }
  return copy;
}

Result<void> LayerMap::Write(const Copy& copy) {
  Result<void> written;
  std::vector<base::ByteView> pieces;
  for (size_t i = 0; i < copy.pages.size() && written; ++i) {
    const Copy::Page& page = copy.pages[i];
    pieces.push_back({reinterpret_cast<const uint8_t*>(page.words.data()), kMapPageBytes});
    if (i + 1 < copy.pages.size() && copy.pages[i + 1].number == page.number + 1) continue;
    const uint64_t first = page.number + 1 - pieces.size();
    written = file_->WriteAt((1 + first) * kMapPageBytes, pieces);
    pieces.clear();
  }
  if (!written) {
    for (const Copy::Page& page : copy.pages) MarkDirty(page.number);
  }
  return written;
}

}  // namespace blockd::chunk
