#pragma once

#include <string>
#include <string_view>

#include "base/http/message.h"
#include "base/result.h"

// Errors in the shapes that Glance's clients print as a sentence: by the Accept header a small JSON
// object, an HTML page (for */*) or plain text (without Accept).

namespace imaged {

// An error whose page has two paragraphs, as some of Glance's have: "Access was denied to this
// resource." and what exactly. Held in one message with an empty line between.
base::Error DetailedError(base::Code code, std::string_view explanation, std::string_view detail);

// The page itself, for statuses that no base::Code maps to (410, 415, 416).
base::http::Response ErrorPage(const base::http::Request& request, int status,
                               std::string_view explanation, std::string_view detail = {});

// The service's ErrorRenderer. Errors that are not the client's fault (500s) show no inner details.
base::http::Response RenderError(const base::http::Request& request, int status,
                                 const base::Error& error);

}  // namespace imaged
