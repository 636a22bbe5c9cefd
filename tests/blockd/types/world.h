#pragma once

#include <gtest/gtest.h>

#include "blockd/types/handlers.h"
#include "tests/blockd/api/harness.h"
#include "tests/support/results.h"

namespace blockd::types {

// The calls about types, over a catalog in memory.
class TypesTest : public testing::Test {
 protected:
  TypesTest() {
    EXPECT_OK(types_.Start());
    std::vector<api::Route> routes;
    AppendRoutes(Context{api_.catalog, types_, api_.exports}, &routes);
    api_.Mount(routes);
  }
  base::http::Response Ask(const CallerPtr& caller, std::string_view method,
                           std::string_view target, std::string_view body = {}, int minor = 70) {
    return api_.Call(caller, method, target, body, minor);
  }
  // The id of a new type.
  std::string MakeType(const std::string& name, bool is_public = true) {
    VolumeType type;
    type.name = name;
    type.is_public = is_public;
    auto made = types_.Create(std::move(type));
    EXPECT_OK(made);
    return made->id;
  }
  std::string MakeQos(const std::string& name, Specs specs,
                      Consumer consumer = Consumer::kBackEnd) {
    QosSpec spec;
    spec.name = name;
    spec.consumer = consumer;
    spec.specs = std::move(specs);
    auto made = types_.CreateQos(std::move(spec));
    EXPECT_OK(made);
    return made->id;
  }

  Harness api_;
  TypeStore types_{api_.catalog};
  const CallerPtr me_ = MemberOf();
  const CallerPtr you_ = MemberOf(kYourProject);
  const CallerPtr admin_ = Admin();
};

}  // namespace blockd::types
