#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "blockd/catalog.h"
#include "blockd/notices.h"

namespace blockd::tenancy {

constexpr int64_t kMessageLifeUs = int64_t{30} * 24 * 3600 * base::kSecondUs;
constexpr size_t kMaxMessagesOfAProject = 1000;  // beyond it the oldest go

// Why something that was accepted went wrong afterwards: what a tenant is told, since the answer to
// his request had left already.
struct MessageRecord {
  std::string id;
  std::string project_id;
  std::string event_id;      // "VOLUME_VOLUME_001_003"
  std::string user_message;  // a sentence
  std::string level = "ERROR";
  std::string request_id;     // of the request that began it; may be empty
  std::string resource_type;  // "VOLUME", "VOLUME_SNAPSHOT"
  std::string resource_id;
  int64_t created_at_us = 0;
  int64_t guaranteed_until_us = 0;
};

// In the catalog's partition: m/p/<project>/<created><id> the record, m/i/<id> its key.
// Thread-safe, blocking.
class Messages : public Notices {
 public:
  explicit Messages(Catalog& catalog) : catalog_(catalog) {}  // borrowed

  // Gives it an id and times; what is past its time, or beyond the limit, goes. Best within the
  // transaction that sets the status which the message explains.
  base::Result<MessageRecord> Add(Transaction& transaction, MessageRecord message);

  // What a job that was given up leaves.
  base::Result<void> Tell(Transaction& transaction, const Notice& notice) override;

  // Newest first. Nothing of it is past its time.
  base::Result<std::vector<MessageRecord>> List(std::string_view project_id);
  base::Result<MessageRecord> Get(std::string_view id);  // kNotFound
  base::Result<void> Delete(std::string_view id);        // kNotFound

 private:
  Catalog& catalog_;
};

}  // namespace blockd::tenancy
