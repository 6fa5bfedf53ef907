#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Runs a command in a terminal of its own and plays a person: person.py [--size ROWSxCOLS] STEP... -- COMMAND...

Steps: expect:REGEX (in what was printed since the last match), send:TEXT (with \\n \\x03 and so on), resize:ROWSxCOLS, sleep:SECONDS,
signal:NAME (to the command), shell:COMMAND (elsewhere), hangup (closes the terminal). Prints all that was printed; exits with the command's status
(128+n for a signal), 99 when an expectation failed or nothing came for --timeout seconds (default 60). After the command has ended the
terminal must be in the mode in which it was: else 98."""
import fcntl, os, pty, re, select, signal, struct, sys, termios, time

args = sys.argv[1:]
size, limit = (24, 80), 60.0 * float(os.environ.get("SM_PATIENCE", "1"))
while args and args[0] in ("--size", "--timeout"):
    if args[0] == "--size":
        size = tuple(map(int, args[1].split("x")))
    else:
        limit = float(args[1])
    args = args[2:]
cut = args.index("--")
steps, command = args[:cut], args[cut + 1:]

master, slave = pty.openpty()
def set_size(rows, cols):
    fcntl.ioctl(master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, cols, 0, 0))
set_size(*size)
mode = termios.tcgetattr(slave)
pid = os.fork()
if pid == 0:
    os.setsid()
    fcntl.ioctl(slave, termios.TIOCSCTTY, 0)
    for fd in (0, 1, 2):
        os.dup2(slave, fd)
    os.closerange(3, 256)
    os.execvp(command[0], command)

seen, mark, status = b"", 0, None

def pump(seconds):
    """Reads what comes within the time; False when the time is over."""
    global seen, status
    r, _, _ = select.select([master], [], [], seconds)
    if r:
        try:
            seen += os.read(master, 65536)
        except OSError:
            pass
    if status is None:
        p, s = os.waitpid(pid, os.WNOHANG)
        if p:
            status = s
    return bool(r)

def done(code, why=""):
    sys.stdout.buffer.write(seen)
    sys.stdout.flush()
    if why:
        print("\npty: " + why)
    if status is None:
        os.kill(pid, signal.SIGKILL)
    sys.exit(code)

for step in steps:
    verb, _, arg = step.partition(":")
    if verb == "expect":
        end = time.time() + limit
        while True:
            m = re.search(arg.encode(), seen[mark:])
            if m:
                mark += m.end()
                break
            if time.time() > end or (status is not None and not pump(0.3)):
                done(99, "no " + arg)
            pump(0.2)
    elif verb == "send":
        os.write(master, arg.encode().decode("unicode_escape").encode("latin-1"))
    elif verb == "resize":
        set_size(*map(int, arg.split("x")))
    elif verb == "sleep":
        end = time.time() + float(arg)
        while time.time() < end:
            pump(0.05)
    elif verb == "signal":
        os.kill(pid, getattr(signal, "SIG" + arg))
    elif verb == "shell":
        helper = os.fork()
        if helper == 0:
            os.setsid()
            os.dup2(os.open("/dev/null", os.O_RDWR), 0)
            os.execvp("sh", ["sh", "-c", arg])
        while os.waitpid(helper, os.WNOHANG) == (0, 0):
            pump(0.05)
    elif verb == "hangup":
        os.close(slave)
        os.close(master)
        p, status = os.waitpid(pid, 0)
        sys.exit(os.waitstatus_to_exitcode(status) % 256)
    else:
        done(99, "what is " + step)

end = time.time() + limit
while status is None:
    pump(0.2)
    if time.time() > end:
        done(99, "the command has not ended")
while pump(0.1):
    pass
code = os.waitstatus_to_exitcode(status)
if termios.tcgetattr(slave)[:4] != mode[:4]:
    done(98, "the terminal's mode is not what it was")
done(code if code >= 0 else 128 - code)
