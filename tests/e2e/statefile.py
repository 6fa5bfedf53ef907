# SPDX-License-Identifier: Apache-2.0
"""A snapshot's state file (src/vmm/snapshot.h), changed so that only what it says is wrong and no checksum."""
import json
import os
import struct

BRAND = 0x80000002  # CPUID: the first part of the CPU's name


def crc32c(data):
    """RFC 3720, B.4: reflected, as the file has it."""
    table = []
    for n in range(256):
        for _ in range(8):
            n = n >> 1 ^ (0x82F63B78 if n & 1 else 0)
        table.append(n)
    crc = 0xFFFFFFFF
    for b in data:
        crc = crc >> 8 ^ table[(crc ^ b) & 0xFF]
    return crc ^ 0xFFFFFFFF


def identity(st):
    """What metadata.json knows a file by that need not be read again (lib/base.c, snapshot_identity)."""
    return "%x %x %d.%d %d.%d" % (st.st_ino, st.st_size, *divmod(st.st_mtime_ns, 10**9), *divmod(st.st_ctime_ns, 10**9))


def of_another_cpu(directory):
    """Renames the CPU that the snapshot there was made on."""
    path = os.path.join(directory, "state")
    with open(path, "r+b") as f:
        data = bytearray(f.read())
        at = data.index(struct.pack("<II", BRAND, 0))
        data[at + 8] ^= 1
        data[-4:] = struct.pack("<I", crc32c(data[:-4]))
        f.seek(0)
        f.write(data)
    with open(os.path.join(directory, "metadata.json"), "r+") as f:
        meta = json.load(f)
        meta["state_file"] = identity(os.stat(path))
        f.seek(0)
        json.dump(meta, f)
        f.truncate()
