/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Where credentials for a registry are: first the file that `login` writes, then what docker has: its config.json, and
 * the helpers that this names (docker-credential-NAME, a program that is told the registry and answers in JSON). Only
 * our own file is ever written.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/fileio.h"
#include "base/process.h"
#include "base/util.h"
#include "oci/registry.h"

#define MAX_FILE (1U << 20)
#define MAX_HELPER_ANSWER (64U << 10)
#define HELPER_MS 30000

static void wipe(char *text, size_t len)
{
	if (text)
		explicit_bzero(text, len);
}

static struct registry_key key_of(const struct oci_place *place)
{
	struct registry_key key = {.key = place->key, .host = place->key, .name = place->name};

	if (str_starts(key.host, "https://"))
		key.host += strlen("https://");
	return key;
}

/* 1, 0 or -errno as authfile_find; a file that is not there has nothing. */
static int find_in(const char *path, const struct registry_key *key, struct credentials *ret, char **ret_helper,
		   struct sm_error *err)
{
	_free_ char *text = NULL;
	size_t len = 0;
	int r = read_file_at(AT_FDCWD, path, MAX_FILE, &text, &len);

	if (r == -ENOENT || r == -ENOTDIR)
		return 0;
	if (r < 0)
		return error_sys(err, -r, "read %s", path);
	r = authfile_find(text, len, path, key, ret, ret_helper, err);
	wipe(text, len);
	return r;
}

static char *docker_file(void)
{
	const char *dir = getenv("DOCKER_CONFIG"), *home = getenv("HOME");
	char *path = NULL;
	int n = -1;

	if (dir && *dir)
		n = asprintf(&path, "%s/config.json", dir);
	else if (home && *home == '/')
		n = asprintf(&path, "%s/.docker/config.json", home);
	return n < 0 ? NULL : path;
}

/* A small text as a file to read. */
static int text_fd(const char *text)
{
	int pipefd[2], r;

	if (pipe2(pipefd, O_CLOEXEC) < 0)
		return -errno;
	r = write_full(pipefd[1], text, strlen(text));
	close(pipefd[1]);
	if (r < 0)
		fd_close(pipefd[0]);
	return r < 0 ? r : pipefd[0];
}

/* 1, or 0: it has none, or cannot be asked. */
static int ask_helper(const char *name, const char *key, struct credentials *ret, struct sm_error *err)
{
	_cleanup_(buf_done) struct buf out = {0};
	_free_ char *program = NULL;
	const char *argv[] = {NULL, "get", NULL};
	struct process_options o = {.argv = argv, .fds = {-1, -1, -1}};
	_fd_ int in = text_fd(key);
	int status = 0, r;

	if (in < 0 || asprintf(&program, "docker-credential-%s", name) < 0)
		return error_sys(err, in < 0 ? -in : ENOMEM, "credential helper %s", name);
	argv[0] = program;
	o.fds[0] = in;
	r = process_run(&o, HELPER_MS, false, MAX_HELPER_ANSWER, &out, &status, NULL);
	if (r == 0 && status == 0 && out.len) {
		r = helper_parse((const char *)out.data, out.len, program, ret, err);
		r = r < 0 ? r : 1;
	} else {
		r = 0;
	}
	wipe((char *)out.data, out.len);
	return r;
}

int credentials_find(const struct oci_place *place, const char *auth_file, struct credentials *ret,
		     struct sm_error *err)
{
	struct registry_key key = key_of(place);
	_free_ char *docker = docker_file(), *helper = NULL;
	int r = auth_file ? find_in(auth_file, &key, ret, NULL, err) : 0;

	if (r == 0 && docker)
		r = find_in(docker, &key, ret, &helper, err);
	if (r == 0 && helper)
		r = ask_helper(helper, place->key, ret, err);
	return MIN(r, 0);
}

/* Two logins at once must not lose one of them. */
static int lock_beside(const char *path, struct sm_error *err)
{
	_free_ char *lock = NULL;
	_fd_ int fd = -1;

	if (asprintf(&lock, "%s.lock", path) < 0) {
		lock = NULL;
		return error_sys(err, ENOMEM, "%s", path);
	}
	fd = open(lock, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (fd < 0 || flock(fd, LOCK_EX) < 0)
		return error_sys(err, errno, "lock %s", lock);
	return TAKE_FD(fd);
}

int credentials_write(const struct oci_place *place, const char *auth_file, const struct credentials *c,
		      struct sm_error *err)
{
	struct registry_key key = key_of(place);
	_free_ char *text = NULL, *changed = NULL;
	_fd_ int lock = lock_beside(auth_file, err);
	size_t len = 0;
	int r;

	if (lock < 0)
		return lock;
	r = read_file_at(AT_FDCWD, auth_file, MAX_FILE, &text, &len);
	if (r < 0 && r != -ENOENT)
		return error_sys(err, -r, "read %s", auth_file);
	r = authfile_change(text, len, auth_file, &key, c, &changed, err);
	if (r == 0 && !changed)
		r = error_set(err, SM_ERROR_NOT_FOUND, ENOENT, "not logged in to %s", place->name);
	if (r == 0) {
		r = write_file_atomic_at(AT_FDCWD, auth_file, changed, strlen(changed), 0600);
		r = r < 0 ? error_sys(err, -r, "write %s", auth_file) : 0;
		wipe(changed, strlen(changed));
	}
	wipe(text, len);
	return r;
}
