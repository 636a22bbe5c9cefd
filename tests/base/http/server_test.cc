#include "base/http/server.h"

#include <random>
#include <thread>

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/hash.h"
#include "tests/base/http/test_client.h"
#include "tests/base/http/test_server.h"
#include "tests/support/results.h"

namespace base::http {
namespace {

using testing::HasSubstr;
using testing::MatchesRegex;
using testing::Not;

std::string Get(std::string_view path, std::string_view fields = "") {
  return fmt::format("GET /t{} HTTP/1.1\r\nHost: here:80\r\n{}\r\n", path, fields);
}

std::string Put(std::string_view path, std::string_view body) {
  return fmt::format("PUT /t{} HTTP/1.1\r\nHost: here\r\nContent-Length: {}\r\n\r\n{}", path,
                     body.size(), body);
}

std::string Chunked(std::string_view body, std::mt19937* random, size_t max_chunk) {
  std::string out;
  while (!body.empty()) {
    const size_t size = std::min<size_t>(1 + (*random)() % max_chunk, body.size());
    out += fmt::format("{:x}\r\n{}\r\n", size, body.substr(0, size));
    body.remove_prefix(size);
  }
  return out + "0\r\n\r\n";
}

std::string Digest(const std::string& text) {
  return fmt::format("{} {}", text.size(), Sha256(AsBytes(text)).hex());
}

TEST(ServerTest, AnswersAGetWithLengthDateAndRequestId) {
  TestServer server;
  RawClient client(server.address());
  const auto answer = client.Exchange(Get("/hello/w%C3%B6rld"));
  EXPECT_EQ(answer.status, 200);
  EXPECT_EQ(answer.body, "hello wörld");
  EXPECT_EQ(answer.headers.at("content-type"), "text/plain");
  EXPECT_THAT(answer.headers.at("date"), MatchesRegex("..., .. ... .... ..:..:.. GMT"));
  EXPECT_THAT(answer.headers.at("x-openstack-request-id"), MatchesRegex("req-[0-9a-f-]{36}"));
  EXPECT_FALSE(answer.headers.contains("connection"));
}

TEST(ServerTest, KeepsAConnectionAliveThroughErrors) {
  TestServer server;
  RawClient client(server.address());
  EXPECT_EQ(client.Exchange(Get("/nowhere")).status, 404);
  EXPECT_EQ(client.Exchange(Get("/broken")).status, 500);
  EXPECT_EQ(client.Exchange(Get("/private")).status, 401);
  EXPECT_EQ(client.Exchange(Put("/ignore", "some body")).status, 409);
  EXPECT_EQ(client.Exchange(Get("/lost")).status, 500);
  EXPECT_EQ(client.Exchange(Get("/hello/x?bad=%zz")).status, 400);
  EXPECT_EQ(client.Exchange(Get("/hello/x")).status, 200);
}

TEST(ServerTest, AnswersPipelinedRequestsInOrder) {
  TestServer server;
  RawClient client(server.address());
  std::string requests;
  for (int i = 0; i < 50; ++i) {
    requests += Get(fmt::format("/hello/{}", i));
    requests += Put("/upload", fmt::format("body {}", i));
  }
  ASSERT_TRUE(client.Send(requests));
  for (int i = 0; i < 50; ++i) {
    EXPECT_EQ(client.Receive().body, fmt::format("hello {}", i));
    EXPECT_EQ(client.Receive().body, Digest(fmt::format("body {}", i)));
  }
}

TEST(ServerTest, ClosesWhenAsked) {
  TestServer server;
  RawClient client(server.address());
  const auto answer = client.Exchange(Get("/hello/x", "Connection: close\r\n"));
  EXPECT_EQ(answer.body, "hello x");
  EXPECT_EQ(answer.headers.at("connection"), "close");
  EXPECT_TRUE(client.AtEnd());
}

TEST(ServerTest, SpeaksHttp10) {
  TestServer server;
  RawClient client(server.address());
  const auto kept = client.Exchange("GET /t/hello/x HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
  EXPECT_EQ(kept.body, "hello x");
  EXPECT_EQ(kept.headers.at("connection"), "keep-alive");
  // No chunks for it: the body ends with the connection.
  const auto answer = client.Exchange("GET /t/chunked/5000 HTTP/1.0\r\n\r\n");
  EXPECT_FALSE(answer.headers.contains("transfer-encoding"));
  EXPECT_EQ(answer.body, TestServer::Pattern(5000));
  EXPECT_TRUE(answer.whole);
}

TEST(ServerTest, HeadHasTheLengthAndNoBody) {
  TestServer server;
  RawClient client(server.address());
  client.Send("HEAD /t/sized/5000 HTTP/1.1\r\nHost: x\r\n\r\n");
  const auto answer = client.Receive(true);
  EXPECT_EQ(answer.status, 200);
  EXPECT_EQ(answer.headers.at("content-length"), "5000");
  client.Send("HEAD /t/hello/x HTTP/1.1\r\nHost: x\r\n\r\n");
  EXPECT_EQ(client.Receive(true).headers.at("content-length"), "7");
  EXPECT_EQ(client.Exchange(Get("/hello/x")).body, "hello x");
}

TEST(ServerTest, NoContentHasNoLength) {
  TestServer server;
  RawClient client(server.address());
  const auto answer = client.Exchange("DELETE /t/nothing HTTP/1.1\r\nHost: x\r\n\r\n");
  EXPECT_EQ(answer.status, 204);
  EXPECT_FALSE(answer.headers.contains("content-length"));
  EXPECT_EQ(client.Exchange(Get("/hello/x")).status, 200);
}

TEST(ServerTest, SendsBodiesOfEverySizeAndKind) {
  TestServer server;
  RawClient client(server.address());
  for (const char* kind : {"sized", "chunked", "mixed"}) {
    for (size_t size : {0, 1, 999, 1000, 1001, 2000, 65536, 1'234'567}) {
      const auto answer = client.Exchange(Get(fmt::format("/{}/{}", kind, size)));
      EXPECT_TRUE(answer.whole) << kind << size;
      EXPECT_EQ(answer.status, 200);
      EXPECT_TRUE(answer.body == TestServer::Pattern(size)) << kind << size;
    }
  }
  const auto answer = client.Exchange(Get("/file/3000000"));
  EXPECT_TRUE(answer.body == TestServer::Pattern(3'000'000));
}

TEST(ServerTest, ASourceThatIsNotAsLongAsAnnouncedBreaksTheConnection) {
  TestServer server;
  {
    RawClient client(server.address());
    const auto answer = client.Exchange(Get("/shorter/2500"));
    EXPECT_EQ(answer.status, 200);
    EXPECT_FALSE(answer.whole);
  }
  {
    RawClient client(server.address());
    const auto answer = client.Exchange(Get("/longer/2500"));
    EXPECT_FALSE(answer.whole);
  }
  {
    RawClient client(server.address());
    EXPECT_FALSE(client.Exchange(Get("/file/3000001")).whole);
  }
}

TEST(ServerTest, TakesUploadsOfRandomSizesSizedAndChunked) {
  TestServer server;
  RawClient client(server.address());
  std::mt19937 random(7);
  for (int round = 0; round < 40; ++round) {
    const size_t limit = round % 4 == 0 ? 2'000'000 : 5000;
    const std::string body = TestServer::Pattern(random() % limit);
    EXPECT_EQ(client.Exchange(Put("/upload", body)).body, Digest(body));
    const size_t max_chunk = round % 3 == 0 ? 10 : 200'000;
    const std::string small = body.substr(0, max_chunk == 10 ? 3000 : body.size());
    client.Send("PUT /t/upload HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n");
    client.Send(Chunked(small, &random, max_chunk));
    EXPECT_EQ(client.Receive().body, Digest(small)) << round;
  }
}

TEST(ServerTest, TakesABodyThatComesByteByByte) {
  TestServer server;
  RawClient client(server.address());
  const std::string text =
      "PUT /t/upload HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
      "3;name=value\r\nabc\r\nA\r\n0123456789\r\n0\r\nTrailer: x\r\n\r\n" +
      Put("/upload", "xyz");
  for (char c : text) ASSERT_TRUE(client.Send(std::string_view(&c, 1)));
  EXPECT_EQ(client.Receive().body, Digest("abc0123456789"));
  EXPECT_EQ(client.Receive().body, Digest("xyz"));
}

TEST(ServerTest, AsksForABodyThatWaitsForIt) {
  TestServer server;
  RawClient client(server.address());
  client.Send(
      "PUT /t/upload HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\n");
  EXPECT_EQ(client.Receive().status, 100);
  client.Send("abc");
  EXPECT_EQ(client.Receive().body, Digest("abc"));
  // A body that nobody wants is not asked for, and the connection can't be used any more.
  client.Send(
      "PUT /t/ignore HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\n");
  const auto answer = client.Receive();
  EXPECT_EQ(answer.status, 409);
  EXPECT_EQ(answer.headers.at("connection"), "close");
}

TEST(ServerTest, ChecksTokensAndRoles) {
  TestServer server;
  RawClient client(server.address());
  const auto missing = client.Exchange(Get("/private"));
  EXPECT_EQ(missing.status, 401);
  EXPECT_EQ(missing.headers.at("www-authenticate"), "Keystone uri=\"http://here:80/identity/v3\"");
  EXPECT_THAT(missing.body, HasSubstr("rendered: "));
  EXPECT_EQ(client.Exchange(Get("/private", "X-Auth-Token: no\r\n")).status, 401);
  EXPECT_EQ(client.Exchange(Get("/private", "X-Auth-Token: member-token\r\n")).status, 200);
  EXPECT_EQ(client.Exchange(Get("/admin", "X-Auth-Token: member-token\r\n")).status, 403);
  EXPECT_EQ(client.Exchange(Get("/admin", "x-auth-token: admin-token\r\n")).status, 200);
  const auto down = client.Exchange(Get("/private", "X-Auth-Token: down-token\r\n"));
  EXPECT_EQ(down.status, 503);
  EXPECT_EQ(down.headers.at("retry-after"), "1");
  EXPECT_EQ(client.Exchange(Put("/private-upload", "abc")).status, 401);
}

TEST(ServerTest, SaysWhichMethodsAreAllowed) {
  TestServer server;
  RawClient client(server.address());
  const auto answer = client.Exchange("OPTIONS /t/private HTTP/1.1\r\nHost: x\r\n\r\n");
  EXPECT_EQ(answer.status, 405);
  EXPECT_EQ(answer.headers.at("allow"), "GET, HEAD, POST");
  EXPECT_THAT(answer.body, HasSubstr("rendered: "));
  EXPECT_EQ(client.Exchange("BREW /t/private HTTP/1.1\r\nHost: x\r\n\r\n").status, 405);
}

TEST(ServerTest, AnswersJsonWhereNoServiceIs) {
  TestServer server;
  RawClient client(server.address());
  const auto answer = client.Exchange("GET /other HTTP/1.1\r\nHost: x\r\n\r\n");
  EXPECT_EQ(answer.status, 404);
  EXPECT_EQ(answer.headers.at("content-type"), "application/json");
  EXPECT_THAT(answer.body, HasSubstr("\"code\":404"));
}

TEST(ServerTest, HandsTheRequestOverDecoded) {
  TestServer server;
  RawClient client(server.address());
  const auto answer = client.Exchange(
      Get("/describe?a=1&b=x%20y+z&c", "X-Openstack-Request-Id: req-0123456789\r\n"));
  EXPECT_EQ(answer.body, "http://here:80|/describe|req-0123456789|a=1|b=x y z|c=");
  EXPECT_EQ(answer.headers.at("x-openstack-request-id"), "req-0123456789");
  const auto forged =
      client.Exchange(Get("/describe", "X-Openstack-Request-Id: req-01234567 user=root\r\n"));
  EXPECT_THAT(forged.body, MatchesRegex(".*req-[0-9a-f-]{36}"));
  const auto absolute =
      client.Exchange("GET http://other/t/describe?q HTTP/1.1\r\nHost: here\r\n\r\n");
  EXPECT_THAT(absolute.body, HasSubstr("|/describe|"));
}

TEST(ServerTest, BelievesAProxyOnlyWhenTold) {
  const std::string fields = "X-Forwarded-Proto: https\r\nX-Forwarded-Host: cloud.example\r\n";
  TestServer careful;
  RawClient first(careful.address());
  EXPECT_THAT(first.Exchange(Get("/describe", fields)).body, HasSubstr("http://here:80|"));
  TestServer elsewhere({.trusted_proxies = {"10.0.0.0/8", "::1"}});
  RawClient stranger(elsewhere.address());
  EXPECT_THAT(stranger.Exchange(Get("/describe", fields)).body, HasSubstr("http://here:80|"));
  TestServer trusting({.trusted_proxies = {"127.0.0.0/8"}});
  RawClient second(trusting.address());
  EXPECT_THAT(second.Exchange(Get("/describe", fields)).body, HasSubstr("https://cloud.example|"));
}

TEST(ServerTest, AProxysNetworkMayBeWrittenAsIpV6) {
  const std::string fields = "X-Forwarded-Host: cloud.example:8443\r\n";
  for (const char* network : {"::ffff:127.0.0.1", "::ffff:127.0.0.0/104"}) {
    TestServer server({.trusted_proxies = {network}});
    RawClient client(server.address());
    EXPECT_THAT(client.Exchange(Get("/describe", fields)).body,
                HasSubstr("http://cloud.example:8443|"));
  }
  TestServer elsewhere({.trusted_proxies = {"::ffff:10.0.0.0/104"}});
  RawClient client(elsewhere.address());
  EXPECT_THAT(client.Exchange(Get("/describe", fields)).body, HasSubstr("http://here:80|"));
}

TEST(ServerTest, AForwardedHostThatIsNoneIsPassedOver) {
  TestServer server({.trusted_proxies = {"127.0.0.1"}});
  RawClient client(server.address());
  for (const char* host :
       {"a, b", "e\"vil", "a/../b", "u@h", "%0d%0aX:y", "[::1]:x:", "...", "h:0", "h:99999", ""}) {
    const auto answer =
        client.Exchange(Get("/describe", fmt::format("X-Forwarded-Host: {}\r\n", host)));
    EXPECT_THAT(answer.body, HasSubstr("http://here:80|")) << host;
  }
}

TEST(ServerTest, AProxyThatIsNoNetworkIsRefused) {
  for (const char* text : {"proxy.example", "10.0.0.0/33", "", "::1/x"}) {
    Router router;
    async::Pool pool("pool", 1, 1);
    Metrics metrics;
    EXPECT_ERROR(Server::Start({.trusted_proxies = {text}}, router, pool, metrics),
                 Code::kInvalidArgument);
  }
}

TEST(ServerTest, ThePublicUrlIsWhatLinksBeginWith) {
  TestServer server({.public_url = "https://cloud.example", .trusted_proxies = {"127.0.0.1"}});
  RawClient client(server.address());
  const auto answer = client.Exchange(Get("/describe", "X-Forwarded-Host: other.example\r\n"));
  EXPECT_THAT(answer.body, HasSubstr("https://cloud.example|"));
  EXPECT_EQ(client.Exchange(Get("/private")).headers.at("www-authenticate"),
            "Keystone uri=\"https://cloud.example/identity/v3\"");
}

TEST(ServerTest, AnEscapedExceptionFailsOneRequest) {
  TestServer server;
  RawClient client(server.address());
  EXPECT_EQ(client.Exchange(Get("/throw")).status, 500);
  EXPECT_EQ(client.Exchange(Put("/throw", "abc")).status, 500);
  EXPECT_EQ(client.Exchange(Get("/hello/x")).status, 200);
}

TEST(ServerTest, AFullPoolIsAnsweredWith503) {
  TestServer server({}, 1);
  std::vector<std::unique_ptr<RawClient>> clients;
  for (int i = 0; i < 2; ++i) {  // two threads ...
    clients.push_back(std::make_unique<RawClient>(server.address()));
    clients.back()->Send(Get("/wait"));
    server.door().AwaitWaiting(i + 1);
  }
  // ... and one place in the queue: of two more, one is refused.
  RawClient third(server.address());
  RawClient fourth(server.address());
  third.Send(Get("/wait"));
  fourth.Send(Get("/wait"));
  std::thread opener([&] {
    while (server.metrics().Render().find("status=\"5xx\"} 1") == std::string::npos)
      std::this_thread::yield();
    server.door().Open();
  });
  const int a = third.Receive().status;
  const int b = fourth.Receive().status;
  opener.join();
  EXPECT_EQ(std::min(a, b), 200);
  EXPECT_EQ(std::max(a, b), 503);
  for (auto& client : clients) EXPECT_EQ(client->Receive().body, "waited");
}

TEST(ServerTest, CountsRequestsByRouteAndClass) {
  TestServer server;
  EXPECT_THAT(server.metrics().Render(), Not(HasSubstr("route=")));  // each with its first use
  RawClient client(server.address());
  client.Exchange(Get("/hello/a"));
  client.Exchange(Get("/hello/b"));
  client.Exchange(Get("/nowhere"));
  client.Exchange(Get("/hello/c"));  // its answer shows that those before were recorded
  const std::string text = server.metrics().Render();
  EXPECT_THAT(text, HasSubstr("route=\"/hello/{name}\",service=\"test\",status=\"2xx\"} "));
  EXPECT_THAT(text, HasSubstr("route=\"other\",service=\"test\",status=\"4xx\"} 1"));
  EXPECT_THAT(text, HasSubstr("quarry_http_connections 1"));
  EXPECT_THAT(text, Not(HasSubstr("/private")));
  EXPECT_THAT(text, Not(HasSubstr("status=\"5xx\"")));
}

TEST(ServerTest, StopLetsARequestInFlightEndAndClosesIdleConnections) {
  TestServer server;
  RawClient idle(server.address());
  EXPECT_EQ(idle.Exchange(Get("/hello/x")).status, 200);
  RawClient busy(server.address());
  busy.Send(Get("/wait"));
  server.door().AwaitWaiting(1);
  std::thread stopper([&] { server.server().Stop(); });
  EXPECT_TRUE(idle.AtEnd());
  server.door().Open();
  const auto answer = busy.Receive();
  EXPECT_EQ(answer.body, "waited");
  EXPECT_EQ(answer.headers.at("connection"), "close");
  EXPECT_TRUE(busy.AtEnd());
  stopper.join();
  server.server().Stop();  // once more changes nothing
}

TEST(ServerTest, StopCutsOffWhatDoesNotEnd) {
  TestServer server({.drain_timeout_ms = 20});
  RawClient client(server.address());
  client.Send("PUT /t/upload HTTP/1.1\r\nHost: x\r\nContent-Length: 200000\r\n\r\nabc");
  client.Send(std::string(150'000, 'x'));
  while (server.uploaded() == 0) std::this_thread::yield();
  server.server().Stop();
  EXPECT_FALSE(client.Receive().whole);
}

TEST(ServerTest, RefusesAnAddressThatCanNotBeBound) {
  Router router;
  async::Pool pool("test", 1, 1);
  Metrics metrics;
  for (const char* listen : {"", "nonsense", "127.0.0.1", "127.0.0.1:x", "127.0.0.1:70000",
                             "300.0.0.1:0", "example.org:80"}) {
    EXPECT_ERROR(Server::Start({.listen = listen}, router, pool, metrics), Code::kInvalidArgument)
        << listen;
  }
  TestServer first;
  EXPECT_ERROR(Server::Start({.listen = first.address()}, router, pool, metrics),
               Code::kUnavailable);
}

}  // namespace
}  // namespace base::http
