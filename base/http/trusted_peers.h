#pragma once

#include <string>
#include <vector>

#include <boost/asio/ip/address.hpp>
#include <boost/asio/ip/network_v4.hpp>
#include <boost/asio/ip/network_v6.hpp>

#include "base/result.h"

namespace base::http {

// The peers whose X-Forwarded-Proto and X-Forwarded-Host are believed. Internal to base/http.
// Immutable once made, so Thread-safe.
class TrustedPeers {
 public:
  TrustedPeers() = default;  // nobody

  // "10.1.0.0/16", "fd00::/8", or one address. An IPv4 one may be written as IPv6
  // ("::ffff:10.1.0.0/112"). kInvalidArgument names what is none of these.
  static Result<TrustedPeers> Parse(const std::vector<std::string>& networks);

  // An IPv4 address counts as itself, however the socket writes it.
  bool Contains(boost::asio::ip::address address) const;

 private:
  std::vector<boost::asio::ip::network_v4> v4_;
  std::vector<boost::asio::ip::network_v6> v6_;
};

}  // namespace base::http
