#include "imaged/web_fetch.h"

#include <algorithm>
#include <array>
#include <optional>
#include <utility>

#include <arpa/inet.h>
#include <fmt/format.h>

#include "base/http/client.h"
#include "base/log.h"
#include "base/text.h"

namespace imaged {

using base::Code;
using base::Error;
using base::Result;

namespace {

// An IPv4 or IPv6 address in network order.
struct Address {
  std::array<uint8_t, 16> bytes{};
  size_t size = 0;  // 4 or 16
};

struct Network {
  Address base;
  int prefix_bits = 0;
};

std::optional<Address> ParseAddress(std::string_view text) {
  std::string copy(text.substr(0, text.find('%')));  // without a zone
  Address address;
  if (inet_pton(AF_INET, copy.c_str(), address.bytes.data()) == 1) {
    address.size = 4;
    return address;
  }
  if (inet_pton(AF_INET6, copy.c_str(), address.bytes.data()) == 1) {
    address.size = 16;
    return address;
  }
  return std::nullopt;
}

std::optional<Network> ParseNetwork(std::string_view text) {
  size_t slash = text.find('/');
  std::optional<Address> base = ParseAddress(text.substr(0, slash));
  if (!base.has_value()) return std::nullopt;
  Network network{*base, static_cast<int>(base->size * 8)};
  if (slash == std::string_view::npos) return network;
  std::string_view bits = text.substr(slash + 1);
  const std::optional<int> prefix_bits = base::ParseNumber<int>(bits);
  if (!prefix_bits.has_value() || *prefix_bits < 0 || *prefix_bits > network.prefix_bits)
    return std::nullopt;
  network.prefix_bits = *prefix_bits;
  return network;
}

bool Contains(const Network& network, const Address& address) {
  if (network.base.size != address.size) return false;
  for (int bit = 0; bit < network.prefix_bits; ++bit) {
    uint8_t mask = static_cast<uint8_t>(0x80 >> (bit % 8));
    if ((network.base.bytes[bit / 8] & mask) != (address.bytes[bit / 8] & mask)) return false;
  }
  return true;
}

bool InAny(const Address& address, std::span<const std::string_view> networks) {
  return std::any_of(networks.begin(), networks.end(), [&](std::string_view text) {
    std::optional<Network> network = ParseNetwork(text);
    return network.has_value() && Contains(*network, address);
  });
}

// IANA's special-purpose registries, without what is globally reachable.
constexpr std::array<std::string_view, 16> kSpecialV4 = {
    "0.0.0.0/8",      "10.0.0.0/8",     "100.64.0.0/10", "127.0.0.0/8",
    "169.254.0.0/16", "172.16.0.0/12",  "192.0.0.0/24",  "192.0.2.0/24",
    "192.88.99.0/24", "192.168.0.0/16", "198.18.0.0/15", "198.51.100.0/24",
    "203.0.113.0/24", "224.0.0.0/4",    "240.0.0.0/4",   "255.255.255.255/32"};
// Of IPv6, what is not in 2000::/3 is not global unicast.
constexpr std::array<std::string_view, 1> kGlobalV6 = {"2000::/3"};
constexpr std::array<std::string_view, 5> kSpecialV6 = {
    "2001::/23",      // protocol assignments, Teredo among them
    "2001:db8::/32",  // documentation
    "2002::/16",      // 6to4: an IPv4 address inside
    "3fff::/20",      // documentation
    "3ffe::/16",      // the former 6bone
};

bool IsGlobal(const Address& address) {
  if (address.size == 4) return !InAny(address, kSpecialV4);
  return InAny(address, kGlobalV6) && !InAny(address, kSpecialV6);
}

struct Uri {
  std::string scheme;
  std::string host;  // without brackets
  uint16_t port = 0;
};

std::string Lower(std::string_view text) {
  std::string lower(text);
  for (char& c : lower) {
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
  }
  return lower;
}

// One form for all that mean the same host, or nothing for what is none. Parsers differ about
// percent signs and letters beyond ASCII, so neither passes.
std::optional<std::string> CanonicalHost(std::string_view text) {
  std::string host = Lower(text);
  std::array<char, INET6_ADDRSTRLEN> shortest{};
  if (host.find(':') != std::string::npos) {
    in6_addr address{};
    if (inet_pton(AF_INET6, host.c_str(), &address) != 1) return std::nullopt;
    inet_ntop(AF_INET6, &address, shortest.data(), shortest.size());
    return std::string(shortest.data());
  }
  if (host.ends_with('.')) host.pop_back();
  const bool dots_apart =
      !host.starts_with('.') && !host.ends_with('.') && host.find("..") == std::string::npos;
  const bool plain =
      host.find_first_not_of("abcdefghijklmnopqrstuvwxyz0123456789-_.") == std::string::npos;
  if (host.empty() || !dots_apart || !plain) return std::nullopt;
  return host;
}

std::optional<Uri> SplitUri(std::string_view text) {
  size_t colon = text.find("://");
  if (colon == std::string_view::npos) return std::nullopt;
  Uri uri;
  uri.scheme = Lower(text.substr(0, colon));
  std::string_view rest = text.substr(colon + 3);
  std::string_view authority = rest.substr(0, rest.find_first_of("/?#"));
  // Neither a name and password nor a backslash, which some parsers take for a slash.
  if (authority.find_first_of("@\\") != std::string_view::npos) return std::nullopt;
  size_t port_colon = std::string_view::npos;
  if (authority.starts_with("[")) {
    size_t end = authority.find(']');
    if (end == std::string_view::npos) return std::nullopt;
    uri.host = authority.substr(1, end - 1);
    if (uri.host.find(':') == std::string::npos) return std::nullopt;
    if (end + 1 < authority.size()) port_colon = end + 1;
  } else {
    port_colon = authority.find(':');
    uri.host = authority.substr(0, port_colon);
  }
  uri.port = uri.scheme == "https" ? 443 : 80;
  if (port_colon != std::string_view::npos) {
    std::string_view digits = authority.substr(port_colon + 1);
    const std::optional<uint16_t> port = base::ParseNumber<uint16_t>(digits);
    if (authority[port_colon] != ':' || !port.has_value()) return std::nullopt;
    uri.port = *port;
  }
  std::optional<std::string> host = CanonicalHost(uri.host);
  if (!host.has_value()) return std::nullopt;
  uri.host = *std::move(host);
  return uri;
}

template <typename List, typename Value>
bool Has(const List& list, const Value& value) {
  return std::find(list.begin(), list.end(), value) != list.end();
}

template <typename List, typename Value>
bool Passes(const List& allowed, const List& disallowed, const Value& value) {
  return allowed.empty() ? !Has(disallowed, value) : Has(allowed, value);
}

std::vector<std::string> CanonicalHosts(const std::vector<std::string>& hosts) {
  std::vector<std::string> canonical;
  for (const std::string& host : hosts) canonical.push_back(CanonicalHost(host).value_or(""));
  return canonical;
}

bool PassesLists(const WebFetchOptions& options, const Uri& uri) {
  bool known_scheme = uri.scheme == "http" || uri.scheme == "https";
  return known_scheme && Passes(options.allowed_schemes, options.disallowed_schemes, uri.scheme) &&
         Passes(CanonicalHosts(options.allowed_hosts), CanonicalHosts(options.disallowed_hosts),
                uri.host) &&
         Passes(options.allowed_ports, options.disallowed_ports, int64_t{uri.port});
}

// "127.1", "0x7f000001", "2130706433": what resolvers take for an address although it is none in
// the usual form. No name ends in a number.
bool LooksNumeric(std::string_view host) {
  std::string_view last = host.substr(host.rfind('.') + 1);
  const bool hex = last.starts_with("0x");
  if (hex) last.remove_prefix(2);
  return last.find_first_not_of(hex ? "0123456789abcdef" : "0123456789") == std::string_view::npos;
}

// What a URI says by itself; names that are looked up come after that. The same for the first
// address and for each redirect.
bool PassesAsWritten(const WebFetchOptions& options, const Uri& uri) {
  if (!PassesLists(options, uri)) return false;
  const bool is_address = ParseAddress(uri.host).has_value();
  if (is_address && !IsFetchableAddress(uri.host, options.allowed_networks)) return false;
  if (!is_address && LooksNumeric(uri.host)) return false;
  const bool local = uri.host == "localhost" || uri.host.ends_with(".localhost");
  return !local || IsFetchableAddress("127.0.0.1", options.allowed_networks);
}

base::http::ClientOptions ClientOptionsOf(const WebFetchOptions& options,
                                          base::http::Resolver& resolver) {
  base::http::ClientOptions client;
  client.connect_timeout_ms = options.connect_timeout_ms;
  client.stall_timeout_ms = options.stall_timeout_ms;
  client.total_timeout_ms = options.deadline_ms;
  client.resolver = &resolver;
  client.resolve_timeout_ms = options.resolve_timeout_ms;
  client.max_redirects = options.max_redirects;
  client.allow_address = [&options](std::string_view address, uint16_t) {
    return IsFetchableAddress(address, options.allowed_networks);
  };
  client.allow_host = [&options](std::string_view scheme, std::string_view text, uint16_t port) {
    const std::optional<std::string> host = CanonicalHost(text);
    return host.has_value() && PassesAsWritten(options, Uri{Lower(scheme), *host, port});
  };
  return client;
}

}  // namespace

bool IsFetchableAddress(std::string_view text, const std::vector<std::string>& allowed_networks) {
  std::optional<Address> address = ParseAddress(text);
  if (!address.has_value()) return false;
  for (const std::string& allowed : allowed_networks) {
    std::optional<Network> network = ParseNetwork(allowed);
    if (network.has_value() && Contains(*network, *address)) return true;
  }
  return IsGlobal(*address);
}

Result<void> CheckHostLists(const WebFetchOptions& options) {
  for (const auto* hosts : {&options.allowed_hosts, &options.disallowed_hosts}) {
    for (const std::string& host : *hosts) {
      if (CanonicalHost(host).has_value()) continue;
      return Error(
          Code::kInvalidArgument,
          fmt::format("\"{}\" is no host that a URI can name: write it without a port, and "
                      "in ASCII (xn--...)",
                      host));
    }
  }
  return {};
}

Result<void> CheckUri(const WebFetchOptions& options, std::string_view text) {
  const std::optional<Uri> uri = SplitUri(text);
  if (uri.has_value() && PassesAsWritten(options, *uri)) return {};
  return Error(Code::kInvalidArgument,
               fmt::format("URI for web-download does not pass filtering: {}", text));
}

Result<void> FetchUri(const WebFetchOptions& options, base::http::Resolver& resolver,
                      const std::string& uri,
                      const std::function<Result<void>(base::ByteView)>& sink) {
  RETURN_IF_ERROR(CheckUri(options, uri));
  base::http::Client client(ClientOptionsOf(options, resolver));
  uint64_t received_bytes = 0;
  std::optional<Error> refused_by_sink;
  base::http::ClientRequest request;
  request.url = uri;
  request.body_sink = [&](base::ByteView bytes) -> Result<void> {
    received_bytes += bytes.size();
    Result<void> taken = sink(bytes);
    if (!taken.has_value()) refused_by_sink = taken.error();
    return taken;
  };
  const Result<base::http::Response> response = client.Do(request);
  if (refused_by_sink.has_value()) return *refused_by_sink;
  if (!response.has_value()) {
    LOG(kInfo, "imaged", "web-download: {}", response.error().ToString());
    if (received_bytes > 0) {
      return Error(Code::kUnavailable,
                   fmt::format("the server of the URI stopped sending after {} bytes, or took "
                               "longer than is allowed",
                               received_bytes));
    }
    return Error(Code::kUnavailable,
                 "the URI can't be fetched: its host does not exist, does not answer, or is none "
                 "that may be asked");
  }
  if (response->status != 200) {
    return Error(Code::kInvalidArgument,
                 fmt::format("the server of the URI answered {}", response->status));
  }
  return {};
}

}  // namespace imaged
