#include "chunkstore/local/sync_mark.h"

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

// 0 where there is no mark, or none that can be trusted.
Result<uint64_t> Read(const base::File& file, const std::string& path) {
  std::string mark(kMarkBytes, '\0');
  ASSIGN_OR_RETURN(uint64_t size, file.Size());
  if (size == 0) return 0;
  Result<void> read = size == kMarkBytes
                          ? file.ReadAt(0, {reinterpret_cast<uint8_t*>(mark.data()), kMarkBytes})
                          : base::Error(base::Code::kCorruption, "wrong length");
  if (read) {
    ASSIGN_OR_RETURN(uint64_t synced, base::Decoder(mark).Fixed<uint64_t>());
    if (Encode(synced) == mark) return synced;
  }
  LOG(kWarn, "chunkstore", "{} is damaged: nothing tells whether the log lost its end", path);
  return 0;
}

}  // namespace

Result<SyncMark> SyncMark::Open(const std::string& dir, uint64_t reached) {
  std::string path = dir + "/SYNCED";
  ASSIGN_OR_RETURN(auto file, base::SystemFiles().Open(path, base::Files::Mode::kCreateOrOpen));
  ASSIGN_OR_RETURN(uint64_t synced, Read(*file, path));
  if (synced > reached) {
    return base::Error(
        base::Code::kCorruption,
        fmt::format(
            "the log in {} is damaged: the last {} of the changes that were acknowledged are "
            "missing. Restore the directory, or remove {} to go on without them and run "
            "quarry fsck --rebuild-index",
            dir, synced - reached, path));
  }
  return SyncMark(std::move(file));
}

void SyncMark::Set(uint64_t synced) {
  std::string mark = Encode(synced);
  base::ByteView bytes = base::AsBytes(mark);
  if (auto written = file_->WriteAt(0, {&bytes, 1}); !written) {
    LOG(kWarn, "chunkstore", "the sync mark was not written: {}", written.error().message());
  }
}

}  // namespace chunkstore::local
