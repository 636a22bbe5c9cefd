#include "blockd/remote/remote_volume.h"

#include <atomic>
#include <fstream>
#include <thread>

#include <gtest/gtest.h>

#include "blockd/nbd/tls.h"
#include "tests/blockd/nbd/server_fixture.h"
#include "tests/blockd/remote/world.h"

// The client against Quarry's own server in the same process.

namespace blockd::remote {
namespace {

using base::Code;
using nbd::kSizeBytes;
using nbd::MoodyVolume;

class RemoteVolumeTest : public testing::Test {
 protected:
  void Start() { service_->Start(); }
  RemoteSettings Settings() {
    RemoteSettings settings;
    settings.uri = service_->uri();
    settings.reconnect_ms = 60'000;
    return settings;
  }
  void Open() { Open(Settings()); }
  void Open(const RemoteSettings& settings) {
    ASSERT_OK_AND_ASSIGN(remote_, RemoteVolume::Open(settings));
  }
  void TearDown() override {
    behind_->Release();
    remote_.reset();
    service_->Kill();
  }
  void AwaitConnections(size_t count) {
    while (service_->connections() < count) std::this_thread::yield();
  }

  support::TempDir dir_;
  std::shared_ptr<MoodyVolume> behind_ = std::make_shared<MoodyVolume>();
  std::shared_ptr<Service> service_ = std::make_shared<Service>(behind_, dir_ / "s");
  std::shared_ptr<RemoteVolume> remote_;
};

TEST_F(RemoteVolumeTest, IsTheVolumeBehind) {
  Start();
  Open();
  EXPECT_EQ(remote_->size_bytes(), kSizeBytes);
  EXPECT_FALSE(remote_->read_only());
  const std::string bytes = BytesOf(1, 5 * base::kMiB + 512);
  ASSERT_OK(remote_->Write(512, View(bytes)));
  EXPECT_TRUE(ReadString(*behind_, 512, bytes.size()).value() == bytes);
  EXPECT_TRUE(ReadString(*remote_, 512, bytes.size()).value() == bytes);
  ASSERT_OK(remote_->Zero(4096, 8192, true));
  EXPECT_EQ(ReadString(*behind_, 4096, 8192).value(), std::string(8192, '\0'));
  const uint64_t flushes = behind_->flushes();
  ASSERT_OK(remote_->Flush());
  EXPECT_EQ(behind_->flushes(), flushes + 1);

  std::vector<Extent> extents;
  const auto take = [&](const Extent& extent) {
    extents.push_back(extent);
    return true;
  };
  ASSERT_OK(remote_->VisitExtents(0, kSizeBytes, take));
  std::vector<Extent> expected;
  ASSERT_OK(behind_->VisitExtents(0, kSizeBytes, [&](const Extent& extent) {
    expected.push_back(extent);
    return true;
  }));
  EXPECT_EQ(extents, expected);
  extents.clear();
  ASSERT_OK(remote_->VisitExtents(4096, 4096, take));
  ASSERT_EQ(extents.size(), 1u);
  EXPECT_EQ(extents[0].length, 4096u);
  EXPECT_TRUE(extents[0].zero);

  std::string both(8192, '?');
  auto* const at = reinterpret_cast<uint8_t*>(both.data());
  const RemoteVolume::Part parts[] = {{512, {at, 4096}}, {base::kMiB, {at + 4096, 4096}}};
  ASSERT_OK(remote_->ReadParts(parts));
  EXPECT_EQ(both, ReadString(*behind_, 512, 4096).value() +
                      ReadString(*behind_, base::kMiB, 4096).value());
  EXPECT_FALSE(remote_->TryRead(0, {at, 512}).value());
}

TEST_F(RemoteVolumeTest, ErrorsAreThoseOfTheVolumeBehind) {
  Start();
  Open();
  EXPECT_ERROR(ReadString(*remote_, 1, 512), Code::kInvalidArgument);
  EXPECT_ERROR(ReadString(*remote_, kSizeBytes, 512), Code::kInvalidArgument);
  EXPECT_ERROR(remote_->Write(kSizeBytes - 512, View(BytesOf(1, 1024))), Code::kInvalidArgument);
  EXPECT_ERROR(remote_->Zero(UINT64_MAX - 511, 1024, true), Code::kInvalidArgument);
  behind_->cold = true;
  for (const auto& [failure, code] : {std::pair(Code::kOutOfSpace, Code::kOutOfSpace),
                                      {Code::kIo, Code::kIo},
                                      {Code::kCorruption, Code::kIo}}) {
    behind_->failure = failure;
    EXPECT_ERROR(remote_->Write(0, View(BytesOf(1, 4096))), code);
    EXPECT_ERROR(ReadString(*remote_, 0, 3 * base::kMiB), code);
    EXPECT_ERROR(remote_->Flush(), code);
  }
  behind_->failure = Code::kNotFound;
  EXPECT_OK(remote_->Flush());
}

TEST_F(RemoteVolumeTest, SaysAtOnceWhatItCannotOpen) {
  EXPECT_ERROR(RemoteVolume::Open(Settings()), Code::kUnavailable) << "nobody there";
  Start();
  RemoteSettings settings = Settings();
  settings.uri = service_->uri("attachment.of-another");
  const auto unknown = RemoteVolume::Open(settings);
  EXPECT_ERROR(unknown, Code::kNotFound);
  EXPECT_EQ(unknown.error().message().find("of-another"), std::string::npos)
      << "a secret in " << unknown.error().message();
  for (const char* uri : {"", "http://x/y", "nbd+unix:///x"}) {
    settings.uri = uri;
    EXPECT_ERROR(RemoteVolume::Open(settings), Code::kInvalidArgument) << uri;
  }
  settings.uri = "nbds+unix:///" + std::string(kSecretName) + "?socket=" + service_->socket();
  EXPECT_FALSE(RemoteVolume::Open(settings).has_value()) << "TLS is never left out";
}

TEST_F(RemoteVolumeTest, ReadOnlyOnesAreRefusedWritesByTheServer) {
  service_->read_only = true;
  Start();
  Open();
  EXPECT_TRUE(remote_->read_only());
  EXPECT_FALSE(remote_->Write(0, View(BytesOf(1, 4096))).has_value());
  EXPECT_OK(ReadString(*remote_, 0, 4096));
}

TEST_F(RemoteVolumeTest, OverTls) {
  const std::string keys = dir_ / "keys.psk";
  std::ofstream(keys) << "host1:" << std::string(64, 'a') << "\n";
  nbd::TlsSettings tls;
  tls.psk_path = keys;
  ASSERT_OK_AND_ASSIGN(service_->settings.tls, nbd::TlsContext::Create(tls));
  Start();
  RemoteSettings settings = Settings();
  settings.uri = "nbds+unix:///" + std::string(kSecretName) + "?socket=" + service_->socket();
  settings.tls_psk_file = keys;
  settings.tls_username = "host1";
  Open(settings);
  const std::string bytes = BytesOf(1, 3 * base::kMiB);
  ASSERT_OK(remote_->Write(0, View(bytes)));
  EXPECT_TRUE(ReadString(*remote_, 0, bytes.size()).value() == bytes);
  settings.tls_username = "host2";
  EXPECT_FALSE(RemoteVolume::Open(settings).has_value());
  // A URI comes from the service: it does not choose files of this host.
  settings.tls_psk_file.clear();
  settings.uri += "&tls-psk-file=" + keys;
  EXPECT_FALSE(RemoteVolume::Open(settings).has_value());
}

TEST_F(RemoteVolumeTest, ManyRequestsAreUnderWayAtOnce) {
  service_->settings.max_threads_per_volume = 64;
  for (const bool multi_conn : {true, false}) {
    service_->multi_conn = multi_conn;
    Start();
    Open();
    AwaitConnections(multi_conn ? 4 : 1);
    EXPECT_EQ(service_->connections(), multi_conn ? 4u : 1u);
    behind_->cold = true;
    behind_->Hold();
    std::vector<std::thread> readers;
    for (uint64_t i = 0; i < 32; ++i) {
      readers.emplace_back(
          [&, i] { EXPECT_OK(ReadString(*remote_, i * base::kMiB, kBlockBytes)); });
    }
    behind_->AwaitHeld(32);
    behind_->Release();
    for (std::thread& reader : readers) reader.join();
    remote_.reset();
    service_->Kill();
  }
}

TEST_F(RemoteVolumeTest, WhatWasNotAnsweredIsAskedAgainAfterARestart) {
  Start();
  Open();
  AwaitConnections(4);
  behind_->cold = true;
  behind_->Hold();
  std::vector<std::thread> threads;
  for (uint64_t i = 0; i < 8; ++i) {
    threads.emplace_back([&, i] {
      // Sub-block, so that the server's reader does not run it itself.
      if (i % 2 == 0) EXPECT_OK(remote_->Write(i * base::kMiB + 512, View(BytesOf(i, 512))));
      if (i % 2 == 1) EXPECT_OK(ReadString(*remote_, i * base::kMiB, kBlockBytes));
    });
  }
  behind_->AwaitHeld(8);
  service_->Kill();  // with all of them at the back end
  behind_->Release();
  Start();
  for (std::thread& thread : threads) thread.join();
  for (uint64_t i = 0; i < 8; i += 2)
    EXPECT_EQ(ReadString(*behind_, i * base::kMiB + 512, 512).value(), BytesOf(i, 512));
  EXPECT_OK(remote_->Flush());
}

TEST_F(RemoteVolumeTest, CallsWaitForAServerThatIsGoneButNotForEver) {
  Start();
  RemoteSettings settings = Settings();
  settings.reconnect_ms = 50;
  Open(settings);
  service_->Kill();
  EXPECT_ERROR(ReadString(*remote_, 0, 512), Code::kUnavailable);
  EXPECT_ERROR(remote_->Write(0, View(BytesOf(1, 4096))), Code::kUnavailable);
  Start();
  while (!remote_->Flush().has_value()) std::this_thread::yield();
  behind_->Grow(2 * kSizeBytes);
  service_->Kill();
  Start();
  while (remote_->size_bytes() == kSizeBytes) std::this_thread::yield();
  EXPECT_EQ(remote_->size_bytes(), 2 * kSizeBytes) << "seen when it connects again";
}

TEST_F(RemoteVolumeTest, AServerThatHangsIsConnectedToAnew) {
  Start();
  RemoteSettings settings = Settings();
  settings.request_timeout_ms = 100;
  Open(settings);
  behind_->cold = true;
  behind_->Hold();
  std::thread reader([&] { EXPECT_OK(ReadString(*remote_, 0, 512)); });
  behind_->AwaitHeld(2);  // the same request a second time
  behind_->Release();
  reader.join();
}

TEST_F(RemoteVolumeTest, ClosesWithAServerThatIsGone) {
  Start();
  Open();
  service_->Kill();
  remote_.reset();
}

TEST_F(RemoteVolumeTest, AContextIsThereOrNot) {
  Start();
  RemoteSettings settings = Settings();
  settings.context = std::string("quarry:changed-since-image/") + kImage;
  Open(settings);
  EXPECT_FALSE(remote_->HasContext());
  const auto ignore = [](uint64_t, uint32_t) { return true; };
  EXPECT_ERROR(remote_->VisitContext(0, 4096, ignore), Code::kNotFound);
  remote_.reset();
  service_->Kill();

  auto image = std::make_shared<memory::MemoryVolume>(base::kMiB);
  ASSERT_OK(behind_->Write(8192, View(BytesOf(4, 4096))));
  service_->image = image;
  Start();
  Open(settings);
  ASSERT_TRUE(remote_->HasContext());
  std::vector<std::pair<uint64_t, uint32_t>> runs;
  ASSERT_OK(remote_->VisitContext(0, kSizeBytes, [&](uint64_t length, uint32_t flags) {
    if (!runs.empty() && runs.back().second == flags) {
      runs.back().first += length;
    } else {
      runs.emplace_back(length, flags);
    }
    return true;
  }));
  const std::vector<std::pair<uint64_t, uint32_t>> expected = {
      {8192, 0}, {4096, 1}, {kSizeBytes - 12288, 0}};
  EXPECT_EQ(runs, expected);
}

}  // namespace
}  // namespace blockd::remote
