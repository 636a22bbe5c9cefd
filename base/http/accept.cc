#include "base/http/accept.h"

#include <algorithm>

#include "base/http/target.h"
#include "base/text.h"

namespace base::http {
namespace {

constexpr std::string_view kBlanks = " \t";

// Cuts off what stands before the next separator.
std::string_view TakeUntil(std::string_view* rest, char separator) {
  const size_t end = std::min(rest->find(separator), rest->size());
  const std::string_view part = rest->substr(0, end);
  rest->remove_prefix(std::min(end + 1, rest->size()));
  return Trim(part, kBlanks);
}

// "0", "0.5", "1.000"; what is none of these has no weight.
bool HasWeight(std::string_view weight) {
  if (weight.empty() || weight.size() > 5) return false;
  if (weight[0] != '0' && weight[0] != '1') return false;
  if (weight.size() > 1 && weight[1] != '.') return false;
  const std::string_view decimals = weight.substr(std::min<size_t>(2, weight.size()));
  if (decimals.find_first_not_of("0123456789") != std::string_view::npos) return false;
  return weight[0] == '1' || decimals.find_first_not_of('0') != std::string_view::npos;
}

// The part of an element behind its name: other parameters than the weight say nothing here.
bool IsWanted(std::string_view parameters) {
  while (!parameters.empty()) {
    std::string_view value = TakeUntil(&parameters, ';');
    const std::string_view name = TakeUntil(&value, '=');
    if (EqualsNoCase(name, "q")) return HasWeight(Trim(value, kBlanks));
  }
  return true;
}

// Whether one of the elements of the header of this name, with a weight, is one that `matches`.
template <typename Matches>
bool AnyWanted(const Headers& headers, std::string_view header, const Matches& matches) {
  for (const auto& [name, value] : headers.fields()) {
    if (!EqualsNoCase(name, header)) continue;
    std::string_view rest = value;
    while (!rest.empty()) {
      std::string_view element = TakeUntil(&rest, ',');
      const std::string_view what = TakeUntil(&element, ';');
      if (matches(what) && IsWanted(element)) return true;
    }
  }
  return false;
}

}  // namespace

bool AcceptsCoding(const Headers& headers, std::string_view coding) {
  return AnyWanted(headers, "Accept-Encoding",
                   [&](std::string_view what) { return EqualsNoCase(what, coding); });
}

bool AcceptsType(const Headers& headers, std::string_view type) {
  if (Trim(headers.Get("Accept"), kBlanks).empty()) return true;
  const std::string_view half = type.substr(0, type.find('/') + 1);
  return AnyWanted(headers, "Accept", [&](std::string_view what) {
    return what == "*/*" || EqualsNoCase(what, type) ||
           (what.ends_with("/*") && EqualsNoCase(what.substr(0, what.size() - 1), half));
  });
}

}  // namespace base::http
