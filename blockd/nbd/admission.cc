#include "blockd/nbd/admission.h"

#include <algorithm>
#include <optional>

#include <fmt/format.h>

#include "blockd/nbd/connection.h"

namespace blockd::nbd {
namespace {

// Without the port.
std::string_view HostOf(const Connection& connection) {
  const std::string_view peer = connection.peer();
  return peer.substr(0, peer.rfind(':'));
}

}  // namespace

Admission::Seat::~Seat() {
  if (owner_ == nullptr) return;
  base::MutexLock lock(owner_->mutex_);
  owner_->seats_.Give(tenant_, 1);
  const auto found = owner_->by_export_.find(name_);
  if (--found->second == 0) owner_->by_export_.erase(found);
}

std::shared_ptr<Connection> Admission::BeginHandshake(std::shared_ptr<Connection> connection) {
  base::MutexLock lock(mutex_);
  handshakes_.push_back(std::move(connection));
  return handshakes_.size() > max_handshakes_ ? TakeOldest() : nullptr;
}

std::shared_ptr<Connection> Admission::TakeOldest() {
  std::map<std::string_view, size_t> by_host;
  for (const auto& connection : handshakes_) ++by_host[HostOf(*connection)];
  const auto most =
      std::max_element(by_host.begin(), by_host.end(),
                       [](const auto& a, const auto& b) { return a.second < b.second; });
  const bool all_alone = most->second == 1;
  const auto oldest = std::find_if(handshakes_.begin(), handshakes_.end(), [&](const auto& each) {
    return all_alone || HostOf(*each) == most->first;
  });
  std::shared_ptr<Connection> taken = std::move(*oldest);
  handshakes_.erase(oldest);
  return taken;
}

bool Admission::EndHandshake(const Connection& connection) {
  base::MutexLock lock(mutex_);
  return std::erase_if(handshakes_, [&](const auto& each) { return each.get() == &connection; }) >
         0;
}

base::Result<Admission::Seat> Admission::TakeSeat(std::string_view name, std::string_view tenant) {
  base::MutexLock lock(mutex_);
  size_t& of_export = by_export_[std::string(name)];
  if (of_export >= max_per_export_) {
    return base::Error(base::Code::kUnavailable,
                       fmt::format("this export has {} connections already, as many as one may "
                                   "have; close some",
                                   of_export));
  }
  const std::optional<base::FairShares::Refusal> refusal = seats_.TryTake(tenant, 1);
  if (refusal.has_value()) {
    if (of_export == 0) by_export_.erase(by_export_.find(name));
    return base::Error(base::Code::kUnavailable,
                       *refusal == base::FairShares::Refusal::kShare
                           ? "this project has its share of the server's connections; close some"
                           : "the server has as many connections as it may have; try again");
  }
  ++of_export;
  Seat seat;
  seat.owner_ = shared_from_this();
  seat.name_ = name;
  seat.tenant_ = tenant;
  return seat;
}

}  // namespace blockd::nbd
