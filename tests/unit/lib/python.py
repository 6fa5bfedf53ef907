# SPDX-License-Identifier: Apache-2.0
"""The generated Python module against the library: layouts are the compiler's, errors and lists arrive, what is given to the caller is freed by the
caller, and many threads may call at once. usage: python.py DIRECTORY-OF-THE-MODULE PROBE (SUPERMACHINE_LIBRARY: the library)"""
import ctypes
import os
import shutil
import subprocess
import sys
import tempfile
import threading

sys.path.insert(0, sys.argv[1])
import supermachine as sm  # noqa: E402


def layouts(probe):
    checked = 0
    for line in subprocess.run([probe], check=True, capture_output=True, text=True).stdout.splitlines():
        name, *numbers = line.split()
        if numbers[0] == '=':
            assert getattr(sm, name) == int(numbers[1]), line
        elif '.' in name:
            struct, member = name.split('.')
            field = getattr(getattr(sm, struct), member)
            assert (field.offset, field.size) == tuple(map(int, numbers)), line
        else:
            assert ctypes.sizeof(getattr(sm, name)) == int(numbers[0]), line
        checked += 1
    assert checked > 400, checked


def fails(kind, function, *args):
    try:
        sm.call(function, *args)
    except sm.Error as e:
        assert e.kind == kind, e
        return str(e)
    raise AssertionError(f'{function.__name__} did not fail')


def lists(client):
    images, count = ctypes.POINTER(ctypes.POINTER(sm.sm_image))(), ctypes.c_size_t(9)
    sm.call(sm.sm_image_list, client, ctypes.byref(images), ctypes.byref(count))
    assert count.value == 0
    sm.sm_image_list_free(images, count)
    vm = ctypes.POINTER(sm.sm_vm)()
    assert 'nobody' in fails(sm.SM_ERROR_NOT_FOUND, sm.sm_vm_open, client, b'nobody', ctypes.byref(vm))
    assert not vm


def owned(home):
    """Backends and texts belong to who asked for them."""
    backend = ctypes.POINTER(sm.sm_fs_backend)()
    sm.call(sm.sm_fs_posix_new, home.encode(), sm.sm_fs_posix_options(read_only=True), ctypes.byref(backend))
    assert not sm.sm_fs_posix_free(backend)
    sm.sm_free(None)


def main():
    layouts(sys.argv[2])
    assert sm.sm_version().count(b'.') == 2
    assert sm.sm_reason_name(sm.SM_REASON_DISK_FULL) == b'disk-full'
    assert sm.sm_exec_options().stdout_fd == -1 and sm.sm_exec_options(rows=3).rows == 3
    home = tempfile.mkdtemp(prefix='test-python.')
    lines = []
    log = sm.sm_client_options._fields_
    log = dict(log)['log'](lambda arg, level, line: lines.append(line))
    options = sm.sm_client_options(home=home.encode(), log=log)
    client = ctypes.POINTER(sm.sm_client)()
    sm.call(sm.sm_client_open, options, ctypes.byref(client))
    fails(sm.SM_ERROR_INVALID, sm.sm_pool_new, client, sm.sm_pool_options(), ctypes.byref(ctypes.POINTER(sm.sm_pool)()))
    lists(client)
    owned(home)
    failed = []

    def many():
        try:
            for _ in range(50):
                lists(client)
        except BaseException as e:
            failed.append(e)
            raise
    threads = [threading.Thread(target=many) for _ in range(8)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not failed
    assert not sm.sm_client_close(client)
    shutil.rmtree(home)


os.environ.pop('SUPERMACHINE_HOME', None)
main()
