#include "base/http/trusted_peers.h"

#include <algorithm>

namespace base::http {

namespace ip = boost::asio::ip;

// In front of the IPv4 address in "::ffff:10.0.0.1".
constexpr int kMappedBits = 96;

Result<TrustedPeers> TrustedPeers::Parse(const std::vector<std::string>& networks) {
  TrustedPeers peers;
  for (const std::string& text : networks) {
    const bool is_v6 = text.find(':') != std::string::npos;
    const std::string whole =
        text.find('/') != std::string::npos ? text : text + (is_v6 ? "/128" : "/32");
    boost::system::error_code error;
    if (is_v6) {
      const ip::network_v6 network = ip::make_network_v6(whole, error);
      if (!error && network.address().is_v4_mapped() && network.prefix_length() >= kMappedBits) {
        peers.v4_.emplace_back(ip::make_address_v4(ip::v4_mapped, network.address()),
                               network.prefix_length() - kMappedBits);
      } else {
        peers.v6_.push_back(network);
      }
    } else {
      peers.v4_.push_back(ip::make_network_v4(whole, error));
    }
    if (error)
      return Error(Code::kInvalidArgument,
                   "trusted proxy \"" + text + "\" is no address or network, as in 10.1.0.0/16");
  }
  return peers;
}

bool TrustedPeers::Contains(ip::address address) const {
  if (address.is_v6() && address.to_v6().is_v4_mapped())
    address = ip::make_address_v4(ip::v4_mapped, address.to_v6());
  const auto holds = [](const auto& network, const auto& one) {
    using Network = std::decay_t<decltype(network)>;
    return Network(one, network.prefix_length()).canonical() == network.canonical();
  };
  if (address.is_v4()) {
    return std::any_of(v4_.begin(), v4_.end(),
                       [&](const auto& network) { return holds(network, address.to_v4()); });
  }
  return std::any_of(v6_.begin(), v6_.end(),
                     [&](const auto& network) { return holds(network, address.to_v6()); });
}

}  // namespace base::http
