#pragma once

#include <functional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/auth/caller.h"
#include "base/result.h"
#include "blockd/catalog.h"
#include "blockd/type_directory.h"
#include "blockd/types/volume_type.h"

namespace blockd::types {

constexpr std::string_view kDefaultTypeName = "__DEFAULT__";
constexpr size_t kMaxTypes = 1000;            // and as many qos-specs
constexpr size_t kMaxProjectsOfAType = 1000;  // with access to a private one

// The volume types and qos-specs, in the catalog's partition:
//   t/i/<id>  t/n/<name>  t/d/<project>   a type; the id that has the name; a project's default
//   q/i/<id>  q/n/<name>                  the same of qos-specs
// A type and the qos-spec that it names change in one commit, so neither ever names what is gone.
//
// Removing a type: it is marked first, durably. From then on no volume is made of it (who makes
// one calls Use in its transaction, so a commit that comes later fails). Then the projects'
// usage tells whether volumes have it, and it goes or the mark does.
//
// Thread-safe, blocking; several processes may share the store. Errors are in Cinder's words.
class TypeStore : public TypeDirectory {
 public:
  // The catalog is borrowed. The back ends are ServiceOptions::back_ends.
  explicit TypeStore(Catalog& catalog,
                     std::vector<std::string> back_ends = {std::string(kBackEndName)})
      : catalog_(catalog), back_ends_(std::move(back_ends)) {}

  // Once before it serves: makes the default type if there is none, and takes marks back that a
  // crash left.
  base::Result<void> Start();

  // --- TypeDirectory ---
  base::Result<TypeFacts> Resolve(const base::auth::Caller& caller,
                                  std::string_view id_or_name) override;
  base::Result<TypeFacts> Find(std::string_view id) override;
  base::Result<void> Use(Transaction& transaction, std::string_view id) override;

  // --- types ---
  base::Result<std::vector<VolumeType>> List();       // by id
  base::Result<VolumeType> Get(std::string_view id);  // kNotFound
  base::Result<VolumeType> GetByName(std::string_view name);
  // The project's, or else __DEFAULT__.
  base::Result<VolumeType> DefaultOf(std::string_view project_id);

  // Gives it an id. kAlreadyExists for the name.
  base::Result<VolumeType> Create(VolumeType type);
  // Runs again if it loses a race. Must not touch id and qos_specs_id.
  using Change = std::function<base::Result<void>(VolumeType&)>;
  base::Result<VolumeType> Update(std::string_view id, const Change& change);
  // kInvalidArgument: volumes have it, or it is a default.
  base::Result<void> Delete(std::string_view id);

  // --- defaults of projects ---
  struct Default {
    std::string project_id;
    std::string type_id;
  };
  base::Result<std::vector<Default>> Defaults();
  base::Result<Default> SetDefault(std::string_view project_id, std::string_view id_or_name);
  base::Result<Default> GetDefault(std::string_view project_id);  // kNotFound: none was set
  base::Result<void> ForgetDefault(std::string_view project_id);

  // --- qos-specs ---
  base::Result<std::vector<QosSpec>> ListQos();  // by id
  base::Result<QosSpec> GetQos(std::string_view id);
  // kAlreadyExists for the name; kInvalidArgument for a value that is none (qos/limits.h).
  base::Result<QosSpec> CreateQos(QosSpec spec);
  using QosChange = std::function<base::Result<void>(QosSpec&)>;
  base::Result<QosSpec> UpdateQos(std::string_view id, const QosChange& change);
  // kInvalidArgument: types have it, and not `force`. Returns what was removed.
  base::Result<QosSpec> DeleteQos(std::string_view id, bool force);
  // A type has at most one: kInvalidArgument for another.
  base::Result<void> Associate(std::string_view qos_id, std::string_view type_id);
  base::Result<void> Disassociate(std::string_view qos_id, std::string_view type_id);
  // Returns the spec as it was.
  base::Result<QosSpec> DisassociateAll(std::string_view qos_id);

 private:
  base::Result<TypeFacts> FactsOf(const VolumeType& type);
  base::Result<void> SetMark(std::string_view id, bool deleting);
  base::Result<bool> InUse(std::string_view id);
  base::Result<void> CheckNoDefault(const VolumeType& type);

  Catalog& catalog_;
  const std::vector<std::string> back_ends_;
};

// Visible to the caller: public, an administrator, or a project with access.
bool MaySee(const base::auth::Caller& caller, const VolumeType& type);

}  // namespace blockd::types
