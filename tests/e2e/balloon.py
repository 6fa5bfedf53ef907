#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""balloon.py LIBRARY VM BYTES: calls sm_vm_balloon through the shared library, as a program in another language would."""
import ctypes
import sys


class Error(ctypes.Structure):  # struct sm_error
    _fields_ = [("kind", ctypes.c_int), ("code", ctypes.c_int), ("message", ctypes.c_char * 1024)]


def main():
    lib = ctypes.CDLL(sys.argv[1])
    client, vm, err = ctypes.c_void_p(), ctypes.c_void_p(), Error()
    r = lib.sm_client_open(None, ctypes.byref(client), ctypes.byref(err))
    if r == 0:
        r = lib.sm_vm_open(client, sys.argv[2].encode(), ctypes.byref(vm), ctypes.byref(err))
    if r == 0:
        r = lib.sm_vm_balloon(vm, ctypes.c_uint64(int(sys.argv[3])), ctypes.byref(err))
    if r < 0:
        sys.exit("%s (%d)" % (err.message.decode(), r))
    lib.sm_vm_close(vm)
    lib.sm_client_close(client)


main()
