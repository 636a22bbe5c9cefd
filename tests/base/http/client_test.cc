#include "base/http/client.h"

#include <cstdlib>
#include <thread>

#include <arpa/inet.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/hash.h"
#include "tests/base/http/test_server.h"
#include "tests/base/http/tls_server.h"
#include "tests/support/results.h"
#include "tests/support/temp_dir.h"

namespace base::http {
namespace {

using testing::HasSubstr;

std::string Digest(const std::string& text) {
  return std::to_string(text.size()) + " " + Sha256(AsBytes(text)).hex();
}

std::function<Result<size_t>(MutableByteView)> SourceOf(std::string text) {
  auto left = std::make_shared<std::string>(std::move(text));
  return [left](MutableByteView into) -> Result<size_t> {
    const size_t count = std::min(into.size(), left->size());
    std::copy_n(left->begin(), count, into.begin());
    left->erase(0, count);
    return count;
  };
}

TEST(ClientTest, FetchesAndKeepsTheConnection) {
  TestServer server;
  Client client;
  for (int i = 0; i < 5; ++i) {
    ASSERT_OK_AND_ASSIGN(Response response, client.Do({.url = server.url("/hello/x")}));
    EXPECT_EQ(response.status, 200);
    EXPECT_EQ(response.body, "hello x");
    ASSERT_OK_AND_ASSIGN(Response chunked, client.Do({.url = server.url("/chunked/700000")}));
    EXPECT_TRUE(chunked.body == TestServer::Pattern(700'000));
    ASSERT_OK_AND_ASSIGN(Response head,
                         client.Do({.method = "HEAD", .url = server.url("/sized/77")}));
    EXPECT_EQ(head.headers.Get("content-length"), "77");
  }
  EXPECT_THAT(server.metrics().Render(), HasSubstr("quarry_http_connections 1"));
}

// A server that says `begin` and then one letter after the other, never an end, until the client
// has gone.
class Dripper {
 public:
  explicit Dripper(std::string begin) {
    listener_ = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof(address);
    EXPECT_EQ(::bind(listener_, reinterpret_cast<sockaddr*>(&address), size), 0);
    EXPECT_EQ(::listen(listener_, 1), 0);
    ::getsockname(listener_, reinterpret_cast<sockaddr*>(&address), &size);
    url_ = "http://127.0.0.1:" + std::to_string(ntohs(address.sin_port)) + "/";
    thread_ = std::thread([this, begin = std::move(begin)] {
      const int peer = ::accept(listener_, nullptr, nullptr);
      ::send(peer, begin.data(), begin.size(), MSG_NOSIGNAL);
      while (::send(peer, "x", 1, MSG_NOSIGNAL) == 1) ::usleep(2000);
      ::close(peer);
    });
  }
  ~Dripper() {
    thread_.join();
    ::close(listener_);
  }
  const std::string& url() const { return url_; }

 private:
  int listener_ = -1;
  std::string url_;
  std::thread thread_;
};

TEST(ClientTest, WaitsForADrippingServerNoLongerThanTold) {
  constexpr int64_t kLongMs = 600'000;
  {
    Dripper head("HTTP/1.1 200 OK\r\nX-Field: ");
    Client client({.stall_timeout_ms = 100});
    EXPECT_ERROR(client.Do({.url = head.url()}), Code::kUnavailable);
  }
  Dripper body("HTTP/1.1 200 OK\r\n\r\n");
  Client client({.stall_timeout_ms = kLongMs, .total_timeout_ms = 100});
  size_t received = 0;
  const auto sink = [&](ByteView bytes) -> Result<void> {
    received += bytes.size();
    return {};
  };
  EXPECT_ERROR(client.Do({.url = body.url(), .body_sink = sink}), Code::kUnavailable);
  EXPECT_GT(received, 0u);
}

TEST(ClientTest, AnyStatusIsAResponse) {
  TestServer server;
  Client client;
  ASSERT_OK_AND_ASSIGN(Response missing, client.Do({.url = server.url("/nowhere")}));
  EXPECT_EQ(missing.status, 404);
  ASSERT_OK_AND_ASSIGN(
      Response echo,
      client.Do({.method = "POST", .url = server.url("/echo"), .body = std::string(100'000, 'e')}));
  EXPECT_EQ(echo.body, std::string(100'000, 'e'));
}

TEST(ClientTest, StreamsBothWays) {
  TestServer server;
  Client client;
  const std::string body = TestServer::Pattern(1'500'000);
  ClientRequest upload{
      .method = "PUT", .url = server.url("/upload"), .body_source = SourceOf(body)};
  ASSERT_OK_AND_ASSIGN(Response chunked, client.Do(upload));
  EXPECT_EQ(chunked.body, Digest(body));
  upload.body_source = SourceOf(body);
  upload.body_size = body.size();
  ASSERT_OK_AND_ASSIGN(Response sized, client.Do(upload));
  EXPECT_EQ(sized.body, Digest(body));
  upload.body_source = SourceOf(body);
  upload.body_size = body.size() + 1;
  EXPECT_ERROR(client.Do(upload), Code::kInvalidArgument);

  std::string received;
  ClientRequest download{.url = server.url("/file/3000000"), .body_sink = [&](ByteView bytes) {
                           received += AsText(bytes);
                           return Result<void>();
                         }};
  ASSERT_OK_AND_ASSIGN(Response response, client.Do(download));
  EXPECT_TRUE(response.body.empty());
  EXPECT_TRUE(received == TestServer::Pattern(3'000'000));
  received.clear();
  std::string length;
  download.head_sink = [&](const Headers& headers) -> Result<void> {
    EXPECT_EQ(received, "");
    length = headers.Get("Content-Length");
    return {};
  };
  ASSERT_OK(client.Do(download));
  EXPECT_EQ(length, "3000000");
  download.head_sink = [](const Headers&) -> Result<void> { return Error(Code::kIo, "not that"); };
  EXPECT_ERROR(client.Do(download), Code::kIo);
  download.head_sink = nullptr;
  download.body_sink = [](ByteView) -> Result<void> { return Error(Code::kOutOfSpace, "full"); };
  EXPECT_ERROR(client.Do(download), Code::kOutOfSpace);
}

TEST(ClientTest, ReadsAnEarlyRefusalOfALargeBody) {
  TestServer server;
  Client client;
  std::string body;
  body.resize(40'000'000, 'x');
  ASSERT_OK_AND_ASSIGN(Response response, client.Do({.method = "PUT",
                                                     .url = server.url("/ignore"),
                                                     .body_source = SourceOf(body),
                                                     .body_size = body.size()}));
  EXPECT_EQ(response.status, 409);
}

// A peer that reads the beginning of a request, says its say, and then closes with what came
// unread, reads on, or does nothing.
class EarlyAnswerer {
 public:
  enum class Then { kCloses, kReads, kIgnores };
  EarlyAnswerer(std::string say, Then then) {
    listener_ = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof(address);
    EXPECT_EQ(::bind(listener_, reinterpret_cast<sockaddr*>(&address), size), 0);
    EXPECT_EQ(::listen(listener_, 1), 0);
    ::getsockname(listener_, reinterpret_cast<sockaddr*>(&address), &size);
    url_ = "http://127.0.0.1:" + std::to_string(ntohs(address.sin_port)) + "/";
    thread_ = std::thread([this, say = std::move(say), then] {
      peer_ = ::accept(listener_, nullptr, nullptr);
      char some[4096];
      EXPECT_GT(::recv(peer_, some, sizeof(some), 0), 0);
      ::send(peer_, say.data(), say.size(), MSG_NOSIGNAL);
      if (then == Then::kCloses) ::close(std::exchange(peer_, -1));
      while (then == Then::kReads && ::recv(peer_, some, sizeof(some), 0) > 0) {
      }
    });
  }
  ~EarlyAnswerer() {
    thread_.join();
    if (peer_ >= 0) ::close(peer_);
    ::close(listener_);
  }
  const std::string& url() const { return url_; }

 private:
  int listener_ = -1;
  int peer_ = -1;
  std::string url_;
  std::thread thread_;
};

// More than all buffers on the way hold, and nobody asks for its end.
ClientRequest LargeUpload(const std::string& url, bool sized) {
  ClientRequest request{.method = "PUT", .url = url};
  request.body_source = [left = size_t{1} << 30](MutableByteView into) mutable -> Result<size_t> {
    if (left == 0) return Error(Code::kIo, "the answer was not noticed");
    const size_t count = std::min(left, into.size());
    left -= count;
    return count;
  };
  if (sized) request.body_size = uint64_t{1} << 40;
  return request;
}

TEST(ClientTest, NoticesARefusalWhileItStillSends) {
  using Then = EarlyAnswerer::Then;
  for (const Then then : {Then::kCloses, Then::kReads, Then::kIgnores}) {
    for (const bool sized : {false, true}) {
      EarlyAnswerer server(
          "HTTP/1.1 103 Early Hints\r\n\r\n"
          "HTTP/1.1 413 Too Large\r\nContent-Length: 3\r\nConnection: close\r\n\r\nbig",
          then);
      Client client;
      ASSERT_OK_AND_ASSIGN(Response response, client.Do(LargeUpload(server.url(), sized)));
      EXPECT_EQ(response.status, 413);
      EXPECT_EQ(response.body, "big");
    }
  }
  EarlyAnswerer server("HTTP/1.1 409 Conflict\r\nContent-Length: 0\r\n\r\n", Then::kIgnores);
  Client client;
  const ClientRequest whole{
      .method = "POST", .url = server.url(), .body = std::string(40'000'000, 'x')};
  ASSERT_OK_AND_ASSIGN(Response response, client.Do(whole));
  EXPECT_EQ(response.status, 409);
}

TEST(ClientTest, AnInterimAnswerIsNoReasonToStop) {
  TestServer server;
  Client client;
  ClientRequest upload{.method = "PUT", .url = server.url("/upload")};
  upload.headers.Add("Expect", "100-continue");
  const std::string body = TestServer::Pattern(3'000'000);
  upload.body_source = SourceOf(body);
  ASSERT_OK_AND_ASSIGN(Response response, client.Do(upload));
  EXPECT_EQ(response.body, Digest(body));
}

TEST(ClientTest, BoundsWhatItTakes) {
  TestServer server;
  Client client({.max_response_bytes = 1000});
  EXPECT_OK(client.Do({.url = server.url("/sized/1000")}));
  EXPECT_ERROR(client.Do({.url = server.url("/sized/1001")}), Code::kTooLarge);
  EXPECT_ERROR(client.Do({.url = server.url("/chunked/1001")}), Code::kTooLarge);
}

TEST(ClientTest, ABrokenOffAnswerIsAnError) {
  TestServer server;
  Client client;
  EXPECT_ERROR(client.Do({.url = server.url("/shorter/2000")}), Code::kUnavailable);
  server.server().Stop();
  EXPECT_ERROR(client.Do({.url = server.url("/hello/x")}), Code::kUnavailable);
}

TEST(ClientTest, OpensANewWhenAKeptConnectionWasClosed) {
  TestServer server({.idle_timeout_ms = 20});
  Client client;
  ASSERT_OK(client.Do({.url = server.url("/hello/x")}));
  while (server.metrics().Render().find("quarry_http_connections 0") == std::string::npos)
    std::this_thread::yield();
  ASSERT_OK(client.Do({.method = "POST", .url = server.url("/echo"), .body = "abc"}));
}

TEST(ClientTest, APeerThatStallsIsGivenUp) {
  TestServer server;
  Client client({.stall_timeout_ms = 20});
  EXPECT_ERROR(client.Do({.url = server.url("/wait")}), Code::kUnavailable);
  server.door().Open();
}

TEST(ClientTest, RefusesUrlsThatAreNone) {
  Client client;
  for (const char* url : {"", "nonsense", "ftp://x/", "file:///etc/passwd", "http://", "http:///x",
                          "http://a b/", "http://user:secret@x/", "http://x:99999/", "http://x:0/",
                          "/relative", "gopher://x", "http://x\r\n/y"}) {
    EXPECT_ERROR(client.Do({.url = url}), Code::kInvalidArgument) << url;
  }
}

TEST(ClientTest, AsksBeforeItConnects) {
  TestServer server;
  std::vector<std::string> asked;
  Client client({.allow_address = [&](std::string_view address, uint16_t port) {
    asked.push_back(std::string(address) + ":" + std::to_string(port));
    return false;
  }});
  EXPECT_ERROR(client.Do({.url = server.url("/hello/x")}), Code::kPermissionDenied);
  ASSERT_EQ(asked.size(), 1u);
  EXPECT_EQ(asked.front(), server.address());
  // Other ways to write the same address end at the same question.
  const std::string port = server.address().substr(server.address().rfind(':'));
  for (const char* host : {"[::ffff:127.0.0.1]", "2130706433", "0x7f.1", "127.1"}) {
    EXPECT_ERROR(client.Do({.url = "http://" + (host + port) + "/t/hello/x"}),
                 Code::kPermissionDenied)
        << host;
    EXPECT_EQ(asked.back(), server.address()) << host;
  }
}

class RedirectTest : public testing::Test {
 protected:
  // "/to?where=..." of this server redirects there.
  RedirectTest() : pool_("redirect", 1, 8) {
    Service service;
    service.name = "redirect";
    const auto redirect = [](const Request& request) -> Result<Response> {
      Response response = Response::Empty(std::stoi(std::string(*request.Query("status"))));
      response.headers.Add("Location", *request.Query("where"));
      return response;
    };
    const auto show = [](const Request& request) -> Result<Response> {
      return Response::Text(
          200,
          request.method + " " + request.body + std::string(request.headers.Get("X-Auth-Token")),
          "text/plain");
    };
    const auto loop = [](const Request& request) -> Result<Response> {
      Response response = Response::Empty(302);
      response.headers.Add("Location", "/loop");
      return response;
    };
    service.routes.push_back(
        {.method = "GET", .pattern = "/loop", .access = Access::kPublic, .handler = loop});
    for (const char* method : {"GET", "POST"}) {
      service.routes.push_back(
          {.method = method, .pattern = "/to", .access = Access::kPublic, .handler = redirect});
      service.routes.push_back(
          {.method = method, .pattern = "/show", .access = Access::kPublic, .handler = show});
    }
    router_.Mount(std::move(service));
    server_ = std::move(*Server::Start({}, router_, pool_, metrics_));
  }
  std::string To(int status, const std::string& where) {
    return "http://" + server_->address() + "/to?status=" + std::to_string(status) +
           "&where=" + where;
  }

  Router router_;
  async::Pool pool_;
  Metrics metrics_;
  std::unique_ptr<Server> server_;
};

TEST_F(RedirectTest, AreTheAnswerUnlessAskedFor) {
  Client client;
  ASSERT_OK_AND_ASSIGN(Response response, client.Do({.url = To(302, "/show")}));
  EXPECT_EQ(response.status, 302);
}

TEST_F(RedirectTest, AreFollowedRelativeAndAbsolute) {
  Client client({.max_redirects = 2});
  for (const std::string& where :
       {std::string("/show"), std::string("show"), "http://" + server_->address() + "/show"}) {
    ASSERT_OK_AND_ASSIGN(Response response, client.Do({.url = To(307, where)}));
    EXPECT_EQ(response.body, "GET ") << where;
  }
  const ClientRequest post{.method = "POST", .url = To(307, "/show"), .body = "b"};
  ASSERT_OK_AND_ASSIGN(Response kept, client.Do(post));
  EXPECT_EQ(kept.body, "POST b");
  ASSERT_OK_AND_ASSIGN(Response changed,
                       client.Do({.method = "POST", .url = To(303, "/show"), .body = "b"}));
  EXPECT_EQ(changed.body, "GET ");
}

TEST_F(RedirectTest, EndSomewhere) {
  Client client({.max_redirects = 5});
  // "/loop" leads to itself.
  EXPECT_ERROR(client.Do({.url = "http://" + server_->address() + "/loop"}), Code::kUnavailable);
}

TEST_F(RedirectTest, DoNotCarryATokenToAnotherOrigin) {
  Client client({.max_redirects = 1});
  ClientRequest request{.url = To(302, "/show")};
  request.headers.Add("X-Auth-Token", "secret");
  ASSERT_OK_AND_ASSIGN(Response same, client.Do(request));
  EXPECT_EQ(same.body, "GET secret");
  const std::string port = server_->address().substr(server_->address().rfind(':'));
  request.url = To(302, "http://localhost" + port + "/show");
  ASSERT_OK_AND_ASSIGN(Response other, client.Do(request));
  EXPECT_EQ(other.body, "GET ");
}

TEST_F(RedirectTest, AreAskedAboutAgain) {
  TestServer forbidden;
  const std::string port = forbidden.address().substr(forbidden.address().rfind(':') + 1);
  Client by_address(
      {.max_redirects = 3, .allow_address = [&](std::string_view address, uint16_t to) {
         return std::to_string(to) != port;
       }});
  EXPECT_OK(by_address.Do({.url = To(302, "/show")}));
  EXPECT_ERROR(by_address.Do({.url = To(302, forbidden.url("/hello/x"))}), Code::kPermissionDenied);
  Client by_host({.max_redirects = 3,
                  .allow_host = [](std::string_view scheme, std::string_view host, uint16_t) {
                    return scheme == "http" && host == "127.0.0.1";
                  }});
  EXPECT_ERROR(by_host.Do({.url = To(302, "http://localhost:1/")}), Code::kPermissionDenied);
  EXPECT_ERROR(by_host.Do({.url = To(302, "https://127.0.0.1/")}), Code::kPermissionDenied);
  EXPECT_ERROR(by_host.Do({.url = To(302, "file:///etc/passwd")}), Code::kInvalidArgument);
}

TEST(ClientTlsTest, TalksOnlyToAPeerWhoseCertificateHolds) {
  // OpenSSL's own variable names the authorities; it is read once, when the first connection is
  // made.
  static TlsServer trusted;
  TlsServer unknown;
  static support::TempDir dir;
  const std::string authorities = dir / "authorities.pem";
  ASSERT_OK(WriteFileDurably(authorities, trusted.certificate()));
  ::setenv("SSL_CERT_FILE", authorities.c_str(), 1);

  Client client;
  ASSERT_OK_AND_ASSIGN(Response response, client.Do({.url = trusted.url("localhost")}));
  EXPECT_EQ(response.body, "secure");
  // Another name than the certificate's, another authority, and no TLS at all.
  for (const std::string& url : {trusted.url("127.0.0.1"), unknown.url("localhost")}) {
    const Result<Response> refused = client.Do({.url = url});
    EXPECT_ERROR(refused, Code::kUnavailable);
    EXPECT_THAT(refused.error().message(), HasSubstr("certificate"));
  }
  ASSERT_OK_AND_ASSIGN(Response early, client.Do(LargeUpload(trusted.url("localhost"), true)));
  EXPECT_EQ(early.status, 413);
  TestServer plain;
  EXPECT_ERROR(client.Do({.url = "https://" + plain.address() + "/"}), Code::kUnavailable);
}

}  // namespace
}  // namespace base::http
