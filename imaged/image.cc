#include "imaged/image.h"

#include <array>
#include <limits>
#include <utility>

#include "base/json.h"

namespace imaged {
namespace {

using base::Code;
using base::Error;
using base::Json;
using base::JsonArray;
using base::JsonObject;
using base::Result;

constexpr int64_t kRecordVersion = 1;

constexpr std::array<std::string_view, 4> kVisibilities = {"private", "shared", "community",
                                                           "public"};
constexpr std::array<std::string_view, 3> kMemberStatuses = {"pending", "accepted", "rejected"};
constexpr std::array<std::string_view, 3> kUploadKinds = {"data", "stage", "import"};

template <typename Enum, size_t kCount>
std::optional<Enum> ParseEnum(const std::array<std::string_view, kCount>& names,
                              std::string_view name) {
  for (size_t i = 0; i < kCount; ++i)
    if (names[i] == name) return static_cast<Enum>(i);
  return std::nullopt;
}

void PutOptional(JsonObject* out, std::string_view key, const std::optional<std::string>& value) {
  if (value.has_value()) out->emplace(key, *value);
}
void PutOptional(JsonObject* out, std::string_view key, const std::optional<uint64_t>& value) {
  if (value.has_value()) out->emplace(key, *value);
}

JsonArray StringsToJson(const std::vector<std::string>& strings) {
  JsonArray array;
  for (const std::string& text : strings) array.emplace_back(text);
  return array;
}

JsonObject StoredToJson(const StoredData& stored) {
  JsonObject object;
  object.emplace("holder", stored.holder);
  object.emplace("root", stored.root.id.hex());
  object.emplace("size", stored.root.size_bytes);
  return object;
}

JsonObject UploadToJson(const Upload& upload) {
  JsonObject object;
  object.emplace("kind", kUploadKinds[static_cast<size_t>(upload.kind)]);
  object.emplace("holder", upload.holder);
  object.emplace("lease_until", upload.lease_until_us);
  object.emplace("reserved", upload.reserved_bytes);
  if (!upload.keep_for.empty()) object.emplace("keep_for", upload.keep_for);
  return object;
}

JsonArray MembersToJson(const std::vector<Member>& members) {
  JsonArray array;
  for (const Member& member : members) {
    JsonObject object;
    object.emplace("project", member.project_id);
    object.emplace("status", MemberStatusName(member.status));
    object.emplace("created", member.created_at_us);
    object.emplace("updated", member.updated_at_us);
    array.emplace_back(std::move(object));
  }
  return array;
}

// Takes a record's members apart. The first thing that is not as Encode writes it stays as the
// error.
class Reader {
 public:
  explicit Reader(const JsonObject& object) : object_(object) {}

  const Json* Member(std::string_view key) const { return object_.if_contains(key); }

  std::optional<std::string> OptionalText(std::string_view key) {
    const Json* value = Member(key);
    if (value == nullptr) return std::nullopt;
    if (!value->is_string()) return Fail(key), std::nullopt;
    return std::string(base::View(value->get_string()));
  }
  std::string Text(std::string_view key) {
    std::optional<std::string> text = OptionalText(key);
    if (!text.has_value()) return Fail(key), std::string();
    return *std::move(text);
  }
  std::optional<uint64_t> OptionalSize(std::string_view key) {
    const Json* value = Member(key);
    if (value == nullptr) return std::nullopt;
    if (value->is_uint64()) return value->get_uint64();
    if (!value->is_int64() || value->get_int64() < 0) return Fail(key), std::nullopt;
    return static_cast<uint64_t>(value->get_int64());
  }
  int64_t Integer(std::string_view key) {
    const Json* value = Member(key);
    if (value == nullptr || !value->is_int64()) return Fail(key), 0;
    return value->get_int64();
  }
  int32_t SmallInteger(std::string_view key) {
    const Json* value = Member(key);
    if (value == nullptr) return 0;
    if (!value->is_int64() || value->get_int64() < 0 ||
        value->get_int64() > std::numeric_limits<int32_t>::max())
      return Fail(key), 0;
    return static_cast<int32_t>(value->get_int64());
  }
  bool Flag(std::string_view key) {
    const Json* value = Member(key);
    if (value == nullptr) return false;
    if (!value->is_bool()) return Fail(key), false;
    return value->get_bool();
  }
  std::vector<std::string> Texts(std::string_view key) {
    std::vector<std::string> texts;
    const Json* value = Member(key);
    if (value == nullptr) return texts;
    if (!value->is_array()) return Fail(key), texts;
    for (const Json& item : value->get_array()) {
      if (!item.is_string()) return Fail(key), texts;
      texts.emplace_back(base::View(item.get_string()));
    }
    return texts;
  }
  template <typename Enum>
  Enum Named(std::string_view key, const std::optional<Enum>& parsed) {
    if (!parsed.has_value()) return Fail(key), Enum{};
    return *parsed;
  }

  void Fail(std::string_view key) {
    if (bad_.empty()) bad_ = std::string(key);
  }
  Result<void> status() const {
    if (bad_.empty()) return {};
    return Error(Code::kCorruption, "an image's record has a bad \"" + bad_ + "\"");
  }

 private:
  const JsonObject& object_;
  std::string bad_;
};

Result<StoredData> StoredFromJson(const Json& json) {
  if (!json.is_object()) return Error(Code::kCorruption, "an image's record has bad data");
  Reader reader(json.get_object());
  StoredData stored;
  stored.holder = reader.Text("holder");
  stored.root.size_bytes = reader.OptionalSize("size").value_or(0);
  Result<base::Digest256> root = base::Digest256::FromHex(reader.Text("root"));
  if (root.has_value())
    stored.root.id = *root;
  else
    reader.Fail("root");
  RETURN_IF_ERROR(reader.status());
  return stored;
}

Result<Upload> UploadFromJson(const Json& json) {
  if (!json.is_object()) return Error(Code::kCorruption, "an image's record has a bad upload");
  Reader reader(json.get_object());
  Upload upload;
  upload.kind = reader.Named("kind", ParseEnum<UploadKind>(kUploadKinds, reader.Text("kind")));
  upload.holder = reader.Text("holder");
  upload.lease_until_us = reader.Integer("lease_until");
  upload.reserved_bytes = reader.OptionalSize("reserved").value_or(0);
  upload.keep_for = reader.OptionalText("keep_for").value_or("");
  RETURN_IF_ERROR(reader.status());
  return upload;
}

Result<std::vector<Member>> MembersFromJson(const Json& json) {
  std::vector<Member> members;
  if (!json.is_array()) return Error(Code::kCorruption, "an image's record has bad members");
  for (const Json& item : json.get_array()) {
    if (!item.is_object()) return Error(Code::kCorruption, "an image's record has a bad member");
    Reader reader(item.get_object());
    Member member;
    member.project_id = reader.Text("project");
    member.status = reader.Named("status", ParseMemberStatus(reader.Text("status")));
    member.created_at_us = reader.Integer("created");
    member.updated_at_us = reader.Integer("updated");
    RETURN_IF_ERROR(reader.status());
    members.push_back(std::move(member));
  }
  return members;
}

void ReadProperties(Reader* reader, Image* image) {
  const Json* json = reader->Member("properties");
  if (json == nullptr) return;
  if (!json->is_object()) return reader->Fail("properties");
  for (const auto& [name, value] : json->get_object()) {
    if (!value.is_string() && !value.is_null()) return reader->Fail("properties");
    std::optional<std::string> text;
    if (value.is_string()) text = std::string(base::View(value.get_string()));
    image->properties.emplace(std::string(name), std::move(text));
  }
}

}  // namespace

std::string_view VisibilityName(Visibility visibility) {
  return kVisibilities[static_cast<size_t>(visibility)];
}
std::optional<Visibility> ParseVisibility(std::string_view name) {
  return ParseEnum<Visibility>(kVisibilities, name);
}
std::string_view MemberStatusName(MemberStatus status) {
  return kMemberStatuses[static_cast<size_t>(status)];
}
std::optional<MemberStatus> ParseMemberStatus(std::string_view name) {
  return ParseEnum<MemberStatus>(kMemberStatuses, name);
}

const Member* Image::FindMember(std::string_view project_id) const {
  for (const Member& member : members)
    if (member.project_id == project_id) return &member;
  return nullptr;
}
Member* Image::FindMember(std::string_view project_id) {
  return const_cast<Member*>(std::as_const(*this).FindMember(project_id));
}

bool IsReservedProperty(std::string_view name) { return name.starts_with(kReservedPrefix); }

std::string EncodeImage(const Image& image) {
  JsonObject out;
  out.emplace("version", kRecordVersion);
  out.emplace("id", image.id);
  PutOptional(&out, "name", image.name);
  out.emplace("owner", image.owner);
  out.emplace("status", StatusName(image.status));
  out.emplace("visibility", VisibilityName(image.visibility));
  if (image.is_protected) out.emplace("protected", true);
  if (image.is_hidden) out.emplace("hidden", true);
  if (image.min_disk_gb != 0) out.emplace("min_disk", image.min_disk_gb);
  if (image.min_ram_mb != 0) out.emplace("min_ram", image.min_ram_mb);
  PutOptional(&out, "disk_format", image.disk_format);
  PutOptional(&out, "container_format", image.container_format);
  PutOptional(&out, "size", image.size_bytes);
  PutOptional(&out, "virtual_size", image.virtual_size_bytes);
  PutOptional(&out, "checksum", image.checksum);
  PutOptional(&out, "os_hash_algo", image.os_hash_algo);
  PutOptional(&out, "os_hash_value", image.os_hash_value);
  if (!image.stores.empty()) out.emplace("stores", StringsToJson(image.stores));
  out.emplace("created", image.created_at_us);
  out.emplace("updated", image.updated_at_us);
  if (!image.tags.empty()) out.emplace("tags", StringsToJson(image.tags));
  if (!image.properties.empty()) {
    JsonObject properties;
    for (const auto& [name, value] : image.properties)
      properties.emplace(name, value.has_value() ? Json(*value) : Json(nullptr));
    out.emplace("properties", std::move(properties));
  }
  if (!image.members.empty()) out.emplace("members", MembersToJson(image.members));
  if (image.data.has_value()) out.emplace("data", StoredToJson(*image.data));
  if (image.staged.has_value()) out.emplace("staged", StoredToJson(*image.staged));
  if (image.raw.has_value()) out.emplace("raw", StoredToJson(*image.raw));
  if (image.raw_bytes > 0) out.emplace("raw_bytes", image.raw_bytes);
  if (image.upload.has_value()) out.emplace("upload", UploadToJson(*image.upload));
  return boost::json::serialize(out);
}

Result<Image> DecodeImage(std::string_view bytes) {
  Result<Json> json = base::ParseJson(bytes);
  if (!json.has_value() || !json->is_object())
    return Error(Code::kCorruption, "an image's record is not a JSON object");
  Reader reader(json->get_object());
  if (reader.Integer("version") != kRecordVersion) reader.Fail("version");
  Image image;
  image.id = reader.Text("id");
  image.name = reader.OptionalText("name");
  image.owner = reader.Text("owner");
  image.status = reader.Named("status", ParseStatus(reader.Text("status")));
  image.visibility = reader.Named("visibility", ParseVisibility(reader.Text("visibility")));
  image.is_protected = reader.Flag("protected");
  image.is_hidden = reader.Flag("hidden");
  image.min_disk_gb = reader.SmallInteger("min_disk");
  image.min_ram_mb = reader.SmallInteger("min_ram");
  image.disk_format = reader.OptionalText("disk_format");
  image.container_format = reader.OptionalText("container_format");
  image.size_bytes = reader.OptionalSize("size");
  image.virtual_size_bytes = reader.OptionalSize("virtual_size");
  image.raw_bytes = reader.OptionalSize("raw_bytes").value_or(0);
  image.checksum = reader.OptionalText("checksum");
  image.os_hash_algo = reader.OptionalText("os_hash_algo");
  image.os_hash_value = reader.OptionalText("os_hash_value");
  image.stores = reader.Texts("stores");
  image.created_at_us = reader.Integer("created");
  image.updated_at_us = reader.Integer("updated");
  image.tags = reader.Texts("tags");
  ReadProperties(&reader, &image);
  RETURN_IF_ERROR(reader.status());
  if (const Json* members = reader.Member("members"); members != nullptr) {
    ASSIGN_OR_RETURN(image.members, MembersFromJson(*members));
  }
  if (const Json* data = reader.Member("data"); data != nullptr) {
    ASSIGN_OR_RETURN(image.data, StoredFromJson(*data));
  }
  if (const Json* staged = reader.Member("staged"); staged != nullptr) {
    ASSIGN_OR_RETURN(image.staged, StoredFromJson(*staged));
  }
  if (const Json* raw = reader.Member("raw"); raw != nullptr) {
    ASSIGN_OR_RETURN(image.raw, StoredFromJson(*raw));
  }
  if (const Json* upload = reader.Member("upload"); upload != nullptr) {
    ASSIGN_OR_RETURN(image.upload, UploadFromJson(*upload));
  }
  return image;
}

}  // namespace imaged
