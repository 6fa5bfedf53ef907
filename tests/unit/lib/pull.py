# SPDX-License-Identifier: Apache-2.0
"""Registries through the generated Python module: sm_image_pull with its progress, cancelled from there, and as a task; what sm_vm_start makes of a name by
sm_pull; logging in and out. usage: pull.py DIRECTORY-OF-THE-MODULE (SUPERMACHINE_LIBRARY: the library)"""
import base64
import ctypes
import importlib.machinery
import json
import os
import select
import shutil
import sys
import tempfile

sys.path.insert(0, sys.argv[1])
import supermachine as sm  # noqa: E402

HERE = os.path.dirname(os.path.abspath(__file__))
sys.argv = ['registry-test', '']
registry = importlib.machinery.SourceFileLoader('registry_test', os.path.join(HERE, '..', 'image', 'registry-test')).load_module()


def fails(kind, function, *args):
    try:
        sm.call(function, *args)
    except sm.Error as e:
        assert e.kind == kind, (e.kind, e)
        return str(e)
    raise AssertionError(f'{function.__name__} did not fail')


def names(client):
    images, count = ctypes.POINTER(ctypes.POINTER(sm.sm_image))(), ctypes.c_size_t()
    sm.call(sm.sm_image_list, client, ctypes.byref(images), ctypes.byref(count))
    found = [sm.sm_image_info_(images[i]).contents.names[0].decode() for i in range(count.value)]
    sm.sm_image_list_free(images, count)
    return found


def progress(client, ref):
    """It is told, from the first request on, and a pull that it ends leaves nothing."""
    update = type(sm.sm_pull_options().progress.update)
    stages = []

    def stop(arg, stage, done, total):
        stages.append(stage)
        return 1

    def go_on(arg, stage, done, total):
        stages.append(stage)
        assert done <= total or not total
        return 0

    callback = update(stop)
    options = sm.sm_pull_options()
    options.progress.update = callback
    fails(sm.SM_ERROR_CANCELLED, sm.sm_image_pull, client, ref.encode(), ctypes.byref(options), None)
    assert stages == [b'manifest'], stages
    assert names(client) == []
    stages.clear()
    callback = update(go_on)
    options.progress.update = callback
    image = ctypes.POINTER(sm.sm_image)()
    sm.call(sm.sm_image_pull, client, ref.encode(), ctypes.byref(options), ctypes.byref(image))
    assert stages[0] == b'manifest' and b'layers' in stages and stages[-1] == b'metadata', stages
    assert sm.sm_image_info_(image).contents.layers == 2
    sm.sm_image_close(image)
    assert names(client) == [ref + ':latest'], names(client)


def task(client, ref):
    """On a thread of the library's, with a descriptor to wait for."""
    call = sm.sm_task_start.argtypes[0](lambda arg, err: sm.sm_image_pull(client, ref.encode(), None, None, err))
    t = ctypes.POINTER(sm.sm_task)()
    sm.call(sm.sm_task_start, call, None, ctypes.byref(t))
    assert select.select([sm.sm_task_fd(t)], [], [], 60)[0]
    sm.call(sm.sm_task_finish, t)


def policies(client, hub, at):
    """A name that no registry has either; nobody is asked who need not be."""
    vm = ctypes.POINTER(sm.sm_vm)()

    def start(pull, image):
        options = sm.sm_vm_options(image=image.encode(), pull=pull)
        return fails(sm.SM_ERROR_NOT_FOUND, sm.sm_vm_start, client, ctypes.byref(options), ctypes.byref(vm))

    hub.requests.clear()
    assert 'in the store' in start(sm.SM_PULL_NEVER, at + '/nosuch')
    os.environ['SUPERMACHINE_PULL'] = 'never'
    assert 'in the store' in start(sm.SM_PULL_DEFAULT, at + '/nosuch')
    assert hub.requests == []
    assert 'has no image nosuch' in start(sm.SM_PULL_MISSING, at + '/nosuch')
    assert 'in the store' in start(sm.SM_PULL_ALWAYS, '0' * 64)


def login(client, hub, at, home):
    def guarded(h, path):
        if h.headers.get('Authorization') == 'Basic ' + base64.b64encode(b'me:secret').decode():
            return False
        h.reply(401, headers=[('WWW-Authenticate', 'Basic realm="x"')])
        return True

    hub.special = guarded
    why = fails(sm.SM_ERROR_DENIED, sm.sm_image_pull, client, (at + '/a').encode(), None, None)
    assert 'supermachine login ' + at in why
    fails(sm.SM_ERROR_DENIED, sm.sm_registry_login, client, at.encode(), b'me', b'wrong')
    fails(sm.SM_ERROR_INVALID, sm.sm_registry_login, client, at.encode(), b'', b'secret')
    fails(sm.SM_ERROR_INVALID, sm.sm_registry_login, client, b'not a host', b'me', b'secret')
    sm.call(sm.sm_registry_login, client, at.encode(), b'me', b'secret')
    with open(os.path.join(home, 'data', 'registries.json')) as f:
        assert list(json.load(f)['auths']) == [at]
    sm.call(sm.sm_image_pull, client, (at + '/a').encode(), None, None)
    sm.call(sm.sm_registry_logout, client, at.encode())
    fails(sm.SM_ERROR_NOT_FOUND, sm.sm_registry_logout, client, at.encode())


def main():
    case = registry.Case()
    case.setUp()
    home = tempfile.mkdtemp(prefix='sm-pull-test.')
    os.environ.update(HOME=home, RES_OPTIONS='timeout:1 attempts:1')
    os.environ.pop('DOCKER_CONFIG', None)
    client = ctypes.POINTER(sm.sm_client)()
    try:
        options = sm.sm_client_options(home=home.encode())
        sm.call(sm.sm_client_open, ctypes.byref(options), ctypes.byref(client))
        case.image(1000, 100000)
        progress(client, case.at + '/a')
        task(client, case.at + '/a')
        login(client, case.hub, case.at, home)
        case.hub.special = None
        policies(client, case.hub, case.at)
        sm.sm_client_close(client)
    finally:
        case.tearDown()
        shutil.rmtree(home, ignore_errors=True)


main()
