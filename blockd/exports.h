#pragma once

#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"
#include "base/result.h"

namespace blockd {

// What is to be reachable under one attachment.
struct ExportSpec {
  std::string attachment_id;
  std::string secret;  // unguessable: a part of the export's name
  std::string volume_id;
  std::string project_id;
  uint64_t size_gb = 0;
  bool read_only = false;
  bool multi_attach = false;
  std::map<std::string, std::string> qos;  // keys of qos::ParseSpec
};

// Where attached volumes are reachable: the NBD server, seen from the API. Thread-safe.
class Exports {
 public:
  virtual ~Exports() = default;

  // From here on a client with the name may connect. Nothing is opened before it does, so this
  // needs no back end. Again with the same spec is fine. Returns what tells a client how to
  // connect: the "data" of connection_info. kConflict: another attachment may write already.
  virtual base::Result<base::JsonObject> Publish(const ExportSpec& spec) = 0;

  // The name opens nothing any more, and who is connected was cut off: nothing of his reaches the
  // volume after this returned. May wait for requests in flight. Fine if there is none.
  virtual base::Result<void> Withdraw(std::string_view attachment_id) = 0;

  // A client is connected now.
  virtual bool IsConnected(std::string_view attachment_id) = 0;

  // The attachments that are published, in no order.
  virtual std::vector<std::string> Published() = 0;

  // Limits that the volumes of a project share, from now on; none: unlimited. They stay while the
  // process runs. kInvalidArgument.
  virtual base::Result<void> SetProjectLimits(std::string_view project_id,
                                              const std::map<std::string, std::string>& qos) = 0;

  // New limits for all attachments of a volume.
  virtual base::Result<void> SetLimits(std::string_view volume_id, uint64_t size_gb,
                                       const std::map<std::string, std::string>& qos) = 0;

  // The volume is going away: what is kept of it (its budget, its metrics) goes when the last
  // client has.
  virtual void Forget(std::string_view volume_id) = 0;
};

}  // namespace blockd
