// The server over a unix socket, with a client that is free to misbehave and a back end that hangs
// when told to.

#include <atomic>
#include <condition_variable>
#include <mutex>
#include <set>
#include <thread>

#include <gtest/gtest.h>

#include "blockd/nbd/metrics.h"
#include "blockd/nbd/workers.h"
#include "blockd/qos/project.h"
#include "tests/blockd/nbd/server_fixture.h"

namespace blockd::nbd {
namespace {

TEST_F(ServerTest, ReadsWhatWasWritten) {
  Start();
  for (const bool structured : {false, true}) {
    for (const bool cold : {false, true}) {
      volume_->cold = cold;
      Client client(socket_);
      ASSERT_TRUE(client.Go(name_, structured));
      EXPECT_EQ(client.size_bytes, kSizeBytes);
      uint64_t cookie = 1;
      for (const uint32_t length :
           {512u, 4096u, 5 * 512u, 65536u, 65536u + 512u, 1u << 20, kMaxIoBytes}) {
        const std::string data(length, static_cast<char>('a' + cookie % 26));
        const uint64_t offset = cookie * 512;
        EXPECT_EQ(client.Call(Write(cookie, offset, length), data).error, WireError::kOk);
        const Client::Answer answer = client.Call(Read(++cookie, offset, length));
        EXPECT_EQ(answer.cookie, cookie);
        EXPECT_TRUE(answer.data == data) << length;
      }
    }
  }
}

TEST_F(ServerTest, LongZerosNeedNotBeSent) {
  Start();
  Client client(socket_);
  ASSERT_TRUE(client.Go(name_, true));
  EXPECT_EQ(client.Call(Read(1, 0, 1 << 20)).type, kChunkOffsetHole);
  // Unless the client wants one piece.
  Request whole = Read(2, 0, 1 << 20);
  whole.flags = kCommandDf;
  EXPECT_EQ(client.Call(whole).data, std::string(1 << 20, '\0'));
}

TEST_F(ServerTest, AnswersBadRequestsAndGoesOn) {
  Start();
  Client client(socket_);
  ASSERT_TRUE(client.Go(name_, true));
  EXPECT_EQ(client.Call(Read(1, 1, 512)).error, WireError::kInval);
  EXPECT_EQ(client.Call(Read(2, kSizeBytes, 512)).error, WireError::kInval);
  // The payload of a write that is refused is not taken for requests.
  const std::string requests = Client::Encode(Read(66, 0, 512));
  std::string payload;
  while (payload.size() < 1 << 20) payload += requests;
  payload.resize(1 << 20);
  EXPECT_EQ(client.Call(Write(3, kSizeBytes, 1 << 20), payload).error, WireError::kNoSpc);
  EXPECT_EQ(client.Call({static_cast<Command>(77), 0, 4, 0, 0}).error, WireError::kInval);
  volume_->failure = base::Code::kCorruption;
  EXPECT_EQ(client.Call(Write(5, 0, 4096), std::string(4096, 'x')).error, WireError::kIo);
  volume_->failure = base::Code::kOutOfSpace;
  EXPECT_EQ(client.Call(Write(6, 0, 512), std::string(512, 'x')).error, WireError::kNoSpc);
  volume_->failure = base::Code::kNotFound;
  EXPECT_EQ(client.Call(Read(7, 0, 512)).error, WireError::kOk);
  // A stream that is lost is cut off.
  client.Send(std::string(kRequestBytes, 'x'));
  EXPECT_TRUE(client.Ended());
}

TEST_F(ServerTest, ManyInFlightAreAllAnsweredOnce) {
  ServerSettings settings;
  settings.max_in_flight_requests = 8;
  Start(settings);
  volume_->cold = true;
  Client client(socket_);
  ASSERT_TRUE(client.Go(name_, true));
  // Far more than may be in flight, from a thread of its own as the server stops reading.
  constexpr uint64_t kCount = 2000;
  std::thread sender([&] {
    for (uint64_t i = 0; i < kCount; ++i) client.Send(Client::Encode(Read(i, 0, 4096)));
  });
  std::set<uint64_t> cookies;
  for (uint64_t i = 0; i < kCount; ++i) {
    const Client::Answer answer = client.ReceiveAnswer();
    EXPECT_EQ(answer.error, WireError::kOk);
    cookies.insert(answer.cookie);
  }
  sender.join();
  EXPECT_EQ(cookies.size(), kCount);
}

TEST_F(ServerTest, ASlowRequestHoldsUpNoOther) {
  Start();
  Client client(socket_);
  ASSERT_TRUE(client.Go(name_));
  volume_->Hold();
  client.Send(Client::Encode(Flush(1)));
  volume_->AwaitHeld(1);
  EXPECT_EQ(client.Call(Read(2, 0, 4096)).cookie, 2u);
  volume_->Release();
  EXPECT_EQ(client.ReceiveAnswer().cookie, 1u);
}

TEST_F(ServerTest, FuaIsDurableBeforeItIsAnswered) {
  Start();
  Client client(socket_);
  ASSERT_TRUE(client.Go(name_));
  client.Call(Write(1, 0, 4096), std::string(4096, 'x'));
  EXPECT_EQ(volume_->flushes(), 0u);
  client.Call(Write(2, 0, 4096, kCommandFua), std::string(4096, 'x'));
  EXPECT_EQ(volume_->flushes(), 1u);
  client.Call({Command::kTrim, kCommandFua, 3, 0, 4096});
  EXPECT_EQ(volume_->flushes(), 2u);
  client.Call(Flush(4));
  EXPECT_EQ(volume_->flushes(), 3u);
}

TEST_F(ServerTest, ADisconnectWaitsForWhatWasAsked) {
  Start();
  Client client(socket_);
  ASSERT_TRUE(client.Go(name_));
  volume_->Hold();
  client.Send(Client::Encode(Flush(1)) + Client::Encode({Command::kDisconnect, 0, 2, 0, 0}));
  volume_->AwaitHeld(1);
  volume_->Release();
  EXPECT_EQ(client.ReceiveAnswer().cookie, 1u);
  EXPECT_TRUE(client.Ended());
}

TEST_F(ServerTest, WhatHangsIsAnsweredByTheDeadlineAndItsEndThrownAway) {
  ServerSettings settings;
  settings.request_deadline_ms = 50;
  Start(settings);
  Client client(socket_);
  ASSERT_TRUE(client.Go(name_, true));
  volume_->cold = true;
  volume_->Hold();
  client.Send(Client::Encode(Read(1, 0, 4096)) + Client::Encode(Flush(2)));
  std::set<uint64_t> cookies;
  for (int i = 0; i < 2; ++i) {
    const Client::Answer answer = client.ReceiveAnswer();
    EXPECT_EQ(answer.error, WireError::kIo);
    cookies.insert(answer.cookie);
  }
  EXPECT_EQ(cookies, (std::set<uint64_t>{1, 2}));
  volume_->Release();
  // The late ends of both said nothing: the next answer is the next request's.
  EXPECT_EQ(client.Call(Read(3, 0, 4096)).cookie, 3u);
  EXPECT_EQ(Metric("quarry_nbd_requests_timed_out_total"), 2);
}

TEST_F(ServerTest, AReaderThatHangsIsCutOff) {
  ServerSettings settings;
  settings.request_deadline_ms = 50;
  Start(settings);
  Client client(socket_);
  ASSERT_TRUE(client.Go(name_));
  volume_->Hold();
  client.Send(Client::Encode(Write(1, 0, 4096), std::string(4096, 'x')));
  EXPECT_TRUE(client.Ended());
}

TEST_F(ServerTest, AStopDoesNotWaitForWhatHangs) {
  Start();
  {
    Client client(socket_);
    ASSERT_TRUE(client.Go(name_));
    volume_->Hold();
    client.Send(Client::Encode(Flush(1)));
    volume_->AwaitHeld(1);
    EXPECT_FALSE(server_->Stop(0));
    EXPECT_TRUE(client.Ended());
  }
  server_.reset();
  volume_->Release();
}

TEST_F(ServerTest, AStopAnswersWhatCameIn) {
  Start();
  Client client(socket_);
  ASSERT_TRUE(client.Go(name_));
  volume_->Hold();
  client.Send(Client::Encode(Flush(1)));
  volume_->AwaitHeld(1);
  std::thread stop([&] { EXPECT_TRUE(server_->Stop(kLongMs)); });
  volume_->Release();
  EXPECT_EQ(client.ReceiveAnswer().cookie, 1u);
  EXPECT_TRUE(client.Ended());
  stop.join();
}

TEST_F(ServerTest, NoWriteGoesThroughAfterARevocation) {
  Start();
  constexpr int kRounds = 20;
  for (int round = 0; round < kRounds; ++round) {
    const std::string id = "writer" + std::to_string(round);
    exports_->Remove("one").has_value();
    const std::string name = Attach(id, {}).value();
    Client client(socket_);
    ASSERT_TRUE(client.Go(name));
    std::atomic<bool> over{false};
    std::thread writer([&] {
      // Some are run by the reader, some by others.
      while (!over) {
        client.Send(Client::Encode(Write(1, 0, 4096), std::string(4096, 'x')) +
                    Client::Encode(Write(2, 512, 512), std::string(512, 'y')));
      }
    });
    std::thread taker([&] {
      while (client.ReceiveAnswer().error == WireError::kOk) {
      }
    });
    while (volume_->writes < 20) std::this_thread::yield();
    ASSERT_OK_AND_ASSIGN(const std::string removed, exports_->Remove(id));
    ASSERT_OK(server_->Revoke(removed, kLongMs));
    const int writes = volume_->writes;
    over = true;
    writer.join();
    taker.join();
    Client again(socket_);
    EXPECT_FALSE(again.Go(name));
    EXPECT_EQ(volume_->writes, writes);
    volume_->writes = 0;
  }
}

TEST_F(ServerTest, ARevocationSaysWhenAWriteIsStillUnderWay) {
  Start();
  Client client(socket_);
  ASSERT_TRUE(client.Go(name_));
  volume_->Hold();
  client.Send(Client::Encode(Write(1, 0, 512), std::string(512, 'x')));
  volume_->AwaitHeld(1);
  ASSERT_OK_AND_ASSIGN(const std::string removed, exports_->Remove("one"));
  EXPECT_ERROR(server_->Revoke(removed, 0), base::Code::kUnavailable);
  EXPECT_TRUE(client.Ended());
  volume_->Release();
  EXPECT_OK(server_->Revoke(removed, kLongMs));
}

// A disk that stalls under a volume that is to be opened.
class OpenTest : public ServerTest {
 protected:
  void StartWithAVolumeThatHangs() {
    ServerSettings settings;
    settings.request_deadline_ms = 50;
    Start(settings);
    Attachments::Spec spec;
    spec.volume_id = "other";
    // Nothing of the test's own: it may be over before the thread is.
    spec.open = [volume = volume_, opened = opened_]() -> base::Result<Export> {
      opened->fetch_add(1);
      uint8_t sector[512];
      RETURN_IF_ERROR(volume->Read(0, sector));  // hangs while it is held
      Export made;
      made.volume = volume;
      return made;
    };
    ASSERT_OK_AND_ASSIGN(hung_, exports_->Add("two", std::move(spec)));
    volume_->Hold();
  }
  std::string Refusal(Client& client) {
    client.SendOption(Option::kGo, GoData(hung_));
    const Client::OptionAnswer answer = client.ReceiveOption();
    EXPECT_EQ(answer.type, OptionReply::kErrPolicy);
    return answer.data;
  }

  // Tries until it is: a loaded machine may be late for the deadline.
  void AwaitOpen(const std::string& name) {
    while (true) {
      Client client(socket_);
      if (client.Go(name)) return;
    }
  }

  const std::shared_ptr<std::atomic<int>> opened_ = std::make_shared<std::atomic<int>>(0);
  std::string hung_;
};

TEST_F(OpenTest, WhatHangsIsRefusedByTheDeadlineAndOthersAreServed) {
  StartWithAVolumeThatHangs();
  Client client(socket_);
  client.SendFlags();
  for (int i = 0; i < 3; ++i) EXPECT_NE(Refusal(client).find("does not answer"), std::string::npos);
  Client again(socket_);
  again.SendFlags();
  EXPECT_NE(Refusal(again).find("does not answer"), std::string::npos);
  EXPECT_EQ(*opened_, 1) << "each try leaves a thread behind";
  AwaitOpen(name_);
  volume_->Release();
  AwaitOpen(hung_);
}

TEST_F(OpenTest, AStopDoesNotWaitForIt) {
  StartWithAVolumeThatHangs();
  Client client(socket_);
  client.SendFlags();
  (void)Refusal(client);
  EXPECT_FALSE(server_->Stop(0));
  volume_->Release();
}

TEST_F(ServerTest, AClientThatTakesNoAnswersIsCutOffAndHarmsNobody) {
  ServerSettings settings;
  settings.stall_ms = 50;
  Start(settings);
  Client deaf(socket_);
  ASSERT_TRUE(deaf.Go(name_));
  std::thread sender([&] {
    uint64_t cookie = 0;
    while (deaf.Send(Client::Encode(Read(++cookie, 0, 65536)))) {
    }
  });
  Client other(socket_);
  ASSERT_TRUE(other.Go(name_));
  for (uint64_t i = 0; i < 100; ++i) EXPECT_EQ(other.Call(Read(i, 0, 4096)).cookie, i);
  sender.join();  // only a cut ends it
}

TEST_F(ServerTest, AHandshakeThatDoesNotEndIsEnded) {
  ServerSettings settings;
  settings.handshake_timeout_ms = 50;
  Start(settings);
  Client client(socket_);
  client.SendFlags();
  EXPECT_TRUE(client.Ended());
}

TEST_F(ServerTest, AttachmentsShareAVolumeOnlyIfAllSaySo) {
  Start();
  EXPECT_ERROR(Attach("two", {}), base::Code::kConflict);
  EXPECT_ERROR(
      Attach("two", {.volume_id = "", .read_only = true, .multi_attach = false, .open = {}}),
      base::Code::kConflict);
  EXPECT_ERROR(Attach("one", {}), base::Code::kAlreadyExists);
  ASSERT_OK(exports_->Remove("one"));
  Attachments::Spec shared;
  shared.multi_attach = true;
  ASSERT_OK_AND_ASSIGN(const std::string first, Attach("one", shared));
  ASSERT_OK_AND_ASSIGN(const std::string second, Attach("two", shared));
  Client a(socket_);
  Client b(socket_);
  ASSERT_TRUE(a.Go(first));
  ASSERT_TRUE(b.Go(second));
  a.Call(Write(1, 0, 512), std::string(512, 'z'));
  EXPECT_EQ(b.Call(Read(2, 0, 512)).data, std::string(512, 'z'));
}

TEST_F(ServerTest, LimitsHoldForAllConnectionsTogether) {
  // A clock that stands still: what the slack lets through is all there is.
  base::ManualClock clock;
  const auto project = qos::Project::Create(clock, nullptr);
  qos::Limits limits;
  limits.iops[2].per_second = 1000;  // a slack of 20 ms: 20 requests, and the one that takes it
  limiter_ = project->AddVolume("volume", limits, nullptr);
  Start();
  Client a(socket_);
  Client b(socket_);
  ASSERT_TRUE(a.Go(name_));
  ASSERT_TRUE(b.Go(name_));
  for (uint64_t i = 0; i < 21; ++i) {
    EXPECT_EQ((i % 2 == 0 ? a : b).Call(Read(i, 0, 512)).error, WireError::kOk);
  }
  a.Send(Client::Encode(Read(100, 0, 512)));
  EXPECT_EQ(a.Call(Flush(101)).cookie, 101u);  // not limited, and not held up
  clock.AdvanceUs(1000);
  project->Pump();
  EXPECT_EQ(a.ReceiveAnswer(512).cookie, 100u);
}

TEST_F(ServerTest, WaitingForALimitIsNoHang) {
  base::ManualClock clock;
  const auto project = qos::Project::Create(clock, nullptr);
  qos::Limits limits;
  limits.iops[2].per_second = 1;
  limiter_ = project->AddVolume("volume", limits, nullptr);
  ServerSettings settings;
  settings.request_deadline_ms = 50;
  Start(settings);
  Client client(socket_);
  ASSERT_TRUE(client.Go(name_));
  EXPECT_EQ(client.Call(Read(1, 0, 512)).cookie, 1u);
  client.Send(Client::Encode(Read(2, 0, 512)) + Client::Encode({Command::kDisconnect, 0, 3, 0, 0}));
  // Another's requests hang until the watchdog has come by, twice.
  Client other(socket_);
  ASSERT_TRUE(other.Go(name_));
  volume_->Hold();
  for (uint64_t i = 0; i < 2; ++i) EXPECT_EQ(other.Call(Flush(i)).error, WireError::kIo);
  volume_->Release();
  clock.AdvanceUs(1'000'000);
  project->Pump();
  const Client::Answer answer = client.ReceiveAnswer(512);
  EXPECT_EQ(answer.cookie, 2u);
  EXPECT_EQ(answer.error, WireError::kOk);
  EXPECT_TRUE(client.Ended());
}

TEST_F(ServerTest, CountsWhatItDoes) {
  Start();
  const VolumeMetrics kept(metrics_, "volume");  // also after the last connection
  {
    Client client(socket_);
    ASSERT_TRUE(client.Go(name_));
    client.Call(Write(1, 0, 4096), std::string(4096, 'x'));
    client.Call(Read(2, 0, 8192));
    client.Call(Read(3, 1, 512));
    client.Send(Client::Encode({Command::kDisconnect, 0, 4, 0, 0}));
    EXPECT_TRUE(client.Ended());
  }
  EXPECT_EQ(Metric("quarry_nbd_requests_total{kind=\"write\",volume=\"volume\"}"), 1);
  EXPECT_EQ(Metric("quarry_nbd_requests_total{kind=\"read\",volume=\"volume\"}"), 2);
  EXPECT_EQ(Metric("quarry_nbd_read_bytes_total{volume=\"volume\"}"), 8192);
  EXPECT_EQ(Metric("quarry_nbd_request_errors_total{volume=\"volume\"}"), 1);
  EXPECT_EQ(Metric("quarry_nbd_connections_total"), 1);
}

TEST(Workers, AHungLaneLeavesRoomForOthers) {
  Workers workers(8, 2);
  const auto hung = workers.NewLane();
  const auto lively = workers.NewLane();
  std::mutex mutex;
  std::condition_variable changed;
  bool released = false;
  int running = 0;
  int done = 0;
  const auto hang = [&] {
    std::unique_lock lock(mutex);
    ++running;
    changed.notify_all();
    changed.wait(lock, [&] { return released; });
    --running;
    ++done;
    changed.notify_all();
  };
  for (int i = 0; i < 100; ++i) workers.Submit(hung, hang);
  std::unique_lock lock(mutex);
  changed.wait(lock, [&] { return running == 2; });
  int lively_done = 0;
  for (int i = 0; i < 100; ++i) {
    workers.Submit(lively, [&] {
      std::lock_guard inner(mutex);
      ++lively_done;
      changed.notify_all();
    });
  }
  changed.wait(lock, [&] { return lively_done == 100; });
  EXPECT_EQ(running, 2);
  released = true;
  changed.notify_all();
  changed.wait(lock, [&] { return done == 100; });
}

}  // namespace
}  // namespace blockd::nbd
