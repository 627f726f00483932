# SPDX-License-Identifier: Apache-2.0
"""The part of ``<linux/fuse.h>`` that a binder device needs: FUSE protocol 7.40 and CUSE.

Constants keep the C names.  Only what is spoken is declared; an opcode that is missing here is
answered with ENOSYS.
"""

from __future__ import annotations

import platform
from typing import Final

from binderwire.codec import Record, Struct, pad, s32, u16, u32, u64
from binderwire.ioc import IOC_WRITE, ioc

FUSE_KERNEL_VERSION: Final = 7
FUSE_KERNEL_MINOR_VERSION: Final = 40
FUSE_ROOT_ID: Final = 1
FUSE_MIN_READ_BUFFER: Final = 8192

# Opcodes: one row each
OPCODES: Final[dict[int, str]] = {}


def _opcode(number: int, name: str) -> int:
    OPCODES[number] = name
    return number


FUSE_LOOKUP: Final = _opcode(1, "FUSE_LOOKUP")
FUSE_FORGET: Final = _opcode(2, "FUSE_FORGET")
FUSE_GETATTR: Final = _opcode(3, "FUSE_GETATTR")
FUSE_SETATTR: Final = _opcode(4, "FUSE_SETATTR")
FUSE_SYMLINK: Final = _opcode(6, "FUSE_SYMLINK")
FUSE_MKNOD: Final = _opcode(8, "FUSE_MKNOD")
FUSE_MKDIR: Final = _opcode(9, "FUSE_MKDIR")
FUSE_UNLINK: Final = _opcode(10, "FUSE_UNLINK")
FUSE_RMDIR: Final = _opcode(11, "FUSE_RMDIR")
FUSE_RENAME: Final = _opcode(12, "FUSE_RENAME")
FUSE_LINK: Final = _opcode(13, "FUSE_LINK")
FUSE_OPEN: Final = _opcode(14, "FUSE_OPEN")
FUSE_READ: Final = _opcode(15, "FUSE_READ")
FUSE_WRITE: Final = _opcode(16, "FUSE_WRITE")
FUSE_STATFS: Final = _opcode(17, "FUSE_STATFS")
FUSE_RELEASE: Final = _opcode(18, "FUSE_RELEASE")
FUSE_FSYNC: Final = _opcode(20, "FUSE_FSYNC")
FUSE_FLUSH: Final = _opcode(25, "FUSE_FLUSH")
FUSE_INIT: Final = _opcode(26, "FUSE_INIT")
FUSE_OPENDIR: Final = _opcode(27, "FUSE_OPENDIR")
FUSE_READDIR: Final = _opcode(28, "FUSE_READDIR")
FUSE_RELEASEDIR: Final = _opcode(29, "FUSE_RELEASEDIR")
FUSE_SETLK: Final = _opcode(32, "FUSE_SETLK")
FUSE_SETLKW: Final = _opcode(33, "FUSE_SETLKW")
FUSE_ACCESS: Final = _opcode(34, "FUSE_ACCESS")
FUSE_CREATE: Final = _opcode(35, "FUSE_CREATE")
FUSE_INTERRUPT: Final = _opcode(36, "FUSE_INTERRUPT")
FUSE_DESTROY: Final = _opcode(38, "FUSE_DESTROY")
FUSE_IOCTL: Final = _opcode(39, "FUSE_IOCTL")
FUSE_POLL: Final = _opcode(40, "FUSE_POLL")
FUSE_BATCH_FORGET: Final = _opcode(42, "FUSE_BATCH_FORGET")
FUSE_FALLOCATE: Final = _opcode(43, "FUSE_FALLOCATE")
FUSE_RENAME2: Final = _opcode(45, "FUSE_RENAME2")
CUSE_INIT: Final = _opcode(4096, "CUSE_INIT")

# Notifications, sent with unique = 0 and the code in the error field
FUSE_NOTIFY_POLL: Final = 1

# FUSE_INIT flags; the second word (flags2) holds bits 32 and up
FUSE_ASYNC_READ: Final = 1 << 0
FUSE_ATOMIC_O_TRUNC: Final = 1 << 3
FUSE_BIG_WRITES: Final = 1 << 5
FUSE_FLOCK_LOCKS: Final = 1 << 10
FUSE_PARALLEL_DIROPS: Final = 1 << 18
FUSE_INIT_EXT: Final = 1 << 30
FUSE_DIRECT_IO_ALLOW_MMAP: Final = 1 << 36
FUSE_PASSTHROUGH: Final = 1 << 37

FOPEN_DIRECT_IO: Final = 1 << 0
FOPEN_KEEP_CACHE: Final = 1 << 1
FOPEN_NONSEEKABLE: Final = 1 << 2
FOPEN_STREAM: Final = 1 << 4
FOPEN_PASSTHROUGH: Final = 1 << 7

FUSE_IOCTL_COMPAT: Final = 1 << 0
FUSE_IOCTL_UNRESTRICTED: Final = 1 << 1
FUSE_IOCTL_RETRY: Final = 1 << 2
FUSE_IOCTL_DIR: Final = 1 << 4

FUSE_POLL_SCHEDULE_NOTIFY: Final = 1 << 0

# <linux/fs.h>: what lsattr and its like ask, which the kernel asks us in their name
FS_IOC_GETFLAGS: Final = 0x80086601
FS_IOC_SETFLAGS: Final = 0x40086602
FS_IOC_FSGETXATTR: Final = 0x801C581F
FS_IOC_FSSETXATTR: Final = 0x401C5820
FILE_ATTRIBUTE_IOCTLS: Final = frozenset(
    {FS_IOC_GETFLAGS, FS_IOC_SETFLAGS, FS_IOC_FSGETXATTR, FS_IOC_FSSETXATTR}
)

FATTR_MODE: Final = 1 << 0
FATTR_UID: Final = 1 << 1
FATTR_GID: Final = 1 << 2
FATTR_SIZE: Final = 1 << 3
FATTR_ATIME: Final = 1 << 4
FATTR_MTIME: Final = 1 << 5

FUSE_LK_FLOCK: Final = 1 << 0
FUSE_RELEASE_FLOCK_UNLOCK: Final = 1 << 1
# <asm-generic/fcntl.h>: the kinds of lock
F_RDLCK: Final = 0
F_WRLCK: Final = 1
F_UNLCK: Final = 2

# The open(2) flags of <fcntl.h> that a device cares about, as FUSE_OPEN carries them
O_RDONLY: Final = 0
O_NONBLOCK: Final = 0o4000
O_DIRECT: Final = 0o200000 if platform.machine() == "aarch64" else 0o40000

CUSE_UNRESTRICTED_IOCTL: Final = 1 << 0

fuse_in_header = Record(
    "fuse_in_header",
    Struct(
        "len" / u32,
        "opcode" / u32,
        "unique" / u64,
        "nodeid" / u64,
        "uid" / u32,
        "gid" / u32,
        "pid" / u32,
        "total_extlen" / u16,  # in units of 8 bytes
        "padding" / u16,
    ),
)
fuse_out_header = Record("fuse_out_header", Struct("len" / u32, "error" / s32, "unique" / u64))
fuse_attr = Record(
    "fuse_attr",
    Struct(
        "ino" / u64,
        "size" / u64,
        "blocks" / u64,
        "atime" / u64,
        "mtime" / u64,
        "ctime" / u64,
        "atimensec" / u32,
        "mtimensec" / u32,
        "ctimensec" / u32,
        "mode" / u32,
        "nlink" / u32,
        "uid" / u32,
        "gid" / u32,
        "rdev" / u32,
        "blksize" / u32,
        "flags" / u32,
    ),
)
fuse_entry_out = Record(
    "fuse_entry_out",
    Struct(
        "nodeid" / u64,
        "generation" / u64,
        "entry_valid" / u64,
        "attr_valid" / u64,
        "entry_valid_nsec" / u32,
        "attr_valid_nsec" / u32,
        *fuse_attr.declaration.subcons,
    ),
)
fuse_attr_out = Record(
    "fuse_attr_out",
    Struct(
        "attr_valid" / u64,
        "attr_valid_nsec" / u32,
        "dummy" / u32,
        *fuse_attr.declaration.subcons,
    ),
)
fuse_init_in = Record(
    "fuse_init_in",
    Struct(
        "major" / u32,
        "minor" / u32,
        "max_readahead" / u32,
        "flags" / u32,
        "flags2" / u32,
        pad(4 * 11),
    ),
)
fuse_init_out = Record(
    "fuse_init_out",
    Struct(
        "major" / u32,
        "minor" / u32,
        "max_readahead" / u32,
        "flags" / u32,
        "max_background" / u16,
        "congestion_threshold" / u16,
        "max_write" / u32,
        "time_gran" / u32,
        "max_pages" / u16,
        "map_alignment" / u16,
        "flags2" / u32,
        "max_stack_depth" / u32,
        pad(4 * 6),
    ),
)
cuse_init_in = Record(
    "cuse_init_in", Struct("major" / u32, "minor" / u32, "unused" / u32, "flags" / u32)
)
cuse_init_out = Record(
    "cuse_init_out",
    Struct(
        "major" / u32,
        "minor" / u32,
        "unused" / u32,
        "flags" / u32,
        "max_read" / u32,
        "max_write" / u32,
        "dev_major" / u32,
        "dev_minor" / u32,
        pad(4 * 10),
    ),
)
fuse_open_in = Record("fuse_open_in", Struct("flags" / u32, "open_flags" / u32))
fuse_open_out = Record("fuse_open_out", Struct("fh" / u64, "open_flags" / u32, "backing_id" / s32))
fuse_release_in = Record(
    "fuse_release_in",
    Struct("fh" / u64, "flags" / u32, "release_flags" / u32, "lock_owner" / u64),
)
fuse_lk_in = Record(
    "fuse_lk_in",
    Struct(
        "fh" / u64,
        "owner" / u64,
        "start" / u64,
        "end" / u64,
        "type" / u32,
        "pid" / u32,
        "lk_flags" / u32,
        "padding" / u32,
    ),
)
fuse_flush_in = Record(
    "fuse_flush_in", Struct("fh" / u64, "unused" / u32, "padding" / u32, "lock_owner" / u64)
)
FUSE_READ_LOCKOWNER: Final = 2  # of ``read_flags``
fuse_read_in = Record(
    "fuse_read_in",
    Struct(
        "fh" / u64,
        "offset" / u64,
        "size" / u32,
        "read_flags" / u32,
        "lock_owner" / u64,
        "flags" / u32,
        "padding" / u32,
    ),
)
fuse_dirent = Record("fuse_dirent", Struct("ino" / u64, "off" / u64, "namelen" / u32, "type" / u32))
fuse_ioctl_in = Record(
    "fuse_ioctl_in",
    Struct(
        "fh" / u64,
        "flags" / u32,
        "cmd" / u32,
        "arg" / u64,
        "in_size" / u32,
        "out_size" / u32,
    ),
)
fuse_ioctl_iovec = Record("fuse_ioctl_iovec", Struct("base" / u64, "len" / u64))
fuse_ioctl_out = Record(
    "fuse_ioctl_out",
    Struct("result" / s32, "flags" / u32, "in_iovs" / u32, "out_iovs" / u32),
)
fuse_poll_in = Record("fuse_poll_in", Struct("fh" / u64, "kh" / u64, "flags" / u32, "events" / u32))
fuse_poll_out = Record("fuse_poll_out", Struct("revents" / u32, "padding" / u32))
fuse_notify_poll_wakeup_out = Record("fuse_notify_poll_wakeup_out", Struct("kh" / u64))
fuse_interrupt_in = Record("fuse_interrupt_in", Struct("unique" / u64))
fuse_forget_in = Record("fuse_forget_in", Struct("nlookup" / u64))
fuse_forget_one = Record("fuse_forget_one", Struct("nodeid" / u64, "nlookup" / u64))
fuse_batch_forget_in = Record("fuse_batch_forget_in", Struct("count" / u32, "dummy" / u32))
fuse_setattr_in = Record(
    "fuse_setattr_in",
    Struct(
        "valid" / u32,
        "padding" / u32,
        "fh" / u64,
        "size" / u64,
        "lock_owner" / u64,
        "atime" / u64,
        "mtime" / u64,
        "ctime" / u64,
        "atimensec" / u32,
        "mtimensec" / u32,
        "ctimensec" / u32,
        "mode" / u32,
        "unused4" / u32,
        "uid" / u32,
        "gid" / u32,
        "unused5" / u32,
    ),
)
fuse_rename_in = Record("fuse_rename_in", Struct("newdir" / u64))
fuse_rename2_in = Record("fuse_rename2_in", Struct("newdir" / u64, "flags" / u32, "padding" / u32))
fuse_kstatfs = Record(
    "fuse_kstatfs",
    Struct(
        "blocks" / u64,
        "bfree" / u64,
        "bavail" / u64,
        "files" / u64,
        "ffree" / u64,
        "bsize" / u32,
        "namelen" / u32,
        "frsize" / u32,
        "padding" / u32,
        pad(4 * 6),
    ),
)
fuse_backing_map = Record("fuse_backing_map", Struct("fd" / s32, "flags" / u32, "padding" / u64))

FUSE_DEV_IOC_MAGIC: Final = chr(229)
_backing_id = Record("backing_id", Struct("value" / u32))
FUSE_DEV_IOC_BACKING_OPEN: Final = ioc(IOC_WRITE, FUSE_DEV_IOC_MAGIC, 1, fuse_backing_map.size)
FUSE_DEV_IOC_BACKING_CLOSE: Final = ioc(IOC_WRITE, FUSE_DEV_IOC_MAGIC, 2, _backing_id.size)
