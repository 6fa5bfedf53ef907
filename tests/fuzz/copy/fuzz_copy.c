/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A guest's stream of any bytes, unpacked into a directory that has links out of it: what lies beside the directory
 * must stay as it is. Made twice, whole and byte by byte, with the same end.
 */
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fileio.h"
#include "copy/copy.h"

static char top[] = "/tmp/fuzz-copy.XXXXXX";
static struct stat before_file, before_dir;

static void at(char path[64], const char *name)
{
	snprintf(path, 64, "%s/%s", top, name);
}

static void end(void)
{
	if (remove_tree_at(AT_FDCWD, top) < 0)
		return;
}

static void look(struct stat *file, struct stat *dir)
{
	char path[64];

	at(path, "out");
	if (lstat(path, dir) < 0)
		abort();
	at(path, "out/file");
	if (lstat(path, file) < 0)
		abort();
}

static void begin(void)
{
	char path[64];

	if (top[strlen(top) - 1] != 'X')
		return;
	if (!mkdtemp(top))
		abort();
	atexit(end);
	at(path, "out");
	if (mkdir(path, 0755) < 0)
		abort();
	at(path, "out/file");
	if (write_file_atomic_at(AT_FDCWD, path, "outside", 7, 0600) < 0)
		abort();
	look(&before_file, &before_dir);
}

static int unpack(const uint8_t *data, size_t size, size_t piece)
{
	struct copy_unpack_options o = {.untrusted = true, .changes = size & 1};
	struct copy_place how = {.contents = true, .source_name = "name"};
	struct copy_unpack *u;
	char path[64], link[80];
	int r = 0;

	at(path, "in");
	if (remove_tree_at(AT_FDCWD, path) < 0 || mkdir(path, 0755) < 0)
		abort();
	snprintf(link, sizeof(link), "%s/in/l", top);
	if (symlink("../out", link) < 0)
		abort();
	snprintf(link, sizeof(link), "%s/in/f", top);
	if (symlink("../out/file", link) < 0)
		abort();
	if (copy_unpack_new(path, &how, &o, &u) < 0)
		abort();
	for (size_t i = 0; r == 0 && i < size; i += piece)
		r = copy_unpack_feed(u, data + i, size - i < piece ? size - i : piece, NULL);
	copy_unpack_free(u);
	return r;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct stat file, dir;

	begin();
	if (unpack(data, size, size ? size : 1) != unpack(data, size, 1))
		abort();
	look(&file, &dir);
	if (memcmp(&file.st_mtim, &before_file.st_mtim, sizeof(file.st_mtim)) != 0 ||
	    memcmp(&dir.st_mtim, &before_dir.st_mtim, sizeof(dir.st_mtim)) != 0 ||
	    file.st_mode != before_file.st_mode || dir.st_mode != before_dir.st_mode ||
	    file.st_size != before_file.st_size ||
	    memcmp(&file.st_ctim, &before_file.st_ctim, sizeof(file.st_ctim)) != 0)
		abort();
	return 0;
}
