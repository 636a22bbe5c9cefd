#include "blockd/chunk/layer.h"

#include <algorithm>
#include <utility>

namespace blockd::chunk {

using base::Code;
using base::Error;
using base::Result;

namespace {

constexpr std::string_view kDataSuffix = ".data";
constexpr std::string_view kMapSuffix = ".map";
constexpr size_t kPagesPerWrite = 2048;  // of the map, copied at once: 8 MiB

// Longer writes reach the kernel in such pieces. It caches a write in folios as large as the write,
// and a later write of one block walks the blocks of its whole folio: 15 us in what was written by
// the MiB, 3 us in what was written so.
constexpr uint64_t kWritePieceBytes = 32 * base::kKiB;

Result<void> WriteInPieces(base::File& file, uint64_t offset, base::ByteView data) {
  while (!data.empty()) {
    const uint64_t here =
        std::min<uint64_t>(data.size(), kWritePieceBytes - offset % kWritePieceBytes);
    const base::ByteView piece = data.first(here);
    RETURN_IF_ERROR(file.WriteAt(offset, {&piece, 1}));
    offset += here;
    data = data.subspan(here);
  }
  return {};
}

Result<void> WriteAll(base::File& file, uint64_t offset, std::span<const base::ByteView> pieces,
                      uint64_t length) {
  if (length <= kWritePieceBytes) return file.WriteAt(offset, pieces);
  for (const base::ByteView piece : pieces) {
    RETURN_IF_ERROR(WriteInPieces(file, offset, piece));
    offset += piece.size();
  }
  return {};
}

std::string DataPath(const std::string& dir, const std::string& id) {
  return dir + "/" + id + std::string(kDataSuffix);
}
std::string MapPath(const std::string& dir, const std::string& id) {
  return dir + "/" + id + std::string(kMapSuffix);
}

Result<void> RemoveIfThere(base::Files& files, const std::string& path) {
  Result<void> removed = files.Remove(path);
  if (!removed && removed.error().code() == Code::kNotFound) return {};
  return removed;
}

}  // namespace

Result<std::shared_ptr<Layer>> Layer::Create(base::Files& files, const std::string& dir,
                                             const std::string& id, const Live& live) {
  ASSIGN_OR_RETURN(auto data, files.Open(DataPath(dir, id), base::Files::Mode::kCreateNew));
  ASSIGN_OR_RETURN(auto pages, LivePages::Open(live, id, *data));
  ASSIGN_OR_RETURN(auto map, LayerMap::Create(files, MapPath(dir, id), id, std::move(pages)));
  RETURN_IF_ERROR(data->Sync());
  RETURN_IF_ERROR(map->Sync());
  RETURN_IF_ERROR(files.SyncDir(dir));
  return std::shared_ptr<Layer>(new Layer(id, std::move(data), std::move(map)));
}

Result<std::shared_ptr<Layer>> Layer::Open(base::Files& files, const std::string& dir,
                                           const std::string& id, const Live& live) {
  ASSIGN_OR_RETURN(auto data, files.Open(DataPath(dir, id), base::Files::Mode::kReadWrite));
  ASSIGN_OR_RETURN(auto pages, LivePages::Open(live, id, *data));
  ASSIGN_OR_RETURN(auto map, LayerMap::Open(files, MapPath(dir, id), id, std::move(pages)));
  std::shared_ptr<Layer> layer(new Layer(id, std::move(data), std::move(map)));
  // States that a process before this one left: nobody knows whether their bytes were synced.
  layer->unsynced_.store(layer->map_->dirty_pages() > 0);
  return layer;
}

Layer::~Layer() {
  if (clean()) map_->DiscardLive();
}

Result<void> Layer::Remove(base::Files& files, const std::string& dir, const std::string& id,
                           const Live& live) {
  RETURN_IF_ERROR(RemoveIfThere(files, DataPath(dir, id)));
  RETURN_IF_ERROR(RemoveIfThere(files, MapPath(dir, id)));
  if (live != nullptr) live->Remove(id);
  return {};
}

std::string Layer::IdOfFile(const std::string& name) {
  for (std::string_view suffix : {kDataSuffix, kMapSuffix}) {
    if (name.ends_with(suffix)) return name.substr(0, name.size() - suffix.size());
  }
  return "";
}

Result<void> Layer::CheckSound() const {
  if (!spoiled_.load()) return {};
  return Error(Code::kIo, "the disk failed to sync layer " + id_ +
                              ": what was written since may be lost; restart the service to read "
                              "what is there");
}

Result<void> Layer::Spoil(Result<void> synced) {
  if (synced) return synced;
  spoiled_.store(true);
  map_->DiscardLive();
  return synced;
}

Result<void> Layer::Write(uint64_t offset, std::span<const base::ByteView> pieces) {
  RETURN_IF_ERROR(CheckSound());
  uint64_t length = 0;
  for (base::ByteView piece : pieces) length += piece.size();
  const Result<void> written = WriteAll(*data_, offset, pieces, length);
  // Before the states: a flush that takes one of them must see that there are bytes to sync.
  unsynced_.store(true);
  RETURN_IF_ERROR(written);
  const uint64_t first = offset / kBlockBytes;
  const uint64_t end = (offset + length + kBlockBytes - 1) / kBlockBytes;
  return map_->Set(first, end - first, BlockState::kData);
}

Result<void> Layer::Clear(uint64_t block, uint64_t count, BlockState state, bool give_back) {
  RETURN_IF_ERROR(CheckSound());
  BlockRange data;
  while (count > 0) {
    ASSIGN_OR_RETURN(const LayerMap::Run run, map_->RunAt(block, count));
    RETURN_IF_ERROR(map_->Set(block, run.blocks, state));
    if (run.state == BlockState::kData) {
      if (data.end == 0) data.begin = block;
      data.end = block + run.blocks;
    }
    block += run.blocks;
    count -= run.blocks;
  }
  if (give_back) holes_.Add(data);
  return {};
}

void Layer::PunchHoles(BlockRange within) {
  for (const BlockRange& range : holes_.Take(within)) {
    // As few holes as can be: a call for each of many short runs takes minutes.
    BlockRange hole = {range.begin, range.begin};
    while (hole.end < range.end) {
      const Result<LayerMap::Run> run = map_->RunAt(hole.end, range.end - hole.end);
      if (!run) break;
      const uint64_t end = hole.end + run->blocks;
      if (run->state != BlockState::kData) {
        hole.end = end;
        continue;
      }
      Punch(hole);
      hole = {end, end};
    }
    Punch(hole);
  }
}

// The states say all that a reader needs: a hole that can't be punched is only space.
void Layer::Punch(BlockRange hole) {
  if (hole.begin == hole.end) return;
  (void)data_->PunchHole(hole.begin * kBlockBytes, (hole.end - hole.begin) * kBlockBytes)
      .has_value();
}

bool Layer::clean() const { return !unsynced_.load() && map_->dirty_pages() == 0; }

Result<void> Layer::Flush() {
  base::MutexLock lock(mutex_);
  const uint64_t wanted = begun_rounds_ + 1;  // one that runs now may have missed our writes
  while (ended_rounds_ < wanted) {
    if (begun_rounds_ > ended_rounds_) {
      round_ended_.Wait(mutex_);
      continue;
    }
    ++begun_rounds_;
    mutex_.Unlock();
    Result<void> flushed = FlushOnce();
    mutex_.Lock();
    last_round_ = std::move(flushed);
    ended_rounds_ = begun_rounds_;
    round_ended_.NotifyAll();
  }
  // A round later than ours covers what ours was for.
  return last_round_;
}

Result<void> Layer::FlushOnce() {
  RETURN_IF_ERROR(CheckSound());
  // Not what becomes dirty meanwhile: writers could keep us here for ever.
  size_t left = map_->dirty_pages();
  bool wrote_map = false;
  do {
    const LayerMap::Copy copy = map_->TakeDirty(std::min(left, kPagesPerWrite));
    if (unsynced_.exchange(false)) RETURN_IF_ERROR(Spoil(data_->Sync()));
    if (copy.pages.empty()) break;
    RETURN_IF_ERROR(map_->Write(copy));
    wrote_map = true;
    left -= copy.pages.size();
  } while (left > 0);
  if (wrote_map) RETURN_IF_ERROR(Spoil(map_->Sync()));
  return {};
}

}  // namespace blockd::chunk
