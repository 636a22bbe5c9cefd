#pragma once

#include <span>
#include <string_view>

#include "base/json.h"
#include "base/result.h"
#include "blockd/context.h"

namespace blockd {

// One of the things that POST .../action can do: the body is {"<name>": <argument>}.
struct Action {
  std::string_view name;
  base::Result<base::http::Response> (*run)(const Context&, const api::Call&,
                                            const base::Json& argument);
  int since = 0;  // the microversion's minor
};

// The one that the body names. kInvalidArgument: "There is no such action: ...".
base::Result<base::http::Response> RunAction(const Context& context, const api::Call& call,
                                             std::span<const Action> actions);

// The older attaching: os-reserve, os-initialize_connection, os-attach, ...
// (handlers_connections.cc)
std::span<const Action> ConnectionActions();
// What is between Cinder's services: os-migrate_volume, os-extend_volume_completion
// (handlers_moves.cc)
std::span<const Action> MoveActions();

}  // namespace blockd
