#include "imaged/digests.h"

#include <algorithm>
#include <utility>

#include <fmt/format.h>

#include "base/async/sleep.h"
#include "base/coding.h"

namespace imaged {

using base::Code;
using base::Error;
using base::MutexLock;
using base::Result;
using base::async::Task;
using chunkstore::Root;

namespace {

constexpr std::string_view kPartition = "digests";
constexpr uint8_t kVersion = 1;
constexpr size_t kReadBytes = 1 * base::kMiB;

std::string KeyOf(const Root& root) { return fmt::format("{}-{}", root.id.hex(), root.size_bytes); }

std::string Encode(const Digests& digests) {
  std::string out;
  base::PutFixed<uint8_t>(&out, kVersion);
  for (const auto& [algorithm, hex] : digests) {
    base::PutString(&out, algorithm);
    base::PutString(&out, hex);
  }
  return out;
}

Result<Digests> Decode(std::string_view bytes) {
  base::Decoder in(bytes);
  ASSIGN_OR_RETURN(uint8_t version, in.Fixed<uint8_t>());
  if (version != kVersion) return Error(Code::kCorruption, "digests of an unknown version");
  Digests digests;
  while (in.remaining() > 0) {
    ASSIGN_OR_RETURN(std::string_view algorithm, in.String());
    ASSIGN_OR_RETURN(std::string_view hex, in.String());
    digests.emplace(algorithm, hex);
  }
  return digests;
}

}  // namespace

Result<Digests> DigestStore::Get(const Root& root) {
  Result<std::string> bytes = meta_.Get(kPartition, KeyOf(root));
  if (bytes.has_value()) return Decode(*bytes);
  if (bytes.error().code() == Code::kNotFound) return Digests{};
  return bytes.error().Annotate("known digests");
}

Result<void> DigestStore::Add(const Root& root, const Digests& digests) {
  // Two that add at once know the same bytes: the loser's part is computed again when it lacks.
  ASSIGN_OR_RETURN(Digests all, Get(root));
  size_t before = all.size();
  all.insert(digests.begin(), digests.end());
  if (all.size() == before) return {};
  chunkstore::MetaBatch batch;
  batch.Put(KeyOf(root), Encode(all));
  return meta_.Commit(kPartition, batch);
}

Result<std::shared_ptr<DigestChain>> DigestChain::Create(std::string algorithm,
                                                         base::async::Pool& pool) {
  ASSIGN_OR_RETURN(auto digester, base::Digester::Create(algorithm));
  return std::shared_ptr<DigestChain>(
      new DigestChain(std::move(algorithm), std::move(digester), pool));
}

DigestChain::DigestChain(std::string algorithm, std::unique_ptr<base::Digester> digester,
                         base::async::Pool& pool)
    : algorithm_(std::move(algorithm)), pool_(pool), digester_(std::move(digester)) {
  if (algorithm_ == "sha256" && base::Sha256Stream::IsFast()) {
    stream_ = std::make_unique<base::Sha256Stream>();
  }
}

void DigestChain::Push(std::shared_ptr<const ChunkBuffer> chunk, Then then) {
  MutexLock lock(mutex_);
  queue_.push_back(Item{std::move(chunk), std::move(then)});
  Schedule();
}

// A full pool takes no job: then the next push, or Finish, tries again.
void DigestChain::Schedule() {
  if (draining_ || queue_.empty()) return;
  draining_ = pool_.TrySubmit([self = shared_from_this()] { self->Drain(); });
}

void DigestChain::Drain() {
  for (;;) {
    Item item;
    {
      MutexLock lock(mutex_);
      if (queue_.empty()) {
        draining_ = false;
        break;
      }
      item = std::move(queue_.front());
      queue_.pop_front();
    }
    Take(std::move(item));
  }
  idle_.Notify();
}

void DigestChain::Take(Item item) {
  std::optional<base::Digest256> id;
  if (stream_ == nullptr) {
    digester_->Update(item.chunk->view());
  } else if (item.then != nullptr) {
    id = stream_->UpdateBoth(item.chunk->view());
  } else {
    stream_->Update(item.chunk->view());
  }
  if (item.then != nullptr) item.then(std::move(item.chunk), id);
}

bool DigestChain::Idle() {
  MutexLock lock(mutex_);
  Schedule();
  return queue_.empty() && !draining_;
}

Task<std::string> DigestChain::Finish() {
  constexpr int64_t kFullPoolPauseMs = 10;
  while (!Idle()) {
    bool draining;
    {
      MutexLock lock(mutex_);
      draining = draining_;
    }
    if (draining) {
      co_await idle_.Wait();
    } else {
      co_await base::async::SleepMs(kFullPoolPauseMs);
    }
  }
  co_return stream_ != nullptr ? stream_->FinishHex() : digester_->FinishHex();
}

Result<Digests> ComputeDigests(chunkstore::Content& content,
                               const std::vector<std::string>& algorithms,
                               const std::function<bool()>& cancelled) {
  std::vector<std::unique_ptr<base::Digester>> digesters;
  for (const std::string& algorithm : algorithms) {
    ASSIGN_OR_RETURN(auto digester, base::Digester::Create(algorithm));
    digesters.push_back(std::move(digester));
  }
  base::Buffer buffer(kReadBytes);
  uint64_t size = content.root().size_bytes;
  for (uint64_t offset = 0; offset < size; offset += kReadBytes) {
    if (cancelled()) return Error(Code::kCancelled, "called off while reading an image back");
    auto piece = buffer.view().subspan(0, std::min<uint64_t>(kReadBytes, size - offset));
    RETURN_IF_ERROR(content.ReadAt(offset, piece));
    for (auto& digester : digesters) digester->Update(piece);
  }
  Digests digests;
  for (size_t i = 0; i < algorithms.size(); ++i) {
    digests.emplace(algorithms[i], digesters[i]->FinishHex());
  }
  return digests;
}

}  // namespace imaged
