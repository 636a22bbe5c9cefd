#include "controlplane/identity/resource.h"

#include <algorithm>
#include <memory>
#include <utility>

#include "base/coding.h"
#include "base/uuid.h"

namespace controlplane::identity {

namespace {

Error BadField(const Field& field, std::string_view problem) {
  return Invalid("Invalid input for field '" + std::string(field.name) +
                 "': " + std::string(problem) + ".");
}

base::Result<void> CheckString(const Field& field, std::string_view text) {
  size_t characters = base::CountCharacters(text);
  if (characters < field.min_characters) return BadField(field, "it is too short");
  if (characters > field.max_characters || text.size() > kMaxTextBytes)
    return BadField(field, "it is too long; at most " + std::to_string(field.max_characters) +
                               " characters fit");
  if (field.clean && !IsCleanName(text))
    return BadField(field, "control characters are not allowed");
  return {};
}

base::Result<void> CheckField(const Field& field, const Json& value) {
  if (value.is_null())
    return field.nullable ? base::Result<void>() : BadField(field, "null is not allowed");
  switch (field.type) {
    case Type::kString:
      if (!value.is_string()) return BadField(field, "it is not of type 'string'");
      return CheckString(field, base::View(value.get_string()));
    case Type::kBool:
      if (!value.is_bool()) return BadField(field, "it is not of type 'boolean'");
      return {};
    case Type::kObject:
      if (!value.is_object()) return BadField(field, "it is not of type 'object'");
      return {};
    case Type::kStrings:
      if (!value.is_array()) return BadField(field, "it is not of type 'array'");
      for (const Json& item : value.get_array()) {
        if (!item.is_string()) return BadField(field, "its items are not of type 'string'");
        RETURN_IF_ERROR(CheckString(field, base::View(item.get_string())));
      }
      return {};
  }
  return {};
}

const Field* FindField(const Resource& resource, std::string_view name) {
  for (const Field& field : resource.fields)
    if (field.name == name) return &field;
  return nullptr;
}

// Takes what a client sent apart: known members are checked, ours refused, others kept or refused.
// "id" and "links", which clients send back as they got them, are dropped.
base::Result<void> CheckInput(const Resource& resource, JsonObject& input) {
  input.erase("links");
  size_t extras = 0;
  for (const auto& [name, value] : input) {
    if (name == "id") continue;
    if (const Field* field = FindField(resource, name); field != nullptr) {
      RETURN_IF_ERROR(CheckField(*field, value));
      continue;
    }
    if (!resource.extras || name.starts_with('_') || !IsCleanName(name))
      return Invalid("Additional properties are not allowed: '" + std::string(name) +
                     "' was unexpected.");
    if (++extras > kMaxExtraMembers)
      return Invalid("There are more than " + std::to_string(kMaxExtraMembers) +
                     " additional properties.");
  }
  return {};
}

base::Result<void> CheckUnique(const Resource& resource, Change& change) {
  if (!resource.unique.has_value()) return {};
  const IndexDefinition& index = DefinitionOf(*resource.unique);
  std::string_view within = Text(change.body, index.members.front());
  std::string_view name = Text(change.body, index.members.back());
  RecordPtr other = change.tx.now().Named(*resource.unique, within, name);
  if (other == nullptr || other->id == change.id) return {};
  return Error(Code::kAlreadyExists,
               "Conflict occurred attempting to store " + std::string(resource.member) +
                   " - Duplicate entry found with name " + std::string(name) + ".");
}

base::Result<RecordPtr> FindRecord(const Resource& resource, const Snapshot& now,
                                   std::string_view id) {
  RecordPtr record = now.Get(resource.kind, id);
  if (record == nullptr || (resource.belongs && !resource.belongs(*record)))
    return NotFound(resource.label, id);
  return record;
}

base::Result<void> CheckWrite(const Call& call, const Resource& resource, const Record& record) {
  if (!resource.may_write || resource.may_write(call, record)) return {};
  // What one may not even see looks as if it were not there.
  if (resource.may_read && !resource.may_read(call, record))
    return NotFound(resource.label, record.id);
  return Forbidden();
}

base::Result<JsonObject> NewBody(const Resource& resource, JsonObject input) {
  JsonObject body;
  for (const Field& field : resource.fields) {
    if (input.if_contains(field.name) != nullptr) continue;
    if (field.required) return Invalid("'" + std::string(field.name) + "' is a required property.");
    if (field.fallback.empty()) continue;
    ASSIGN_OR_RETURN(body[field.name], base::ParseJson(field.fallback));
  }
  input.erase("id");
  for (auto& [name, value] : input) body[name] = std::move(value);
  return body;
}

Result Create(Call& call, const Resource& resource, bool put) {
  ASSIGN_OR_RETURN(JsonObject input, BodyMember(call.request, resource.member));
  RETURN_IF_ERROR(CheckInput(resource, input));
  if (put) input["id"] = call.Param("id");
  std::string id = base::NewUuidHex();
  if (resource.choose_id) {
    ASSIGN_OR_RETURN(id, resource.choose_id(call, input));
  }
  ASSIGN_OR_RETURN(JsonObject wanted, NewBody(resource, std::move(input)));
  if (resource.prepare) RETURN_IF_ERROR(resource.prepare(call, wanted, true));
  JsonObject body;
  RETURN_IF_ERROR(call.api.store.Transact([&](Transaction& tx) -> base::Result<void> {
    body = wanted;
    Change change{call, tx, nullptr, body, id};
    if (tx.now().Get(resource.kind, id) != nullptr)
      return Error(Code::kAlreadyExists, "Conflict occurred attempting to store " +
                                             std::string(resource.member) + " - Duplicate ID, " +
                                             id + ".");
    if (resource.check) RETURN_IF_ERROR(resource.check(change));
    RETURN_IF_ERROR(CheckUnique(resource, change));
    tx.Put(resource.kind, id, body);
    return {};
  }));
  Record record{resource.kind, id, std::move(body)};
  JsonObject view = ViewOf(call, resource, record);
  if (resource.reveal) resource.reveal(record, view);
  return Created(resource.member, std::move(view));
}

// What `before` becomes when a client sends `input`.
base::Result<JsonObject> Merge(const Resource& resource, const Record& before,
                               const JsonObject& input) {
  JsonObject body = before.body;
  for (const auto& [name, value] : input) {
    if (name == "id") {
      if (!value.is_string() || base::View(value.get_string()) != before.id)
        return Invalid("Cannot change the ID.");
      continue;
    }
    const Field* field = FindField(resource, name);
    const Json* current = body.if_contains(name);
    if (field != nullptr && field->fixed && (current == nullptr || *current != value))
      return BadField(*field, "it cannot be changed");
    if (name == "options") {
      // Options are merged one by one; null takes one away.
      JsonObject merged =
          current != nullptr && current->is_object() ? current->get_object() : JsonObject();
      for (const auto& [option, wanted] : value.get_object()) {
        if (wanted.is_null())
          merged.erase(option);
        else
          merged[option] = wanted;
      }
      body[name] = std::move(merged);
      continue;
    }
    body[name] = value;
  }
  return body;
}

base::Result<void> CheckMutable(const Record& before, const JsonObject& input) {
  if (!IsImmutable(before)) return {};
  const Json* options = input.if_contains("options");
  const Json* immutable = options != nullptr && options->is_object()
                              ? options->get_object().if_contains("immutable")
                              : nullptr;
  bool unlocks = immutable != nullptr && (immutable->is_null() || *immutable == Json(false));
  if (unlocks) return {};
  return Forbidden("Cannot update immutable resource: " + before.id +
                   ". Set its option immutable to false first.");
}

Result Update(Call& call, const Resource& resource) {
  const std::string& id = call.Param("id");
  ASSIGN_OR_RETURN(JsonObject input, BodyMember(call.request, resource.member));
  ASSIGN_OR_RETURN(RecordPtr seen, FindRecord(resource, *call.now, id));
  RETURN_IF_ERROR(CheckWrite(call, resource, *seen));
  RETURN_IF_ERROR(CheckInput(resource, input));
  if (resource.prepare) RETURN_IF_ERROR(resource.prepare(call, input, false));
  JsonObject body;
  RETURN_IF_ERROR(call.api.store.Transact([&](Transaction& tx) -> base::Result<void> {
    ASSIGN_OR_RETURN(RecordPtr before, FindRecord(resource, tx.now(), id));
    RETURN_IF_ERROR(CheckMutable(*before, input));
    ASSIGN_OR_RETURN(body, Merge(resource, *before, input));
    Change change{call, tx, before.get(), body, id};
    if (resource.check) RETURN_IF_ERROR(resource.check(change));
    RETURN_IF_ERROR(CheckUnique(resource, change));
    tx.Put(resource.kind, id, body);
    return {};
  }));
  Record record{resource.kind, id, std::move(body)};
  return Shown(resource.member, ViewOf(call, resource, record));
}

Result Delete(Call& call, const Resource& resource) {
  const std::string& id = call.Param("id");
  return Written(call, [&](Transaction& tx) -> base::Result<void> {
    ASSIGN_OR_RETURN(RecordPtr before, FindRecord(resource, tx.now(), id));
    RETURN_IF_ERROR(CheckWrite(call, resource, *before));
    if (IsImmutable(*before))
      return Forbidden("Cannot delete immutable resource: " + id +
                       ". Set its option immutable to false first.");
    if (resource.on_delete) RETURN_IF_ERROR(resource.on_delete(call, tx, *before));
    tx.Remove(resource.kind, id);
    return {};
  });
}

Result Show(Call& call, const Resource& resource) {
  ASSIGN_OR_RETURN(RecordPtr record, FindRecord(resource, *call.now, call.Param("id")));
  if (resource.may_read && !resource.may_read(call, *record)) return Forbidden();
  return Shown(resource.member, ViewOf(call, resource, *record));
}

bool MatchesFilters(const Call& call, const Resource& resource, const Record& record) {
  for (std::string_view filter : resource.filters) {
    auto wanted = call.request.Query(filter);
    if (!wanted.has_value()) continue;
    const Field* field = FindField(resource, filter);
    if (field != nullptr && field->type == Type::kBool) {
      if (Flag(record, filter) != MeansTrue(*wanted)) return false;
    } else if (Text(record, filter) != *wanted) {
      return false;
    }
  }
  return true;
}

Result List(Call& call, const Resource& resource) {
  if (resource.may_list && !resource.may_list(call)) return Forbidden();
  JsonArray items;
  for (const RecordPtr& record : call.now->All(resource.kind)) {
    if (resource.belongs && !resource.belongs(*record)) continue;
    if (!MatchesFilters(call, resource, *record)) continue;
    if (resource.listed && !resource.listed(call, *record)) continue;
    if (resource.may_read && !resource.may_read(call, *record)) continue;
    if (items.size() > kMaxListItems) break;
    items.push_back(ViewOf(call, resource, *record));
  }
  return ListResponse(call, resource.collection, std::move(items));
}

}  // namespace

JsonObject ViewOf(const Call& call, const Resource& resource, const Record& record) {
  JsonObject view = View(call, record, resource.path);
  if (resource.render) resource.render(call, record, view);
  return view;
}

void AddResource(Routes& routes, Resource resource) {
  auto shared = std::make_shared<const Resource>(std::move(resource));
  std::string all(shared->path);
  std::string one = all + "/{id}";
  routes.Add("GET", all, shared->reads, [shared](Call& call) { return List(call, *shared); });
  routes.Add("GET", one, shared->reads, [shared](Call& call) { return Show(call, *shared); });
  routes.Add("DELETE", one, shared->writes, [shared](Call& call) { return Delete(call, *shared); });
  if (shared->creatable)
    routes.Add("POST", all, shared->writes,
               [shared](Call& call) { return Create(call, *shared, false); });
  if (shared->updatable)
    routes.Add("PATCH", one, shared->writes,
               [shared](Call& call) { return Update(call, *shared); });
  if (shared->put_creates)
    routes.Add("PUT", one, shared->writes,
               [shared](Call& call) { return Create(call, *shared, true); });
}

bool MeansTrue(std::string_view text) {
  std::string lower(text);
  std::transform(lower.begin(), lower.end(), lower.begin(),
                 [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  return !(lower == "0" || lower == "false" || lower == "no" || lower == "off" || lower == "f" ||
           lower == "n");
}

bool IsImmutable(const Record& record) {
  const Json* options = record.body.if_contains("options");
  return options != nullptr && options->is_object() && Flag(options->get_object(), "immutable");
}

}  // namespace controlplane::identity
