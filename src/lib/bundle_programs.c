/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A bundle's programs. A static one is copied as it is. A dynamic one goes to lib/ with all libraries that its loader
 * finds for it (`loader --list`, as ldd does), and supermachine-bundled stands in its place. See bundle.h.
 */
#include <dlfcn.h>
#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/fileio.h"
#include "base/libarchive.h"
#include "base/libcurl.h"
#include "base/process.h"
#include "base/util.h"
#include "lib/bundle.h"

#define LIST_LIMIT_MS 60000

/* The loader that an ELF program names; *ret is "" for one that needs none. */
static int find_loader(const char *program, char ret[static PATH_MAX], struct sm_error *err)
{
	_fd_ int fd = open(program, O_RDONLY | O_CLOEXEC);
	Elf64_Ehdr head;

	ret[0] = '\0';
	if (fd < 0)
		return error_sys(err, errno, "%s", program);
	if (pread_full(fd, &head, sizeof(head), 0) != sizeof(head) || memcmp(head.e_ident, ELFMAG, SELFMAG) != 0)
		return error_set(err, SM_ERROR_HOST, ENOEXEC, "%s is no program", program);
	for (unsigned i = 0; i < head.e_phnum; i++) {
		Elf64_Phdr p;

		if (pread_full(fd, &p, sizeof(p), (off_t)(head.e_phoff + i * sizeof(p))) != sizeof(p))
			return error_set(err, SM_ERROR_HOST, ENOEXEC, "%s ends too early", program);
		if (p.p_type != PT_INTERP)
			continue;
		if (p.p_filesz >= PATH_MAX || pread_full(fd, ret, p.p_filesz, (off_t)p.p_offset) != (ssize_t)p.p_filesz)
			return error_set(err, SM_ERROR_HOST, ENOEXEC, "%s: its loader's name", program);
		ret[p.p_filesz] = '\0';
		return 0;
	}
	return 0;
}

static int copy_library(struct bundle *b, const char *path, struct sm_error *err)
{
	char to[NAME_MAX + 8];

	snprintf(to, sizeof(to), "lib/%s", strrchr(path, '/') + 1);
	return bundle_copy(b, path, to, 0755, err);
}

/* A line of the list: "NAME => PATH (ADDRESS)"; what has no path is the kernel's, or the loader. */
static int copy_listed(struct bundle *b, const char *of, char *line, struct sm_error *err)
{
	char *path = strstr(line, " => "), *end;

	if (!path)
		return 0;
	path += strlen(" => ");
	if (path[0] != '/')
		return error_set(err, SM_ERROR_HOST, ELIBACC, "%s: a library is missing:%.200s", of, line);
	end = strstr(path, " (0x");
	if (end)
		*end = '\0';
	return copy_library(b, path, err);
}

static int copy_libraries(struct bundle *b, const char *loader, const char *of, struct sm_error *err)
{
	/* Not those that are for this host's CPU alone. */
	const char *argv[] = {loader, "--glibc-hwcaps-mask", "none", "--list", of, NULL};
	struct process_options o = {.argv = argv, .fds = {-1, -1, -1}};
	_cleanup_(buf_done) struct buf out = {0};
	char *state = NULL, *line;
	int status = 0, r = process_run(&o, LIST_LIMIT_MS, true, 64 * KIB, &out, &status, err);

	if (r == 0)
		r = buf_put_u8(&out, 0);
	if (r < 0)
		return r;
	if (!WIFEXITED(status) || WEXITSTATUS(status) != 0)
		return error_set(err, SM_ERROR_HOST, ELIBACC, "libraries of %s: %.400s", of, (char *)out.data);
	for (line = strtok_r((char *)out.data, "\n", &state); line && r == 0; line = strtok_r(NULL, "\n", &state))
		r = copy_listed(b, of, line, err);
	return r;
}

/* What programs of ours load when they need it first, where it is installed: the library that has this function. */
static int copy_loaded(struct bundle *b, const char *loader, void *function, struct sm_error *err)
{
	Dl_info info;
	int r;

	if (!dladdr(function, &info) || info.dli_fname[0] != '/')
		return 0;
	r = copy_library(b, info.dli_fname, err);
	return r < 0 ? r : copy_libraries(b, loader, info.dli_fname, err);
}

/* Registries and archives. */
static int copy_all_loaded(struct bundle *b, const char *loader, struct sm_error *err)
{
	const struct curl_functions *curl = curl_load(NULL);
	const struct archive_functions *archive = archive_load(NULL);
	int r = 0;

	if (curl)
		r = copy_loaded(b, loader, (void *)curl->curl_easy_init, err);
	if (r == 0 && archive)
		r = copy_loaded(b, loader, (void *)archive->archive_read_new, err);
	return r;
}

/* A program at `from`; in the bundle it is run as `as`. */
static int add_program(struct bundle *b, const char *from, const char *launcher, const char *as, struct sm_error *err)
{
	char loader[PATH_MAX], to[NAME_MAX + 8];
	const char *name = strrchr(as, '/');
	int r = find_loader(from, loader, err);

	if (r < 0 || !loader[0])
		return r < 0 ? r : bundle_copy(b, from, as, 0755, err);
	snprintf(to, sizeof(to), "lib/%s", name ? name + 1 : as);
	r = bundle_copy(b, from, to, 0755, err);
	if (r == 0)
		r = bundle_copy(b, loader, "lib/" BUNDLE_LOADER, 0755, err);
	if (r == 0)
		r = copy_libraries(b, loader, from, err);
	if (r == 0)
		r = copy_all_loaded(b, loader, err);
	return r < 0 ? r : bundle_copy(b, launcher, as, 0755, err);
}

/* Where the helpers are, as a build has them; or two directories from there, as they are installed. */
static int find_command(struct sm_client *c, char **ret, struct sm_error *err)
{
	static const char *const places[] = {"supermachine", "../../bin/supermachine"};

	for (size_t i = 0; i < ARRAY_SIZE(places); i++) {
		if (asprintf(ret, "%s/%s", c->libexec_dir, places[i]) < 0)
			return error_sys(err, ENOMEM, "bundle");
		if (access(*ret, X_OK) == 0)
			return 0;
		free(*ret);
		*ret = NULL;
	}
	return error_set(err, SM_ERROR_HOST, ENOENT,
			 "the command is neither in %s, with its helpers, nor in ../../bin from there", c->libexec_dir);
}

int bundle_programs(struct bundle *b, struct sm_error *err)
{
	static const char *const helpers[] = {"keeper", "vmm", "agent", "machine", "fsd", "wake"};
	_free_ char *launcher = NULL, *command = NULL;
	int r = client_helper(b->client, BUNDLE_LAUNCHER, &launcher, err);

	if (r == 0)
		r = find_command(b->client, &command, err);
	if (r == 0)
		r = add_program(b, command, launcher, "supermachine", err);
	for (size_t i = 0; r == 0 && i < ARRAY_SIZE(helpers); i++) {
		char name[32], as[48];
		_free_ char *from = NULL;

		snprintf(name, sizeof(name), "supermachine-%s", helpers[i]);
		snprintf(as, sizeof(as), "libexec/%s", name);
		r = client_helper(b->client, name, &from, err);
		if (r == 0)
			r = add_program(b, from, launcher, as, err);
	}
	return r;
}
