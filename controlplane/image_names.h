#pragma once

#include <string>
#include <string_view>

#include "base/json.h"
#include "base/result.h"
#include "controlplane/store.h"

namespace controlplane {

// Images of a store that no service has open, by name: what a command shows and is told where it
// can't ask the Image API. Everybody's images: whoever can open the store can read all of it.

// The id of the image with this id, or of the only one with this name. kNotFound; kConflict when
// several have the name.
base::Result<std::string> FindStoredImage(Store& store, std::string_view id_or_name);

// The name of an image, empty where it has none. kNotFound.
base::Result<std::string> NameOfStoredImage(Store& store, std::string_view id);

}  // namespace controlplane
