"""Takes all the big pipes that this user may have, says so, and holds them until it is ended."""

import fcntl
import os
import signal

held = []
for _ in range(256):
    ends = os.pipe()
    held.append(ends)
    try:
        size = fcntl.fcntl(ends[1], 1031, 1 << 20)  # F_SETPIPE_SZ
    except OSError:
        break
else:
    print("this user has pipes without end: privileged", flush=True)
    raise SystemExit
# What is left of the allowance in smaller pieces.
for _ in range(1024):
    ends = os.pipe()
    if fcntl.fcntl(ends[1], 1032) <= 8192:  # F_GETPIPE_SZ
        break
    held.append(ends)
print("holding", len(held), "pipes", flush=True)
signal.pause()
