#include "base/http/target.h"

#include <algorithm>
#include <cstdint>

#include <arpa/inet.h>

#include "base/text.h"

namespace base::http {
namespace {

int HexDigit(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return -1;
}

bool IsDigit(char c) { return c >= '0' && c <= '9'; }
bool IsLetter(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'); }

char Lower(char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c; }

// How many bytes the sequence that begins with `lead` has, and the bounds of its second byte (table
// 3-7 of the Unicode standard); 0 if none begins so.
struct Utf8Form {
  size_t length = 0;
  uint8_t low = 0x80;
  uint8_t high = 0xbf;
};

Utf8Form FormOf(uint8_t lead) {
  if (lead < 0x80) return {1};
  if (lead < 0xc2) return {0};
  if (lead < 0xe0) return {2};
  if (lead == 0xe0) return {3, 0xa0, 0xbf};
  if (lead == 0xed) return {3, 0x80, 0x9f};
  if (lead < 0xf0) return {3};
  if (lead == 0xf0) return {4, 0x90, 0xbf};
  if (lead < 0xf4) return {4};
  if (lead == 0xf4) return {4, 0x80, 0x8f};
  return {0};
}

bool IsPort(std::string_view text) { return ParseNumber<uint16_t>(text).value_or(0) > 0; }

// "a.example", "10.0.0.1": no part of it is empty, but there may be a dot at its end.
bool IsHostName(std::string_view text) {
  return !text.empty() && text.front() != '.' && text.find("..") == std::string_view::npos &&
         text.find_first_of("[]%:") == std::string_view::npos;
}

// "[fd00::1]".
bool IsBracketedAddress(std::string_view text) {
  if (text.size() < 2) return false;
  const std::string address(text.substr(1, text.size() - 2));
  in6_addr ignored;
  return ::inet_pton(AF_INET6, address.c_str(), &ignored) == 1;
}

}  // namespace

Result<Target> SplitTarget(std::string_view target) {
  constexpr std::string_view kSchemes[] = {"http://", "https://"};
  if (target.find('#') != std::string_view::npos)
    return Error(Code::kInvalidArgument,
                 "a request target has no fragment: leave out '#' and what follows, or write %23");
  for (std::string_view scheme : kSchemes) {
    if (!EqualsNoCase(target.substr(0, scheme.size()), scheme)) continue;
    const size_t slash = target.find_first_of("/?", scheme.size());
    target = slash == std::string_view::npos ? std::string_view("/") : target.substr(slash);
    break;
  }
  if (target.empty() || target.front() != '/')
    return Error(Code::kInvalidArgument, "the request target must be a path that begins with '/'");
  const size_t mark = target.find('?');
  if (mark == std::string_view::npos) return Target{target, {}};
  return Target{target.substr(0, mark), target.substr(mark + 1)};
}

std::optional<std::string> DecodePercent(std::string_view text, bool plus_is_space) {
  std::string out;
  out.reserve(text.size());
  for (size_t i = 0; i < text.size(); ++i) {
    char c = text[i];
    if (c == '+' && plus_is_space) {
      c = ' ';
    } else if (c == '%') {
      if (text.size() - i < 3) return std::nullopt;
      const int high = HexDigit(text[i + 1]);
      const int low = HexDigit(text[i + 2]);
      if (high < 0 || low < 0) return std::nullopt;
      c = static_cast<char>(high * 16 + low);
      i += 2;
    }
    if (c == '\0') return std::nullopt;
    out.push_back(c);
  }
  if (!IsUtf8(out)) return std::nullopt;
  return out;
}

std::string EncodePercent(std::string_view text) {
  constexpr std::string_view kHex = "0123456789ABCDEF";
  std::string encoded;
  for (const char c : text) {
    const bool plain = IsDigit(c) || IsLetter(c) || c == '-' || c == '.' || c == '_';
    const auto byte = static_cast<unsigned char>(c);
    if (plain) {
      encoded += c;
    } else {
      encoded += {'%', kHex[byte >> 4], kHex[byte & 15]};
    }
  }
  return encoded;
}

Result<QueryFields> ParseQuery(std::string_view query) {
  QueryFields fields;
  while (!query.empty()) {
    const size_t end = std::min(query.find('&'), query.size());
    const std::string_view field = query.substr(0, end);
    query.remove_prefix(std::min(end + 1, query.size()));
    if (field.empty()) continue;
    const size_t equals = std::min(field.find('='), field.size());
    std::optional<std::string> key = DecodePercent(field.substr(0, equals), true);
    std::optional<std::string> value =
        DecodePercent(field.substr(std::min(equals + 1, field.size())), true);
    if (!key || !value)
      return Error(Code::kInvalidArgument,
                   "the query string has a field that is not percent-encoded UTF-8");
    fields.emplace_back(std::move(*key), std::move(*value));
  }
  return fields;
}

bool IsUtf8(std::string_view text) {
  for (size_t i = 0; i < text.size();) {
    const Utf8Form form = FormOf(static_cast<uint8_t>(text[i]));
    if (form.length == 0 || form.length > text.size() - i) return false;
    for (size_t k = 1; k < form.length; ++k) {
      const uint8_t byte = static_cast<uint8_t>(text[i + k]);
      const uint8_t low = k == 1 ? form.low : 0x80;
      const uint8_t high = k == 1 ? form.high : 0xbf;
      if (byte < low || byte > high) return false;
    }
    i += form.length;
  }
  return true;
}

bool IsHost(std::string_view text) {
  constexpr size_t kMaxHostBytes = 255 + 6;  // a name and a port
  if (text.empty() || text.size() > kMaxHostBytes) return false;
  return std::all_of(text.begin(), text.end(), [](char c) {
    const char lower = Lower(c);
    return (lower >= 'a' && lower <= 'z') || (c >= '0' && c <= '9') ||
           std::string_view(".-_~:[]%").find(c) != std::string_view::npos;
  });
}

bool IsHostAndPort(std::string_view text) {
  if (!IsHost(text)) return false;
  const size_t end =
      text.front() == '[' ? text.find(']') + 1 : std::min(text.find(':'), text.size());
  if (end == 0) return false;
  const std::string_view host = text.substr(0, end);
  const bool sound = host.front() == '[' ? IsBracketedAddress(host) : IsHostName(host);
  return sound && (end == text.size() || (text[end] == ':' && IsPort(text.substr(end + 1))));
}

bool EqualsNoCase(std::string_view a, std::string_view b) {
  return a.size() == b.size() && std::equal(a.begin(), a.end(), b.begin(),
                                            [](char x, char y) { return Lower(x) == Lower(y); });
}

}  // namespace base::http
