// What one tenant, or one who is nobody's, may take of the server from the others.

#include <memory>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "tests/blockd/nbd/server_fixture.h"

namespace blockd::nbd {
namespace {

constexpr uint32_t kLongBytes = 8 * base::kMiB;

class ServerLimitsTest : public ServerTest {
 protected:
  void SetUp() override { settings_.max_memory_bytes = 8 * kLongBytes; }

  std::string ExportOf(const std::string& tenant) {
    return Attach("of-" + tenant, {.volume_id = tenant, .open = {}}, tenant).value();
  }
  std::unique_ptr<Client> Connect(const std::string& name) {
    auto client = std::make_unique<Client>(socket_);
    EXPECT_TRUE(client->Go(name));
    return client;
  }
  // Once somebody else's connection has ended.
  void ConnectAtLast(const std::string& name) {
    while (true) {
      Client client(socket_);
      if (client.Go(name)) return;
    }
  }
  bool Refuses(const std::string& name) {
    Client client(socket_);
    client.SendFlags();
    client.SendOption(Option::kGo, GoData(name));
    return client.ReceiveOption().type == OptionReply::kErrPolicy;
  }
  // Until the sampled gauge says so.
  void AwaitMemory(uint64_t bytes) {
    while (Metric("quarry_nbd_memory_bytes") != static_cast<double>(bytes))
      std::this_thread::yield();
  }

  ServerSettings settings_;
};

TEST_F(ServerLimitsTest, AnswersThatOneTenantLeavesDoNotTakeTheMemoryOfOthers) {
  settings_.request_deadline_ms = 5'000;  // and so is how often the gauge is set
  Start(settings_);
  const std::string red = ExportOf("red");
  std::vector<std::unique_ptr<Client>> idle;
  static constexpr uint64_t kEach = 4;
  for (int i = 0; i < 4; ++i) {
    idle.push_back(Connect(red));
    for (uint64_t cookie = 0; cookie < kEach; ++cookie)
      idle.back()->Send(Client::Encode(Read(cookie, 0, kLongBytes)));
  }
  AwaitMemory(4 * kLongBytes);  // 16 are asked for
  // Another has room, for the largest request too.
  const auto blue = Connect(ExportOf("blue"));
  EXPECT_EQ(blue->Call(Read(1, 0, kMaxIoBytes / 2)).data.size(), kMaxIoBytes / 2);
  // What is short needs none, and so goes on for the tenant itself.
  volume_->cold = true;
  EXPECT_EQ(Connect(red)->Call(Read(2, 0, 4096)).cookie, 2u);
  // Who reads at last gets all that it asked for.
  std::vector<std::thread> readers;
  for (const auto& client : idle) {
    readers.emplace_back([&client] {
      std::set<uint64_t> cookies;
      for (uint64_t i = 0; i < kEach; ++i) cookies.insert(client->ReceiveAnswer(kLongBytes).cookie);
      EXPECT_EQ(cookies.size(), kEach);
    });
  }
  for (std::thread& reader : readers) reader.join();
  EXPECT_GT(Metric("quarry_nbd_memory_waits_total"), 0);
  AwaitMemory(0);
}

TEST_F(ServerLimitsTest, WhatAClientThatLeftDidNotReadIsGivenBack) {
  Start(settings_);
  const std::string red = ExportOf("red");
  for (int round = 0; round < 10; ++round) {
    const auto gone = Connect(red);
    for (uint64_t i = 0; i < 8; ++i) gone->Send(Client::Encode(Read(i, 0, kLongBytes)));
    EXPECT_EQ(gone->Receive(1).size(), 1u);
  }
  EXPECT_EQ(Connect(red)->Call(Read(1, 0, kLongBytes)).data.size(), kLongBytes);
}

TEST_F(ServerLimitsTest, WritesOfAllConnectionsAreTakenInTurn) {
  settings_.max_memory_bytes = kMaxIoBytes;
  Start(settings_);
  const std::string red = ExportOf("red");
  const std::string data(kLongBytes, 'x');
  std::vector<std::thread> writers;
  for (int i = 0; i < 4; ++i) {
    writers.emplace_back([&] {
      const auto client = Connect(red);
      for (uint64_t cookie = 0; cookie < 4; ++cookie)
        EXPECT_EQ(client->Call(Write(cookie, 0, kLongBytes), data).error, WireError::kOk);
    });
  }
  for (std::thread& writer : writers) writer.join();
  EXPECT_EQ(volume_->writes, 16);
}

TEST_F(ServerLimitsTest, AWriteWhoseDataDoesNotComeIsCutOff) {
  settings_.stall_ms = 50;
  Start(settings_);
  const auto client = Connect(name_);
  client->Send(Client::Encode(Write(1, 0, kLongBytes), std::string(kLongBytes - 1, 'x')));
  EXPECT_TRUE(client->Ended());
  EXPECT_EQ(Metric("quarry_nbd_connections_stalled_total"), 1);
  EXPECT_EQ(volume_->writes, 0);
}

TEST_F(ServerLimitsTest, AWriteWhoseDataComesTooSlowlyIsCutOff) {
  settings_.stall_ms = 50;
  settings_.min_bytes_per_second = base::kGiB * base::kKiB;
  Start(settings_);
  const auto client = Connect(name_);
  client->Send(Client::Encode(Write(1, 0, kMaxIoBytes)));
  uint32_t sent = 0;
  while (sent < kMaxIoBytes && client->Send("x")) ++sent;
  EXPECT_LT(sent, kMaxIoBytes);
  EXPECT_EQ(volume_->writes, 0);
}

TEST_F(ServerLimitsTest, AnAnswerThatIsReadTooSlowlyIsCutOff) {
  settings_.stall_ms = 50;
  settings_.min_bytes_per_second = base::kGiB * base::kKiB;
  Start(settings_);
  const auto client = Connect(name_);
  client->Send(Client::Encode(Read(1, 0, kMaxIoBytes)));
  uint32_t got = 0;
  while (!client->Receive(1).empty()) ++got;
  EXPECT_LT(got, kMaxIoBytes);
}

// 64 KiB each, of what is cached, asked for in one piece: answered by the reader itself.
TEST_F(ServerLimitsTest, ShortAnswersAreNotGatheredForWhoDoesNotRead) {
  settings_.stall_ms = 50;
  Start(settings_);
  const auto client = Connect(name_);
  constexpr int kCount = 4000;
  std::string requests;
  for (uint64_t i = 0; i < kCount; ++i) requests += Client::Encode(Read(i, 0, 65536));
  client->Send(requests);
  while (Metric("quarry_nbd_connections_stalled_total") != 1) std::this_thread::yield();
  EXPECT_LT(volume_->tried, 100);
}

// The reader, who waits for room to answer, is told of it by whoever made some.
TEST_F(ServerLimitsTest, ShortAndLongAnswersComeWhoeverSendsThem) {
  Start(settings_);
  const auto client = Connect(name_);
  static constexpr uint64_t kCount = 1000;
  const auto length_of = [](uint64_t cookie) { return cookie % 3 == 0 ? 256 * 1024u : 65536u; };
  std::thread sender([&] {
    for (uint64_t i = 0; i < kCount; ++i) client->Send(Client::Encode(Read(i, 0, length_of(i))));
  });
  std::set<uint64_t> cookies;
  for (uint64_t i = 0; i < kCount; ++i) {
    const Client::Answer answer = client->ReceiveAnswer();
    EXPECT_EQ(client->Receive(length_of(answer.cookie)).size(), length_of(answer.cookie));
    cookies.insert(answer.cookie);
  }
  sender.join();
  EXPECT_EQ(cookies.size(), kCount);
}

TEST_F(ServerLimitsTest, AnExportHasItsNumberOfConnections) {
  settings_.max_connections_per_export = 2;
  Start(settings_);
  const std::string red = ExportOf("red");
  const auto first = Connect(red);
  auto second = Connect(red);
  EXPECT_TRUE(Refuses(red));
  EXPECT_EQ(Metric("quarry_nbd_connections_refused_total"), 1);
  Connect(name_);
  second.reset();
  ConnectAtLast(red);
}

TEST_F(ServerLimitsTest, IdleConnectionsOfATenantLeaveSomeForOthers) {
  settings_.max_connections = 4;
  Start(settings_);
  const std::string red = ExportOf("red");
  const std::string blue = ExportOf("blue");
  auto first = Connect(red);
  const auto second = Connect(red);
  EXPECT_TRUE(Refuses(red));
  auto third = Connect(blue);
  third.reset();
  first.reset();
  ConnectAtLast(red);
}

TEST_F(ServerLimitsTest, HandshakesThatSayNothingMakeRoom) {
  settings_.max_handshakes = 2;
  Start(settings_);
  Client first(socket_);
  Client second(socket_);
  const auto served = Connect(name_);
  EXPECT_TRUE(first.Ended());
  EXPECT_EQ(served->Call(Read(1, 0, 4096)).cookie, 1u);
  EXPECT_EQ(Metric("quarry_nbd_handshakes_dropped_total"), 1);
  // The other still has its place.
  EXPECT_TRUE(second.Go(name_));
}

}  // namespace
}  // namespace blockd::nbd
