#pragma once

#include <string>

#include "base/http/message.h"

// Microversions of the Block Storage API: a client says "OpenStack-API-Version: volume 3.N" and is
// answered as version 3.N answers. Which fields and calls each brought is in API.md.

namespace blockd::api {

constexpr int kNewestMinor = 71;  // we speak 3.0 to 3.71
constexpr std::string_view kVersionHeader = "OpenStack-API-Version";

// 3.<minor>. Value type.
struct Microversion {
  int minor = 0;

  bool AtLeast(int wanted) const { return minor >= wanted; }
  std::string ToString() const { return "3." + std::to_string(minor); }
};

// What a request asks for.
struct Negotiation {
  enum class Outcome {
    kAgreed,       // also without a header, and with one for other services only: 3.0
    kMalformed,    // no MAJOR.MINOR: 400
    kUnsupported,  // well-formed, and not ours: 406
  };
  Outcome outcome = Outcome::kAgreed;
  Microversion version;  // of kAgreed
  std::string asked;     // as the header has it, cut to what may be echoed
};

// The header may name several services, with commas between.
Negotiation Negotiate(const base::http::Request& request);

// What every answer says about its version and request; an answer to a malformed one only the
// latter.
void AddVersionHeaders(const base::http::Request& request, const Negotiation& negotiation,
                       base::http::Response* response);

}  // namespace blockd::api
