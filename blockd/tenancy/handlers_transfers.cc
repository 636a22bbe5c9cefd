#include <algorithm>
#include <utility>

#include "blockd/api/body.h"
#include "blockd/api/errors.h"
#include "blockd/api/list_request.h"
#include "blockd/api/views.h"
#include "blockd/policy.h"
#include "blockd/tenancy/tenancy.h"

// Transfers of volumes, under their old name (os-volume-transfer) and since 3.55 under their new
// one (volume-transfers), where snapshots may stay behind.

namespace blockd::tenancy {
namespace {

using api::Call;
using api::MakeRoute;
using base::JsonArray;
using base::JsonObject;
using base::Result;
using base::http::Access;
using base::http::Response;

constexpr int kWithSnapshotsSince = 55;
constexpr int kHistorySince = 57;
constexpr std::string_view kOldName = "os-volume-transfer";
constexpr std::string_view kNewName = "volume-transfers";
constexpr std::string_view kSortKeys[] = {"created_at", "id", "name", "volume_id"};

JsonObject Summary(const Call& call, const TransferRecord& transfer) {
  const bool by_new_name = call.request.path.find(kNewName) != std::string::npos;
  return {{"id", transfer.id},
          {"name", api::TextOrNull(transfer.name)},
          {"volume_id", transfer.volume_id},
          {"links", api::LinksOf(call, by_new_name ? kNewName : kOldName, transfer.id)}};
}

JsonObject Detail(const Call& call, const TransferRecord& transfer) {
  JsonObject view = Summary(call, transfer);
  view.emplace("created_at", api::FormatTime(transfer.created_at_us));
  if (call.version.AtLeast(kWithSnapshotsSince))
    view.emplace("no_snapshots", transfer.no_snapshots);
  if (call.version.AtLeast(kHistorySince)) {
    // One that was taken is gone: what is shown was not.
    view.emplace("source_project_id", transfer.source_project_id);
    view.emplace("destination_project_id", nullptr);
    view.emplace("accepted", false);
  }
  return view;
}

Response Answer(int status, JsonObject view) {
  return Response::OfJson(status, JsonObject{{"transfer", std::move(view)}});
}

Result<Response> Create(const Context& context, const Call& call) {
  // Before the body, so that nobody without the right learns what it should look like.
  RETURN_IF_ERROR(CheckMayWrite(call.caller, "volume:create_transfer"));
  ASSIGN_OR_RETURN(const JsonObject body, api::ParseBody(call, "transfer"));
  ASSIGN_OR_RETURN(const std::string volume_id, api::RequiredName(body, "volume_id"));
  ASSIGN_OR_RETURN(const std::optional<std::string> name,
                   api::OptionalText(body, "name", api::kMaxNameCharacters));
  std::optional<bool> no_snapshots;
  if (call.version.AtLeast(kWithSnapshotsSince)) {
    ASSIGN_OR_RETURN(no_snapshots, api::OptionalBool(body, "no_snapshots"));
  }
  ASSIGN_OR_RETURN(const Transfers::Offer offer,
                   context.transfers.Create(call.caller, volume_id, name.value_or(""),
                                            no_snapshots.value_or(false)));
  JsonObject view = Detail(call, offer.transfer);
  view.emplace("auth_key", offer.auth_key);
  return Answer(202, std::move(view));
}

Result<Response> Accept(const Context& context, const Call& call) {
  RETURN_IF_ERROR(CheckMayWrite(call.caller, "volume:accept_transfer"));
  ASSIGN_OR_RETURN(const JsonObject body, api::ParseBody(call, "accept"));
  ASSIGN_OR_RETURN(const std::string auth_key, api::RequiredName(body, "auth_key"));
  ASSIGN_OR_RETURN(const TransferRecord transfer,
                   context.transfers.Accept(call.caller, call.Param("transfer_id"), auth_key));
  return Answer(202, Summary(call, transfer));
}

Result<Response> Show(const Context& context, const Call& call) {
  ASSIGN_OR_RETURN(const TransferRecord transfer,
                   context.transfers.Get(call.caller, call.Param("transfer_id")));
  return Answer(200, Detail(call, transfer));
}

Result<Response> Delete(const Context& context, const Call& call) {
  RETURN_IF_ERROR(context.transfers.Delete(call.caller, call.Param("transfer_id")));
  return api::Accepted();
}

bool Less(const TransferRecord& a, const TransferRecord& b, std::string_view key) {
  if (key == "name" && a.name != b.name) return a.name < b.name;
  if (key == "volume_id" && a.volume_id != b.volume_id) return a.volume_id < b.volume_id;
  if (key == "created_at" && a.created_at_us != b.created_at_us)
    return a.created_at_us < b.created_at_us;
  return a.id < b.id;
}

using ViewFunction = JsonObject (*)(const Call&, const TransferRecord&);

Result<Response> ListAs(const Context& context, const Call& call, ViewFunction view) {
  ASSIGN_OR_RETURN(const api::ListRequest list, api::ParseList(call, kSortKeys));
  ASSIGN_OR_RETURN(std::vector<TransferRecord> transfers,
                   context.transfers.List(call.caller, list.all_tenants));
  const auto name = list.Filter("name");
  const auto volume_id = list.Filter("volume_id");
  std::erase_if(transfers, [&](const TransferRecord& transfer) {
    return (name.has_value() && transfer.name != *name) ||
           (volume_id.has_value() && transfer.volume_id != *volume_id);
  });
  const api::SortTerm& term = list.sort.front();
  std::sort(transfers.begin(), transfers.end(),
            [&](const TransferRecord& a, const TransferRecord& b) {
              return term.descending ? Less(b, a, term.key) : Less(a, b, term.key);
            });
  ASSIGN_OR_RETURN(transfers,
                   api::PageOf(list, std::move(transfers),
                               [](const TransferRecord& transfer) { return transfer.id; }));
  JsonArray views;
  for (const TransferRecord& transfer : transfers) views.push_back(view(call, transfer));
  JsonObject body = {{"transfers", std::move(views)}};
  api::AppendNextLink(call, list, "transfers", transfers.size(),
                      transfers.empty() ? "" : transfers.back().id, &body);
  return Response::OfJson(200, std::move(body));
}

Result<Response> List(const Context& context, const Call& call) {
  return ListAs(context, call, Summary);
}
Result<Response> ListDetail(const Context& context, const Call& call) {
  return ListAs(context, call, Detail);
}

}  // namespace

void AppendTransferRoutes(const Context& context, std::vector<api::Route>* routes) {
  for (const std::string_view name : {kOldName, kNewName}) {
    const std::string root = "/" + std::string(name);
    const int since = name == kNewName ? kWithSnapshotsSince : 0;
    const auto add = [&](const char* method, const std::string& pattern,
                         api::ContextHandler<Context> handler) {
      routes->push_back(MakeRoute(context, method, pattern, handler, Access::kToken, since));
    };
    add("GET", root, List);
    add("POST", root, Create);
    add("GET", root + "/detail", ListDetail);
    add("GET", root + "/{transfer_id}", Show);
    add("DELETE", root + "/{transfer_id}", Delete);
    add("POST", root + "/{transfer_id}/accept", Accept);
  }
}

}  // namespace blockd::tenancy
