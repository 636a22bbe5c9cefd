#include "blockd/api/microversion.h"

#include <optional>

#include "base/text.h"

namespace blockd::api {
namespace {

using Outcome = Negotiation::Outcome;

constexpr std::string_view kServiceName = "volume";
constexpr int kMajor = 3;
constexpr size_t kMaxEchoBytes = 32;
constexpr std::string_view kBlanks = " \t";

// "0", or digits without a zero in front.
std::optional<int> ParsePart(std::string_view text) {
  if (text.starts_with('-') || (text.size() > 1 && text.front() == '0')) return std::nullopt;
  return base::ParseNumber<int>(text);
}

Negotiation Judge(std::string_view asked) {
  Negotiation negotiation;
  negotiation.asked = std::string(asked.substr(0, kMaxEchoBytes));
  if (asked == "latest") {
    negotiation.version.minor = kNewestMinor;
    return negotiation;
  }
  const size_t dot = asked.find('.');
  std::optional<int> major;
  std::optional<int> minor;
  if (dot != std::string_view::npos) {
    major = ParsePart(asked.substr(0, dot));
    minor = ParsePart(asked.substr(dot + 1));
  }
  if (!major.has_value() || !minor.has_value() || *major == 0) {
    negotiation.outcome = Outcome::kMalformed;
  } else if (*major != kMajor || *minor > kNewestMinor) {
    negotiation.outcome = Outcome::kUnsupported;
  } else {
    negotiation.version.minor = *minor;
  }
  return negotiation;
}

}  // namespace

Negotiation Negotiate(const base::http::Request& request) {
  std::string_view rest = request.headers.Get(kVersionHeader);
  while (!rest.empty()) {
    const size_t comma = rest.find(',');
    const std::string_view part = base::Trim(rest.substr(0, comma), kBlanks);
    if (part.starts_with(kServiceName)) {
      const std::string_view version = part.substr(kServiceName.size());
      if (version.empty() || version.front() == ' ' || version.front() == '\t')
        return Judge(base::Trim(version, kBlanks));
    }
    if (comma == std::string_view::npos) break;
    rest.remove_prefix(comma + 1);
  }
  return {};
}

void AddVersionHeaders(const base::http::Request& request, const Negotiation& negotiation,
                       base::http::Response* response) {
  response->headers.Set("x-compute-request-id", request.request_id);
  if (negotiation.outcome == Outcome::kMalformed) return;
  const std::string version = negotiation.outcome == Outcome::kUnsupported
                                  ? negotiation.asked
                                  : negotiation.version.ToString();
  response->headers.Set(kVersionHeader, std::string(kServiceName) + " " + version);
  response->headers.Set("Vary", kVersionHeader);
}

}  // namespace blockd::api
