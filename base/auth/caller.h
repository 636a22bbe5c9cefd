#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace base::auth {

// One of the calls that an application credential is limited to (auth/access_rules.h).
struct AccessRule {
  std::string service;  // a service's type: "image"
  std::string method;
  std::string path;  // a pattern
};

// Who is calling, as a verified token says. Value type, immutable once made. Ids are Keystone's (32
// hex digits).
struct Caller {
  std::string user_id;
  std::string user_name;
  std::string user_domain_id;
  std::string project_id;  // empty: unscoped, or scoped to a domain or the system
  std::string project_name;
  std::string project_domain_id;
  std::string domain_id;      // scoped to a domain
  bool system_scope = false;  // scoped to the system ("all")
  std::vector<std::string>
      roles;  // names, implied ones included: admin has member and reader as well
  int64_t expires_at_us = 0;
  // Of the application credential that the token was made from; nothing: any call. base/http keeps
  // to them for every service.
  std::optional<std::vector<AccessRule>> access_rules;

  bool HasRole(std::string_view role) const {
    for (const std::string& held : roles)
      if (held == role) return true;
    return false;
  }
  // OpenStack's rule for the classic services: the role admin, on whatever scope.
  bool IsAdmin() const { return HasRole("admin"); }
};

}  // namespace base::auth
