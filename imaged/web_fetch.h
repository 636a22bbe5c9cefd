#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "base/bytes.h"
#include "base/http/resolver.h"
#include "base/result.h"

namespace imaged {

// What web-download may fetch. The names and the rules are Glance's (import_filtering_opts): where
// an allow list is given, its deny list is not looked at. Hosts compare without case and without
// the root's dot at their end; a name in other letters than ASCII's is written in its ASCII form
// (xn--...), here and in a URI.
struct WebFetchOptions {
  std::vector<std::string> allowed_schemes = {"http", "https"};
  std::vector<std::string> disallowed_schemes;
  std::vector<std::string> allowed_hosts;
  std::vector<std::string> disallowed_hosts;
  std::vector<int64_t> allowed_ports = {80, 443};
  std::vector<int64_t> disallowed_ports;
  // Networks ("10.1.0.0/16", "fd00::/8") that may be fetched from although they are private.
  std::vector<std::string> allowed_networks;
  int max_redirects = 5;
  int64_t connect_timeout_ms = 10'000;
  int64_t stall_timeout_ms = 60'000;
  int64_t resolve_timeout_ms = 10'000;    // of one name
  int64_t deadline_ms = 4 * 3600 * 1000;  // of one fetch, with all its redirects
  base::http::Resolver::Lookup lookup;    // of names; null: the system's
};

// True for an address that a tenant may make us connect to: a global unicast one. Loopback,
// link-local, private, shared (100.64/10), multicast, unspecified, reserved and documentation
// addresses are not; nor are those of IPv6 that carry such an IPv4 address inside (mapped,
// compatible, 6to4, NAT64, Teredo). `allowed_networks` come first. False for what is no address.
bool IsFetchableAddress(std::string_view address, const std::vector<std::string>& allowed_networks);

// kInvalidArgument, with the entry, for a list of hosts that names what no URI can: it would let
// pass what it is there to stop.
base::Result<void> CheckHostLists(const WebFetchOptions& options);

// Scheme, host and port by the lists; a host that is an address is looked at as such.
// kInvalidArgument "URI for web-download does not pass filtering: <uri>". Resolves no name.
base::Result<void> CheckUri(const WebFetchOptions& options, std::string_view uri);

// Fetches `uri` and hands its body on in pieces. Blocking. Each redirect is looked at like the
// first address, names are resolved once, and what was looked at is what is connected to.
//
// Errors are for the one who asked for the import: kInvalidArgument for a URI that does not pass or
// an answer that is no 200, what `sink` said, else kUnavailable. Whether a name is not there, leads
// to an address inside, or is not answered reads the same, or it would tell a tenant what our name
// servers know; the log has the difference.
base::Result<void> FetchUri(const WebFetchOptions& options, base::http::Resolver& resolver,
                            const std::string& uri,
                            const std::function<base::Result<void>(base::ByteView)>& sink);

}  // namespace imaged
