"""Which system calls a sandboxed module may make: what Python, NumPy and servers need."""

import errno
import socket
import tempfile

import pyseccomp as seccomp

_CLONE_THREAD = 0x00010000

_NAMES = """
accept accept4 access bind brk clock_getres clock_gettime clock_nanosleep close close_range connect
dup dup2 dup3 epoll_create epoll_create1 epoll_ctl epoll_pwait epoll_wait eventfd eventfd2 exit
exit_group faccessat faccessat2 fadvise64 fallocate fchmod fcntl fdatasync flock fstat fstatfs
fsync ftruncate futex futex_waitv getcwd getdents getdents64 getegid geteuid getgid getitimer
getpeername getpid getppid getrandom getrlimit getrusage getsockname getsockopt gettid gettimeofday
getuid listen lseek lstat madvise membarrier mkdir mkdirat mmap mprotect mremap munmap nanosleep
newfstatat open openat pause pipe pipe2 poll ppoll pread64 preadv preadv2 prlimit64 pselect6
pwrite64 pwritev pwritev2 read readahead readlink readlinkat readv recvfrom recvmmsg recvmsg rename
renameat renameat2 restart_syscall rmdir rseq rt_sigaction rt_sigpending rt_sigprocmask
rt_sigreturn rt_sigsuspend rt_sigtimedwait sched_get_priority_max sched_get_priority_min
sched_getaffinity sched_getparam sched_getscheduler sched_yield select sendfile sendmmsg sendmsg
sendto set_robust_list setitimer setsockopt shutdown sigaltstack socketpair splice stat statfs
statx sysinfo tgkill time timerfd_create timerfd_gettime timerfd_settime times truncate umask uname
unlink unlinkat utimensat wait4 write writev arch_prctl
"""
ALLOWED = tuple(_NAMES.split())
_FAMILIES = (socket.AF_INET, socket.AF_INET6)
_KINDS = (socket.SOCK_STREAM, socket.SOCK_DGRAM)
_KIND_MASK = 0xF
_PR_SET_NAME = 15


def program() -> bytes:
    """Return a filter for the kernel that refuses all but :data:`ALLOWED`, threads, plain sockets.

    A refused call fails with EPERM: a module may catch it, and reads why it cannot be. Making it
    takes much longer than having it hold (:func:`..kernel.filter_calls`).

    Raises:
        OSError: libseccomp refused.
    """
    rules = seccomp.SyscallFilter(seccomp.ERRNO(errno.EPERM))
    for name in ALLOWED:
        try:
            rules.add_rule(seccomp.ALLOW, name)
        except (OSError, ValueError, RuntimeError):
            continue  # this machine's kind has no such call
    rules.add_rule(
        seccomp.ALLOW, "clone", seccomp.Arg(0, seccomp.MASKED_EQ, _CLONE_THREAD, _CLONE_THREAD)
    )
    # Its flags are in memory, which a filter cannot see: glibc then asks by clone.
    rules.add_rule(seccomp.ERRNO(errno.ENOSYS), "clone3")
    rules.add_rule(seccomp.ALLOW, "prctl", seccomp.Arg(0, seccomp.EQ, _PR_SET_NAME))
    for family in _FAMILIES:
        for kind in _KINDS:
            rules.add_rule(
                seccomp.ALLOW, "socket",
                seccomp.Arg(0, seccomp.EQ, int(family)),
                seccomp.Arg(1, seccomp.MASKED_EQ, _KIND_MASK, int(kind)),
            )  # fmt: skip
    # Of ioctl what asks a descriptor: bytes that wait, and whether it is to block.
    for request in (0x541B, 0x5421, 0x5451, 0x5450):
        rules.add_rule(seccomp.ALLOW, "ioctl", seccomp.Arg(1, seccomp.EQ, request))
    with tempfile.TemporaryFile() as file:
        rules.export_bpf(file)
        file.seek(0)
        return file.read()
