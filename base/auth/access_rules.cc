#include "base/auth/access_rules.h"

#include <algorithm>
#include <vector>

namespace base::auth {
namespace {

struct Token {
  enum Kind { kLiteral, kWithinSegment, kAnything } kind = kLiteral;
  char literal = 0;
};

std::vector<Token> TokensOf(std::string_view pattern) {
  std::vector<Token> tokens;
  while (!pattern.empty()) {
    size_t taken = 1;
    if (pattern.starts_with("**")) {
      taken = 2;
      tokens.push_back({Token::kAnything});
    } else if (pattern.front() == '*') {
      tokens.push_back({Token::kWithinSegment});
    } else if (pattern.front() == '{' && pattern.find('}') != std::string_view::npos) {
      taken = pattern.find('}') + 1;
      tokens.push_back({Token::kWithinSegment});
    } else {
      tokens.push_back({Token::kLiteral, pattern.front()});
    }
    pattern.remove_prefix(taken);
  }
  return tokens;
}

}  // namespace

// All places in the pattern where the path read so far may be, at once: no pattern makes it go
// back. at[i]: the tokens before i are matched; inside[i]: so is a part of token i, a
// kWithinSegment.
bool PathMatches(std::string_view path, std::string_view pattern) {
  const std::vector<Token> tokens = TokensOf(pattern);
  std::vector<bool> at(tokens.size() + 1);
  const auto skip_anything = [&tokens](std::vector<bool>& places) {
    for (size_t i = 0; i < tokens.size(); ++i)
      if (places[i] && tokens[i].kind == Token::kAnything) places[i + 1] = true;
  };
  at[0] = true;
  skip_anything(at);
  std::vector<bool> inside(tokens.size());
  for (const char c : path) {
    std::vector<bool> next(tokens.size() + 1);
    std::vector<bool> next_inside(tokens.size());
    for (size_t i = 0; i < tokens.size(); ++i) {
      if (!at[i] && !inside[i]) continue;
      if (tokens[i].kind == Token::kAnything) next[i] = true;
      if (tokens[i].kind == Token::kLiteral && c == tokens[i].literal) next[i + 1] = true;
      if (tokens[i].kind == Token::kWithinSegment && c != '/') next[i + 1] = next_inside[i] = true;
    }
    skip_anything(next);
    at = std::move(next);
    inside = std::move(next_inside);
  }
  return at.back();
}

bool Allows(const Caller& caller, std::string_view service_type, std::string_view prefix,
            std::string_view method, std::string_view path) {
  if (!caller.access_rules.has_value()) return true;
  if (service_type.empty()) return false;
  if (service_type == "identity" && method == "GET" && path.ends_with("/v3/auth/tokens"))
    return true;
  const std::string_view below = path.starts_with(prefix) ? path.substr(prefix.size()) : path;
  return std::any_of(caller.access_rules->begin(), caller.access_rules->end(),
                     [&](const AccessRule& rule) {
                       return rule.service == service_type && rule.method == method &&
                              (PathMatches(below, rule.path) || PathMatches(path, rule.path));
                     });
}

}  // namespace base::auth
