#include <algorithm>
#include <utility>

#include "blockd/api/errors.h"
#include "blockd/api/list_request.h"
#include "blockd/api/views.h"
#include "blockd/policy.h"
#include "blockd/tenancy/tenancy.h"

namespace blockd::tenancy {
namespace {

using api::Call;
using api::MakeRoute;
using base::JsonArray;
using base::JsonObject;
using base::Result;
using base::http::Access;
using base::http::Response;

constexpr int kMessagesSince = 3;
constexpr std::string_view kSortKeys[] = {
    "created_at",    "id",         "event_id",        "message_level", "resource_type",
    "resource_uuid", "request_id", "guaranteed_until"};

JsonObject View(const Call& call, const MessageRecord& message) {
  return {{"id", message.id},
          {"event_id", message.event_id},
          {"user_message", message.user_message},
          {"message_level", message.level},
          {"created_at", api::FormatTime(message.created_at_us)},
          {"guaranteed_until", api::FormatTime(message.guaranteed_until_us)},
          {"request_id", message.request_id},
          {"links", api::LinksOf(call, "messages", message.id)},
          {"resource_type", message.resource_type},
          {"resource_uuid", message.resource_id}};
}

// Keys sort as text: times of one form do, too.
std::string SortText(const MessageRecord& message, std::string_view key) {
  if (key == "id") return message.id;
  if (key == "event_id") return message.event_id;
  if (key == "message_level") return message.level;
  if (key == "resource_type") return message.resource_type;
  if (key == "resource_uuid") return message.resource_id;
  if (key == "request_id") return message.request_id;
  return api::FormatTime(message.created_at_us);
}

bool Passes(const MessageRecord& message, const api::ListRequest& list) {
  const std::pair<std::string_view, const std::string*> filters[] = {
      {"resource_uuid", &message.resource_id}, {"resource_type", &message.resource_type},
      {"event_id", &message.event_id},         {"request_id", &message.request_id},
      {"message_level", &message.level},
  };
  return std::all_of(std::begin(filters), std::end(filters), [&](const auto& filter) {
    const auto wanted = list.Filter(filter.first);
    return !wanted.has_value() || *wanted == *filter.second;
  });
}

Result<Response> List(const Context& context, const Call& call) {
  ASSIGN_OR_RETURN(const api::ListRequest list, api::ParseList(call, kSortKeys));
  ASSIGN_OR_RETURN(std::vector<MessageRecord> messages,
                   context.messages.List(call.caller.project_id));
  std::erase_if(messages, [&](const MessageRecord& message) { return !Passes(message, list); });
  const api::SortTerm& term = list.sort.front();
  std::sort(messages.begin(), messages.end(), [&](const MessageRecord& a, const MessageRecord& b) {
    const MessageRecord& low = term.descending ? b : a;
    const MessageRecord& high = term.descending ? a : b;
    const std::string left = SortText(low, term.key);
    const std::string right = SortText(high, term.key);
    return left != right ? left < right : low.id < high.id;
  });
  ASSIGN_OR_RETURN(messages, api::PageOf(list, std::move(messages),
                                         [](const MessageRecord& message) { return message.id; }));
  JsonArray views;
  for (const MessageRecord& message : messages) views.push_back(View(call, message));
  JsonObject body = {{"messages", std::move(views)}};
  api::AppendNextLink(call, list, "messages", messages.size(),
                      messages.empty() ? "" : messages.back().id, &body);
  return Response::OfJson(200, std::move(body));
}

Result<MessageRecord> Visible(const Context& context, const Call& call) {
  const std::string& id = call.Param("message_id");
  ASSIGN_OR_RETURN(MessageRecord message, context.messages.Get(id));
  if (!MaySee(call.caller, message.project_id)) return api::NotFound("Message", id);
  return message;
}

Result<Response> Show(const Context& context, const Call& call) {
  ASSIGN_OR_RETURN(const MessageRecord message, Visible(context, call));
  return Response::OfJson(200, JsonObject{{"message", View(call, message)}});
}

Result<Response> Delete(const Context& context, const Call& call) {
  ASSIGN_OR_RETURN(const MessageRecord message, Visible(context, call));
  RETURN_IF_ERROR(CheckMayWrite(call.caller, "message:delete"));
  RETURN_IF_ERROR(context.messages.Delete(message.id));
  return Response::Empty(204);
}

}  // namespace

void AppendMessageRoutes(const Context& context, std::vector<api::Route>* routes) {
  const auto add = [&](const char* method, const char* pattern,
                       api::ContextHandler<Context> handler) {
    routes->push_back(MakeRoute(context, method, pattern, handler, Access::kToken, kMessagesSince));
  };
  add("GET", "/messages", List);
  add("GET", "/messages/{message_id}", Show);
  add("DELETE", "/messages/{message_id}", Delete);
}

}  // namespace blockd::tenancy
