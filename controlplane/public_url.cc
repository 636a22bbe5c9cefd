#include "controlplane/public_url.h"

#include <algorithm>

#include "base/http/target.h"

namespace controlplane {
namespace {

using base::Code;
using base::Error;
using base::Result;

bool IsPathByte(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
         std::string_view("-._~%!$&'()*+,;=:@").find(c) != std::string_view::npos;
}

bool IsSegment(std::string_view text) {
  if (text.empty() || !std::all_of(text.begin(), text.end(), IsPathByte)) return false;
  const auto decoded = base::http::DecodePercent(text);
  return decoded.has_value() && *decoded != "." && *decoded != "..";
}

// "" or "/a/b".
bool IsPath(std::string_view path) {
  while (!path.empty()) {
    path.remove_prefix(1);
    const size_t end = std::min(path.find('/'), path.size());
    if (!IsSegment(path.substr(0, end))) return false;
    path.remove_prefix(end);
  }
  return true;
}

}  // namespace

Result<std::string> ParsePublicUrl(std::string_view text) {
  if (text.empty()) return std::string();
  // Not shown: there may be a password in it.
  const auto bad = [](std::string_view why) {
    return Error(Code::kInvalidArgument,
                 "public_url: " + std::string(why) + ", as in https://cloud.example");
  };
  std::string_view rest = text;
  for (const std::string_view scheme : {"https://", "http://"}) {
    if (!text.starts_with(scheme)) continue;
    rest.remove_prefix(scheme.size());
    break;
  }
  if (rest.size() == text.size()) return bad("it must begin with http:// or https://");
  while (rest.ends_with('/')) rest.remove_suffix(1);
  const size_t slash = std::min(rest.find('/'), rest.size());
  if (!base::http::IsHostAndPort(rest.substr(0, slash)))
    return bad("what follows must be a host, or a host and a port from 1 to 65535");
  if (!IsPath(rest.substr(slash))) return bad("behind the host only a plain path may follow");
  return std::string(text.substr(0, rest.data() + rest.size() - text.data()));
}

std::string ReachableHost(std::string_view host) {
  if (host == "0.0.0.0") return "127.0.0.1";
  if (host == "::") return "::1";
  return std::string(host == "[::]" ? "[::1]" : host);
}

}  // namespace controlplane
