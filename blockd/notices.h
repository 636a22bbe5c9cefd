#pragma once

#include <string>

#include "base/result.h"

namespace blockd {

class Transaction;

// Why something that was accepted went wrong afterwards, as its project is told.
struct Notice {
  std::string project_id;
  std::string request_id;     // of the request that began it
  std::string resource_type;  // "VOLUME", "VOLUME_SNAPSHOT", "VOLUME_BACKUP"
  std::string resource_id;
  std::string event_id;  // as Cinder numbers them: "VOLUME_VOLUME_008_012"
  std::string text;      // a sentence: what happened, and what to do
};

// Where jobs leave such; blockd/tenancy implements it. Thread-safe.
class Notices {
 public:
  virtual ~Notices() = default;
  // Within the transaction that sets the status which the notice explains.
  virtual base::Result<void> Tell(Transaction& transaction, const Notice& notice) = 0;
};

}  // namespace blockd
