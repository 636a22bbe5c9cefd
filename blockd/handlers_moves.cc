#include <algorithm>
#include <array>
#include <string>
#include <string_view>

#include "blockd/actions.h"
#include "blockd/api/body.h"
#include "blockd/api/errors.h"
#include "blockd/handler_tools.h"
#include "blockd/policy.h"
#include "blockd/views.h"

// What Cinder's services do among each other: here volumes move by being retyped, and no extension
// waits for the compute service to finish it.

namespace blockd {
namespace {

using base::Code;
using base::Error;
using base::Json;
using base::JsonObject;
using base::Result;
using base::http::Response;

constexpr int kMigrateToCluster = 16;
constexpr int kExtendCompletion = 71;

// "quarry@store" of "quarry@store#store".
std::string BackendOf(std::string_view host) { return std::string(host.substr(0, host.find('#'))); }

bool HasHost(const ServiceOptions& options, std::string_view host) {
  return std::any_of(options.back_ends.begin(), options.back_ends.end(),
                     [&](const std::string& back_end) {
                       return BackendOf(HostOf(options, back_end)) == BackendOf(host);
                     });
}

Result<Response> Migrate(const Context& context, const api::Call& call, const Json& argument) {
  RETURN_IF_ERROR(CheckAdmin(call.caller, "volume_extension:volume_admin_actions:migrate_volume"));
  ASSIGN_OR_RETURN(const JsonObject body, api::ObjectOf(argument));
  ASSIGN_OR_RETURN(const auto host, api::OptionalText(body, "host", api::kMaxNameCharacters));
  ASSIGN_OR_RETURN(const auto cluster, api::OptionalText(body, "cluster", api::kMaxNameCharacters));
  RETURN_IF_ERROR(api::OptionalBool(body, "force_host_copy"));
  RETURN_IF_ERROR(api::OptionalBool(body, "lock_volume"));
  const bool to_cluster = cluster.has_value() && call.version.AtLeast(kMigrateToCluster);
  if (!host.has_value() && !to_cluster) return api::Missing("host");
  if (host.has_value() && to_cluster)
    return InvalidInput("a host or a cluster is where a volume moves to, not both");
  if (to_cluster) {
    return Error(Code::kInvalidArgument,
                 "Invalid host: No available cluster named " + api::Echo(*cluster));
  }
  ASSIGN_OR_RETURN(const VolumeRecord volume,
                   VisibleVolume(context, call, call.Param("volume_id")));
  if (BackendOf(*host) != BackendOf(HostOf(context.options, BackEndOf(volume)))) {
    if (HasHost(context.options, *host))
      return InvalidVolume("Volume " + volume.id + " is on another back end than " +
                           api::Echo(*host) + ": retype it to a type of that one.");
    return Error(Code::kInvalidArgument,
                 "Invalid host: No available service named " + api::Echo(*host));
  }
  return InvalidVolume("Volume " + call.Param("volume_id") +
                       " is on that host already, and the destination host must be different than "
                       "the current host");
}

Result<Response> CompleteExtension(const Context&, const api::Call& call, const Json& argument) {
  RETURN_IF_ERROR(
      CheckAdmin(call.caller, "volume_extension:volume_admin_actions:extend_volume_completion"));
  ASSIGN_OR_RETURN(const JsonObject body, api::ObjectOf(argument));
  RETURN_IF_ERROR(api::OptionalBool(body, "error"));
  return InvalidVolume("Volume " + call.Param("volume_id") +
                       " has no extension that waits for its completion: here it is done when "
                       "os-extend is");
}

}  // namespace

std::span<const Action> MoveActions() {
  static constexpr std::array<Action, 2> kActions = {
      {{"os-migrate_volume", Migrate},
       {"os-extend_volume_completion", CompleteExtension, kExtendCompletion}}};
  return kActions;
}

}  // namespace blockd
