#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include <fmt/format.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/files.h"
#include "base/hash.h"
#include "base/metrics.h"
#include "chunkstore/chunk_store.h"
#include "chunkstore/local/local_blob_store.h"
#include "chunkstore/local/local_meta_store.h"

// What sharing blocks between chunks saves and costs, image by image: raw images are put one after
// the other into one store, and read back. Figures go to the standard output, a line an image.

namespace {

using chunkstore::kBlockGridBytes;
using chunkstore::kChunkBytes;
using Clock = std::chrono::steady_clock;

double SecondsSince(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

// Of the whole process: what other programs do meanwhile hardly shows in it.
double CpuSecondsSince(std::clock_t start) {
  return static_cast<double>(std::clock() - start) / CLOCKS_PER_SEC;
}

[[noreturn]] void Die(const std::string& why) {
  fmt::print(stderr, "{}\n", why);
  std::exit(1);
}

template <typename T>
T Must(base::Result<T> result, std::string_view what) {
  if (!result.has_value()) Die(fmt::format("{}: {}", what, result.error().ToString()));
  if constexpr (!std::is_void_v<T>) return *std::move(result);
}

// A raw image in memory, as the page cache has it.
class Image {
 public:
  explicit Image(const std::string& path) {
    const auto file = Must(base::SystemFiles().Open(path, base::Files::Mode::kRead), path);
    size_ = Must(file->Size(), path);
    bytes_.resize(size_);
    Must(file->ReadAt(0, {bytes_.data(), size_}), path);
  }
  uint64_t size() const { return size_; }
  uint64_t chunks() const { return (size_ + kChunkBytes - 1) / kChunkBytes; }
  base::ByteView Chunk(uint64_t index) const {
    const uint64_t from = index * kChunkBytes;
    return {bytes_.data() + from, std::min<uint64_t>(kChunkBytes, size_ - from)};
  }
  // Bytes of 4 KiB pages that are not zeros.
  uint64_t NonzeroBytes(uint64_t from, uint64_t length) const {
    uint64_t nonzero = 0;
    for (uint64_t at = from; at < from + length; at += kBlockGridBytes) {
      const uint64_t page = std::min<uint64_t>(kBlockGridBytes, from + length - at);
      if (!base::IsZero({bytes_.data() + at, page})) nonzero += page;
    }
    return nonzero;
  }

 private:
  uint64_t size_ = 0;
  std::vector<uint8_t> bytes_;
};

struct Figures {
  uint64_t nonzero_bytes = 0;
  uint64_t new_chunk_bytes = 0;  // non-zero bytes of chunks that were not known
  uint64_t new_block_bytes = 0;  // and of blocks that lie in no other chunk
  uint64_t stored_bytes = 0;     // that the store grew by
  double put_s = 0;
  double read_s = 0;
  double put_cpu_s = 0;
  double read_cpu_s = 0;
  uint64_t runs = 0;  // pieces in one place, in the chunks that borrow
  uint64_t borrowing_chunks = 0;
};

Figures PutAndRead(chunkstore::ChunkStore& store, const std::string& name, const Image& image) {
  Figures figures;
  const uint64_t before = Must(store.Stats(), "stats").physical_bytes;
  const auto start = Clock::now();
  const std::clock_t cpu_start = std::clock();
  auto ingest = Must(store.NewIngest(name, ""), name);
  std::vector<bool> known(image.chunks());
  for (uint64_t i = 0; i < image.chunks(); ++i)
    known[i] = Must(ingest->Put(i, image.Chunk(i)), name).known;
  const chunkstore::Root root = Must(ingest->Finish(image.size()), name);
  figures.put_s = SecondsSince(start);
  figures.put_cpu_s = CpuSecondsSince(cpu_start);
  figures.stored_bytes = Must(store.Stats(), "stats").physical_bytes - before;
  figures.nonzero_bytes = image.NonzeroBytes(0, image.size());
  const auto content = Must(store.Open(root), name);
  for (uint64_t i = 0; i < image.chunks(); ++i) {
    if (known[i]) continue;
    const base::Digest256 id = base::Sha256(image.Chunk(i));
    figures.new_chunk_bytes += image.NonzeroBytes(i * kChunkBytes, image.Chunk(i).size());
    bool borrows = false;
    uint64_t runs = 0;
    base::Digest256 last_owner;
    uint32_t next_offset = 0;
    for (const chunkstore::StoredBlock& block : Must(content->BlocksOf(i), name)) {
      if (block.owner == id)
        figures.new_block_bytes +=
            image.NonzeroBytes(i * kChunkBytes + block.plain_offset, block.plain_length);
      borrows |= block.owner != id;
      runs += runs == 0 || block.owner != last_owner || block.owner_offset != next_offset;
      last_owner = block.owner;
      next_offset = block.owner_offset + block.plain_length;
    }
    figures.runs += borrows ? runs : 0;
    figures.borrowing_chunks += borrows;
  }
  std::vector<uint8_t> buffer(kChunkBytes);
  const auto read_start = Clock::now();
  const std::clock_t read_cpu_start = std::clock();
  for (uint64_t at = 0; at < image.size(); at += kChunkBytes) {
    uint64_t left = std::min<uint64_t>(kChunkBytes, image.size() - at);
    for (uint64_t done = 0; done < left;) {
      const auto piece = Must(content->PieceAt(at + done, left - done), name);
      if (piece.descriptor >= 0)
        (void)!::pread(piece.descriptor, buffer.data(), piece.length,
                       static_cast<off_t>(piece.file_offset));
      done += piece.length;
    }
  }
  figures.read_s = SecondsSince(read_start);
  figures.read_cpu_s = CpuSecondsSince(read_cpu_start);
  return figures;
}

}  // namespace

int main(int argc, char** argv) {
  constexpr std::string_view kLevel = "--level=";
  int first = 3;
  chunkstore::ChunkStoreOptions options;
  if (argc > first && std::string_view(argv[first]).starts_with(kLevel))
    options.compression_level = std::atoi(argv[first++] + kLevel.size());
  if (argc <= first) {
    fmt::print(
        stderr,
        "usage: {} DIR share|alone [--level=N] IMAGE.raw...\n"
        "Puts the images one after the other into an empty store in DIR, at zstd's level N,\n"
        "and reads each back.\n",
        argv[0]);
    return 2;
  }
  const std::string dir = argv[1];
  std::filesystem::create_directories(dir);
  base::Metrics metrics;
  auto blobs = Must(chunkstore::local::LocalBlobStore::Open(base::SystemFiles(), dir), dir);
  auto meta = Must(chunkstore::local::OpenLocalMetaStore(dir + "/meta", {}), dir);
  options.share_blocks = std::string_view(argv[2]) == "share";
  auto store =
      Must(chunkstore::ChunkStore::Open(options, *blobs, *meta, base::SystemClock(), metrics), dir);
  fmt::print("{:<16} {:>8} {:>8} {:>8} {:>9} {:>8} {:>8} {:>10} {:>10} {:>10}\n", "image", "MiB",
             "chunks", "blocks", "disk MiB", "put MB/s", "read MB/s", "put/CPU s", "read/CPU s",
             "runs/chunk");
  for (int i = first; i < argc; ++i) {
    const Image image(argv[i]);
    const std::string name = std::filesystem::path(argv[i]).stem().string();
    const Figures f = PutAndRead(*store, name, image);
    const double nonzero = static_cast<double>(f.nonzero_bytes);
    fmt::print(
        "{:<16} {:>8.1f} {:>7.1f}% {:>7.1f}% {:>9.1f} {:>8.0f} {:>8.0f} {:>10.0f} {:>10.0f} "
        "{:>10.1f}\n",
        name, nonzero / (1 << 20), 100 * static_cast<double>(f.new_chunk_bytes) / nonzero,
        100 * static_cast<double>(f.new_block_bytes) / nonzero,
        static_cast<double>(f.stored_bytes) / (1 << 20), nonzero / f.put_s / 1e6,
        nonzero / f.read_s / 1e6, nonzero / f.put_cpu_s / 1e6, nonzero / f.read_cpu_s / 1e6,
        static_cast<double>(f.runs) /
            static_cast<double>(std::max<uint64_t>(1, f.borrowing_chunks)));
    std::fflush(stdout);
  }
  return 0;
}
