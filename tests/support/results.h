#pragma once

#include <gtest/gtest.h>

#include "base/result.h"

// Looking at a Result in a test: what failed prints the whole error.
//
//   ASSERT_OK(files.Remove(path));
//   ASSERT_OK_AND_ASSIGN(auto info, files.Stat(path));
//   EXPECT_ERROR(files.Stat(path), base::Code::kNotFound);

namespace support {

template <typename T>
testing::AssertionResult IsOk(const base::Result<T>& result) {
  if (result.has_value()) return testing::AssertionSuccess();
  return testing::AssertionFailure() << result.error().ToString();
}

template <typename T>
testing::AssertionResult IsError(const base::Result<T>& result, base::Code code) {
  if (result.has_value()) {
    return testing::AssertionFailure() << "succeeded; expected " << base::CodeName(code);
  }
  if (result.error().code() == code) return testing::AssertionSuccess();
  return testing::AssertionFailure()
         << result.error().ToString() << "; expected " << base::CodeName(code);
}

}  // namespace support

#define ASSERT_OK(expr) ASSERT_TRUE(::support::IsOk(expr))
#define EXPECT_OK(expr) EXPECT_TRUE(::support::IsOk(expr))
#define ASSERT_ERROR(expr, code) ASSERT_TRUE(::support::IsError(expr, code))
#define EXPECT_ERROR(expr, code) EXPECT_TRUE(::support::IsError(expr, code))

#define ASSERT_OK_AND_ASSIGN(lhs, expr) \
  ASSERT_OK_AND_ASSIGN_IMPL(QUARRY_CONCAT(asserted_result_, __LINE__), lhs, expr)
#define ASSERT_OK_AND_ASSIGN_IMPL(temp, lhs, expr) \
  auto temp = (expr);                              \
  ASSERT_TRUE(::support::IsOk(temp));              \
  lhs = std::move(temp).value()
