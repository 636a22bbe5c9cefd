#pragma once

#include <string>

namespace controlplane::convert {

// What a confined program may ask of the kernel, as a seccomp filter in the form that bubblewrap's
// --seccomp reads (struct sock_filter, one after the other).
//
// All is allowed but what converting a file never needs, and what holes in kernels were found
// behind: other processes' memory, mounts, namespaces, keys, BPF, performance counters, io_uring,
// modules, clocks. Those fail with EPERM, as if the kernel had been built without. Sockets are of
// the unix family only; clone3, whose flags a filter can't see, is not there (ENOSYS), and the C
// library goes back to clone. Calls of another architecture than ours end the process.
std::string SyscallFilter();

}  // namespace controlplane::convert
