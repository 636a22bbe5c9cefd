// What clients do that they should not. Timeouts are short here, and every test waits for what the
// server does.

#include <atomic>
#include <chrono>
#include <random>
#include <thread>

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/http/body_budget.h"
#include "base/http/server.h"
#include "base/http/turned_away.h"
#include "tests/base/http/test_client.h"
#include "tests/base/http/test_server.h"

namespace base::http {
namespace {

using testing::HasSubstr;

constexpr std::string_view kHello = "GET /t/hello/x HTTP/1.1\r\nHost: x\r\n\r\n";

// The server must go on after whatever the test did.
void ExpectAlive(TestServer& server) {
  RawClient client(server.address());
  EXPECT_EQ(client.Exchange(kHello).body, "hello x");
}

struct BadRequest {
  const char* name;
  std::string text;
  int status;
};

class BadRequestTest : public testing::TestWithParam<BadRequest> {};

TEST_P(BadRequestTest, IsRefusedAndEndsTheConnection) {
  TestServer server;
  RawClient client(server.address());
  client.Send(GetParam().text);
  client.ShutdownSend();
  const auto answer = client.Receive();
  EXPECT_EQ(answer.status, GetParam().status);
  EXPECT_EQ(answer.headers.at("connection"), "close");
  EXPECT_TRUE(client.AtEnd());
  ExpectAlive(server);
}

std::string WithFields(std::string_view fields) {
  return fmt::format("GET /t/hello/x HTTP/1.1\r\nHost: x\r\n{}\r\n", fields);
}

INSTANTIATE_TEST_SUITE_P(
    All, BadRequestTest,
    testing::Values(
        BadRequest{"NotHttp", "\x16\x03\x01\x02hello\r\n\r\n", 400},
        BadRequest{"Http2", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505},
        BadRequest{"NoVersion", "GET /\r\n\r\n", 400},
        BadRequest{"NoHost", "GET /t/hello/x HTTP/1.1\r\n\r\n", 400},
        BadRequest{"TwoHosts", WithFields("Host: y\r\n"), 400},
        BadRequest{"BadHost", "GET / HTTP/1.1\r\nHost: a\"b\r\n\r\n", 400},
        BadRequest{"ObsFold", WithFields("A: b\r\n c\r\n"), 400},
        BadRequest{"BlankInName", WithFields("A b: c\r\n"), 400},
        BadRequest{"BlankBeforeColon", WithFields("Content-Length : 3\r\n"), 400},
        BadRequest{"NoColon", WithFields("nonsense\r\n"), 400},
        BadRequest{"NulInValue", WithFields(std::string("A: b\0c\r\n", 8)), 400},
        BadRequest{"LengthAndChunked",
                   WithFields("Content-Length: 3\r\nTransfer-Encoding: chunked\r\n"), 400},
        BadRequest{"ChunkedAndLength",
                   WithFields("Transfer-Encoding: chunked\r\nContent-Length: 3\r\n"), 400},
        BadRequest{"TwoLengths", WithFields("Content-Length: 3\r\nContent-Length: 4\r\n"), 400},
        BadRequest{"NegativeLength", WithFields("Content-Length: -3\r\n"), 400},
        BadRequest{"SignedLength", WithFields("Content-Length: +3\r\n"), 400},
        BadRequest{"HugeLength", WithFields("Content-Length: 99999999999999999999\r\n"), 400},
        BadRequest{"UnknownCoding", WithFields("Transfer-Encoding: gzip\r\n"), 501},
        BadRequest{"CodedChunks", WithFields("Transfer-Encoding: gzip, chunked\r\n"), 501},
        BadRequest{"ChunkedIn10",
                   "PUT /t/upload HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400},
        BadRequest{"LongTarget",
                   "GET /" + std::string(17'000, 'a') + " HTTP/1.1\r\nHost: x\r\n\r\n", 414},
        BadRequest{"EndlessTarget", "GET /" + std::string(70'000, 'a'), 414},
        BadRequest{"LargeHeaders", WithFields("A: " + std::string(70'000, 'a') + "\r\n"), 431},
        BadRequest{"EndlessHeaders", "GET / HTTP/1.1\r\nHost: x\r\nA: " + std::string(70'000, 'a'),
                   431}),
    [](const auto& info) { return info.param.name; });

TEST(HostileTest, PathTricksFindNothing) {
  TestServer server;
  RawClient client(server.address());
  for (const char* path : {"/t/../t/hello/x", "/t/hello/..",   "/t/hello/%2e%2e",
                           "/t/hello/.",      "/t//hello/x",   "/t/hello//x",
                           "/t/hello/",       "/t/hello/%00",  "/t/hello/x%00",
                           "/t/hello/%ff",    "/t/hello/\xff", "/t/hello/%c0%af",
                           "/t/hello/%",      "/t/hello/%4",   "/t/hello%2fx",
                           "/t%2fhello/x",    "/tx/hello/x",   "*",
                           "hello",           "//t/hello/x"}) {
    const auto answer = client.Exchange(fmt::format("GET {} HTTP/1.1\r\nHost: x\r\n\r\n", path));
    EXPECT_TRUE(answer.status == 404 || answer.status == 400) << path << " " << answer.status;
  }
  // An encoded slash stays inside its segment.
  EXPECT_EQ(client.Exchange("GET /t/hello/a%2Fb HTTP/1.1\r\nHost: x\r\n\r\n").body, "hello a/b");
}

TEST(HostileTest, NoTargetGetsAroundAnAccessRule) {
  TestServer server;
  RawClient client(server.address());
  const auto status = [&client](std::string_view target, std::string_view token) {
    return client
        .Exchange(
            fmt::format("DELETE {} HTTP/1.1\r\nHost: x\r\nX-Auth-Token: {}\r\n\r\n", target, token))
        .status;
  };
  for (const char* target : {"/t/things/1/tags/x", "/t/things/%31/%74ags/x",
                             "/t/things/1/tags/a%2Fb", "http://x/t/things/1/tags/x?y=/"})
    EXPECT_EQ(status(target, "ruled-token"), 200) << target;
  for (const char* target : {"/t/things/1#/tags/x", "/t/things/1?#/tags/x", "/t/things/1/tags/x#"})
    for (const char* token : {"ruled-token", "admin-token"})
      EXPECT_EQ(status(target, token), 400) << target;
  // To the router all of these are one thing with a strange name.
  for (const char* target : {"/t/things/1%2Ftags%2Fx", "/t/things/1%23", "/t/things/1%3F",
                             "/t/things/1?/tags/x", "http://x/t/things/1"}) {
    EXPECT_EQ(status(target, "ruled-token"), 401) << target;
    EXPECT_EQ(status(target, "member-token"), 200) << target;
  }
}

std::string Post(std::string_view path, std::string_view body) {
  return fmt::format("POST /t{} HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n{}", path,
                     body.size(), body);
}

double BodyMemory(TestServer& server) {
  return server.metrics().GetGauge("quarry_http_body_memory_bytes", "").value();
}

TEST(HostileTest, BodiesShareTheirMemory) {
  TestServer server({.body_memory_bytes = 100'000});
  const std::string body(60'000, 'b');
  RawClient holder(server.address());
  const std::string request = Post("/echo", body);
  ASSERT_TRUE(holder.Send(std::string_view(request).substr(0, request.size() - 1)));
  while (BodyMemory(server) == 0) std::this_thread::yield();
  EXPECT_EQ(BodyMemory(server), 60'000) << "as long as it said, not more";

  RawClient client(server.address());
  for (int i = 0; i < 3; ++i) {
    const auto refused = client.Exchange(request);
    EXPECT_EQ(refused.status, 503);
    EXPECT_EQ(refused.headers.at("retry-after"), "1");
  }
  const std::string chunked = fmt::format(
      "POST /t/echo HTTP/1.1\r\nHost: x\r\nX-Auth-Token: member-token\r\n"
      "Transfer-Encoding: chunked\r\n\r\n{:x}\r\n{}\r\n0\r\n\r\n",
      body.size(), body);
  EXPECT_EQ(client.Exchange(chunked).status, 503);
  const std::string small(kFreeBodyBytes, 's');
  EXPECT_EQ(client.Exchange(Post("/echo", small)).body, small) << "a small one always goes";

  holder.Send("b");
  EXPECT_EQ(holder.Receive().body, body);
  EXPECT_EQ(BodyMemory(server), 0);
  EXPECT_EQ(client.Exchange(request).body, body);
  EXPECT_EQ(client.Exchange(chunked).body, body);
  EXPECT_EQ(BodyMemory(server), 0);
}

TEST(HostileTest, ABodyCountsUntilItsHandlerIsDoneOrItsClientGone) {
  TestServer server({.body_memory_bytes = 100'000});
  const std::string body(60'000, 'b');
  RawClient holder(server.address());
  ASSERT_TRUE(holder.Send(Post("/wait", body)));
  server.door().AwaitWaiting(1);
  RawClient client(server.address());
  EXPECT_EQ(client.Exchange(Post("/echo", body)).status, 503);
  server.door().Open();
  EXPECT_EQ(holder.Receive().status, 200);

  const std::string request = Post("/echo", body);
  ASSERT_TRUE(holder.Send(std::string_view(request).substr(0, 40'000)));
  while (BodyMemory(server) == 0) std::this_thread::yield();
  holder.Abort();
  while (BodyMemory(server) > 0) std::this_thread::yield();
  EXPECT_EQ(client.Exchange(request).body, body);
}

TEST(HostileTest, ANameCanNotForgeAHeader) {
  TestServer server;
  RawClient client(server.address());
  const auto answer =
      client.Exchange("GET /t/inject?name=a%0d%0aSet-Cookie:%20b HTTP/1.1\r\nHost: x\r\n\r\n");
  EXPECT_FALSE(answer.headers.contains("set-cookie"));
  EXPECT_EQ(answer.headers.at("x-name"), "a  Set-Cookie: b");
}

TEST(HostileTest, SlowHeadersAreCutOff) {
  TestServer server({.header_timeout_ms = 50});
  RawClient client(server.address());
  client.Send("GET /t/hello/x HTTP/1.1\r\nHost");
  EXPECT_EQ(client.Receive().status, 408);
  EXPECT_TRUE(client.AtEnd());
}

TEST(HostileTest, DrippingHeadersAreCutOffToo) {
  TestServer server({.header_timeout_ms = 100});
  RawClient client(server.address());
  client.Send("GET /t/hello/x HTTP/1.1\r\n");
  // Each byte comes in time, the whole does not.
  std::thread dripping([&] {
    while (client.Send("A")) std::this_thread::sleep_for(std::chrono::milliseconds(5));
  });
  EXPECT_EQ(client.Receive().status, 408);
  client.ShutdownSend();
  dripping.join();
}

TEST(HostileTest, AnIdleConnectionIsClosedWithoutAWord) {
  TestServer server({.idle_timeout_ms = 50});
  RawClient client(server.address());
  EXPECT_EQ(client.Exchange(kHello).status, 200);
  EXPECT_TRUE(client.AtEnd());
  RawClient silent(server.address());
  EXPECT_TRUE(silent.AtEnd());
}

TEST(HostileTest, AStalledBodyIsCutOff) {
  TestServer server({.body_stall_timeout_ms = 50});
  RawClient client(server.address());
  client.Send("PUT /t/upload HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nabc");
  const auto answer = client.Receive();
  EXPECT_EQ(answer.status, 503);
  EXPECT_EQ(answer.headers.at("connection"), "close");
  EXPECT_TRUE(client.AtEnd());
}

TEST(HostileTest, ABodyThatTricklesIsCutOff) {
  TestServer server({.body_stall_timeout_ms = 1000});
  for (const char* framing : {"Content-Length: 1000000", "Transfer-Encoding: chunked"}) {
    RawClient client(server.address());
    client.Send(std::string("PUT /t/upload HTTP/1.1\r\nHost: x\r\n") + framing + "\r\n\r\n");
    std::atomic<bool> answered = false;
    // Never silent for as long as a stall, and far below the least rate.
    std::jthread trickle([&] {
      while (!answered && client.Send("1\r\nx\r\n")) {
        std::this_thread::sleep_for(std::chrono::milliseconds(100));
      }
    });
    EXPECT_EQ(client.Receive().status, 503) << framing;
    answered = true;
  }
}

TEST(HostileTest, AnAnswerThatNobodyReadsIsCutOff) {
  TestServer server({.body_stall_timeout_ms = 50});
  RawClient client(server.address());
  // More answers than all buffers on the way hold.
  std::string requests;
  for (int i = 0; i < 100; ++i) requests += "GET /t/file/3000000 HTTP/1.1\r\nHost: x\r\n\r\n";
  client.Send(requests);
  while (server.metrics().Render().find("quarry_http_connections 0") == std::string::npos)
    std::this_thread::yield();
  ExpectAlive(server);
}

// Takes an answer of 3 MB a few KB at a time, with a small buffer of its own, for `reads` reads
// (every 50 ms; 2 KB: 40 KB/s), then as fast as it comes. How many bytes came.
uint64_t ReadSlowly(const std::string& address, int reads) {
  const int descriptor = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  const int small = 4096;
  ::setsockopt(descriptor, SOL_SOCKET, SO_RCVBUF, &small, sizeof(small));
  sockaddr_in to{};
  to.sin_family = AF_INET;
  to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  to.sin_port = htons(static_cast<uint16_t>(std::stoi(address.substr(address.find(':') + 1))));
  EXPECT_EQ(::connect(descriptor, reinterpret_cast<sockaddr*>(&to), sizeof(to)), 0);
  const std::string request =
      "GET /t/file/3000000 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
  EXPECT_EQ(::send(descriptor, request.data(), request.size(), MSG_NOSIGNAL),
            static_cast<ssize_t>(request.size()));
  uint64_t came = 0;
  std::string into(2000, 0);
  for (int i = 0;; ++i) {
    if (i < reads) std::this_thread::sleep_for(std::chrono::milliseconds(50));
    if (i == reads) into.resize(1 << 20);
    const ssize_t count = ::recv(descriptor, into.data(), into.size(), 0);
    if (count <= 0) break;
    came += static_cast<uint64_t>(count);
  }
  ::close(descriptor);
  return came;
}

TEST(HostileTest, AReaderWhoDripsIsCutOff) {
  TestServer server({.body_stall_timeout_ms = 1000, .min_bytes_per_second = 1'000'000});
  std::thread reader([&] { EXPECT_LT(ReadSlowly(server.address(), 200), 3'000'000u); });
  while (server.metrics().Render().find("slow_clients_total{direction=\"out\"} 1") ==
         std::string::npos)
    std::this_thread::yield();
  reader.join();
}

TEST(HostileTest, AReaderWhoIsOnlySlowIsNotCutOff) {
  // He is slow for longer than that, and a busy machine does not keep him from reading as long.
  TestServer server({.body_stall_timeout_ms = 2500, .min_bytes_per_second = 1000});
  EXPECT_GT(ReadSlowly(server.address(), 60), 3'000'000u);  // with the head
  EXPECT_NE(server.metrics().Render().find("slow_clients_total{direction=\"out\"} 0"),
            std::string::npos);
}

TEST(HostileTest, ABodyShorterThanAnnouncedIsAnError) {
  TestServer server;
  for (const char* framing :
       {"Content-Length: 10\r\n\r\nabc", "Transfer-Encoding: chunked\r\n\r\nA\r\nabc",
        "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n"}) {
    RawClient client(server.address());
    client.Send(std::string("PUT /t/upload HTTP/1.1\r\nHost: x\r\n") + framing);
    client.ShutdownSend();  // half closed: the answer can still be read
    const auto answer = client.Receive();
    EXPECT_EQ(answer.status, 400);
    EXPECT_THAT(answer.body, HasSubstr("ended before"));
    EXPECT_TRUE(client.AtEnd());
  }
}

TEST(HostileTest, AHalfClosedConnectionGetsItsAnswer) {
  TestServer server;
  RawClient client(server.address());
  client.Send(kHello);
  client.ShutdownSend();
  EXPECT_EQ(client.Receive().body, "hello x");
  EXPECT_TRUE(client.AtEnd());
}

TEST(HostileTest, ABodyLongerThanAnnouncedIsTheNextRequest) {
  TestServer server;
  RawClient client(server.address());
  client.Send("PUT /t/upload HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabcdef\r\n\r\n");
  EXPECT_EQ(client.Receive().status, 200);
  EXPECT_EQ(client.Receive().status, 400);
  EXPECT_TRUE(client.AtEnd());
}

TEST(HostileTest, BrokenChunksAreAnError) {
  TestServer server;
  for (const char* body : {"xyz\r\nabc\r\n0\r\n\r\n", "3\r\nabcd\r\n0\r\n\r\n", "-3\r\nabc\r\n",
                           "FFFFFFFFFFFFFFFFF\r\nabc\r\n", "3 3\r\nabc\r\n0\r\n\r\n",
                           "0\r\nContent-Length: 3\r\n\r\n"}) {
    RawClient client(server.address());
    client.Send("PUT /t/upload HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n");
    client.Send(body);
    client.ShutdownSend();
    EXPECT_EQ(client.Receive().status, 400) << body;
    EXPECT_TRUE(client.AtEnd());
  }
  // A size line without an end.
  RawClient client(server.address());
  client.Send("PUT /t/upload HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3;");
  client.Send(std::string(400'000, 'a'));
  EXPECT_EQ(client.Receive().status, 400);
}

TEST(HostileTest, ABodyOverTheRoutesLimitIs413) {
  TestServer server;
  const std::string body(kMaxJsonBodyBytes + 1, 'x');
  {
    RawClient client(server.address());
    client.Send(fmt::format("POST /t/echo HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n{}",
                            body.size(), body));
    EXPECT_EQ(client.Receive().status, 413);
    EXPECT_EQ(client.Exchange(kHello).status, 200);  // it was near enough to be read to its end
  }
  RawClient client(server.address());
  client.Send(
      fmt::format("POST /t/echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: "
                  "chunked\r\n\r\n{:x}\r\n{}\r\n0\r\n\r\n",
                  body.size(), body));
  EXPECT_EQ(client.Receive().status, 413);
  EXPECT_EQ(client.Exchange(kHello).status, 200);
}

TEST(HostileTest, AHugeBodyIsRefusedWithoutAReset) {
  TestServer server;
  RawClient client(server.address());
  client.Send("PUT /t/ignore HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000000000\r\n\r\n");
  const std::string piece(1 << 20, 'x');
  for (int i = 0; i < 32; ++i) ASSERT_TRUE(client.Send(piece));  // it reads on for a while
  client.ShutdownSend();
  const auto answer = client.Receive();
  EXPECT_EQ(answer.status, 409);
  EXPECT_EQ(answer.headers.at("connection"), "close");
  EXPECT_TRUE(client.AtEnd());
  EXPECT_FALSE(client.reset());
}

TEST(HostileTest, ALargeBodyWithoutATokenIsNotKept) {
  TestServer server;
  RawClient client(server.address());
  const std::string body(500'000, 'x');
  client.Send(fmt::format("POST /t/private HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n{}",
                          body.size(), body));
  EXPECT_EQ(client.Receive().status, 401);
  EXPECT_EQ(client.Exchange(kHello).status, 200);
}

TEST(HostileTest, AClientThatBreaksOffHarmsNobody) {
  TestServer server;
  for (int i = 0; i < 50; ++i) {
    RawClient upload(server.address());
    upload.Send("PUT /t/upload HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\nabc");
    upload.Abort();
    RawClient download(server.address());
    download.Send("GET /t/file/3000000 HTTP/1.1\r\nHost: x\r\n\r\n");
    download.Abort();
  }
  ExpectAlive(server);
}

TEST(HostileTest, AConnectionTooManyGets503AndTheOthersGoOn) {
  TestServer server({.max_connections = 20});
  std::vector<std::unique_ptr<RawClient>> inside;
  for (int i = 0; i < 20; ++i) {
    inside.push_back(std::make_unique<RawClient>(server.address()));
    ASSERT_EQ(inside.back()->Exchange(kHello).status, 200);
  }
  for (int i = 0; i < 10; ++i) {
    RawClient outside(server.address());
    outside.Send(kHello);
    outside.ShutdownSend();
    const auto answer = outside.Receive();
    EXPECT_EQ(answer.status, 503);
    EXPECT_EQ(answer.headers.at("retry-after"), "1");
    EXPECT_TRUE(outside.AtEnd());
  }
  for (auto& client : inside) EXPECT_EQ(client->Exchange(kHello).status, 200);
  inside.clear();
  while (server.metrics().Render().find("quarry_http_connections 0") == std::string::npos)
    std::this_thread::yield();
  ExpectAlive(server);
}

// Raises the limit of open files to `wanted`, or as far as it goes; what it is then.
size_t RaiseDescriptors(size_t wanted) {
  rlimit limit{};
  ::getrlimit(RLIMIT_NOFILE, &limit);
  const rlimit more{wanted, std::max<rlim_t>(wanted, limit.rlim_max)};
  const rlimit most{limit.rlim_max, limit.rlim_max};
  if (limit.rlim_cur < wanted && ::setrlimit(RLIMIT_NOFILE, &more) != 0)
    ::setrlimit(RLIMIT_NOFILE, &most);
  ::getrlimit(RLIMIT_NOFILE, &limit);
  return limit.rlim_cur;
}

// More than are kept: the oldest is let go, who has his answer by then.
TEST(HostileTest, FarTooManyConnectionsAllReadAWhole503) {
  constexpr size_t kTooMany = kMaxTurnedAway + 500;
  constexpr size_t kDescriptors = 2 * kTooMany + 200;
  if (RaiseDescriptors(kDescriptors) < kDescriptors)
    GTEST_SKIP() << "NOT TESTED: " << kTooMany << " connections, because this user may not have "
                 << kDescriptors << " descriptors (ulimit -Hn)";
  TestServer server({.max_connections = 2});
  RawClient first(server.address());
  RawClient second(server.address());
  ASSERT_EQ(first.Exchange(kHello).status, 200);
  ASSERT_EQ(second.Exchange(kHello).status, 200);
  std::vector<std::unique_ptr<RawClient>> outside;
  for (size_t i = 0; i < kTooMany; ++i) {
    outside.push_back(std::make_unique<RawClient>(server.address()));
    if (i % 2 == 0) outside.back()->Send(kHello);  // some have said what they want by then
  }
  for (auto& client : outside) {
    const auto answer = client->Receive();
    ASSERT_EQ(answer.status, 503);
    EXPECT_EQ(answer.headers.at("retry-after"), "1");
    EXPECT_EQ(answer.headers.at("connection"), "close");
    EXPECT_TRUE(answer.whole);
    EXPECT_TRUE(client->AtEnd());
  }
  EXPECT_THAT(server.metrics().Render(),
              HasSubstr(fmt::format("quarry_http_refused_connections_total {}", kTooMany)));
  EXPECT_EQ(first.Exchange(kHello).status, 200);
  EXPECT_EQ(second.Exchange(kHello).status, 200);
}

TEST(HostileTest, AConnectionTooManyWithALargeBodyReadsItsAnswer) {
  TestServer server({.max_connections = 1});
  RawClient inside(server.address());
  ASSERT_EQ(inside.Exchange(kHello).status, 200);
  RawClient outside(server.address());
  outside.Send("PUT /t/upload HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n");
  EXPECT_TRUE(outside.Send(std::string(1'000'000, 'x')));
  outside.ShutdownSend();
  EXPECT_EQ(outside.Receive().status, 503);
  EXPECT_TRUE(outside.AtEnd());
}

// Lowers the limit of open files while it lives.
class FewDescriptors {
 public:
  explicit FewDescriptors(rlim_t soft) {
    ::getrlimit(RLIMIT_NOFILE, &before_);
    const rlimit few{soft, before_.rlim_max};
    ::setrlimit(RLIMIT_NOFILE, &few);
  }
  ~FewDescriptors() { ::setrlimit(RLIMIT_NOFILE, &before_); }

 private:
  rlimit before_{};
};

TEST(HostileTest, RunningOutOfDescriptorsIsToldAndSurvived) {
#if __has_feature(address_sanitizer)
  GTEST_SKIP() << "the sanitizer's own check of a virtual call needs descriptors";
#endif
  TestServer server;
  RawClient kept(server.address());
  ASSERT_EQ(kept.Exchange(kHello).status, 200);
  for (int round = 0; round < 5; ++round) {
    // One descriptor is left; the client's end takes it, and the server has but its spare one.
    const int next = ::dup(0);
    ASSERT_GE(next, 0);
    FewDescriptors few(static_cast<rlim_t>(next) + 1);
    ::close(next);
    RawClient outside(server.address());
    const auto answer = outside.Receive();
    EXPECT_EQ(answer.status, 503);
    EXPECT_TRUE(answer.whole);
    for (int i = 0; i < 20; ++i) EXPECT_EQ(kept.Exchange(kHello).status, 200);
  }
  ExpectAlive(server);
}

TEST(HostileTest, ThousandsOfConnectionsAtOnce) {
  // Both ends are in this process; some descriptors are for others.
  constexpr size_t kConnections = 10'000;
  constexpr size_t kSpare = 200;
  const size_t descriptors = RaiseDescriptors(2 * kConnections + kSpare);
  if (descriptors < 1000) GTEST_SKIP() << "NOT TESTED: needs a thousand descriptors (ulimit -Hn)";
  const size_t count = std::min(kConnections, (descriptors - kSpare) / 2);
  const size_t inside = std::min<size_t>(500, count / 2);
  TestServer server({.max_connections = inside});
  RawClient kept(server.address());
  ASSERT_EQ(kept.Exchange(kHello).status, 200);
  std::vector<std::unique_ptr<RawClient>> clients;
  for (size_t i = 0; i < count; ++i)
    clients.push_back(std::make_unique<RawClient>(server.address()));
  EXPECT_EQ(kept.Exchange(kHello).status, 200);
  size_t served = 0;
  for (auto& client : clients) {
    client->Send(kHello);
    client->ShutdownSend();
    const auto answer = client->Receive();
    ASSERT_TRUE(answer.status == 200 || answer.status == 503) << answer.status;
    ASSERT_TRUE(answer.whole);
    if (answer.status == 200) ++served;
  }
  EXPECT_GE(served, inside - 1);  // places that are free again are given again
  EXPECT_EQ(kept.Exchange(kHello).status, 200);
  clients.clear();
  ExpectAlive(server);
  if (count < kConnections && !HasFailure())
    GTEST_SKIP() << "NOT TESTED with " << kConnections << " connections but with " << count
                 << ", because this user may not have more descriptors (ulimit -Hn)";
}

TEST(HostileTest, NoiseNeverEndsTheServer) {
  TestServer server({.header_timeout_ms = 200, .body_stall_timeout_ms = 200});
  std::mt19937 random(11);
  const std::string sound =
      "PUT /t/upload HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: "
      "chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n";
  for (int round = 0; round < 300; ++round) {
    std::string text = sound;
    for (int change = 0; change < 3; ++change)
      text[random() % text.size()] = static_cast<char>(random());
    text.resize(random() % (text.size() + 1));
    RawClient client(server.address());
    client.Send(text);
    client.ShutdownSend();
    client.ReceiveRest();
  }
  ExpectAlive(server);
}

}  // namespace
}  // namespace base::http
