# SPDX-License-Identifier: Apache-2.0
"""sm_image_build through the generated Python module: what is reused and what is not, how it is cancelled and what it leaves then, many at once.
usage: build.py DIRECTORY-OF-THE-MODULE MKIMAGE (SUPERMACHINE_LIBRARY: the library)"""
import ctypes
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading

sys.path.insert(0, sys.argv[1])
import supermachine as sm  # noqa: E402

os.environ['SUPERMACHINE_PULL'] = 'never'


def fails(kind, function, *args):
    try:
        sm.call(function, *args)
    except sm.Error as e:
        assert e.kind == kind, (e.kind, e)
        return str(e)
    raise AssertionError(f'{function.__name__} did not fail')


def options(files=(), **members):
    o = sm.sm_image_build_options(image=b'base', **members)
    if files:
        o.kept = (sm.sm_image_file * len(files))(*[sm.sm_image_file(source=s, target=t) for s, t in files])
        o.files, o.num_files = ctypes.cast(o.kept, ctypes.POINTER(sm.sm_image_file)), len(files)
    return o


def build(client, o):
    """(id, reused, fingerprint)"""
    image, result = ctypes.POINTER(sm.sm_image)(), sm.sm_image_build_result()
    sm.call(sm.sm_image_build, client, o, ctypes.byref(image), result)
    found = sm.sm_image_info_(image).contents.id.decode()
    sm.sm_image_close(image)
    assert not result.snapshot and not result.snapshot_reused
    return found, result.reused, result.fingerprint.decode()


def inspect(client, ref):
    text = ctypes.c_void_p()
    sm.call(sm.sm_image_inspect, client, ref, ctypes.byref(text))
    value = json.loads(ctypes.string_at(text))
    sm.sm_free(text)
    return value


def reuse(client):
    one = build(client, options([(b'tree', b'/srv')], env=sm.strings('A=1'), name=b'one'))
    assert not one[1] and len(one[2]) == 64
    again = build(client, options([(b'tree', b'/srv')], env=sm.strings('A=1'), name=b'two'))
    assert again == (one[0], True, one[2]), again
    assert inspect(client, b'one')['names'] == ['one:latest', 'two:latest']
    assert inspect(client, b'one')['fingerprint'] == one[2]
    for other in (options([(b'tree', b'/srv')], env=sm.strings('A=2')), options([(b'tree', b'/srv')], env=sm.strings('A=1', 'B=')),
                  options([(b'tree', b'/srv')], env=sm.strings('A=1'), user=b''), options([(b'tree/a', b'/srv')], env=sm.strings('A=1')),
                  options([(b'tree/a', b'/srv/')]), options([(b'tree/b', b'/srv/')]), options([(b'tree/a', b'/srv/'), (b'tree/b', b'/srv/')]),
                  options([(b'tree/b', b'/srv/'), (b'tree/a', b'/srv/')]), options(cmd=sm.strings('a b')), options(cmd=sm.strings('a', 'b')),
                  options(cmd=sm.strings()), options(entrypoint=sm.strings())):
        new = build(client, other)
        assert not new[1] and new[0] != one[0] and new[2] != one[2]
        assert build(client, other) == (new[0], True, new[2])
    assert build(client, options(rebuild=True, cmd=sm.strings('a')))[1] is False
    nothing = build(client, options(name=b'same'))
    assert nothing[1] and nothing[0] == inspect(client, b'base')['id'].removeprefix('sha256:')
    os.utime('tree/a', ns=(1, 1))
    assert not build(client, options([(b'tree', b'/srv')], env=sm.strings('A=1')))[1]


def cancel(client, home):
    """By what the callback returns, at each stage, and by a descriptor: nothing has changed."""
    stages = []
    update = type(options().progress.update)
    stop_at = None

    def tell(arg, stage, done, total):
        stages.append(stage)
        return stage == stop_at

    callback = update(tell)

    def attempt(name):
        o = options([(b'tree', b'/' + name)], name=b'one')
        o.progress.update = callback
        return o
    build(client, attempt(b'all'))
    assert stages[0] == b'files' and b'metadata' in stages, stages
    before = inspect(client, b'one')
    for stop_at in sorted(set(stages)):
        assert 'cancel' in fails(sm.SM_ERROR_CANCELLED, sm.sm_image_build, client, attempt(stop_at), None, None)
        assert inspect(client, b'one') == before, stop_at
    stop_at = None
    r, w = os.pipe()
    o = options([(b'tree', b'/cancelled')], name=b'one', cancel_fd=r)
    os.close(w)
    fails(sm.SM_ERROR_CANCELLED, sm.sm_image_build, client, o, None, None)
    os.close(r)
    assert inspect(client, b'one') == before
    left = os.listdir(os.path.join(home, 'data', 'images', 'tmp')) if os.path.isdir(os.path.join(home, 'data', 'images', 'tmp')) else []
    assert not [n for n in left if n.endswith('.build')], left


def refused(client):
    fails(sm.SM_ERROR_INVALID, sm.sm_image_build, client, sm.sm_image_build_options(), None, None)
    fails(sm.SM_ERROR_INVALID, sm.sm_image_build, client, options(env=sm.strings('A')), None, None)
    fails(sm.SM_ERROR_INVALID, sm.sm_image_build, client, options(warm=sm.strings()), None, None)
    fails(sm.SM_ERROR_INVALID, sm.sm_image_build, client, options(warm_name=b'x'), None, None)
    fails(sm.SM_ERROR_INVALID, sm.sm_image_build, client, options([(b'tree', b'rel')]), None, None)
    fails(sm.SM_ERROR_INVALID, sm.sm_image_build, client, options(changes=sm.strings('RUN x')), None, None)
    fails(sm.SM_ERROR_UNSUPPORTED, sm.sm_image_build, client, options(cmd=sm.strings(b'\xff')), None, None)
    fails(sm.SM_ERROR_NOT_FOUND, sm.sm_image_build, client, options([(b'nowhere', b'/x')]), None, None)
    fails(sm.SM_ERROR_NOT_FOUND, sm.sm_image_build, client, sm.sm_image_build_options(image=b'nosuch'), None, None)


def many(client):
    found, failed = [], []

    def one(i):
        try:
            found.append(build(client, options([(b'tree', b'/many')], name=b'many:%d' % i)))
        except BaseException as e:
            failed.append(e)
    threads = [threading.Thread(target=one, args=(i,)) for i in range(12)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not failed, failed
    assert len({f[0] for f in found}) == 1 and sorted(f[1] for f in found) == [False] + 11 * [True], found
    assert len(inspect(client, b'many:0')['names']) == 12


def main():
    top = tempfile.mkdtemp(prefix='test-build.')
    os.chdir(top)
    os.makedirs('root/etc')
    os.makedirs('root/srv')
    os.makedirs('tree/sub')
    for name in ('a', 'b', 'sub/c'):
        with open(os.path.join('tree', name), 'w') as f:
            f.write(name * 1000)
    os.utime('tree/a', (5, 5))
    os.utime('tree/b', (5, 5))
    subprocess.run([sys.argv[2], '--layer', 'root', '--tag', 'latest', '--cmd', '["sh"]', 'layout'], check=True, stdout=subprocess.DEVNULL)
    home = os.path.join(top, 'home')
    client = ctypes.POINTER(sm.sm_client)()
    sm.call(sm.sm_client_open, sm.sm_client_options(home=home.encode()), ctypes.byref(client))
    sm.call(sm.sm_image_load, client, b'oci:layout', sm.sm_load_options(name=b'base'), None)
    reuse(client)
    cancel(client, home)
    refused(client)
    many(client)
    sm.sm_client_close(client)
    os.chdir('/')
    shutil.rmtree(top)


os.environ.pop('SUPERMACHINE_HOME', None)
main()
