#include "chunkstore/local/sync_mark.h"

#include <optional>
#include <utility>

#include <fmt/format.h>

#include "base/coding.h"
#include "base/hash.h"
#include "base/log.h"

namespace chunkstore::local {

using base::Result;

namespace {

constexpr size_t kMarkBytes = 16;  // the number, and the low half of its XXH3-128

std::string Encode(uint64_t synced) {
  std::string mark;
  base::PutFixed<uint64_t>(&mark, synced);
  base::PutFixed<uint64_t>(&mark, base::Xxh3(base::AsBytes(mark)).low);
  return mark;
}

// Nothing if it is damaged.
std::optional<uint64_t> Read(const base::File& file) {
  std::string mark(kMarkBytes, '\0');
  if (!file.ReadAt(0, {reinterpret_cast<uint8_t*>(mark.data()), kMarkBytes})) return std::nullopt;
  Result<uint64_t> synced = base::Decoder(mark).Fixed<uint64_t>();
  if (!synced || Encode(*synced) != mark) return std::nullopt;
  return *synced;
}

}  // namespace

Result<SyncMark> SyncMark::Open(const std::string& dir) {
  std::string path = dir + "/SYNCED";
  ASSIGN_OR_RETURN(auto file, base::SystemFiles().Open(path, base::Files::Mode::kCreateOrOpen));
  ASSIGN_OR_RETURN(uint64_t size, file->Size());
  SyncMark mark(path, std::move(file));
  if (size == 0) {
    mark.Set(0);  // takes its space now, so that a full disk is not in its way later
    return mark;
  }
  std::optional<uint64_t> synced = Read(*mark.file_);
  if (synced) {
    mark.synced_ = *synced;
  } else {
    LOG(kWarn, "chunkstore", "{} is damaged: nothing tells whether the log lost its end", path);
  }
  return mark;
}

Result<void> SyncMark::Check(uint64_t reached) const {
  if (reached >= synced_) return {};
  return base::Error(
      base::Code::kCorruption,
      fmt::format(
          "the metadata's log is damaged: the last {} of the changes that were acknowledged "
          "are missing. Restore the directory, or remove {} to go on without them and run "
          "quarry fsck --rebuild-index",
          synced_ - reached, path_));
}

void SyncMark::Set(uint64_t synced) {
  std::string mark = Encode(synced);
  base::ByteView bytes = base::AsBytes(mark);
  if (auto written = file_->WriteAt(0, {&bytes, 1}); !written) {
    LOG(kWarn, "chunkstore", "the sync mark was not written: {}", written.error().message());
  }
}

}  // namespace chunkstore::local
