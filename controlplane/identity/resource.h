#pragma once

#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "controlplane/identity/api.h"

// The one mechanism behind users, projects, roles, services and everything else that is created,
// shown, listed, updated and deleted. A Resource is a table row: what its members are, which are
// unique, who may see it, and the few hooks where it differs. resources.cc has the rows.

namespace controlplane::identity {

enum class Type { kString, kBool, kObject, kStrings };

// A member of a resource that has a meaning. Aggregate: rows name what they need.
struct Field {
  std::string_view name;
  Type type = Type::kString;
  bool required = false;
  bool nullable = false;
  bool fixed = false;              // cannot be changed after creation
  std::string_view fallback = {};  // JSON for a new record that lacks it; empty: it stays absent
  size_t min_characters = 0;
  size_t max_characters = kMaxTextBytes;
  bool clean = false;  // no control characters: names and ids
};

// A record about to be written. `before` is null for a creation.
struct Change {
  Call& call;
  Transaction& tx;
  const Record* before;
  base::JsonObject& body;
  const std::string& id;
};

struct Resource {
  Kind kind;
  std::string_view path;        // "/users"
  std::string_view collection;  // "users"
  std::string_view member;      // "user"
  std::string_view label;       // in messages: "Could not find user: ID."
  std::vector<Field> fields;
  bool extras = false;  // keeps members that it knows nothing of, as Keystone does for some
  std::vector<std::string_view> filters;  // query keys that are members, compared as text or bool
  std::optional<Index> unique;            // a name taken in this index: 409
  bool creatable = true;
  bool updatable = true;
  bool put_creates = false;  // PUT /path/ID makes one with that id
  base::http::Access writes = base::http::Access::kAdmin;
  base::http::Access reads = base::http::Access::kToken;

  // Null: any caller that came this far.
  std::function<bool(const Call&, const Record&)> may_read;
  std::function<bool(const Call&)> may_list;
  std::function<bool(const Call&, const Record&)> may_write;  // for `writes` == kToken
  // Which of the kind's records belong to this resource. Null: all.
  std::function<bool(const Record&)> belongs;
  // Which of them a list shows, by query keys that are not members. Null: all.
  std::function<bool(const Call&, const Record&)> listed;
  // The id of a new record. Null: a random one.
  std::function<base::Result<std::string>(Call&, const base::JsonObject&)> choose_id;
  // Before the transaction, for slow work: may change what the client sent.
  std::function<base::Result<void>(Call&, base::JsonObject&, bool creating)> prepare;
  // In the transaction: references exist, derived members are set.
  std::function<base::Result<void>(Change&)> check;
  // In the transaction: what goes with it, or why it must stay.
  std::function<base::Result<void>(Call&, Transaction&, const Record&)> on_delete;
  // What only the answer to its creation shows: a secret.
  std::function<void(const Record&, base::JsonObject&)> reveal;
  // Last touches to how it is shown.
  std::function<void(const Call&, const Record&, base::JsonObject&)> render;
};

// Its five routes. `resource` is kept by the routes.
void AddResource(Routes& routes, Resource resource);

// The view of a record as its resource shows it.
base::JsonObject ViewOf(const Call& call, const Resource& resource, const Record& record);

// Does `text`, from a query string, mean true? As Keystone reads it: all but "0", "false", "no",
// "off", "".
bool MeansTrue(std::string_view text);

// A record that says {"options": {"immutable": true}} is not changed or deleted.
bool IsImmutable(const Record& record);

}  // namespace controlplane::identity
