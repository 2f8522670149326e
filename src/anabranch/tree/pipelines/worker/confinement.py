"""What a pipeline's process may use: it parses what others send."""

import ctypes
import os
import pwd
import resource

_LIMITS = {
    resource.RLIMIT_AS: 2 * 1024**3,
    resource.RLIMIT_NOFILE: 1024,
    resource.RLIMIT_FSIZE: 0,
    resource.RLIMIT_CORE: 0,
}
_NICENESS = 5
_USER = "nobody"
_PR_SET_NO_NEW_PRIVS = 38


def confine() -> None:
    """Give up privileges for good, limit memory and descriptors, write no file.

    Raises:
        OSError: the kernel refused.
        KeyError: root is to become ``nobody``, but there is no such user.
    """
    for limit, most in _LIMITS.items():
        _, hard = resource.getrlimit(limit)
        if hard != resource.RLIM_INFINITY:
            most = min(most, hard)
        resource.setrlimit(limit, (most, most))
    os.nice(_NICENESS)
    if os.geteuid() == 0:
        user = pwd.getpwnam(_USER)
        os.setgroups([])
        os.setgid(user.pw_gid)
        os.setuid(user.pw_uid)
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "no_new_privs")
