#pragma once

#include <memory>
#include <string>
#include <vector>

#include <fcntl.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include "blockd/chunk/layer.h"
#include "tests/support/results.h"
#include "tests/support/temp_dir.h"

// Layers whose maps outlive their process. A layer that is destroyed while it is not clean leaves
// what a kill leaves; that a kill does so is tried as well, in live_pages_test.cc and
// volume_kill_test.cc. Power loss is that the live directory is gone.

namespace blockd::chunk {

using base::Code;

inline constexpr char kUnflushed[] = "5 absent, 2 data, 2 absent, 1 zero, 2 absent";

inline base::Result<void> Fill(Layer& layer, uint64_t block, uint64_t count, char with) {
  const std::string bytes(count * kBlockBytes, with);
  const base::ByteView piece = base::AsBytes(bytes);
  return layer.Write(block * kBlockBytes, {&piece, 1});
}

inline std::string States(Layer& layer, uint64_t limit, uint64_t from = 0) {
  std::string text;
  for (uint64_t block = from; block < from + limit;) {
    auto run = layer.map().RunAt(block, from + limit - block);
    if (!run) return run.error().ToString();
    const char* const names[] = {"absent", "data", "zero"};
    text += (block > from ? ", " : "") + std::to_string(run->blocks) + " " +
            names[static_cast<int>(run->state)];
    block += run->blocks;
  }
  return text;
}

inline std::string BlockOf(Layer& layer, uint64_t block) {
  std::string bytes(kBlockBytes, '?');
  EXPECT_OK(
      layer.ReadAt(block * kBlockBytes, {reinterpret_cast<uint8_t*>(bytes.data()), bytes.size()}));
  return bytes;
}

// The machine's files, whose syncs fail from some moment on.
class FailingSync : public base::Files {
 public:
  bool fail = false;

  base::Result<std::unique_ptr<base::File>> Open(const std::string& path, Mode mode) override {
    ASSIGN_OR_RETURN(auto file, real_.Open(path, mode));
    return std::unique_ptr<base::File>(new OneFile(fail, std::move(file)));
  }
  base::Result<void> Remove(const std::string& path) override { return real_.Remove(path); }
  base::Result<void> Rename(const std::string& from, const std::string& to) override {
    return real_.Rename(from, to);
  }
  base::Result<void> CreateDirs(const std::string& path) override { return real_.CreateDirs(path); }
  base::Result<void> SyncDir(const std::string& path) override { return real_.SyncDir(path); }
  base::Result<std::vector<std::string>> List(const std::string& dir) override {
    return real_.List(dir);
  }
  base::Result<base::FileInfo> Stat(const std::string& path) override { return real_.Stat(path); }
  base::Result<base::SpaceInfo> Space(const std::string& path) override {
    return real_.Space(path);
  }

 private:
  class OneFile : public base::File {
   public:
    OneFile(const bool& fail, std::unique_ptr<base::File> real)
        : fail_(fail), real_(std::move(real)) {}
    base::Result<void> ReadAt(uint64_t offset, base::MutableByteView into) const override {
      return real_->ReadAt(offset, into);
    }
    base::Result<bool> TryReadAt(uint64_t offset, base::MutableByteView into) const override {
      return real_->TryReadAt(offset, into);
    }
    base::Result<void> WriteAt(uint64_t offset, std::span<const base::ByteView> pieces) override {
      return real_->WriteAt(offset, pieces);
    }
    base::Result<void> WriteBulkAt(uint64_t offset,
                                   std::span<const base::ByteView> pieces) override {
      return real_->WriteBulkAt(offset, pieces);
    }
    base::Result<void> PunchHole(uint64_t offset, uint64_t length) override {
      return real_->PunchHole(offset, length);
    }
    base::Result<void> Allocate(uint64_t size_bytes) override {
      return real_->Allocate(size_bytes);
    }
    base::Result<void> Sync() override {
      if (fail_) return base::Error(Code::kIo, "the disk");
      return real_->Sync();
    }
    void StartWriteback() override { real_->StartWriteback(); }
    void WillRead(uint64_t offset, uint64_t length) const override {
      real_->WillRead(offset, length);
    }
    base::Result<void> Truncate(uint64_t size_bytes) override {
      return real_->Truncate(size_bytes);
    }
    base::Result<uint64_t> Size() const override { return real_->Size(); }
    int descriptor() const override { return real_->descriptor(); }

   private:
    const bool& fail_;
    const std::unique_ptr<base::File> real_;
  };

  base::Files& real_ = base::SystemFiles();
};

class LivePagesTest : public testing::Test {
 protected:
  void SetUp() override {
    ASSERT_OK(files_.CreateDirs(layers_));
    ASSERT_OK(files_.CreateDirs(parent_));
    OpenDir();
    auto made = Layer::Create(files_, layers_, "one", live_);
    ASSERT_OK(made);
    layer_ = *std::move(made);
  }
  void OpenDir(const std::string& boot_id = LiveDir::BootId()) {
    live_ = LiveDir::Open(layers_, parent_, private_pages_, boot_id);
    ASSERT_NE(live_, nullptr);
  }
  // As a kill does, if the layer isn't clean.
  void Kill() {
    layer_.reset();
    live_.reset();
  }
  void OpenLayer() {
    auto opened = Layer::Open(files_, layers_, "one", live_);
    ASSERT_OK(opened);
    layer_ = *std::move(opened);
  }
  void Restart() {
    Kill();
    OpenDir();
    OpenLayer();
  }
  void WriteUnflushed() {
    ASSERT_OK(Fill(*layer_, 5, 2, 'a'));
    ASSERT_OK(layer_->Clear(9, 1, BlockState::kZero, true));
  }
  std::string LiveFile() const { return live_->path() + "/one"; }
  // Writes over the file that a killed process left.
  void Damage(uint64_t offset, const std::string& bytes) {
    const std::string path = LiveFile();
    Kill();
    const int file = ::open(path.c_str(), O_RDWR | O_CLOEXEC);
    ASSERT_GE(file, 0);
    ASSERT_EQ(::pwrite(file, bytes.data(), bytes.size(), static_cast<off_t>(offset)),
              static_cast<ssize_t>(bytes.size()));
    ::close(file);
    OpenDir();
    OpenLayer();
  }
  std::vector<std::string> LeftInParent() { return files_.List(parent_).value(); }

  FailingSync files_;
  support::TempDir dir_;
  const std::string layers_ = dir_ / "layers";
  const std::string parent_ = dir_ / "memory";
  base::Metrics metrics_;
  base::Gauge& private_pages_ = metrics_.GetGauge("private", "of the test");
  std::shared_ptr<LiveDir> live_;
  std::shared_ptr<Layer> layer_;
};

}  // namespace blockd::chunk
