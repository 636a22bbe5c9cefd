#include <algorithm>
#include <chrono>
#include <functional>
#include <memory>
#include <optional>
#include <thread>
#include <utility>

#include <fmt/format.h>
#include <unistd.h>

#include "base/log.h"
#include "controlplane/admin/admin_service.h"
#include "controlplane/admin/reports.h"
#include "controlplane/admin/scrub_log.h"
#include "controlplane/cli/command.h"
#include "controlplane/cli/image_transfer.h"
#include "controlplane/cli/progress.h"
#include "controlplane/cli/running.h"
#include "controlplane/embedded_store.h"
#include "controlplane/image_names.h"
#include "controlplane/layer_names.h"
#include "controlplane/restore.h"
#include "controlplane/settings.h"
#include "controlplane/store.h"
#include "imaged/holder.h"

// The store's maintenance from the command line. A running service is asked over its admin API, so
// that there is one hand on the store; only where none runs is the store opened here.

namespace controlplane::cli {
namespace {

using base::Code;
using base::Error;
using base::Json;
using base::JsonArray;
using base::JsonObject;
using base::Result;
using chunkstore::ProgressFn;

// Each look is a request, and a line in the service's log.
constexpr int64_t kFirstPollMs = 50;
constexpr int64_t kLongestPollMs = 1000;

uint64_t Number(const Json& value, std::string_view key) {
  return base::FindUint(value, key).value_or(0);
}

// Options of a command that may open the store: all settings of the service, so that its file and
// variables mean the same here, of which the command line takes those that matter to the command:
// its own and `used`.
struct StoreOptions {
  StoreOptions(base::ConfigBuilder& options, std::vector<std::string> used)
      : json(options.Bool("json", false, "answer in JSON on stdout, without progress")),
        backups(options.Bool("backups", false,
                             "of the store that the running service keeps its backups in")),
        settings(options) {
    used.insert(used.end(), {"config", "json", "data_dir", "store.cache"});
    options.HideAllBut(used);
  }

  base::ConfigBuilder::Option<bool>& json;
  base::ConfigBuilder::Option<bool>& backups;
  Settings settings;
};

// The service that has the store open that the options name, and the URL of its maintenance.
struct Maintained {
  Running service;
  std::string url;
};

// Nothing where the store is to be opened here.
Result<std::optional<Maintained>> FindMaintained(const StoreOptions& common) {
  const std::string& dir = *common.settings.data_dir;
  ASSIGN_OR_RETURN(std::optional<Running> service, FindRunning(dir));
  if (!service.has_value() && !*common.backups) return std::optional<Maintained>();
  if (!service.has_value()) {
    return Error(Code::kUnavailable,
                 fmt::format("no service runs over {}: leave out --backups, and name the "
                             "directory that the backups are in with --data-dir",
                             dir));
  }
  const std::string url =
      service->base_url + (*common.backups ? admin::kBackupsPrefix : admin::kPrefix) + "/v1";
  if (*common.backups) {
    const Result<Json> there = service->client->CallJson(Ask("GET", url + "/operations"));
    if (!there.has_value() && there.error().code() == Code::kNotFound) {
      return Error(Code::kNotFound,
                   fmt::format("the service of {} keeps no backups: it was started without "
                               "--block.backup-dir, or its log says what is wrong there",
                               dir));
    }
    RETURN_IF_ERROR(there);
  }
  return std::optional<Maintained>(Maintained{*std::move(service), url});
}

// Starts a pass in the service and follows it to its end. Whoever interrupts only stops to watch.
Result<Json> RunInService(Maintained& maintained, const std::string& kind, const Json& body,
                          ProgressBar& bar) {
  ApiClient& client = *maintained.service.client;
  ASSIGN_OR_RETURN(const Json started,
                   client.CallJson(Ask("POST", maintained.url + "/" + kind, body)));
  const std::string url =
      maintained.url + "/operations/" + base::FindString(started, "id").value_or("");
  for (int64_t poll_ms = kFirstPollMs;; poll_ms = std::min(2 * poll_ms, kLongestPollMs)) {
    ASSIGN_OR_RETURN(const Json state, client.CallJson(Ask("GET", url)));
    bar.Update(Number(state, "done"), Number(state, "total"),
               base::FindString(state, "phase").value_or(""));
    const std::string name = base::FindString(state, "state").value_or("");
    if (name == "done") return *base::Find(state, "report");
    if (name == "failed") return Error(Code::kIo, base::FindString(state, "error").value_or(kind));
    std::this_thread::sleep_for(std::chrono::milliseconds(poll_ms));
  }
}

using NameOf = std::function<Result<std::string>(const std::string& image_id)>;

// What stands on a layer, as NameLayers has it.
std::string LayerForPeople(std::string_view holder, const Json& users) {
  constexpr size_t kShown = 3;
  std::string text;
  const JsonArray& all = users.as_array();
  for (size_t i = 0; i < std::min(kShown, all.size()); ++i) {
    const std::optional<std::string> name = base::FindString(all[i], "name");
    text += fmt::format("{}{} {}  {}", i == 0 ? "" : ", ",
                        base::FindString(all[i], "kind").value_or(""),
                        base::FindString(all[i], "id").value_or(""),
                        name.has_value() ? Printable(*name) : "(deleted, or on its way)");
  }
  if (all.empty()) return fmt::format("{}  (of a volume that is no more)", holder);
  if (all.size() > kShown) text += fmt::format(", and {} more", all.size() - kShown);
  return text;
}

// What a person calls a holder: an image's name and id, the volumes of a layer.
std::string HolderForPeople(std::string_view holder, const NameOf& name_of, const Json* layers) {
  const Json* users = layers == nullptr ? nullptr : base::Find(*layers, holder);
  if (users != nullptr && users->is_array()) return LayerForPeople(holder, *users);
  if (!imaged::ProjectOfPartHolder(holder).empty()) {
    return fmt::format("{}  (of a push that broke off; kept for an hour)", holder);
  }
  const bool is_raw = !imaged::ImageOfRawHolder(holder).empty();
  const std::string id(is_raw ? imaged::ImageOfRawHolder(holder) : imaged::ImageOfHolder(holder));
  if (id.empty()) return std::string(holder);
  const Result<std::string> name = name_of(id);
  if (!name.has_value()) return fmt::format("{}  (deleted, or on its way)", id);
  return fmt::format("{}  {}{}", id, Printable(*name), is_raw ? " (as volumes have it)" : "");
}

void NameHolders(Json* holders, const NameOf& name_of, const Json* layers) {
  if (holders == nullptr || !holders->is_array()) return;
  for (Json& holder : holders->as_array())
    if (holder.is_string())
      holder = HolderForPeople(base::View(holder.get_string()), name_of, layers);
}

// The holders that a scrub's findings touch, by name.
void NameFindings(Json* report, const NameOf& name_of) {
  Json* findings = report->as_object().if_contains("findings");
  if (findings == nullptr || !findings->is_array()) return;
  for (Json& finding : findings->as_array())
    NameHolders(finding.as_object().if_contains("holders"), name_of, base::Find(*report, "layers"));
}

// A report stands without: what is wrong with the records is not what was asked.
void NameLayersIfPossible(Store& store, Json* report) {
  const Result<void> named = NameLayers(*store.meta, report);
  if (!named.has_value()) LOG(kWarn, "quarry", "{}", named.error().ToString());
}

NameOf NamesIn(Running& service) {
  return [&service](const std::string& id) -> Result<std::string> {
    ASSIGN_OR_RETURN(const Json shown, FindImage(*service.client, id));
    return base::FindString(shown, "name").value_or("");
  };
}

NameOf NamesIn(Store& store) {
  return [&store](const std::string& id) { return NameOfStoredImage(store, id); };
}

ProgressFn Draw(ProgressBar& bar) {
  return [&bar](const chunkstore::Progress& progress) {
    bar.Update(progress.done, progress.total, progress.phase);
    return true;
  };
}

using LocalPass = std::function<Result<Json>(Store&, const ProgressFn&)>;

// Runs a pass where it can be run: in the service, or here.
Result<Json> RunPass(const StoreOptions& common, const std::string& kind, const Json& body,
                     const LocalPass& local, ProgressBar& bar) {
  const bool names = !*common.json;
  ASSIGN_OR_RETURN(std::optional<Maintained> maintained, FindMaintained(common));
  if (maintained.has_value()) {
    ASSIGN_OR_RETURN(Json report, RunInService(*maintained, kind, body, bar));
    if (names) NameFindings(&report, NamesIn(maintained->service));
    return report;
  }
  base::Metrics metrics;
  ASSIGN_OR_RETURN(const auto store, OpenStore(common.settings, metrics, StorePurpose::kInspect));
  ASSIGN_OR_RETURN(Json report, local(*store, Draw(bar)));
  NameLayersIfPossible(*store, &report);
  if (names) NameFindings(&report, NamesIn(*store));
  return report;
}

int Print(const Result<Json>& report, const std::string& data_dir, bool json,
          std::string (*describe)(const Json&)) {
  if (!report.has_value()) return Fail(ExplainDamage(report.error(), data_dir));
  if (json) {
    PrintJson(*report);
  } else {
    fmt::print("{}", describe(*report));
  }
  return kOk;
}

// The figures of one image; what it shares with by name if a person asks (`names`).
Result<Json> WithNames(Result<Json> stats, bool names, const NameOf& name_of) {
  if (!stats.has_value() || !names) return stats;
  NameHolders(stats->as_object().if_contains("shared_with"), name_of, base::Find(*stats, "layers"));
  return stats;
}

Result<Json> AskForStats(Maintained& maintained, const std::string* image, bool names) {
  Running& service = maintained.service;
  const std::string url = maintained.url + "/stats";
  if (image == nullptr) return service.client->CallJson(Ask("GET", url));
  ASSIGN_OR_RETURN(const Json found, FindImage(*service.client, *image));
  const std::string id = base::FindString(found, "id").value_or("");
  return WithNames(service.client->CallJson(Ask("GET", url + "/" + id)), names, NamesIn(service));
}

Result<Json> ReadStats(Store& store, const std::string* image, bool names) {
  if (image == nullptr) {
    ASSIGN_OR_RETURN(const auto stats, store.chunks->Stats());
    return admin::ToJson(stats);
  }
  ASSIGN_OR_RETURN(const std::string id, FindStoredImage(store, *image));
  ASSIGN_OR_RETURN(const auto stats, admin::StatsOfImage(*store.chunks, id));
  Json shown = admin::ToJson(stats);
  NameLayersIfPossible(store, &shown);
  return WithNames(std::move(shown), names, NamesIn(store));
}

}  // namespace

int RunGc(const Command& command, const std::vector<std::string>& args) {
  base::ConfigBuilder options;
  auto& orphans = options.Bool("orphans", false,
                               "also look for stored blobs that no record knows: walks all names");
  const StoreOptions common(options, {"orphans", "backups", "store.background_rate"});
  int exit_code = kOk;
  if (!ParseOptions(command, options, args, base::ConfigBuilder::Unknown::kRefuse, 0, 0,
                    &exit_code))
    return exit_code;
  base::SetLogLevel("error");

  ProgressBar bar("gc", ProgressBar::Unit::kItems, *common.json);
  const Result<Json> report = RunPass(
      common, "gc", JsonObject{{"orphans", *orphans}},
      [&](Store& store, const ProgressFn& progress) -> Result<Json> {
        RETURN_IF_ERROR(ReleaseDeletedImages(store));
        ASSIGN_OR_RETURN(const auto collected, store.chunks->Collect(*orphans, progress));
        return admin::ToJson(collected);
      },
      bar);
  bar.Finish();
  return Print(report, *common.settings.data_dir, *common.json, admin::DescribeCollect);
}

namespace {

chunkstore::ScrubReport OfDamagedIndex(const Error& error, const std::string& data_dir) {
  chunkstore::ScrubReport report;
  report.finding_count = 1;
  report.findings.push_back(
      {.problem = ExplainDamage(error, data_dir).message() + "\n  blobs were not checked"});
  return report;
}

}  // namespace

int RunScrub(const Command& command, const std::vector<std::string>& args) {
  base::ConfigBuilder options;
  auto& repair =
      options.Bool("repair", false,
                   "give back leaked references; set aside what is corrupt, so that the next "
                   "upload of the same bytes heals it");
  const StoreOptions common(options, {"repair", "backups", "store.background_rate"});
  int exit_code = kOk;
  if (!ParseOptions(command, options, args, base::ConfigBuilder::Unknown::kRefuse, 0, 0,
                    &exit_code))
    return exit_code;
  base::SetLogLevel("error");

  ProgressBar bar("scrub", ProgressBar::Unit::kItems, *common.json);
  Result<Json> report = RunPass(
      common, "scrub", JsonObject{{"repair", *repair}},
      [&](Store& store, const ProgressFn& progress) -> Result<Json> {
        ASSIGN_OR_RETURN(const auto scrubbed, store.chunks->Scrub(*repair, progress));
        const Result<void> noted = admin::ScrubLog(*store.meta, base::SystemClock()).Ended();
        if (!noted.has_value() && noted.error().code() != Code::kCorruption) return noted.error();
        return admin::ToJson(scrubbed);
      },
      bar);
  bar.Finish();
  // The store does not even open: that is what was found.
  if (!report.has_value() && report.error().code() == Code::kCorruption)
    report = admin::ToJson(OfDamagedIndex(report.error(), *common.settings.data_dir));
  const int printed = Print(report, *common.settings.data_dir, *common.json, admin::DescribeScrub);
  if (printed != kOk) return printed;
  return Number(*report, "finding_count") > 0 ? kFindings : kOk;
}

namespace {

// An index that can't be read can't be emptied either: it makes room for a new one.
Result<Json> RebuildHere(const Settings& settings, const ProgressFn& progress, bool names) {
  const auto open = [&settings](base::Metrics& metrics) {
    return OpenStore(settings, metrics, StorePurpose::kRebuild);
  };
  auto metrics = std::make_unique<base::Metrics>();
  auto store = open(*metrics);
  Result<void> readable;
  if (store.has_value()) {
    readable = ReadIndex(*(*store)->meta);
  } else {
    readable = store.error();
  }
  std::string aside;
  // What brings its own advice (a log that lost its end) is the operator's to decide.
  if (!readable.has_value() && readable.error().code() == Code::kCorruption &&
      (store.has_value() || ExplainDamage(readable.error(), *settings.data_dir).message() !=
                                readable.error().message())) {
    store = Error(Code::kCancelled, "closed");
    ASSIGN_OR_RETURN(aside, SetIndexAside(*settings.data_dir));
    metrics = std::make_unique<base::Metrics>();
    store = open(*metrics);
  } else {
    RETURN_IF_ERROR(readable);
  }
  if (!store.has_value()) return store.error();
  ASSIGN_OR_RETURN(Json report, RebuildAll(**store, settings, progress));
  if (!aside.empty()) report.as_object()["set_aside"] = aside;
  Json* images = report.as_object().if_contains("images");
  if (!names || images == nullptr || !images->is_array()) return report;
  for (Json& image : images->as_array()) {
    const std::string id(base::View(image.get_string()));
    const Result<std::string> name = NameOfStoredImage(**store, id);
    if (name.has_value()) image = fmt::format("{}  {}", id, Printable(*name));
  }
  return report;
}

}  // namespace

int RunFsck(const Command& command, const std::vector<std::string>& args) {
  base::ConfigBuilder options;
  auto& rebuild = options.Bool(
      "rebuild_index", false,
      "drop the index and make it, and the images' records, again from the stored blobs");
  const StoreOptions common(options, {"rebuild_index", "image.hash_algorithm"});
  int exit_code = kOk;
  if (!ParseOptions(command, options, args, base::ConfigBuilder::Unknown::kRefuse, 0, 0,
                    &exit_code))
    return exit_code;
  if (!*rebuild) {
    fmt::print(stderr,
               "quarry fsck: say --rebuild-index to make the index again; to check without "
               "changing anything, run "
               "`quarry scrub`\n");
    return kUsage;
  }
  base::SetLogLevel("error");
  const Result<std::optional<Running>> service = FindRunning(*common.settings.data_dir);
  if (!service.has_value() || service->has_value()) {
    return Fail(Error(Code::kConflict, "a service uses this store: stop it first"));
  }

  ProgressBar bar("rebuild", ProgressBar::Unit::kItems, *common.json);
  const Result<Json> report = RebuildHere(common.settings, Draw(bar), !*common.json);
  bar.Finish();
  const int printed =
      Print(report, *common.settings.data_dir, *common.json, admin::DescribeRebuild);
  if (printed != kOk) return printed;
  return Number(*report, "bad_blobs") > 0 ? kFindings : kOk;
}

int RunStats(const Command& command, const std::vector<std::string>& args) {
  base::ConfigBuilder options;
  const StoreOptions common(options, {"backups"});
  int exit_code = kOk;
  if (!ParseOptions(command, options, args, base::ConfigBuilder::Unknown::kRefuse, 0, 1,
                    &exit_code))
    return exit_code;
  base::SetLogLevel("error");
  const std::string* image = options.positional().empty() ? nullptr : &options.positional()[0];

  const auto ask = [&]() -> Result<Json> {
    if (image != nullptr && *common.backups) {
      return Error(Code::kInvalidArgument,
                   "images are not in the store of the backups: leave out --backups, or the image");
    }
    ASSIGN_OR_RETURN(std::optional<Maintained> maintained, FindMaintained(common));
    if (maintained.has_value()) return AskForStats(*maintained, image, !*common.json);
    base::Metrics metrics;
    ASSIGN_OR_RETURN(const auto store, OpenStore(common.settings, metrics, StorePurpose::kInspect));
    return ReadStats(*store, image, !*common.json);
  };
  return Print(ask(), *common.settings.data_dir, *common.json,
               image != nullptr ? admin::DescribeHolderStats : admin::DescribeStats);
}

}  // namespace controlplane::cli
