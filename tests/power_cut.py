#!/usr/bin/env python3
"""A disk of one's own whose power can be cut: an ext4 file system in a file, on a loop device.

Cutting means EXT4_IOC_SHUTDOWN without a log flush: from then on every write fails, and whatever was not fsynced before
is gone, as when the power fails under a machine. The next mount replays the journal. SIGKILL alone cannot show a missing
fsync, because the page cache survives it.

  power_cut.py possible FOLDER   exit 0 if this machine can do it; else one line that says what is missing
  power_cut.py begin FOLDER      make FOLDER/disk and mount it at FOLDER/mnt
  power_cut.py cut FOLDER        cut the power; prints when it began to fail, in microseconds since the boot (CLOCK_BOOTTIME)
  power_cut.py again FOLDER      mount again after a cut (kill whoever has files open there first)
  power_cut.py end FOLDER        unmount and remove
Used by tests/it/powercut.rs. Needs root, loop devices, e2fsprogs.
"""

import fcntl
import os
import shutil
import struct
import subprocess
import sys
import time

# _IOR('X', 125, __u32), include/uapi/linux/ext4.h
EXT4_IOC_SHUTDOWN = 2 << 30 | struct.calcsize("I") << 16 | ord("X") << 8 | 125
# EXT4_GOING_FLAGS_NOLOGFLUSH: not even the journal gets out.
NO_LOG_FLUSH = 2
SIZE_BYTES = 256 << 20
# A killed process may need a moment until its files are closed.
UNMOUNT_TRIES = 100


def run(*command):
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(command)}: {done.stdout.strip()}")


def mount(disk, where):
    run("mount", "-o", "loop", disk, where)


def unmount(where):
    for _ in range(UNMOUNT_TRIES):
        if subprocess.run(["umount", where], stderr=subprocess.DEVNULL).returncode == 0:
            return
        time.sleep(0.05)
    sys.exit(f"cannot unmount {where}: who has files open there?")


def missing():
    if os.geteuid() != 0:
        return "root"
    if not os.path.exists("/dev/loop-control"):
        return "loop devices"
    for tool in ("mke2fs", "mount", "umount"):
        if not shutil.which(tool):
            return f"the command {tool}"
    return None


def main():
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    what, folder = sys.argv[1:]
    disk, where = os.path.join(folder, "disk"), os.path.join(folder, "mnt")
    if what == "possible":
        lack = missing()
        sys.exit(f"a power cut needs {lack}" if lack else 0)
    elif what == "begin":
        os.makedirs(where, exist_ok=True)
        with open(disk, "wb") as image:
            image.truncate(SIZE_BYTES)
        run("mke2fs", "-q", "-F", "-t", "ext4", disk)
        mount(disk, where)
    elif what == "cut":
        root = os.open(where, os.O_RDONLY)
        began_us = time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1000
        fcntl.ioctl(root, EXT4_IOC_SHUTDOWN, struct.pack("I", NO_LOG_FLUSH))
        os.close(root)
        print(began_us)
    elif what == "again":
        unmount(where)
        mount(disk, where)
    elif what == "end":
        unmount(where)
        os.unlink(disk)
        os.rmdir(where)
    else:
        sys.exit(f"unknown command {what}\n{__doc__}")


main()
