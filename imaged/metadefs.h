#pragma once

#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "base/clock.h"
#include "base/json.h"
#include "base/result.h"
#include "chunkstore/meta_store.h"

namespace imaged {

constexpr size_t kMaxNamespaceBytes = 1024 * 1024;  // of a namespace with all that is in it
constexpr size_t kMaxMetadefNameCharacters = 80;

// Metadata definitions: namespaces that say which properties mean what on which kind of resource.
// Nothing in this service depends on them; clients and dashboards look them up.
//
// A namespace is one JSON document in the partition "metadefs", with everything that belongs to it:
// objects, properties, tags and associations with resource types, each an object by name.
// Thread-safe.
class Metadefs {
 public:
  Metadefs(chunkstore::MetaStore& meta, const base::Clock& clock);  // borrowed

  // kNotFound: "Metadata definition namespace=x was not found."
  base::Result<base::JsonObject> Get(std::string_view name);
  // By name, after `marker`, of which `wanted` says yes.
  base::Result<std::vector<base::JsonObject>> List(
      std::string_view marker, size_t limit,
      const std::function<bool(const base::JsonObject&)>& wanted);
  // kAlreadyExists; kTooLarge over kMaxNamespaceBytes.
  base::Result<base::JsonObject> Create(base::JsonObject document);
  // Like Catalog::Update; a document whose "namespace" changes is renamed. kNotFound,
  // kAlreadyExists.
  using Change = std::function<base::Result<void>(base::JsonObject&)>;
  base::Result<base::JsonObject> Update(std::string_view name, const Change& change);
  base::Result<void> Delete(std::string_view name, const Change& check);

  // "2026-11-21T03:29:24Z"
  std::string Now() const;

 private:
  struct Stored {
    base::JsonObject document;
    std::string bytes;
  };
  base::Result<Stored> Load(std::string_view name);

  chunkstore::MetaStore& meta_;
  const base::Clock& clock_;
};

}  // namespace imaged
