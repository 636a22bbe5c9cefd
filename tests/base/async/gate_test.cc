#include "base/async/gate.h"

#include <thread>

#include <gtest/gtest.h>

namespace base::async {
namespace {

TEST(Gate, CountsWhoIsInside) {
  Gate gate;
  Gate::Pass first = gate.Enter();
  {
    Gate::Pass second = gate.Enter();
    EXPECT_TRUE(second);
    EXPECT_EQ(gate.inside(), 2);
  }
  EXPECT_EQ(gate.inside(), 1);
  Gate::Pass moved = std::move(first);
  EXPECT_EQ(gate.inside(), 1);
  moved = Gate::Pass();
  EXPECT_EQ(gate.inside(), 0);
}

TEST(Gate, LetsNobodyInOnceClosed) {
  Gate gate;
  gate.Close();
  gate.Close();
  EXPECT_FALSE(gate.Enter());
  EXPECT_EQ(gate.inside(), 0);
}

TEST(Gate, WaitsForTheLastToLeave) {
  Gate gate;
  Gate::Pass pass = gate.Enter();
  gate.Close();
  EXPECT_FALSE(gate.WaitEmpty(1));
  std::thread leaver([held = std::move(pass)]() mutable { held = Gate::Pass(); });
  EXPECT_TRUE(gate.WaitEmpty(60'000));
  leaver.join();
}

TEST(Gate, WaitsNotAtAllWhenEmpty) {
  Gate gate;
  EXPECT_TRUE(gate.WaitEmpty(0));
}

}  // namespace
}  // namespace base::async
