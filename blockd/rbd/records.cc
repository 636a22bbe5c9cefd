#include "blockd/rbd/records.h"

#include <array>

#include "base/json.h"

namespace blockd::rbd {

using base::Code;
using base::Error;
using base::Json;
using base::JsonObject;
using base::Result;

namespace {

constexpr std::array<std::string_view, 3> kStateNames = {"making", "ready", "going"};

// Reads members one by one; what is missing or of another kind spoils it.
class Reader {
 public:
  explicit Reader(std::string_view text) : text_(text), json_(base::ParseJson(text)) {
    fine_ = json_.has_value();
  }
  Reader& String(std::string_view name, std::string* value) {
    const auto found = fine_ ? base::FindString(*json_, name) : std::nullopt;
    fine_ = found.has_value();
    if (found) *value = *found;
    return *this;
  }
  Reader& Uint(std::string_view name, uint64_t* value) {
    const auto found = fine_ ? base::FindUint(*json_, name) : std::nullopt;
    fine_ = found.has_value();
    if (found) *value = *found;
    return *this;
  }
  Reader& Time(std::string_view name, int64_t* value) {
    uint64_t number = 0;
    Uint(name, &number);
    *value = static_cast<int64_t>(number);
    return *this;
  }
  Reader& Bool(std::string_view name, bool* value) {
    const Json* found = fine_ ? base::Find(*json_, name) : nullptr;
    fine_ = found != nullptr && found->is_bool();
    if (fine_) *value = found->get_bool();
    return *this;
  }
  Reader& State(std::string_view name, ImageState* value) {
    std::string text;
    String(name, &text);
    for (size_t i = 0; i < kStateNames.size(); ++i) {
      if (text != kStateNames[i]) continue;
      *value = static_cast<ImageState>(i);
      return *this;
    }
    fine_ = false;
    return *this;
  }
  Result<void> End() const {
    if (fine_) return {};
    return Error(Code::kCorruption,
                 "a record of the volumes on RBD is not readable: " + std::string(text_));
  }

 private:
  const std::string_view text_;
  const Result<Json> json_;
  bool fine_ = false;
};

}  // namespace

std::string Encode(const VolumeRecord& record) {
  return base::ToText(JsonObject{{"image", record.image}, {"size", record.size_bytes}});
}

std::string Encode(const SnapshotRecord& record) {
  return base::ToText(
      JsonObject{{"volume", record.volume}, {"point", record.point}, {"size", record.size_bytes}});
}

std::string Encode(const PointRecord& record) {
  return base::ToText(JsonObject{{"image", record.image},
                                 {"snap", record.snap},
                                 {"size", record.size_bytes},
                                 {"holder", record.holder},
                                 {"session", record.session},
                                 {"uses", record.uses}});
}

std::string Encode(const ImageRecord& record) {
  return base::ToText(JsonObject{{"state", kStateNames[static_cast<size_t>(record.state)]},
                                 {"session", record.session},
                                 {"volume", record.volume},
                                 {"base", record.base},
                                 {"tip", record.tip},
                                 {"root", record.root},
                                 {"points", record.points}});
}

std::string Encode(const ParentRecord& record) {
  return base::ToText(JsonObject{{"point", record.point},
                                 {"image", record.image},
                                 {"holder", record.holder},
                                 {"session", record.session},
                                 {"used", record.used_us}});
}

std::string Encode(const ClaimRecord& record) {
  return base::ToText(JsonObject{{"session", record.session}, {"open", record.open}});
}

std::string Encode(const SessionRecord& record) {
  return base::ToText(JsonObject{{"expires", record.expires_us}});
}

std::string Encode(const SealingRecord& record) {
  return base::ToText(JsonObject{{"session", record.session}, {"holder", record.holder}});
}

Result<void> Decode(std::string_view text, VolumeRecord* record) {
  return Reader(text).String("image", &record->image).Uint("size", &record->size_bytes).End();
}

Result<void> Decode(std::string_view text, SnapshotRecord* record) {
  return Reader(text)
      .String("volume", &record->volume)
      .String("point", &record->point)
      .Uint("size", &record->size_bytes)
      .End();
}

Result<void> Decode(std::string_view text, PointRecord* record) {
  return Reader(text)
      .String("image", &record->image)
      .Bool("snap", &record->snap)
      .Uint("size", &record->size_bytes)
      .String("holder", &record->holder)
      .String("session", &record->session)
      .Uint("uses", &record->uses)
      .End();
}

Result<void> Decode(std::string_view text, ImageRecord* record) {
  return Reader(text)
      .State("state", &record->state)
      .String("session", &record->session)
      .String("volume", &record->volume)
      .String("base", &record->base)
      .String("tip", &record->tip)
      .String("root", &record->root)
      .Uint("points", &record->points)
      .End();
}

Result<void> Decode(std::string_view text, ParentRecord* record) {
  return Reader(text)
      .String("point", &record->point)
      .String("image", &record->image)
      .String("holder", &record->holder)
      .String("session", &record->session)
      .Time("used", &record->used_us)
      .End();
}

Result<void> Decode(std::string_view text, ClaimRecord* record) {
  return Reader(text).String("session", &record->session).Bool("open", &record->open).End();
}

Result<void> Decode(std::string_view text, SessionRecord* record) {
  return Reader(text).Time("expires", &record->expires_us).End();
}

Result<void> Decode(std::string_view text, SealingRecord* record) {
  return Reader(text).String("session", &record->session).String("holder", &record->holder).End();
}

}  // namespace blockd::rbd
