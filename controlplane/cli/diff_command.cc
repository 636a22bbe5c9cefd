#include <chrono>
#include <functional>
#include <optional>
#include <string>
#include <thread>
#include <utility>

#include <fmt/format.h>

#include "controlplane/changed_blocks.h"
#include "controlplane/cli/cloud.h"
#include "controlplane/cli/cloud_options.h"
#include "controlplane/cli/command.h"
#include "controlplane/cli/image_transfer.h"
#include "controlplane/cli/volume_requests.h"

// `quarry diff OLD NEW`: what the services' .../changed?since=... answer, page by page.

namespace controlplane::cli {
namespace {

using base::Code;
using base::Error;
using base::Json;
using base::JsonArray;
using base::JsonObject;
using base::Result;

constexpr uint64_t kShownRuns = 20;  // more are for --json
// A snapshot that is new is still being put into the chunk store: it is asked for again.
constexpr int kAskAgainMs = 500;
constexpr int kAskAgainTimes = 1200;

struct Run {
  uint64_t offset = 0;
  uint64_t length = 0;
  bool zero = false;
};
using RunVisitor = std::function<void(const Run& run)>;

// An image or a snapshot.
struct Thing {
  std::string id;
  std::string url;
};

Result<Thing> AsImage(ApiClient& client, const std::string& name) {
  ASSIGN_OR_RETURN(const std::string endpoint, client.Endpoint("image"));
  ASSIGN_OR_RETURN(const Json image, FindImage(client, name));
  const std::string id = base::FindString(image, "id").value_or("");
  return Thing{id, endpoint + "/v2/images/" + id};
}

// By id or by name.
Result<Thing> AsSnapshot(ApiClient& client, const std::string& name) {
  ASSIGN_OR_RETURN(const std::string endpoint, client.Endpoint("block-storage"));
  ASSIGN_OR_RETURN(const JsonArray all, FindByIdOrName(client, "snapshot", name));
  if (all.empty()) return Error(Code::kNotFound, "no snapshot");
  if (all.size() > 1) {
    return Error(Code::kConflict,
                 fmt::format("several snapshots are named '{}': name one by its id", name));
  }
  const std::string id = base::FindString(all[0], "id").value_or("");
  return Thing{id, endpoint + "/snapshots/" + id};
}

Result<Thing> FindThing(ApiClient& client, const std::string& name) {
  Result<Thing> image = AsImage(client, name);
  if (!image.has_value() && image.error().code() != Code::kNotFound) return image;
  Result<Thing> snapshot = AsSnapshot(client, name);
  if (!snapshot.has_value() && snapshot.error().code() != Code::kNotFound) return snapshot;
  if (image.has_value() && snapshot.has_value()) {
    return Error(Code::kConflict,
                 fmt::format("an image and a snapshot are named '{}': name one by its id", name));
  }
  if (image.has_value()) return image;
  if (snapshot.has_value()) return snapshot;
  return Error(Code::kNotFound,
               fmt::format("no image and no snapshot of a volume is named '{}'; `quarry image ls` "
                           "and `openstack volume snapshot list` show those you can see",
                           name));
}

Result<Json> AskPatiently(ApiClient& client, const std::string& url) {
  for (int asked = 1;; ++asked) {
    Result<Json> answer = client.CallJson(Ask("GET", url));
    const bool later = !answer.has_value() && answer.error().code() == Code::kUnavailable;
    if (!later || asked == kAskAgainTimes) return answer;
    if (asked == 1) fmt::print(stderr, "quarry: {}\n", answer.error().message());
    std::this_thread::sleep_for(std::chrono::milliseconds(kAskAgainMs));
  }
}

Result<Run> RunIn(const Json& view) {
  const auto offset = base::FindUint(view, "offset");
  const auto length = base::FindUint(view, "length");
  const Json* zero = base::Find(view, "zero");
  if (offset.has_value() && length.has_value() && zero != nullptr && zero->is_bool())
    return Run{*offset, *length, zero->as_bool()};
  return Error(Code::kIo, "the service answered something that is no run of changed bytes");
}

// In ascending order; what a page's end cut in two comes as two.
Result<void> VisitChanged(ApiClient& client, const Thing& then, const Thing& now,
                          const RunVisitor& visit) {
  const std::string url =
      fmt::format("{}/changed?since={}&limit={}", now.url, then.id, kMaxChangedRuns);
  std::optional<std::string> token;
  do {
    ASSIGN_OR_RETURN(const Json page,
                     AskPatiently(client, token.has_value() ? url + "&page_token=" + *token : url));
    const Json* changed = base::Find(page, "changed");
    if (changed == nullptr || !changed->is_array())
      return Error(Code::kIo, "the service answered something that is no list of changes");
    for (const Json& view : changed->as_array()) {
      ASSIGN_OR_RETURN(const Run run, RunIn(view));
      visit(run);
    }
    token = base::FindString(page, "next_page_token");
  } while (token.has_value());
  return {};
}

// One array, written while the pages come. If they break off it has no end, so that nobody takes a
// part of it for all.
Result<void> PrintAsJson(ApiClient& client, const Thing& then, const Thing& now) {
  const char* before = "[";
  RETURN_IF_ERROR(VisitChanged(client, then, now, [&before](const Run& run) {
    const JsonObject view = {{"offset", run.offset}, {"length", run.length}, {"zero", run.zero}};
    fmt::print("{}{}", std::exchange(before, ",\n "), base::ToText(view));
  }));
  fmt::print("{}]\n", *before == '[' ? "[" : "");
  return {};
}

Result<void> PrintAsTable(ApiClient& client, const Thing& then, const Thing& now) {
  uint64_t runs = 0;
  uint64_t bytes = 0;
  uint64_t zero_bytes = 0;
  RETURN_IF_ERROR(VisitChanged(client, then, now, [&](const Run& run) {
    if (runs == 0) fmt::print("{:>16}  {:>16}  {}\n", "OFFSET", "LENGTH", "NOW");
    ++runs;
    bytes += run.length;
    if (run.zero) zero_bytes += run.length;
    if (runs > kShownRuns) return;
    fmt::print("{:>16}  {:>16}  {}\n", run.offset, run.length, run.zero ? "zeros" : "data");
  }));
  if (runs > kShownRuns)
    fmt::print("{:>16}  {} more: --json lists all\n", "...", runs - kShownRuns);
  if (runs == 0) {
    fmt::print("nothing changed\n");
    return {};
  }
  fmt::print("{} changed in {} {}", base::FormatBytes(bytes), runs, runs == 1 ? "run" : "runs");
  if (zero_bytes > 0) fmt::print(", {} of it to zeros", base::FormatBytes(zero_bytes));
  fmt::print("\n");
  return {};
}

Result<void> Diff(ApiClient& client, const std::string& old_name, const std::string& new_name,
                  bool as_json) {
  ASSIGN_OR_RETURN(const Thing then, FindThing(client, old_name));
  ASSIGN_OR_RETURN(const Thing now, FindThing(client, new_name));
  return as_json ? PrintAsJson(client, then, now) : PrintAsTable(client, then, now);
}

}  // namespace

int RunDiff(const Command& command, const std::vector<std::string>& args) {
  base::ConfigBuilder options;
  const CloudOptions common(options);
  int exit_code = kOk;
  const auto client = common.LogIn(command, options, args, 2, 2, &exit_code);
  if (client == nullptr) return exit_code;
  const std::vector<std::string>& names = options.positional();
  const Result<void> done = Diff(*client, names[0], names[1], *common.json);
  return done.has_value() ? kOk : Fail(done.error());
}

}  // namespace controlplane::cli
