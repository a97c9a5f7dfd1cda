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
  power_cut.py probe FOLDER [ROUNDS]
                                 what the file system itself promises: two threads append and fdatasync until the cut; prints
                                 how many flushes were called a success and lost, before and after the cut began
Used by tests/it/powercut.rs. Needs root, loop devices, e2fsprogs.
"""

import fcntl
import os
import random
import shutil
import struct
import subprocess
import sys
import threading
import time

# _IOR('X', 125, __u32), include/uapi/linux/ext4.h
EXT4_IOC_SHUTDOWN = 2 << 30 | struct.calcsize("I") << 16 | ord("X") << 8 | 125
# EXT4_GOING_FLAGS_NOLOGFLUSH: not even the journal gets out.
NO_LOG_FLUSH = 2
SIZE_BYTES = 256 << 20
# What the probe appends at one time.
BLOCK = 4096
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


def append(path, flushed, stop):
    """Appends numbered blocks and notes when each was flushed."""
    file = os.open(path, os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o644)
    try:
        while not stop.is_set():
            os.write(file, len(flushed).to_bytes(8, "little") * (BLOCK // 8))
            os.fdatasync(file)
            flushed.append(time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1000)
    except OSError:
        pass  # the power is off
    finally:
        os.close(file)


def whole_blocks(path):
    data = open(path, "rb").read() if os.path.exists(path) else b""
    count = 0
    while data[count * BLOCK : (count + 1) * BLOCK] == count.to_bytes(8, "little") * (BLOCK // 8):
        count += 1
    return count


def probe(folder, rounds):
    disk, where = os.path.join(folder, "disk"), os.path.join(folder, "mnt")
    before = after = lost_before = lost_after = 0
    for _ in range(rounds):
        begin(disk, where)
        stop, flushed = threading.Event(), [[], []]
        paths = [os.path.join(where, str(i)) for i in range(len(flushed))]
        threads = [threading.Thread(target=append, args=(*of, stop)) for of in zip(paths, flushed)]
        for thread in threads:
            thread.start()
        time.sleep(random.uniform(0.03, 0.11))
        cut_us = cut(where)
        time.sleep(0.01)
        stop.set()
        for thread in threads:
            thread.join()
        unmount(where)
        mount(disk, where)
        for path, times in zip(paths, flushed):
            kept = whole_blocks(path)
            before += sum(at <= cut_us for at in times)
            after += sum(at > cut_us for at in times)
            lost_before += sum(at <= cut_us for at in times[kept:])
            lost_after += sum(at > cut_us for at in times[kept:])
        end(disk, where)
    print(f"{rounds} cuts: {before} flushes answered before the cut began, {lost_before} of them lost;", end=" ")
    print(f"{after} answered after it began, {lost_after} of them lost")


def begin(disk, where):
    os.makedirs(where, exist_ok=True)
    with open(disk, "wb") as image:
        image.truncate(SIZE_BYTES)
    run("mke2fs", "-q", "-F", "-t", "ext4", disk)
    mount(disk, where)


def cut(where):
    """Returns when it began, in microseconds since the boot."""
    root = os.open(where, os.O_RDONLY)
    began_us = time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1000
    fcntl.ioctl(root, EXT4_IOC_SHUTDOWN, struct.pack("I", NO_LOG_FLUSH))
    os.close(root)
    return began_us


def end(disk, where):
    unmount(where)
    os.unlink(disk)
    os.rmdir(where)


def main():
    if len(sys.argv) != 3 and sys.argv[1:2] != ["probe"]:
        sys.exit(__doc__)
    what, folder = sys.argv[1:3]
    disk, where = os.path.join(folder, "disk"), os.path.join(folder, "mnt")
    if what == "possible":
        lack = missing()
        sys.exit(f"a power cut needs {lack}" if lack else 0)
    elif what == "begin":
        begin(disk, where)
    elif what == "cut":
        print(cut(where))
    elif what == "again":
        unmount(where)
        mount(disk, where)
    elif what == "end":
        end(disk, where)
    elif what == "probe":
        probe(folder, int(sys.argv[3]) if len(sys.argv) > 3 else 100)
    else:
        sys.exit(f"unknown command {what}\n{__doc__}")


main()
