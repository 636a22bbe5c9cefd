#include "base/result.h"

#include <cerrno>
#include <memory>
#include <set>

#include <gtest/gtest.h>

#include "tests/support/results.h"

namespace base {
namespace {

Result<int> Half(int value) {
  if (value % 2 != 0) return Error(Code::kInvalidArgument, "an odd number has no half");
  return value / 2;
}

Result<int> Quarter(int value) {
  ASSIGN_OR_RETURN(int half, Half(value));
  ASSIGN_OR_RETURN(int quarter, Half(half).Annotate("quarter"));
  return quarter;
}

Result<void> MustBeEven(int value) {
  RETURN_IF_ERROR(Half(value));
  return {};
}

TEST(Result, CarriesAValueOrAnError) {
  EXPECT_EQ(Half(4).value(), 2);
  EXPECT_ERROR(Half(3), Code::kInvalidArgument);
}

TEST(Result, MacrosPassErrorsOn) {
  EXPECT_EQ(Quarter(8).value(), 2);
  EXPECT_EQ(Quarter(7).error().message(), "an odd number has no half");
  EXPECT_EQ(Quarter(6).error().message(), "quarter: an odd number has no half");
  EXPECT_OK(MustBeEven(2));
  EXPECT_ERROR(MustBeEven(1), Code::kInvalidArgument);
}

TEST(Result, HoldsWhatCanOnlyBeMoved) {
  auto make = [](bool works) -> Result<std::unique_ptr<int>> {
    if (!works) return Error(Code::kIo, "broken");
    return std::make_unique<int>(5);
  };
  auto use = [&](bool works) -> Result<int> {
    ASSIGN_OR_RETURN(std::unique_ptr<int> made, make(works));
    return *made;
  };
  EXPECT_EQ(use(true).value(), 5);
  EXPECT_ERROR(use(false), Code::kIo);
}

TEST(Error, GainsContextInFrontAndKeepsItsCode) {
  Error error = Error(Code::kNotFound, "no such file").Annotate("blob ab").Annotate("image x");
  EXPECT_EQ(error.code(), Code::kNotFound);
  EXPECT_EQ(error.ToString(), "NOT_FOUND: image x: blob ab: no such file");
}

TEST(Error, EveryCodeHasItsOwnName) {
  std::set<std::string_view> names;
  for (int code = 0; code <= static_cast<int>(Code::kCancelled); ++code)
    names.insert(CodeName(static_cast<Code>(code)));
  EXPECT_EQ(names.size(), static_cast<size_t>(Code::kCancelled) + 1);
}

TEST(Error, ComesFromErrno) {
  EXPECT_EQ(ErrnoError(ENOSPC, "write x").code(), Code::kOutOfSpace);
  EXPECT_EQ(ErrnoError(EDQUOT, "write x").code(), Code::kOutOfSpace);
  EXPECT_EQ(ErrnoError(ENOENT, "open x").code(), Code::kNotFound);
  EXPECT_EQ(ErrnoError(EEXIST, "open x").code(), Code::kAlreadyExists);
  EXPECT_EQ(ErrnoError(EACCES, "open x").code(), Code::kIo);
  EXPECT_EQ(ErrnoError(ENOENT, "open x").message(), "open x: No such file or directory");
}

}  // namespace
}  // namespace base
