#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Boots the monitor and its peers in turn, and prints for each the time from start to the first byte on the virtio console."""
import argparse, json, os, select, socket, statistics, subprocess, time

p = argparse.ArgumentParser()
p.add_argument("--vmm", required=True)
p.add_argument("--kernel", required=True)
p.add_argument("--initramfs", required=True)
p.add_argument("--rounds", type=int, default=5)
p.add_argument("--memory", type=int, default=256)
p.add_argument("--cpus", type=int, default=1)
p.add_argument("--cmdline", action="append", help="variants of the monitor's command line, beside the peers'")
p.add_argument("--no-peers", action="store_true")
p.add_argument("--timeout", type=float, default=60)
p.add_argument("--stats", action="store_true", help="print the monitor's counters of the last round")
o = p.parse_args()


def wait_for(fd, deadline):
    """Time when READY was seen on fd, or None."""
    seen = b""
    while time.monotonic() < deadline:
        if not select.select([fd], [], [], 0.5)[0]:
            continue
        data = os.read(fd, 4096)
        if not data:
            return None
        seen += data
        if b"READY" in seen:
            return time.monotonic()
    return None


def ours(cmdline):
    mine, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    kernel, initramfs = os.open(o.kernel, os.O_RDONLY), os.open(o.initramfs, os.O_RDONLY)
    out, console = os.pipe()
    conf, conf_w = os.pipe()
    os.write(conf_w, json.dumps({"version": 1, "name": "bench", "memory": o.memory << 20, "cpus": o.cpus, "kernel": kernel,
                                 "initramfs": initramfs, "cmdline": cmdline, "control": theirs.fileno(), "console": console,
                                 "vsock": {"cid": 3}, "trace": True}).encode())
    os.close(conf_w)
    start = time.monotonic()
    proc = subprocess.Popen([o.vmm, "--config-fd", str(conf)], pass_fds=[conf, kernel, initramfs, console, theirs.fileno()])
    for fd in (kernel, initramfs, console, conf):
        os.close(fd)
    theirs.close()
    ready = wait_for(out, start + o.timeout)
    stages, stats = {}, None
    mine.settimeout(10)
    try:
        while packet := mine.recv(65536):
            event = json.loads(packet)
            if event["event"] == "trace":
                stages[event["stage"]] = event["ns"] / 1e6
            elif event["event"] == "stats":
                stats = event
            elif event["event"] == "exit":
                break
    except OSError:
        proc.kill()
    proc.wait()
    for fd in (out,):
        os.close(fd)
    mine.close()
    return (ready - start) * 1e3 if ready else None, stages, stats


def qemu(machine, console):
    cmd = ["qemu-system-x86_64", "-M", machine, "-accel", "kvm", "-cpu", "host", "-m", str(o.memory), "-smp", str(o.cpus),
           "-nodefaults", "-no-user-config", "-display", "none", "-serial", "none", "-no-reboot", "-chardev", "stdio,id=c",
           "-device", console, "-device", "virtconsole,chardev=c", "-kernel", o.kernel, "-initrd", o.initramfs,
           "-append", "quiet panic=-1"]
    start = time.monotonic()
    proc = subprocess.Popen(cmd, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    ready = wait_for(proc.stdout.fileno(), start + o.timeout)
    try:
        proc.wait(2)  # microvm's power-off takes its time
    except subprocess.TimeoutExpired:
        proc.kill()
        proc.wait()
    return (ready - start) * 1e3 if ready else None


variants = o.cmdline or ["quiet"]
runs = {f"supermachine ({v})": (lambda v=v: ours(v)) for v in variants}
if not o.no_peers:
    runs["qemu pc,hpet=off"] = lambda: qemu("pc,hpet=off", "virtio-serial-pci")
    runs["qemu microvm,acpi=on"] = lambda: qemu("microvm,acpi=on", "virtio-serial-device")
times = {name: [] for name in runs}
stages = stats = None
for r in range(o.rounds + 1):  # the first round warms up and does not count
    for name, run in runs.items():
        t = run()
        if isinstance(t, tuple):
            t, stages, stats = t
        if r and t is not None:
            times[name].append(t)
best = {}
for name, t in times.items():
    if not t:
        print(f"{name}: never became ready")
        continue
    best[name] = statistics.median(t)
    print(f"{name}: ready after {min(t):.0f} ms at best, {best[name]:.0f} ms median of {len(t)}")
if stages:
    print("stages of the last start (ms): " + "  ".join(f"{k} {v:.1f}" for k, v in stages.items()))
if stats and o.stats:
    print(json.dumps(stats))
peers = [v for k, v in best.items() if k.startswith("qemu")]
if peers:
    for name, t in best.items():
        if not name.startswith("qemu"):
            print(f"{name} / quicker peer: {t / min(peers):.2f} (goal <= 0.70)")
