#include "imaged/schemas.h"

#include <map>

namespace imaged {
namespace {

constexpr std::string_view kUuidPattern =
    R"(^([0-9a-fA-F]){8}-([0-9a-fA-F]){4}-([0-9a-fA-F]){4}-([0-9a-fA-F]){4}-([0-9a-fA-F]){12}$)";

// @UUID@ stands for the pattern of ids.
constexpr std::string_view kImage = R"({"name": "image", "properties": {
"id": {"type": "string", "description": "Identifier of the image", "pattern": "@UUID@"},
"name": {"type": ["null", "string"], "description": "A name for people", "maxLength": 255},
"status": {"type": "string", "readOnly": true, "description": "Where the image is in its life", "enum": ["queued", "saving", "active", "killed", "deleted", "uploading", "importing", "pending_delete", "deactivated"]},
"visibility": {"type": "string", "description": "Who may see and use the image", "enum": ["community", "public", "private", "shared"]},
"protected": {"type": "boolean", "description": "If true, the image cannot be deleted"},
"os_hidden": {"type": "boolean", "description": "If true, lists leave the image out unless asked for"},
"checksum": {"type": ["null", "string"], "readOnly": true, "description": "MD5 of the data", "maxLength": 32},
"os_hash_algo": {"type": ["null", "string"], "readOnly": true, "description": "The algorithm of os_hash_value", "maxLength": 64},
"os_hash_value": {"type": ["null", "string"], "readOnly": true, "description": "Digest of the data, in hex", "maxLength": 128},
"owner": {"type": ["null", "string"], "description": "The project that owns the image", "maxLength": 255},
"size": {"type": ["null", "integer"], "readOnly": true, "description": "Size of the data in bytes"},
"virtual_size": {"type": ["null", "integer"], "readOnly": true, "description": "Size of the disk that the data describes, in bytes"},
"container_format": {"type": ["null", "string"], "description": "What is wrapped around the disk", "enum": [null, "ami", "ari", "aki", "bare", "ovf", "ova", "docker", "compressed"]},
"disk_format": {"type": ["null", "string"], "description": "Format of the disk", "enum": [null, "ami", "ari", "aki", "vhd", "vhdx", "vmdk", "raw", "qcow2", "vdi", "iso", "ploop"]},
"created_at": {"type": "string", "readOnly": true, "description": "When the image was registered"},
"updated_at": {"type": "string", "readOnly": true, "description": "When the image last changed"},
"tags": {"type": "array", "description": "Words attached to the image", "items": {"type": "string", "maxLength": 255}},
"direct_url": {"type": "string", "readOnly": true, "description": "Where the data lies"},
"min_ram": {"type": "integer", "description": "Memory that a server of this image needs, in MB"},
"min_disk": {"type": "integer", "description": "Disk that a server of this image needs, in GB"},
"self": {"type": "string", "readOnly": true, "description": "Path of the image"},
"file": {"type": "string", "readOnly": true, "description": "Path of the data"},
"stores": {"type": "string", "readOnly": true, "description": "Ids of the stores that hold the data, with commas between"},
"schema": {"type": "string", "readOnly": true, "description": "Path of this schema"},
"locations": {"type": "array", "description": "Not shown and not to be set: this service keeps image data itself", "items": {"type": "object", "properties": {"url": {"type": "string", "maxLength": 255}, "metadata": {"type": "object"}}, "required": ["url", "metadata"]}},
"kernel_id": {"type": ["null", "string"], "pattern": "@UUID@", "description": "Image with the kernel to boot an AMI-style image with", "is_base": false},
"ramdisk_id": {"type": ["null", "string"], "pattern": "@UUID@", "description": "Image with the ramdisk to boot an AMI-style image with", "is_base": false},
"instance_uuid": {"type": "string", "description": "Server that the image was taken from, for information", "is_base": false},
"architecture": {"type": "string", "description": "Processor architecture", "is_base": false},
"os_distro": {"type": "string", "description": "Distribution of the operating system", "is_base": false},
"os_version": {"type": "string", "description": "Version of the operating system", "is_base": false},
"description": {"type": "string", "description": "A sentence for people", "is_base": false},
"cinder_encryption_key_id": {"type": "string", "description": "Key that a volume of this image is encrypted with", "is_base": false},
"cinder_encryption_key_deletion_policy": {"type": "string", "description": "Whether that key goes with the image", "enum": ["on_image_deletion", "do_not_delete"], "is_base": false}},
"additionalProperties": {"type": "string"},
"links": [{"rel": "self", "href": "{self}"}, {"rel": "enclosure", "href": "{file}"}, {"rel": "describedby", "href": "{schema}"}]})";

constexpr std::string_view kMember = R"({"name": "member", "properties": {
"member_id": {"type": "string", "description": "The project that the image is shared with"},
"image_id": {"type": "string", "description": "Identifier of the image", "pattern": "@UUID@"},
"created_at": {"type": "string", "description": "When the image was shared"},
"updated_at": {"type": "string", "description": "When the membership last changed"},
"status": {"type": "string", "description": "What the member answered", "enum": ["pending", "accepted", "rejected"]},
"schema": {"readOnly": true, "type": "string"}}})";

// A list of tasks leaves @DETAILS@ out.
constexpr std::string_view kTask = R"({"name": "task", "properties": {
"id": {"type": "string", "description": "Identifier of the task", "pattern": "@UUID@"},
"type": {"type": "string", "description": "Kind of the task", "enum": ["import", "api_image_import"]},
"status": {"type": "string", "description": "How far the task is", "enum": ["pending", "processing", "success", "failure"]},
@DETAILS@"owner": {"type": "string", "description": "The project that owns the task"},
"image_id": {"type": "string", "description": "The image that the task works on"},
"request_id": {"type": "string", "description": "Id of the request that began the task"},
"user_id": {"type": "string", "description": "The user who began the task"},
"expires_at": {"type": ["null", "string"], "description": "When the task's record may go"},
"created_at": {"type": "string", "description": "When the task was made"},
"updated_at": {"type": "string", "description": "When the task last changed"},
"self": {"readOnly": true, "type": "string"}, "schema": {"readOnly": true, "type": "string"}}})";
constexpr std::string_view kTaskDetails =
    R"("input": {"type": ["null", "object"], "description": "What the task was asked"},
"result": {"type": ["null", "object"], "description": "What came of it"},
"message": {"type": "string", "description": "Why it failed, for people"},
)";

constexpr std::string_view kDefinitions = R"("definitions": {
"positiveInteger": {"type": "integer", "minimum": 0},
"positiveIntegerDefault0": {"allOf": [{"$ref": "#/definitions/positiveInteger"}, {"default": 0}]},
"stringArray": {"type": "array", "items": {"type": "string"}, "uniqueItems": true},
"property": {"type": "object", "additionalProperties": {"type": "object", "required": ["title", "type"], "properties": {@PROPERTY@}}}})";

// The fields of a property's definition.
constexpr std::string_view kPropertyFields = R"("name": {"type": "string", "maxLength": 80},
"title": {"type": "string"}, "description": {"type": "string"},
"operators": {"type": "array", "items": {"type": "string"}},
"type": {"type": "string", "enum": ["array", "boolean", "integer", "number", "object", "string", null]},
"required": {"$ref": "#/definitions/stringArray"},
"minimum": {"type": "number"}, "maximum": {"type": "number"},
"maxLength": {"$ref": "#/definitions/positiveInteger"}, "minLength": {"$ref": "#/definitions/positiveIntegerDefault0"},
"pattern": {"type": "string", "format": "regex"}, "enum": {"type": "array"},
"readonly": {"type": "boolean"}, "default": {},
"items": {"type": "object", "properties": {"type": {"type": "string", "enum": ["array", "boolean", "integer", "number", "object", "string", null]}, "enum": {"type": "array"}}},
"maxItems": {"$ref": "#/definitions/positiveInteger"}, "minItems": {"$ref": "#/definitions/positiveIntegerDefault0"},
"uniqueItems": {"type": "boolean", "default": false}, "additionalItems": {"type": "boolean"})";

constexpr std::string_view kTimes =
    R"("created_at": {"type": "string", "readOnly": true, "description": "When it was made", "format": "date-time"},
"updated_at": {"type": "string", "readOnly": true, "description": "When it last changed", "format": "date-time"})";

constexpr std::string_view kNamespaceFields = R"(
"namespace": {"type": "string", "description": "Its unique name", "maxLength": 80},
"display_name": {"type": "string", "description": "A name for people", "maxLength": 80},
"description": {"type": "string", "description": "What it is for", "maxLength": 500},
"visibility": {"type": "string", "description": "Who may see it", "enum": ["public", "private"]},
"protected": {"type": "boolean", "description": "If true, it cannot be deleted"},
"owner": {"type": "string", "description": "The project that owns it", "maxLength": 255},
@TIMES@,
"schema": {"readOnly": true, "type": "string"}, "self": {"readOnly": true, "type": "string"},
"resource_type_associations": {"type": "array", "items": {"type": "object", "properties": {"name": {"type": "string"}, "prefix": {"type": "string"}, "properties_target": {"type": "string"}}}},
"properties": {"$ref": "#/definitions/property"},
"objects": {"type": "array", "items": {"type": "object", "properties": {"name": {"type": "string"}, "description": {"type": "string"}, "required": {"$ref": "#/definitions/stringArray"}, "properties": {"$ref": "#/definitions/property"}}}},
"tags": {"type": "array", "items": {"type": "object", "properties": {"name": {"type": "string"}}}})";

constexpr std::string_view kObjectFields = R"("name": {"type": "string", "maxLength": 80},
"description": {"type": "string"}, "required": {"$ref": "#/definitions/stringArray"},
"properties": {"$ref": "#/definitions/property"},
"schema": {"readOnly": true, "type": "string"}, "self": {"readOnly": true, "type": "string"}, @TIMES@)";

constexpr std::string_view kResourceTypeFields = R"(
"name": {"type": "string", "description": "The kind of resource, as Heat names it", "maxLength": 80},
"prefix": {"type": "string", "description": "What the names of the namespace's properties begin with on such a resource", "maxLength": 80},
"properties_target": {"type": "string", "description": "Which of the resource's sets of properties is meant, where it has more than one", "maxLength": 80},
@TIMES@)";

constexpr std::string_view kTagFields = R"("name": {"type": "string", "maxLength": 80}, @TIMES@)";

std::string Replace(std::string text, std::string_view what, std::string_view with) {
  for (size_t at = text.find(what); at != std::string::npos; at = text.find(what, at + with.size()))
    text.replace(at, what.size(), with);
  return text;
}

std::string Expand(std::string_view text) {
  std::string expanded = Replace(std::string(text), "@UUID@", kUuidPattern);
  expanded = Replace(expanded, "@TIMES@", kTimes);
  return Replace(expanded, "@PROPERTY@", kPropertyFields);
}

// A closed object with the fields.
std::string Closed(std::string_view name, std::string_view fields, std::string_view required,
                   bool definitions) {
  std::string text = "{\"name\": \"" + std::string(name) + "\", \"properties\": {" +
                     Expand(fields) + "}, \"additionalProperties\": false, \"required\": [" +
                     std::string(required) + "]";
  if (definitions) text += ", " + Expand(kDefinitions);
  return text + "}";
}

// A page of items: {"name": "images", "properties": {"images": [..], "first", "next", "schema"}}.
std::string Page(std::string_view name, const std::string& item, bool definitions) {
  std::string text =
      "{\"name\": \"" + std::string(name) + "\", \"properties\": {\"" + std::string(name) +
      "\": {\"type\": \"array\", \"items\": " + item +
      R"(}, "first": {"type": "string"}, "next": {"type": "string"}, )"
      R"("schema": {"type": "string"}}, "links": [{"rel": "first", "href": "{first}"}, )"
      R"({"rel": "next", "href": "{next}"}, {"rel": "describedby", "href": "{schema}"}])";
  if (definitions) text += ", " + Expand(kDefinitions);
  return text + "}";
}

// The same without pages.
std::string Collection(std::string_view name, const std::string& item) {
  return "{\"name\": \"" + std::string(name) + "\", \"properties\": {\"" + std::string(name) +
         "\": {\"type\": \"array\", \"items\": " + item +
         R"(}, "schema": {"type": "string"}}, "links": [{"rel": "describedby", "href": "{schema}"}]})";
}

// Definitions of properties are an object by name, not a list.
std::string PropertiesPage() {
  const std::string item = Closed("property", kPropertyFields, "\"type\", \"title\"", false);
  return R"({"name": "properties", "properties": {"properties": {"type": "object", )"
         R"("additionalProperties": )" +
         item +
         R"(}, "first": {"type": "string"}, "next": {"type": "string"}, "schema": {"type": "string"}}, )"
         R"("links": [{"rel": "first", "href": "{first}"}, {"rel": "next", "href": "{next}"}, )"
         R"({"rel": "describedby", "href": "{schema}"}], )" +
         Expand(kDefinitions) + "}";
}

using Schemas = std::map<std::string, std::string, std::less<>>;

Schemas MakeSchemas() {
  Schemas schemas;
  schemas["image"] = Expand(kImage);
  schemas["images"] = Page("images", Expand(kImage), false);
  schemas["member"] = Expand(kMember);
  schemas["members"] = Collection("members", Expand(kMember));
  schemas["task"] = Replace(Expand(kTask), "@DETAILS@", kTaskDetails);
  schemas["tasks"] = Collection("tasks", Replace(Expand(kTask), "@DETAILS@", ""));
  const std::string required = "\"name\"";
  const std::string in_namespace = "\"namespace\"";
  schemas["metadefs/namespace"] = Closed("namespace", kNamespaceFields, in_namespace, true);
  schemas["metadefs/namespaces"] =
      Page("namespaces", Closed("namespace", kNamespaceFields, in_namespace, false), true);
  schemas["metadefs/object"] = Closed("object", kObjectFields, required, true);
  schemas["metadefs/objects"] =
      Page("objects", Closed("object", kObjectFields, required, false), true);
  schemas["metadefs/property"] =
      Closed("property", kPropertyFields, "\"type\", \"title\", \"name\"", true);
  schemas["metadefs/properties"] = PropertiesPage();
  schemas["metadefs/resource_type"] =
      Closed("resource_type_association", kResourceTypeFields, required, false);
  schemas["metadefs/resource_types"] =
      Page("resource_type_associations",
           Closed("resource_type_association", kResourceTypeFields, required, false), false);
  schemas["metadefs/tag"] = Closed("tag", kTagFields, required, false);
  schemas["metadefs/tags"] = Page("tags", Closed("tag", kTagFields, required, false), false);
  return schemas;
}

}  // namespace

std::string_view SchemaText(std::string_view name) {
  static const Schemas* const schemas = new Schemas(MakeSchemas());
  const auto found = schemas->find(name);
  return found == schemas->end() ? std::string_view() : std::string_view(found->second);
}

}  // namespace imaged
