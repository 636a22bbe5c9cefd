#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "imaged/image.h"
#include "imaged/query.h"

// The keys of the partition "images" (catalog.h lists them), and which index serves which query.

namespace imaged {

constexpr std::string_view kImagesPartition = "images";

std::string RecordKey(std::string_view id);
std::string UploadKey(std::string_view holder);
std::string ReleaseKey(std::string_view holder);
std::string UsageKey(std::string_view project_id);
std::string TraceKey(std::string_view id);
std::string DeletedKey(std::string_view id);
constexpr std::string_view kUploadPrefix = "u/";
constexpr std::string_view kReleasePrefix = "g/";

// Every image stands in some scopes, twice in each (by creation and by name): "all", its owner's,
// its visibility's if that is public or community, and each member project's.
enum class IndexOrder : uint8_t { kCreated, kName };

// All index keys of a record; their values are empty.
std::vector<std::string> IndexKeys(const Image& image);

// What an index key ends with, whatever the scope: two suffixes compare as the images' places in
// that order.
std::string IndexSuffix(IndexOrder order, const Image& image);
// The beginning of the suffixes of all images that have this name, or one with the same first
// kNameOrderBytes.
std::string NamePrefix(std::string_view name);
// The id is the end of every index key.
std::string_view IdOfIndexKey(std::string_view key);

// "x/<scope>/c/": the prefixes of the scopes in one of which each image of the query's answer
// stands.
std::vector<std::string> ScopesOf(const ListQuery& query, IndexOrder order);

}  // namespace imaged
