#include "base/result.h"

// Compiled by ctest with one of TRY_...; see CMakeLists.txt.

namespace base {

Result<int> Count();
Error Broken();

void Use() {
#if defined(TRY_result_used)
  if (!Count().has_value()) return;
#elif defined(TRY_result_ignored)
  Count();
#elif defined(TRY_error_ignored)
  Broken();
#endif
}

}  // namespace base
