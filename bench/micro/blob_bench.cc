#include <vector>

#include <benchmark/benchmark.h>

#include "base/check.h"
#include "base/hash.h"
#include "bench/micro/inputs.h"
#include "chunkstore/blob_format.h"

// The path of one chunk, without disk: hash, cut, compress, decode.

namespace chunkstore {
namespace {

void SetBytes(benchmark::State& state, size_t size) {
  state.SetBytesProcessed(static_cast<int64_t>(state.iterations() * size));
}

void BM_Sha256(benchmark::State& state) {
  std::string bytes = bench::RandomBytes(kChunkBytes);
  for (auto _ : state) benchmark::DoNotOptimize(base::Sha256(base::AsBytes(bytes)));
  SetBytes(state, bytes.size());
}
BENCHMARK(BM_Sha256);

void BM_Xxh3(benchmark::State& state) {
  std::string bytes = bench::RandomBytes(static_cast<size_t>(state.range(0)));
  for (auto _ : state) benchmark::DoNotOptimize(base::Xxh3(base::AsBytes(bytes)));
  SetBytes(state, bytes.size());
}
BENCHMARK(BM_Xxh3)->Arg(4096)->Arg(32 * 1024)->Arg(kChunkBytes);

// Over 64 MiB, so that the bytes come from memory as they do from a socket's buffers.
void BM_CutBlocks(benchmark::State& state) {
  std::string bytes = bench::RandomBytes(16 * kChunkBytes);
  size_t at = 0;
  for (auto _ : state) {
    benchmark::DoNotOptimize(CutBlocks(base::AsBytes(bytes).subspan(at, kChunkBytes)));
    at = (at + kChunkBytes) % bytes.size();
  }
  SetBytes(state, kChunkBytes);
}
BENCHMARK(BM_CutBlocks);

using MakeBytes = std::string (*)(size_t, uint64_t);

void BM_Encode(benchmark::State& state, MakeBytes make, int level) {
  std::string bytes = make(16 * kChunkBytes, 1);
  BlobEncoder encoder(EncodeOptions{.compression_level = level});
  size_t at = 0;
  uint64_t plain = 0, stored = 0;
  for (auto _ : state) {
    EncodedBlob blob = encoder.Encode(BlobKind::kChunk, base::Digest256(),
                                      base::AsBytes(bytes).subspan(at, kChunkBytes));
    plain += kChunkBytes;
    stored += blob.stored_bytes();
    at = (at + kChunkBytes) % bytes.size();
  }
  SetBytes(state, kChunkBytes);
  state.counters["ratio"] = static_cast<double>(plain) / static_cast<double>(stored);
}
BENCHMARK_CAPTURE(BM_Encode, random, &bench::RandomBytes, 1);
BENCHMARK_CAPTURE(BM_Encode, random_stored, &bench::RandomBytes, 0);
BENCHMARK_CAPTURE(BM_Encode, text, &bench::TextBytes, 1);
BENCHMARK_CAPTURE(BM_Encode, text_level_3, &bench::TextBytes, 3);
BENCHMARK_CAPTURE(BM_Encode, disk, &bench::DiskBytes, 1);

void BM_Decode(benchmark::State& state, MakeBytes make) {
  std::string bytes = make(kChunkBytes, 1);
  BlobEncoder encoder(EncodeOptions{});
  EncodedBlob blob = encoder.Encode(BlobKind::kChunk, base::Digest256(), base::AsBytes(bytes));
  std::string stored;
  for (base::ByteView piece : blob.pieces()) stored.append(base::AsText(piece));
  base::ByteView view = base::AsBytes(stored);
  std::vector<uint8_t> out(kChunkBytes);
  for (auto _ : state) {
    auto table = DecodeTable(view.last(TailReadBytes(view.size())), view.size());
    for (const Block& block : table->blocks) {
      CHECK(DecodeBlock(block, view.subspan(block.stored_offset, block.stored_length),
                        base::MutableByteView(out).subspan(block.plain_offset, block.plain_length))
                .has_value());
    }
  }
  SetBytes(state, kChunkBytes);
}
BENCHMARK_CAPTURE(BM_Decode, random, &bench::RandomBytes);
BENCHMARK_CAPTURE(BM_Decode, text, &bench::TextBytes);
BENCHMARK_CAPTURE(BM_Decode, disk, &bench::DiskBytes);

void BM_DecodeTable(benchmark::State& state) {
  std::string bytes = bench::TextBytes(kChunkBytes);
  BlobEncoder encoder(EncodeOptions{});
  EncodedBlob blob = encoder.Encode(BlobKind::kChunk, base::Digest256(), base::AsBytes(bytes));
  base::ByteView tail = blob.pieces().back();
  for (auto _ : state) benchmark::DoNotOptimize(DecodeTable(tail, blob.stored_bytes()));
}
BENCHMARK(BM_DecodeTable);

}  // namespace
}  // namespace chunkstore
