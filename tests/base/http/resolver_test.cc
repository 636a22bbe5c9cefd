#include "base/http/resolver.h"

#include <atomic>
#include <latch>
#include <thread>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/http/client.h"
#include "tests/base/http/test_server.h"
#include "tests/support/results.h"

namespace base::http {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

constexpr int64_t kLongMs = 60'000;

TEST(Resolver, AsksTheSystem) {
  Resolver resolver(1);
  ASSERT_OK_AND_ASSIGN(const auto addresses, resolver.Resolve("127.0.0.1", kLongMs));
  EXPECT_THAT(addresses, ElementsAre("127.0.0.1"));
  EXPECT_ERROR(resolver.Resolve("no-such-name.invalid", kLongMs), Code::kUnavailable);
}

// The name server says nothing: who waits goes on, and the threads left behind are counted.
TEST(Resolver, GivesUpInTimeAndBoundsWhatItLeavesBehind) {
  auto answered = std::make_shared<std::latch>(1);
  auto ended = std::make_shared<std::latch>(2);
  auto resolver = std::make_unique<Resolver>(
      2, [answered, ended](const std::string& host) -> Result<std::vector<std::string>> {
        if (host == "quick") return std::vector<std::string>{"192.0.2.1"};
        answered->wait();
        ended->count_down();
        return std::vector<std::string>{"192.0.2.2"};
      });
  const auto message = [&](const std::string& host) {
    const auto found = resolver->Resolve(host, 1);
    EXPECT_ERROR(found, Code::kUnavailable);
    return found.has_value() ? "" : found.error().message();
  };
  EXPECT_THAT(message("slow"), HasSubstr("in time"));
  EXPECT_OK(resolver->Resolve("quick", kLongMs));
  EXPECT_THAT(message("slow"), HasSubstr("in time"));
  EXPECT_THAT(message("slow"), HasSubstr("too many"));
  EXPECT_THAT(message("quick"), HasSubstr("too many"));
  answered->count_down();
  // A thread that has answered makes room again; and they outlive the resolver.
  while (!resolver->Resolve("quick", kLongMs).has_value()) std::this_thread::yield();
  resolver.reset();
  ended->wait();
}

TEST(Resolver, NamesOfAClientGoThroughIt) {
  TestServer server;
  std::atomic<int> asked{0};
  Resolver resolver(1, [&](const std::string& host) -> Result<std::vector<std::string>> {
    ++asked;
    if (host == "here.example") return std::vector<std::string>{"127.0.0.1"};
    return Error(Code::kUnavailable, "no such name");
  });
  Client client({.resolver = &resolver});
  const std::string port = server.url("").substr(server.url("").rfind(':'));
  ASSERT_OK_AND_ASSIGN(const Response response,
                       client.Do({.url = "http://here.example" + port + "/hello/x"}));
  EXPECT_EQ(response.body, "hello x");
  EXPECT_EQ(asked, 1);
  EXPECT_ERROR(client.Do({.url = "http://elsewhere.example" + port + "/"}), Code::kUnavailable);
  EXPECT_EQ(asked, 2);
  // An address is no name.
  EXPECT_OK(client.Do({.url = server.url("/hello/x")}));
  EXPECT_EQ(asked, 2);
}

}  // namespace
}  // namespace base::http
