#pragma once

#include <string>
#include <string_view>

namespace blockd::chunk {

// Names of the holders under which sealed layers are kept: "layer/<layer>/<random>". Each is used
// once, so that a name which no record has is garbage, whenever it is found.
constexpr std::string_view kLayerHolders = "layer/";
std::string NewLayerHolder(const std::string& layer);

}  // namespace blockd::chunk
