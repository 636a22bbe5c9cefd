#pragma once

#include <string>
#include <string_view>

namespace base {

// A random (version 4) UUID, lower case: with dashes as Glance and Cinder show it, or 32 hex digits
// as Keystone does. Thread-safe.
std::string NewUuid();
std::string NewUuidHex();

// True for 8-4-4-4-12 hex digits (any case), or 32 of them.
bool IsUuid(std::string_view text);

}  // namespace base
