#include "imaged/views.h"

#include <optional>

#include "base/clock.h"

namespace imaged {
namespace {

using base::http::Response;

constexpr char kHexDigits[] = "0123456789abcdef";

void AppendOptional(std::string* out, const std::optional<std::string>& text) {
  if (text.has_value())
    AppendJsonString(out, *text);
  else
    *out += "null";
}

void AppendOptional(std::string* out, const std::optional<uint64_t>& number) {
  *out += number.has_value() ? std::to_string(*number) : "null";
}

std::string_view Boolean(bool value) { return value ? "true" : "false"; }

// Ids and times need no escaping.
void AppendQuoted(std::string* out, std::string_view text) {
  out->append("\"").append(text).append("\"");
}

}  // namespace

void AppendJsonString(std::string* out, std::string_view text) {
  out->push_back('"');
  size_t plain = 0;  // start of the run that needs no escape
  for (size_t i = 0; i < text.size(); ++i) {
    const auto c = static_cast<unsigned char>(text[i]);
    if (c >= 0x20 && c != '"' && c != '\\') continue;
    out->append(text.substr(plain, i - plain));
    plain = i + 1;
    if (c == '"' || c == '\\') {
      out->push_back('\\');
      out->push_back(static_cast<char>(c));
    } else if (c == '\n') {
      out->append("\\n");
    } else {
      out->append("\\u00");
      out->push_back(kHexDigits[c >> 4]);
      out->push_back(kHexDigits[c & 15]);
    }
  }
  out->append(text.substr(plain));
  out->push_back('"');
}

void AppendImage(std::string* out, const Image& image) {
  out->push_back('{');
  for (const auto& [name, value] : image.properties) {
    AppendJsonString(out, name);
    *out += ": ";
    AppendOptional(out, value);
    *out += ", ";
  }
  *out += "\"name\": ";
  AppendOptional(out, image.name);
  *out += ", \"disk_format\": ";
  AppendOptional(out, image.disk_format);
  *out += ", \"container_format\": ";
  AppendOptional(out, image.container_format);
  *out += ", \"visibility\": ";
  AppendQuoted(out, VisibilityName(image.visibility));
  *out += ", \"size\": ";
  AppendOptional(out, image.size_bytes);
  *out += ", \"virtual_size\": ";
  AppendOptional(out, image.virtual_size_bytes);
  *out += ", \"status\": ";
  AppendQuoted(out, StatusName(image.status));
  *out += ", \"checksum\": ";
  AppendOptional(out, image.checksum);
  out->append(", \"protected\": ").append(Boolean(image.is_protected));
  out->append(", \"min_ram\": ").append(std::to_string(image.min_ram_mb));
  out->append(", \"min_disk\": ").append(std::to_string(image.min_disk_gb));
  *out += ", \"owner\": ";
  if (image.owner.empty())
    *out += "null";
  else
    AppendJsonString(out, image.owner);
  out->append(", \"os_hidden\": ").append(Boolean(image.is_hidden));
  *out += ", \"os_hash_algo\": ";
  AppendOptional(out, image.os_hash_algo);
  *out += ", \"os_hash_value\": ";
  AppendOptional(out, image.os_hash_value);
  *out += ", \"id\": ";
  AppendQuoted(out, image.id);
  *out += ", \"created_at\": ";
  AppendQuoted(out, base::FormatTimeSeconds(image.created_at_us));
  *out += ", \"updated_at\": ";
  AppendQuoted(out, base::FormatTimeSeconds(image.updated_at_us));
  *out += ", \"tags\": [";
  for (size_t i = 0; i < image.tags.size(); ++i) {
    if (i > 0) *out += ", ";
    AppendJsonString(out, image.tags[i]);
  }
  out->append("], \"self\": \"/v2/images/").append(image.id);
  out->append("\", \"file\": \"/v2/images/").append(image.id);
  *out += "/file\", \"schema\": \"/v2/schemas/image\"";
  if (!image.stores.empty()) {
    std::string stores;
    for (const std::string& store : image.stores) {
      if (!stores.empty()) stores.push_back(',');
      stores += store;
    }
    *out += ", \"stores\": ";
    AppendJsonString(out, stores);
  }
  out->push_back('}');
}

void AppendMember(std::string* out, const Image& image, const Member& member) {
  *out += "{\"member_id\": ";
  AppendJsonString(out, member.project_id);
  *out += ", \"image_id\": ";
  AppendQuoted(out, image.id);
  *out += ", \"status\": ";
  AppendQuoted(out, MemberStatusName(member.status));
  *out += ", \"created_at\": ";
  AppendQuoted(out, base::FormatTimeSeconds(member.created_at_us));
  *out += ", \"updated_at\": ";
  AppendQuoted(out, base::FormatTimeSeconds(member.updated_at_us));
  *out += ", \"schema\": \"/v2/schemas/member\"}";
}

Response JsonText(int status, std::string text) {
  return Response::Text(status, std::move(text), "application/json");
}

Response ImageResponse(int status, const Image& image) {
  std::string text;
  text.reserve(1024);
  AppendImage(&text, image);
  return JsonText(status, std::move(text));
}

Response MemberResponse(const Image& image, const Member& member) {
  std::string text;
  AppendMember(&text, image, member);
  return JsonText(200, std::move(text));
}

}  // namespace imaged
