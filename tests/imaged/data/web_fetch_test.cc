#include "imaged/web_fetch.h"

#include <gtest/gtest.h>

#include "imaged/fetch_pace.h"
#include "tests/support/results.h"

namespace imaged {
namespace {

TEST(WebFetch, GoesOnlyToGlobalAddresses) {
  for (const char* inside : {"127.0.0.1",
                             "127.255.255.255",
                             "0.0.0.0",
                             "0.1.2.3",
                             "10.0.0.1",
                             "100.64.0.1",
                             "169.254.169.254",
                             "172.16.0.1",
                             "172.31.255.255",
                             "192.168.1.1",
                             "192.0.0.1",
                             "192.0.2.1",
                             "198.18.0.1",
                             "198.51.100.1",
                             "203.0.113.9",
                             "224.0.0.1",
                             "239.1.2.3",
                             "240.0.0.1",
                             "255.255.255.255",
                             "::",
                             "::1",
                             "::ffff:127.0.0.1",
                             "::ffff:8.8.8.8",
                             "::127.0.0.1",
                             "fe80::1",
                             "fe80::1%eth0",
                             "fec0::1",
                             "fc00::1",
                             "fd12:3456::1",
                             "ff02::1",
                             "64:ff9b::7f00:1",
                             "64:ff9b:1::1",
                             "2001::1",
                             "2001:db8::1",
                             "2002:7f00:1::",
                             "2002:a9fe:a9fe::1",
                             "100::1",
                             "",
                             "localhost",
                             "1.2.3",
                             "0x7f.1",
                             "nonsense"}) {
    EXPECT_FALSE(IsFetchableAddress(inside, {})) << inside;
  }
  for (const char* outside : {"8.8.8.8", "1.1.1.1", "172.15.0.1", "172.32.0.1", "100.128.0.1",
                              "2600::1", "2a00:1450:4001::1"}) {
    EXPECT_TRUE(IsFetchableAddress(outside, {})) << outside;
  }
}

TEST(WebFetch, GoesToNetworksThatAreAllowedByName) {
  EXPECT_TRUE(IsFetchableAddress("10.1.2.3", {"10.1.0.0/16"}));
  EXPECT_FALSE(IsFetchableAddress("10.2.2.3", {"10.1.0.0/16"}));
  EXPECT_TRUE(IsFetchableAddress("fd00::5", {"192.168.0.0/16", "fd00::/8"}));
  EXPECT_TRUE(IsFetchableAddress("127.0.0.1", {"127.0.0.1"}));
  EXPECT_FALSE(IsFetchableAddress("127.0.0.1", {"127.0.0.1/33", "127.0.0.1/x", "nonsense"}));
  // A mapped address is not the one inside.
  EXPECT_FALSE(IsFetchableAddress("::ffff:10.1.2.3", {"10.1.0.0/16"}));
}

// However a host is written, it is the one that is on the list; or it does not pass at all.
TEST(WebFetch, KnowsAHostInEveryForm) {
  WebFetchOptions options;
  options.disallowed_hosts = {"Evil.Example.", "xn--bse-sna.example", "2600:0:0::1"};
  EXPECT_OK(CheckHostLists(options));
  EXPECT_OK(CheckUri(options, "http://good.example./"));
  EXPECT_OK(CheckUri(options, "http://3dface.de/"));
  EXPECT_OK(CheckUri(options, "http://[2600::2]/"));
  for (const char* bad : {
           "http://evil.example/",
           "http://evil.example./",
           "http://EVIL.Example.:80/",
           "http://evil.example../",
           "http://evil..example/",
           "http://.evil.example/",
           "http://%65vil.example/",
           "http://evil.example%2e/",
           "http://evil%E3%80%82example/",
           "http://evil\xe3\x80\x82"
           "example/",
           "http://\xef\xbd\x85"
           "vil.example/",
           "http://b\xc3\xb6"
           "se.example/",
           "http://xn--BSE-sna.example/",
           "http://[2600::1]/",
           "http://[2600:0000::0001]/",
           "http://[evil.example]/",
           "http://localhost./",
           "http://a.localhost./",
           "http://127.0.0.1./",
           "http://127.1./",
           "http://./",
       }) {
    EXPECT_ERROR(CheckUri(options, bad), base::Code::kInvalidArgument) << bad;
  }
  for (const char* entry : {"", ".", "evil.example:80",
                            "b\xc3\xb6"
                            "se.example",
                            "http://evil", "*"}) {
    WebFetchOptions wrong;
    wrong.disallowed_hosts = {entry};
    EXPECT_ERROR(CheckHostLists(wrong), base::Code::kInvalidArgument) << entry;
  }
}

TEST(WebFetch, HoldsToTheLists) {
  WebFetchOptions options;
  EXPECT_OK(CheckUri(options, "http://example.com/disk"));
  EXPECT_OK(CheckUri(options, "HTTPS://example.com:443/disk"));
  for (const char* bad : {"http://example.com:8080/",
                          "ftp://example.com/",
                          "file:///etc/passwd",
                          "example.com",
                          "http://",
                          "http://:80/",
                          "http://a:b@example.com/",
                          "http://example.com\\@10.0.0.1/",
                          "http://example.com:80x/",
                          "http://example.com:99999/",
                          "http://[::1/",
                          "http://[::1]x/",
                          "http://127.1/",
                          "http://0177.0.0.1/",
                          "http://0x7f000001/",
                          "http://2130706433/",
                          "http://LOCALHOST/",
                          "http://a.localhost/",
                          "http://10.0.0.1/",
                          "http://[::ffff:1.1.1.1]/"}) {
    EXPECT_ERROR(CheckUri(options, bad), base::Code::kInvalidArgument) << bad;
  }
  options.allowed_schemes = {"https"};
  EXPECT_ERROR(CheckUri(options, "http://example.com/"), base::Code::kInvalidArgument);
  options.allowed_hosts = {"images.example.com"};
  options.disallowed_hosts = {"images.example.com"};  // not looked at beside the allowed ones
  EXPECT_OK(CheckUri(options, "https://images.example.com/x"));
  EXPECT_ERROR(CheckUri(options, "https://example.com/x"), base::Code::kInvalidArgument);
  options.allowed_hosts.clear();
  EXPECT_ERROR(CheckUri(options, "https://IMAGES.example.com/x"), base::Code::kInvalidArgument);
  options.allowed_ports.clear();
  options.disallowed_ports = {22};
  EXPECT_OK(CheckUri(options, "https://example.com:8443/x"));
  EXPECT_ERROR(CheckUri(options, "https://example.com:22/x"), base::Code::kInvalidArgument);
}

TEST(FetchPace, LetsGoOfAServerThatDrips) {
  constexpr int64_t kSecondNs = 1'000'000'000;
  constexpr int64_t kWindowMs = 60'000;
  FetchPace drips(kWindowMs, 0);
  // A fast beginning buys one window, and no more.
  EXPECT_OK(drips.Came(size_t{1} << 30, kSecondNs));
  int64_t second = 2;
  base::Result<void> came;
  for (; second < 1000 && came.has_value(); ++second) came = drips.Came(1500, second * kSecondNs);
  ASSERT_FALSE(came.has_value());
  EXPECT_EQ(came.error().code(), base::Code::kUnavailable);
  EXPECT_LE(second, 122);

  FetchPace goes(kWindowMs, 0);
  for (second = 1; second < 1000; ++second) {
    ASSERT_OK(goes.Came(kMinFetchBytesPerSecond, second * kSecondNs));
  }
}

TEST(FetchPace, CountsOnlyTheServersTime) {
  constexpr int64_t kSecondNs = 1'000'000'000;
  FetchPace pace(60'000, 0);
  for (int64_t i = 0; i < 100; ++i) {
    const int64_t now_ns = i * 100 * kSecondNs;
    ASSERT_OK(pace.Came(1, now_ns));
    pace.Waiting(now_ns + 100 * kSecondNs);  // taking it in took long
  }
}

}  // namespace
}  // namespace imaged
