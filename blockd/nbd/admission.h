#pragma once

#include <cstddef>
#include <list>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <utility>

#include "base/fair_shares.h"
#include "base/result.h"
#include "base/thread_annotations.h"

namespace blockd::nbd {

class Connection;

// Who may come in. Connections in their handshake have places of their own: when these are taken
// the oldest makes room, of the peer that has the most, so that who opens connections and says
// nothing shuts out nobody but himself. Who names an export takes a seat: an export has only so
// many, and tenants share those of the server as base::FairShares says, since idle connections stay
// for as long as they like. Thread-safe.
class Admission : public std::enable_shared_from_this<Admission> {
 public:
  // A connection's, until it goes. Movable; one thread at a time.
  class Seat {
   public:
    Seat() = default;
    Seat(Seat&& other) noexcept { *this = std::move(other); }
    Seat& operator=(Seat&& other) noexcept {
      std::swap(owner_, other.owner_);
      std::swap(name_, other.name_);
      std::swap(tenant_, other.tenant_);
      return *this;
    }
    ~Seat();

   private:
    friend class Admission;
    std::shared_ptr<Admission> owner_;
    std::string name_;
    std::string tenant_;
  };

  Admission(size_t max_handshakes, size_t max_connections, size_t max_per_export)
      : max_handshakes_(max_handshakes), max_per_export_(max_per_export), seats_(max_connections) {}

  // Returns the connection that has to make room: to be cut off; or null.
  std::shared_ptr<Connection> BeginHandshake(std::shared_ptr<Connection> connection);
  // False if it had to make room.
  bool EndHandshake(const Connection& connection);

  // kUnavailable, with what to do, when there are too many. `name` is the export's.
  base::Result<Seat> TakeSeat(std::string_view name, std::string_view tenant);

 private:
  std::shared_ptr<Connection> TakeOldest() REQUIRES(mutex_);

  const size_t max_handshakes_;
  const size_t max_per_export_;
  base::Mutex mutex_;
  std::list<std::shared_ptr<Connection>> handshakes_ GUARDED_BY(mutex_);  // the oldest first
  base::FairShares seats_ GUARDED_BY(mutex_);
  std::map<std::string, size_t, std::less<>> by_export_ GUARDED_BY(mutex_);
};

}  // namespace blockd::nbd
