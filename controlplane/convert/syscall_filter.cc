#include "controlplane/convert/syscall_filter.h"

#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <vector>

#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <sys/socket.h>
#include <sys/syscall.h>

namespace controlplane::convert {
namespace {

#if defined(__x86_64__)
constexpr uint32_t kArchitecture = AUDIT_ARCH_X86_64;
constexpr uint32_t kForeignBit = 0x40000000;  // calls of x32
#elif defined(__aarch64__)
constexpr uint32_t kArchitecture = AUDIT_ARCH_AARCH64;
constexpr uint32_t kForeignBit = 0x40000000;  // no call has it
#else
#error "name this machine's AUDIT_ARCH_ here"
#endif

constexpr uint32_t kNewNamespaces = CLONE_NEWNS | CLONE_NEWCGROUP | CLONE_NEWUTS | CLONE_NEWIPC |
                                    CLONE_NEWUSER | CLONE_NEWPID | CLONE_NEWNET;

constexpr long kDenied[] = {
    // Other processes.
    SYS_ptrace,
    SYS_process_vm_readv,
    SYS_process_vm_writev,
    SYS_kcmp,
    SYS_pidfd_getfd,
    SYS_migrate_pages,
    SYS_move_pages,
    // Mounts and namespaces.
    SYS_mount,
    SYS_umount2,
    SYS_pivot_root,
    SYS_chroot,
    SYS_open_tree,
    SYS_move_mount,
    SYS_mount_setattr,
    SYS_fsopen,
    SYS_fsconfig,
    SYS_fsmount,
    SYS_fspick,
    SYS_unshare,
    SYS_setns,
    SYS_open_by_handle_at,
    SYS_name_to_handle_at,
    SYS_quotactl,
    SYS_fanotify_init,
    // What much of the kernel hangs on.
    SYS_keyctl,
    SYS_add_key,
    SYS_request_key,
    SYS_bpf,
    SYS_perf_event_open,
    SYS_userfaultfd,
    SYS_io_uring_setup,
    SYS_io_uring_enter,
    SYS_io_uring_register,
    SYS_vmsplice,
    SYS_personality,
#ifdef SYS_modify_ldt
    SYS_modify_ldt,
#endif
    // The machine.
    SYS_kexec_load,
    SYS_kexec_file_load,
    SYS_init_module,
    SYS_finit_module,
    SYS_delete_module,
    SYS_reboot,
    SYS_swapon,
    SYS_swapoff,
    SYS_acct,
    SYS_syslog,
    SYS_settimeofday,
    SYS_clock_settime,
    SYS_clock_adjtime,
    SYS_adjtimex,
#ifdef SYS_iopl
    SYS_iopl,
    SYS_ioperm,
#endif
};

using Program = std::vector<sock_filter>;

void Load(size_t offset, Program* program) {
  program->push_back(BPF_STMT(BPF_LD | BPF_W | BPF_ABS, static_cast<uint32_t>(offset)));
}

void Return(uint32_t verdict, Program* program) {
  program->push_back(BPF_STMT(BPF_RET | BPF_K, verdict));
}

void Refuse(int error, Program* program) {
  Return(SECCOMP_RET_ERRNO | static_cast<uint32_t>(error), program);
}

// Goes on with the next instruction where the test (BPF_JEQ, BPF_JSET) of the loaded word holds,
// and `skipped` instructions further where it does not.
void OnlyIf(uint16_t test, uint32_t value, uint8_t skipped, Program* program) {
  program->push_back(BPF_JUMP(BPF_JMP | test | BPF_K, value, 0, skipped));
}

}  // namespace

std::string SyscallFilter() {
  Program program;
  Load(offsetof(seccomp_data, arch), &program);
  program.push_back(BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, kArchitecture, 1, 0));
  Return(SECCOMP_RET_KILL_PROCESS, &program);
  Load(offsetof(seccomp_data, nr), &program);
  OnlyIf(BPF_JSET, kForeignBit, 1, &program);
  Return(SECCOMP_RET_KILL_PROCESS, &program);
  for (const long call : kDenied) {
    OnlyIf(BPF_JEQ, static_cast<uint32_t>(call), 1, &program);
    Refuse(EPERM, &program);
  }
  OnlyIf(BPF_JEQ, SYS_clone3, 1, &program);
  Refuse(ENOSYS, &program);

  // The first argument's lower half: both machines are little-endian.
  OnlyIf(BPF_JEQ, SYS_clone, 4, &program);
  Load(offsetof(seccomp_data, args[0]), &program);
  OnlyIf(BPF_JSET, kNewNamespaces, 1, &program);
  Refuse(EPERM, &program);
  Return(SECCOMP_RET_ALLOW, &program);

  OnlyIf(BPF_JEQ, SYS_socket, 4, &program);
  Load(offsetof(seccomp_data, args[0]), &program);
  program.push_back(BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, AF_UNIX, 1, 0));
  Refuse(EAFNOSUPPORT, &program);
  Return(SECCOMP_RET_ALLOW, &program);

  Return(SECCOMP_RET_ALLOW, &program);
  return std::string(reinterpret_cast<const char*>(program.data()),
                     program.size() * sizeof(sock_filter));
}

}  // namespace controlplane::convert
