#pragma once

#include <gtest/gtest.h>

#include "blockd/tenancy/tenancy.h"
#include "tests/blockd/api/harness.h"
#include "tests/support/results.h"

namespace blockd::tenancy {

// The calls about projects, over a catalog in memory.
class TenancyTest : public testing::Test {
 protected:
  TenancyTest() {
    EXPECT_OK(types_.Start());
    type_ = types_.GetByName(types::kDefaultTypeName)->id;
    std::vector<api::Route> routes;
    AppendRoutes(Context{api_.catalog, types_, messages_, transfers_}, &routes);
    api_.Mount(routes);
  }
  base::http::Response Ask(const CallerPtr& caller, std::string_view method,
                           std::string_view target, std::string_view body = {}, int minor = 70) {
    return api_.Call(caller, method, target, body, minor);
  }

  Harness api_;
  types::TypeStore types_{api_.catalog};
  Messages messages_{api_.catalog};
  Transfers transfers_{api_.catalog, types_};
  std::string type_;  // the default one's id
  const CallerPtr me_ = MemberOf();
  const CallerPtr you_ = MemberOf(kYourProject);
  const CallerPtr admin_ = Admin();
};

}  // namespace blockd::tenancy
