#include <algorithm>
#include <optional>
#include <utility>

#include "blockd/api/body.h"
#include "blockd/api/errors.h"
#include "blockd/api/list_request.h"
#include "blockd/api/views.h"
#include "blockd/types/bind.h"

// qos-specs, and the types that they are associated with. What changes is told to the attachments
// of volumes at once.

namespace blockd::types {
namespace {

using api::Bad;
using api::Call;
using base::Code;
using base::Error;
using base::Json;
using base::JsonArray;
using base::JsonObject;
using base::Result;
using base::http::Response;

constexpr std::string_view kSortKeys[] = {"created_at", "id", "name", "consumer"};

JsonObject View(const QosSpec& spec) {
  return {{"id", spec.id},
          {"name", spec.name},
          {"consumer", ConsumerName(spec.consumer)},
          {"specs", api::ToJson(spec.specs)}};
}

Response Answer(const Call& call, const QosSpec& spec) {
  return Response::OfJson(200, JsonObject{{"qos_specs", View(spec)},
                                          {"links", api::LinksOf(call, "qos-specs", spec.id)}});
}

Result<Consumer> ReadConsumer(const Json& value) {
  std::optional<Consumer> consumer;
  if (value.is_string()) consumer = ParseConsumer(base::View(value.get_string()));
  if (consumer.has_value()) return *consumer;
  return api::BadField("consumer", value, "It is not one of ['back-end', 'both', 'front-end']");
}

// What a body says: its own keys, and consumer beside them.
struct Wanted {
  std::optional<Consumer> consumer;
  Specs specs;
};

Result<Wanted> ReadSpecs(JsonObject body) {
  Wanted wanted;
  if (const Json* consumer = body.if_contains("consumer")) {
    ASSIGN_OR_RETURN(wanted.consumer, ReadConsumer(*consumer));
    body.erase("consumer");
  }
  ASSIGN_OR_RETURN(wanted.specs, api::ParseTextMap(Json(std::move(body)), "qos_specs"));
  return wanted;
}

Result<Response> List(const Context& context, const Call& call) {
  ASSIGN_OR_RETURN(const api::ListRequest list, api::ParseList(call, kSortKeys));
  ASSIGN_OR_RETURN(std::vector<QosSpec> specs, context.types.ListQos());
  const api::SortTerm& term = list.sort.front();
  std::sort(specs.begin(), specs.end(), [&](const QosSpec& a, const QosSpec& b) {
    const QosSpec& low = term.descending ? b : a;
    const QosSpec& high = term.descending ? a : b;
    if (term.key == "name") return low.name < high.name;
    if (term.key == "consumer" && low.consumer != high.consumer)
      return ConsumerName(low.consumer) < ConsumerName(high.consumer);
    if (term.key == "created_at" && low.created_at_us != high.created_at_us)
      return low.created_at_us < high.created_at_us;
    return low.id < high.id;
  });
  ASSIGN_OR_RETURN(
      specs, api::PageOf(list, std::move(specs), [](const QosSpec& spec) { return spec.id; }));
  JsonArray views;
  for (const QosSpec& spec : specs) views.push_back(View(spec));
  JsonObject body = {{"qos_specs", std::move(views)}};
  api::AppendNextLink(call, list, "qos_specs", specs.size(), specs.empty() ? "" : specs.back().id,
                      &body);
  return Response::OfJson(200, std::move(body));
}

Result<Response> Show(const Context& context, const Call& call) {
  ASSIGN_OR_RETURN(const QosSpec spec, context.types.GetQos(call.Param("qos_id")));
  return Answer(call, spec);
}

Result<Response> Create(const Context& context, const Call& call) {
  ASSIGN_OR_RETURN(JsonObject body, api::ParseBody(call, "qos_specs"));
  QosSpec spec;
  ASSIGN_OR_RETURN(spec.name, api::RequiredName(body, "name"));
  body.erase("name");
  ASSIGN_OR_RETURN(Wanted wanted, ReadSpecs(std::move(body)));
  spec.consumer = wanted.consumer.value_or(Consumer::kBackEnd);
  spec.specs = std::move(wanted.specs);
  ASSIGN_OR_RETURN(spec, context.types.CreateQos(std::move(spec)));
  return Answer(call, spec);
}

Result<Response> Update(const Context& context, const Call& call) {
  ASSIGN_OR_RETURN(const JsonObject body, api::ParseBody(call, "qos_specs"));
  ASSIGN_OR_RETURN(const Wanted wanted, ReadSpecs(body));
  if (body.contains("name")) return Bad("A qos-spec keeps its name.");
  ASSIGN_OR_RETURN(
      const QosSpec spec,
      context.types.UpdateQos(call.Param("qos_id"), [&](QosSpec& held) -> Result<void> {
        if (wanted.consumer.has_value()) held.consumer = *wanted.consumer;
        for (const auto& [key, value] : wanted.specs) held.specs[key] = value;
        if (held.specs.size() <= api::kMaxPairs) return {};
        return Bad("A qos-spec may have at most " + std::to_string(api::kMaxPairs) + " keys.");
      }));
  RETURN_IF_ERROR(ApplyLimits(context, spec.type_ids));
  return Response::OfJson(200, JsonObject{{"qos_specs", body}});
}

Result<Response> DeleteKeys(const Context& context, const Call& call) {
  ASSIGN_OR_RETURN(const JsonObject body, api::ParseBody(call));
  const Json* keys = body.if_contains("keys");
  if (keys == nullptr) return api::Missing("keys");
  if (!keys->is_array()) return api::BadField("keys", *keys, "It is not of type 'array'");
  const auto remove = [&](QosSpec& spec) -> Result<void> {
    for (const Json& key : keys->get_array()) {
      if (!key.is_string()) return api::BadField("keys", key, "It is not of type 'string'");
      const std::string name(base::View(key.get_string()));
      if (spec.specs.erase(name) == 0)
        return Error(Code::kNotFound,
                     "QoS spec " + spec.id + " has no spec with key " + api::Echo(name) + ".");
    }
    return {};
  };
  ASSIGN_OR_RETURN(const QosSpec spec, context.types.UpdateQos(call.Param("qos_id"), remove));
  RETURN_IF_ERROR(ApplyLimits(context, spec.type_ids));
  return api::Accepted();
}

Result<Response> Delete(const Context& context, const Call& call) {
  bool force = false;
  if (const auto text = call.request.Query("force"); text.has_value()) {
    ASSIGN_OR_RETURN(force, api::ParseBool(*text, "force"));
  }
  ASSIGN_OR_RETURN(const QosSpec spec, context.types.DeleteQos(call.Param("qos_id"), force));
  RETURN_IF_ERROR(ApplyLimits(context, spec.type_ids));
  return api::Accepted();
}

// --- associations ---

Result<Response> Associations(const Context& context, const Call& call) {
  ASSIGN_OR_RETURN(const QosSpec spec, context.types.GetQos(call.Param("qos_id")));
  JsonArray entries;
  for (const std::string& type_id : spec.type_ids) {
    const Result<VolumeType> type = context.types.Get(type_id);
    if (!type.has_value()) {
      if (type.error().code() == Code::kNotFound) continue;  // it went meanwhile
      return type.error();
    }
    entries.push_back(
        JsonObject{{"association_type", "volume_type"}, {"name", type->name}, {"id", type->id}});
  }
  return Response::OfJson(200, JsonObject{{"qos_associations", std::move(entries)}});
}

Result<std::string> TypeOf(const Call& call) {
  const auto id = call.request.Query("vol_type_id");
  if (id.has_value()) return std::string(*id);
  return Bad("Volume Type id must not be None.");
}

Result<Response> Associate(const Context& context, const Call& call) {
  ASSIGN_OR_RETURN(const std::string type_id, TypeOf(call));
  RETURN_IF_ERROR(context.types.Associate(call.Param("qos_id"), type_id));
  RETURN_IF_ERROR(ApplyLimits(context, {type_id}));
  return api::Accepted();
}

Result<Response> Disassociate(const Context& context, const Call& call) {
  ASSIGN_OR_RETURN(const std::string type_id, TypeOf(call));
  RETURN_IF_ERROR(context.types.Disassociate(call.Param("qos_id"), type_id));
  RETURN_IF_ERROR(ApplyLimits(context, {type_id}));
  return api::Accepted();
}

Result<Response> DisassociateAll(const Context& context, const Call& call) {
  ASSIGN_OR_RETURN(const QosSpec before, context.types.DisassociateAll(call.Param("qos_id")));
  RETURN_IF_ERROR(ApplyLimits(context, before.type_ids));
  return api::Accepted();
}

}  // namespace

Result<void> ApplyLimits(const Context& context, const std::set<std::string>& type_ids) {
  if (type_ids.empty()) return {};
  ListQuery everything;
  everything.limit = SIZE_MAX;
  ASSIGN_OR_RETURN(const std::vector<VolumeRecord> attached,
                   context.catalog.ListVolumes(everything, [&](const VolumeRecord& volume) {
                     return type_ids.contains(volume.type_id) && !volume.attachment_ids.empty();
                   }));
  for (const VolumeRecord& volume : attached) {
    // Read anew for each: of two changes at once, whoever comes last applies the last one.
    ASSIGN_OR_RETURN(const TypeFacts facts, context.types.Find(volume.type_id));
    RETURN_IF_ERROR(context.exports.SetLimits(volume.id, volume.size_gb, facts.qos));
  }
  return {};
}

void AppendQosRoutes(const Context& context, std::vector<api::Route>* routes) {
  const auto add = [&](const char* method, const char* pattern, HandlerFunction handler) {
    routes->push_back(MakeRoute(context, method, pattern, handler));
  };
  add("GET", "/qos-specs", List);
  add("POST", "/qos-specs", Create);
  add("GET", "/qos-specs/{qos_id}", Show);
  add("PUT", "/qos-specs/{qos_id}", Update);
  add("DELETE", "/qos-specs/{qos_id}", Delete);
  add("PUT", "/qos-specs/{qos_id}/delete_keys", DeleteKeys);
  add("GET", "/qos-specs/{qos_id}/associations", Associations);
  add("GET", "/qos-specs/{qos_id}/associate", Associate);
  add("GET", "/qos-specs/{qos_id}/disassociate", Disassociate);
  add("GET", "/qos-specs/{qos_id}/disassociate_all", DisassociateAll);
}

}  // namespace blockd::types
