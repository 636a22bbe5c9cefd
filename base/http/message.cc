#include "base/http/message.h"

#include <algorithm>

#include "base/check.h"
#include "base/http/target.h"

namespace base::http {

void Headers::Set(std::string_view name, std::string_view value) {
  Remove(name);
  Add(name, value);
}

void Headers::Add(std::string_view name, std::string_view value) {
  fields_.emplace_back(std::string(name), std::string(value));
}

void Headers::Remove(std::string_view name) {
  std::erase_if(fields_, [name](const auto& field) { return EqualsNoCase(field.first, name); });
}

std::string_view Headers::Get(std::string_view name) const {
  for (const auto& [held, value] : fields_)
    if (EqualsNoCase(held, name)) return value;
  return {};
}

bool Headers::Has(std::string_view name) const {
  return std::any_of(fields_.begin(), fields_.end(),
                     [name](const auto& field) { return EqualsNoCase(field.first, name); });
}

std::optional<std::string_view> Request::Query(std::string_view key) const {
  for (const auto& [held, value] : query)
    if (held == key) return value;
  return std::nullopt;
}

const std::string& Request::Param(std::string_view name) const {
  auto found = params.find(name);
  CHECK(found != params.end());
  return found->second;
}

Response Response::Empty(int status) {
  Response response;
  response.status = status;
  return response;
}

Response Response::Text(int status, std::string body, std::string_view content_type) {
  Response response;
  response.status = status;
  response.headers.Add("Content-Type", content_type);
  response.body = std::move(body);
  return response;
}

Response Response::OfJson(int status, const Json& body) {
  return Text(status, ToText(body), "application/json");
}

}  // namespace base::http
