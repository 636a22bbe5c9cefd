#pragma once

#include <string>
#include <string_view>

#include "base/http/message.h"
#include "imaged/image.h"

// Images and members as the API shows them: JSON text, written straight out (a list of images is
// the hottest answer of this service, and a tree of JSON values would cost more than finding the
// records).

namespace imaged {

// Appends the image's object: custom properties first, then Glance's fields in Glance's order.
void AppendImage(std::string* out, const Image& image);
void AppendMember(std::string* out, const Image& image, const Member& member);

// A JSON string with its quotes.
void AppendJsonString(std::string* out, std::string_view text);

base::http::Response ImageResponse(int status, const Image& image);
base::http::Response MemberResponse(const Image& image, const Member& member);
// 200 application/json with that text.
base::http::Response JsonText(int status, std::string text);

}  // namespace imaged
