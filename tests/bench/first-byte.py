#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Time from before a command's process starts to its first byte of output, N times in turn: prints the times in ms, one a line.

THINK: seconds between one's end and the next one's start (0). WHOLE: a file that gets the times to their ends."""
import os, subprocess, sys, time

rounds, directory, command = int(sys.argv[1]), sys.argv[2], sys.argv[3:]
think, whole = float(os.environ.get("THINK", "0")), os.environ.get("WHOLE")
ends = open(whole, "w") if whole else None
os.chdir(directory)
for i in range(rounds + 1):  # the first warms up and does not count
    argv = [a.replace("%", str(i)) for a in command]
    time.sleep(think)
    start = time.monotonic()
    p = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
    byte = os.read(p.stdout.fileno(), 1)
    took = time.monotonic() - start
    while os.read(p.stdout.fileno(), 1 << 16):  # else it waits with what the pipe does not take
        pass
    p.wait()
    if i and ends:
        print(f"{(time.monotonic() - start) * 1e3:.1f}", file=ends)
    if not byte or p.returncode:
        sys.exit(f"{argv}: status {p.returncode}, output {byte!r}")
    if i:
        print(f"{took * 1e3:.1f}")
