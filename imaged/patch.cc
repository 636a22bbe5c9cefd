#include "imaged/patch.h"

#include <optional>

#include "base/http/json_body.h"
#include "imaged/attributes.h"
#include "imaged/errors.h"

namespace imaged {
namespace {

using base::Code;
using base::Error;
using base::Json;
using base::JsonObject;
using base::Result;
using Kind = PatchOperation::Kind;

Error Bad(std::string message) { return Error(Code::kInvalidArgument, std::move(message)); }

std::optional<Kind> ParseKind(std::string_view name) {
  if (name == "add") return Kind::kAdd;
  if (name == "replace") return Kind::kReplace;
  if (name == "remove") return Kind::kRemove;
  return std::nullopt;
}

struct Head {
  Kind kind;
  std::string pointer;
};

Result<Head> HeadOfV21(const JsonObject& object) {
  const Json* op = object.if_contains("op");
  if (op == nullptr) return Bad("Unable to find 'op' in JSON Schema change");
  std::optional<Kind> kind;
  if (op->is_string()) kind = ParseKind(base::View(op->get_string()));
  if (!kind.has_value())
    return Bad("Invalid operation. It must be one of the following: add, remove, replace.");
  const Json* path = object.if_contains("path");
  if (path == nullptr) return Bad("Unable to find 'path' in JSON Schema change");
  if (!path->is_string()) return Bad("The path of an operation must be a string.");
  return Head{*kind, std::string(base::View(path->get_string()))};
}

Result<Head> HeadOfV20(const JsonObject& object) {
  std::optional<Head> head;
  for (const auto& [key, value] : object) {
    const std::optional<Kind> kind = ParseKind(key);
    if (!kind.has_value()) continue;
    if (head.has_value() || !value.is_string())
      return Bad(
          "Operation objects must contain only one member named \"add\", \"remove\", or "
          "\"replace\", which is a JSON pointer.");
    head = Head{*kind, std::string(base::View(value.get_string()))};
  }
  if (!head.has_value())
    return Bad(
        "Operation objects must contain exactly one member named \"add\", \"remove\", or "
        "\"replace\".");
  return *std::move(head);
}

// RFC 6901: "~1" is a slash, "~0" a tilde.
Result<std::string> DecodePart(std::string_view part) {
  std::string decoded;
  for (size_t i = 0; i < part.size(); ++i) {
    if (part[i] != '~') {
      decoded.push_back(part[i]);
      continue;
    }
    ++i;
    if (i == part.size() || (part[i] != '0' && part[i] != '1'))
      return Bad("A JSON pointer contains \"~\" not part of a recognized escape sequence.");
    decoded.push_back(part[i] == '0' ? '~' : '/');
  }
  return decoded;
}

// Nothing of an image that clients may write lies deeper than one part.
Result<std::string> DecodePointer(std::string_view pointer) {
  if (!pointer.starts_with('/')) return Bad("A JSON pointer does not start with \"/\".");
  pointer.remove_prefix(1);
  if (pointer.empty()) return Bad("A JSON pointer names nothing.");
  const std::string_view first = pointer.substr(0, pointer.find('/'));
  ASSIGN_OR_RETURN(std::string name, DecodePart(first));
  RETURN_IF_ERROR(CheckWritable(name));
  if (first.size() != pointer.size())
    return Bad("Invalid JSON pointer for this resource: '/" + std::string(pointer.substr(0, 100)) +
               "'");
  return name;
}

Result<PatchOperation> ParseOperation(PatchVersion version, const Json& json) {
  if (!json.is_object()) return Bad("Operations must be JSON objects.");
  const JsonObject& object = json.get_object();
  ASSIGN_OR_RETURN(const Head head,
                   version == PatchVersion::kV21 ? HeadOfV21(object) : HeadOfV20(object));
  PatchOperation operation;
  operation.kind = head.kind;
  ASSIGN_OR_RETURN(operation.name, DecodePointer(head.pointer));
  if (operation.kind == Kind::kRemove) return operation;
  const Json* value = object.if_contains("value");
  if (value == nullptr)
    return Bad("Operations \"add\" and \"replace\" require a member named \"value\".");
  operation.value = *value;
  return operation;
}

Error Missing(const std::string& name) {
  return DetailedError(Code::kConflict,
                       "There was a conflict when trying to complete your request.",
                       "Property " + name + " does not exist.");
}

Result<void> ApplyOperation(const base::auth::Caller& caller, const PatchOperation& operation,
                            Image* image) {
  const std::string& name = operation.name;
  const bool is_property = KindOf(name) == AttributeKind::kProperty;
  if (name == "id") return Error(Code::kPermissionDenied, "Attribute 'id' is read-only.");
  if (is_property && operation.kind != Kind::kAdd && !image->properties.contains(name))
    return Missing(name);
  if (operation.kind != Kind::kRemove) return SetAttribute(caller, name, operation.value, image);
  if (!is_property)
    return Error(Code::kPermissionDenied, "Property " + name + " may not be removed.");
  image->properties.erase(name);
  return {};
}

}  // namespace

Result<std::vector<PatchOperation>> ParsePatch(PatchVersion version, std::string_view body) {
  const Result<Json> json = base::ParseJson(body);
  if (!json.has_value()) return Bad("Malformed JSON in request body.");
  RETURN_IF_ERROR(base::http::CheckNoNul(*json));
  if (!json->is_array()) return Bad("Request body must be a JSON array of operation objects.");
  if (json->get_array().size() > kMaxPatchOperations)
    return Error(Code::kTooLarge, "A request may have at most " +
                                      std::to_string(kMaxPatchOperations) + " operations.");
  std::vector<PatchOperation> operations;
  for (const Json& item : json->get_array()) {
    ASSIGN_OR_RETURN(PatchOperation operation, ParseOperation(version, item));
    operations.push_back(std::move(operation));
  }
  return operations;
}

Result<void> ApplyPatch(const base::auth::Caller& caller,
                        const std::vector<PatchOperation>& operations, Image* image) {
  for (const PatchOperation& operation : operations)
    RETURN_IF_ERROR(ApplyOperation(caller, operation, image));
  return {};
}

}  // namespace imaged
