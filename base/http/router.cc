#include "base/http/router.h"

#include <set>
#include <utility>

#include "base/check.h"
#include "base/http/target.h"

namespace base::http {
namespace {

// "/v2/images/" is {"v2", "images", ""}: the slash at the end counts as an empty last segment. ""
// and "/" are both {""}.
std::vector<std::string_view> SplitPath(std::string_view path) {
  if (!path.empty()) path.remove_prefix(1);
  std::vector<std::string_view> segments;
  while (true) {
    const size_t slash = path.find('/');
    segments.push_back(path.substr(0, slash));
    if (slash == std::string_view::npos) return segments;
    path.remove_prefix(slash + 1);
  }
}

bool IsParam(std::string_view segment) {
  return segment.size() > 2 && segment.front() == '{' && segment.back() == '}';
}

// So that the text has as many segments as the path.
void AppendSegment(std::string_view segment, std::string* path) {
  for (const char c : segment) {
    if (c == '/') {
      *path += "%2F";
    } else {
      *path += c;
    }
  }
}

bool HasPrefix(std::string_view path, std::string_view prefix) {
  return path.substr(0, prefix.size()) == prefix &&
         (path.size() == prefix.size() || path[prefix.size()] == '/');
}

}  // namespace

struct Router::Node {
  std::map<std::string, std::unique_ptr<Node>, std::less<>> literals;
  std::unique_ptr<Node> param;
  // What ends here, by method. Names of parameters are the route's own: two routes may name one
  // place apart.
  std::map<std::string, const Route*, std::less<>> routes;

  const Route* Find(std::string_view method) const {
    auto found = routes.find(method);
    if (found == routes.end() && method == "HEAD") found = routes.find("GET");
    return found == routes.end() ? nullptr : found->second;
  }

  // The first route for `method` in the order "literals before parameters"; the methods of routes
  // that only lack the method are gathered in `allowed`.
  const Route* Walk(std::string_view method, const std::vector<std::string>& path, size_t depth,
                    std::set<std::string>* allowed) const {
    if (depth == path.size()) {
      for (const auto& [held, route] : routes) {
        allowed->insert(held);
        if (held == "GET") allowed->insert("HEAD");
      }
      return Find(method);
    }
    auto literal = literals.find(path[depth]);
    if (literal != literals.end()) {
      const Route* route = literal->second->Walk(method, path, depth + 1, allowed);
      if (route != nullptr) return route;
    }
    if (param == nullptr || path[depth].empty()) return nullptr;
    return param->Walk(method, path, depth + 1, allowed);
  }
};

Router::Router() = default;
Router::~Router() = default;

void Router::Mount(Service service) {
  CHECK(service.prefix.empty() || (service.prefix.front() == '/' && service.prefix.back() != '/'));
  auto held = std::make_unique<Service>(std::move(service));
  auto root = std::make_unique<Node>();
  for (const Route& route : held->routes) {
    CHECK(route.pattern.starts_with('/'));
    CHECK((route.handler != nullptr) != (route.stream != nullptr));
    CHECK(route.access == Access::kPublic || held->verifier != nullptr);
    std::vector<Node*> ends = {root.get()};
    const std::vector<std::string_view> segments = SplitPath(route.pattern);
    for (size_t i = 0; i < segments.size(); ++i) {
      Node* node = ends.front();
      std::unique_ptr<Node>& next =
          IsParam(segments[i]) ? node->param : node->literals[std::string(segments[i])];
      if (next == nullptr) next = std::make_unique<Node>();
      // The slash at the end of a pattern may be left out: the route ends at its parent too.
      const bool optional_slash = i > 0 && i + 1 == segments.size() && segments[i].empty();
      ends.front() = next.get();
      if (optional_slash) ends.push_back(node);
    }
    for (Node* end : ends) CHECK(end->routes.emplace(route.method, &route).second);
  }
  services_.push_back(std::move(held));
  trees_.push_back(std::move(root));
}

Match Router::Find(std::string_view method, std::string_view target_path) const {
  Match match;
  match.status = 404;
  const Node* tree = nullptr;
  for (size_t i = 0; i < services_.size(); ++i) {
    if (!HasPrefix(target_path, services_[i]->prefix)) continue;
    if (match.service != nullptr && match.service->prefix.size() >= services_[i]->prefix.size())
      continue;
    match.service = services_[i].get();
    tree = trees_[i].get();
  }
  if (match.service == nullptr) return match;

  std::vector<std::string> path;
  bool sound = true;
  for (std::string_view raw : SplitPath(target_path.substr(match.service->prefix.size()))) {
    std::optional<std::string> segment = DecodePercent(raw);
    if (!segment) {
      match.status = 400;
      return match;
    }
    if (*segment == "." || *segment == "..") sound = false;
    match.path += '/';
    AppendSegment(*segment, &match.path);
    path.push_back(std::move(*segment));
  }
  if (!sound) return match;

  std::set<std::string> allowed;
  match.route = tree->Walk(method, path, 0, &allowed);
  if (match.route == nullptr) {
    if (allowed.empty()) return match;
    match.status = 405;
    for (const std::string& held : allowed) {
      if (!match.allow.empty()) match.allow += ", ";
      match.allow += held;
    }
    return match;
  }
  match.status = 200;
  const std::vector<std::string_view> pattern = SplitPath(match.route->pattern);
  for (size_t i = 0; i < path.size(); ++i) {
    if (!IsParam(pattern[i])) continue;
    match.params.emplace(pattern[i].substr(1, pattern[i].size() - 2), std::move(path[i]));
  }
  return match;
}

}  // namespace base::http
