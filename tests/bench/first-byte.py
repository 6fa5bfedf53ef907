#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Time from before a command's process starts to its first byte of output, N times in turn: prints the times in ms, one a line."""
import os, subprocess, sys, time

rounds, directory, command = int(sys.argv[1]), sys.argv[2], sys.argv[3:]
os.chdir(directory)
for i in range(rounds + 1):  # the first warms up and does not count
    argv = [a.replace("%", str(i)) for a in command]
    start = time.monotonic()
    p = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
    byte = os.read(p.stdout.fileno(), 1)
    took = time.monotonic() - start
    p.wait()
    if not byte or p.returncode:
        sys.exit(f"{argv}: status {p.returncode}, output {byte!r}")
    if i:
        print(f"{took * 1e3:.1f}")
