#pragma once

#include <map>
#include <string>
#include <string_view>

#include "base/auth/caller.h"
#include "base/result.h"

namespace blockd {

class Transaction;

// What this service is as a back end of volumes: what its pools tell of themselves, and what extra
// specs of types may ask for (volume_backend_name, vendor_name, storage_protocol).
constexpr std::string_view kBackEndName = "store";  // on the chunk store
constexpr std::string_view kRbdBackEndName = "rbd";
constexpr std::string_view kBackEndVendor = "Quarry";
constexpr std::string_view kBackEndProtocol = "NBD";

// What volumes need to know of a volume type.
struct TypeFacts {
  std::string id;
  std::string name;
  bool multi_attach = false;  // extra spec multiattach "<is> True"
  bool thick = false;         // extra spec quarry:provisioning "thick"
  // The back end that its volumes are made on.
  std::string back_end;
  // The extra spec that asks for another back end than there are: no volume of it can be made.
  // Empty: none does.
  std::string unfit;
  // Keys of the associated qos-spec, if its consumer is the back end or both (qos::ParseSpec).
  std::map<std::string, std::string> qos;
};

// The volume types, as the volumes' handlers and jobs see them. blockd/types implements it.
// Thread-safe.
class TypeDirectory {
 public:
  virtual ~TypeDirectory() = default;
  // By id or name; empty: the default type of the caller's project. kNotFound in Cinder's words
  // also for a private one that the caller's project has no access to.
  virtual base::Result<TypeFacts> Resolve(const base::auth::Caller& caller,
                                          std::string_view id_or_name) = 0;
  // By id, whoever asks. kNotFound.
  virtual base::Result<TypeFacts> Find(std::string_view id) = 0;
  // Within the transaction that makes a volume of this type: kNotFound if it is gone or going, and
  // the commit is lost if it goes meanwhile.
  virtual base::Result<void> Use(Transaction& transaction, std::string_view id) = 0;
};

}  // namespace blockd
