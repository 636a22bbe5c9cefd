#pragma once

#include <string>
#include <string_view>

#include "base/result.h"

namespace controlplane {

// The setting public_url, checked, without slashes at its end, so that a path can follow; empty
// stays empty. It goes into every link and into clouds.yaml: "http://" or "https://", a host, a
// port perhaps, and a path of whole segments (RFC 3986, section 3.3); no query, fragment, name or
// password. kInvalidArgument says what is wrong with it.
base::Result<std::string> ParsePublicUrl(std::string_view text);

// What to call a host that means every address of this machine (0.0.0.0, ::, [::]): this machine's
// own. Others stay as they are.
std::string ReachableHost(std::string_view host);

}  // namespace controlplane
