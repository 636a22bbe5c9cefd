#pragma once

#include <cstdlib>
#include <memory>
#include <string>
#include <string_view>

#include <gtest/gtest.h>

#include "base/uuid.h"
#include "chunkstore/ceph/cluster.h"
#include "tests/support/results.h"

// For tests that tests/cluster/with_cluster.py runs: a way to its cluster, and means to break it.

namespace chunkstore::ceph {

// Each connection has a namespace of its own unless it is given one.
inline ClusterOptions OptionsOfTest(const std::string& space = base::NewUuidHex()) {
  ClusterOptions options;
  options.pool = "chunks";
  options.meta_pool = "meta";
  options.space = space;
  options.operation_timeout_ms = 20'000;
  return options;
}

inline std::shared_ptr<Cluster> ConnectForTest(const std::string& space = base::NewUuidHex()) {
  auto connected = Cluster::Connect(OptionsOfTest(space));
  EXPECT_OK(connected);
  return connected ? *connected : nullptr;
}

// "kill osd.0" and the like; and any command of Ceph's.
inline void Tool(const std::string& words) {
  const std::string command = std::string(std::getenv("CEPH_TOOL")) + " " + words;
  ASSERT_EQ(std::system(command.c_str()), 0) << command;
}
inline void Shell(const std::string& command) {
  ASSERT_EQ(std::system(("(" + command + ") >/dev/null 2>&1").c_str()), 0) << command;
}

}  // namespace chunkstore::ceph
