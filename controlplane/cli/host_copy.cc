#include "controlplane/cli/host_copy.h"

#include <optional>
#include <utility>

#include "base/json.h"
#include "controlplane/host/agent.h"

namespace controlplane::cli {

using base::Error;
using base::JsonArray;
using base::JsonObject;
using base::Result;

base::ConfigBuilder::Option<std::string>& SocketDirOption(base::ConfigBuilder& options) {
  return options.String("socket_dir", kDefaultSocketDir,
                        "directory of the agent's sockets, and of the list of what is attached");
}

Result<void> CopyFromHost(const std::string& socket_dir, const std::string& image_id,
                          const std::vector<imaged::ChunkRun>& runs, const HostChunkSink& sink,
                          bool* ours) {
  JsonArray chunks;
  for (const imaged::ChunkRun& run : runs)
    for (uint64_t i = 0; i < run.count; ++i) chunks.emplace_back(run.first + i);
  const JsonObject request = {{"do", "copy"}, {"image", image_id}, {"chunks", std::move(chunks)}};
  std::optional<Error> refused;
  const host::ControlOutput output{.progress = [](uint64_t, uint64_t) { return true; },
                                   .bytes =
                                       [&](const JsonObject& head, base::ByteView bytes) {
                                         const auto number = [&](std::string_view key) {
                                           return base::FindUint(head, key).value_or(0);
                                         };
                                         const Result<void> taken =
                                             sink({number("chunk"), bytes, number("fetched_bytes"),
                                                   number("fetched_plain_bytes")});
                                         if (!taken.has_value()) refused = taken.error();
                                         return taken.has_value();
                                       }};
  const auto answer = host::AskAgent(socket_dir + "/" + host::kControlSocketName, request, output);
  *ours = refused.has_value();
  if (refused.has_value()) return *refused;
  if (!answer.has_value()) return answer.error();
  return {};
}

}  // namespace controlplane::cli
