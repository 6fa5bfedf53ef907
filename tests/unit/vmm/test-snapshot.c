/* SPDX-License-Identifier: Apache-2.0 */
/* A snapshot's two files without a VM: RAM saved and mapped again, and state files that are not what they should be. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>

#include "base/buf.h"
#include "base/crc32c.h"
#include "base/fileio.h"
#include "base/util.h"
#include "virtio/mem.h"
#include "vmm/devices.h"
#include "vmm/mark.h"
#include "vmm/overlay.h"
#include "vmm/ram.h"
#include "vmm/snapshot.h"

#define SIZE (16 * RAM_CHUNK)

static int new_file(void)
{
	int fd = memfd_create("file", MFD_CLOEXEC);

	assert_true(fd >= 0);
	return fd;
}

/* ------------------------------------------------------------------------------------------ RAM */

static void save(const struct ram *ram, int fd, struct buf *record, uint64_t *ret_bytes)
{
	uint8_t *touched = ram_touched(ram);
	struct sm_error err = {0};

	assert_non_null(touched);
	assert_int_equal(ram_save(ram, touched, fd, record, ret_bytes, &err), 0);
	free(touched);
}

/* Saves what `fill` puts in; the file's descriptor. */
static int save_ram(void (*fill)(uint8_t *p), struct buf *record, uint64_t *ret_bytes)
{
	struct sm_error err = {0};
	struct ram ram;
	int fd = new_file();

	assert_int_equal(ram_map(&ram, SIZE, &err), 0);
	fill(ram.host);
	save(&ram, fd, record, ret_bytes);
	ram_unmap(&ram);
	return fd;
}

static void fill_some(uint8_t *p)
{
	p[0] = 1;
	p[5 * RAM_CHUNK - 1] = 2;
	memset(p + 6 * RAM_CHUNK, 3, RAM_CHUNK);
	p[9 * RAM_CHUNK] = 0; /* touched, and still zeros */
	p[SIZE - 1] = 4;
}

static void load_ram(struct ram *ram, int fd, const struct buf *record)
{
	struct cursor c = cursor_of(record->data, record->len);
	struct sm_error err = {0};

	assert_int_equal(ram_map(ram, SIZE, &err), 0);
	assert_int_equal(ram_load(ram, fd, &c, &err), 0);
	assert_int_equal(c.left, 0);
}

static void test_ram_again(void **state)
{
	struct buf record = {0}, second = {0};
	struct ram a, b;
	uint64_t bytes, more;
	struct stat st;
	int fd = save_ram(fill_some, &record, &bytes), copy = new_file();

	assert_int_equal(bytes, 4096 * 3 + RAM_CHUNK);
	assert_int_equal(fstat(fd, &st), 0);
	assert_int_equal(st.st_size, SIZE);
	load_ram(&a, fd, &record);
	load_ram(&b, fd, &record);
	assert_int_equal(a.host[0], 1);
	assert_int_equal(a.host[5 * RAM_CHUNK - 1], 2);
	assert_int_equal(a.host[6 * RAM_CHUNK], 3);
	assert_int_equal(a.host[7 * RAM_CHUNK - 1], 3);
	assert_int_equal(a.host[7 * RAM_CHUNK], 0);
	assert_int_equal(a.host[SIZE - 1], 4);
	/* Each has its own from here on, and the file stays as it is. */
	a.host[0] = 77;
	a.host[8 * RAM_CHUNK] = 78;
	assert_int_equal(b.host[0], 1);
	assert_int_equal(b.host[8 * RAM_CHUNK], 0);
	/* What was restored can be saved: also pages that nobody has touched since. */
	save(&a, copy, &second, &more);
	assert_int_equal(more, bytes + 4096);
	ram_unmap(&a);
	load_ram(&a, copy, &second);
	assert_int_equal(a.host[0], 77);
	assert_int_equal(a.host[6 * RAM_CHUNK + 12345], 3);
	assert_int_equal(a.host[8 * RAM_CHUNK], 78);
	ram_unmap(&a);
	ram_unmap(&b);
	buf_done(&record);
	buf_done(&second);
	close(fd);
	close(copy);
}

static void touch(struct ram *ram)
{
	ram->host[3] = 5;				 /* a page that the mark has a copy of */
	ram->host[9 * RAM_CHUNK + 5] = 6;		 /* one that was nowhere */
	memset(ram->host + 6 * RAM_CHUNK, 7, RAM_CHUNK); /* one of the file's */
	ram->host[12 * RAM_CHUNK + 100] = 8;		 /* one that is all the guest's own */
}

/* Memory is again what it was at the mark, however often, whichever way it came to be what it was. */
static void test_ram_mark(void **state)
{
	struct buf record = {0};
	struct ram_mark m;
	uint8_t *was = malloc(SIZE);
	struct ram ram;
	uint64_t bytes;
	int fd = save_ram(fill_some, &record, &bytes);

	load_ram(&ram, fd, &record);
	ram.host[1] = 9;		      /* over the file's */
	ram.host[10 * RAM_CHUNK + 4096] = 10; /* over nothing */
	memset(ram.host + 12 * RAM_CHUNK, 11, RAM_CHUNK);
	memset(ram.host + 4 * RAM_CHUNK, 0, 4096); /* zeros over the file's */
	assert_int_equal(ram_mark_take(&ram, &m), 0);
	memcpy(was, ram.host, SIZE);
	for (int i = 0; i < 3; i++) {
		touch(&ram);
		/* What the guest has given back, too. */
		assert_int_equal(madvise(ram.host + 12 * RAM_CHUNK, RAM_CHUNK / 2, MADV_DONTNEED), 0);
		assert_int_equal(madvise(ram.host, 4096, MADV_DONTNEED), 0);
		if (i == 2)
			ram.files[0] = -1; /* what there is no single file for */
		assert_int_equal(ram_mark_rewind(&ram, &m), 0);
		assert_memory_equal(ram.host, was, SIZE);
	}
	ram_mark_done(&m);
	/* A guest that has been at work for long is none to mark. */
	ram_unmap(&ram);
	assert_int_equal(ram_map(&ram, 40 * RAM_CHUNK, &(struct sm_error){0}), 0);
	memset(ram.host, 1, 33 * RAM_CHUNK);
	assert_int_equal(ram_mark_take(&ram, &m), -E2BIG);
	ram_mark_done(&m);
	ram_unmap(&ram);
	buf_done(&record);
	free(was);
	close(fd);
}

/* A copy of the process writes the memory of the moment when it was made, whatever the first one does with its own. */
static void test_ram_of_a_moment(void **state)
{
	struct sm_error err = {0};
	struct buf record = {0};
	int fd = new_file(), status;
	uint8_t *touched, go = 0;
	int pipes[2];
	struct ram ram;
	uint64_t bytes;
	pid_t pid;

	assert_int_equal(ram_map(&ram, SIZE, &err), 0);
	fill_some(ram.host);
	touched = ram_touched(&ram);
	assert_non_null(touched);
	assert_int_equal(pipe(pipes), 0);
	pid = fork();
	if (pid == 0)
		_exit(read(pipes[0], &go, 1) != 1 || ram_save(&ram, touched, fd, &record, &bytes, &err) < 0 ||
		      bytes != 4096 * 3 + RAM_CHUNK);
	ram.host[0] = 77;
	ram.host[8 * RAM_CHUNK] = 78;
	assert_int_equal(madvise(ram.host + 6 * RAM_CHUNK, RAM_CHUNK, MADV_DONTNEED), 0);
	assert_int_equal(write(pipes[1], &go, 1), 1);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
	ram_unmap(&ram);
	/* The record is the copy's; another of the same pages will do. */
	close(save_ram(fill_some, &record, &bytes));
	load_ram(&ram, fd, &record);
	assert_int_equal(ram.host[0], 1);
	assert_int_equal(ram.host[6 * RAM_CHUNK + 4242], 3);
	assert_int_equal(ram.host[8 * RAM_CHUNK], 0);
	assert_int_equal(ram.host[SIZE - 1], 4);
	ram_unmap(&ram);
	free(touched);
	buf_done(&record);
	close(fd);
	close(pipes[0]);
	close(pipes[1]);
}

/* ------------------------------------------------------------------------------------------ overlays */

static int save_with(const struct ram *ram, const struct overlay_options *o, struct buf *record, uint64_t *ret_bytes)
{
	uint8_t *changed = overlay_changed(ram, o->keep);
	struct sm_error err = {0};
	int fd = new_file();

	assert_true(overlay_possible(ram, o->keep));
	assert_non_null(changed);
	assert_int_equal(overlay_save(ram, changed, o, fd, record, ret_bytes, &err), 0);
	free(changed);
	return fd;
}

/* As a branch: over the first file alone, if there is one. */
static int save_over(const struct ram *ram, struct buf *record, uint64_t *ret_bytes)
{
	return save_with(ram, &(struct overlay_options){.keep = ram->files[0] >= 0}, record, ret_bytes);
}

/* files: the last one's record it is. */
static void load_files(struct ram *ram, const int *files, unsigned num, const struct buf *record)
{
	struct cursor c = cursor_of(record->data, record->len);
	struct sm_error err = {0};

	assert_int_equal(ram_map(ram, SIZE, &err), 0);
	assert_int_equal(overlay_load(ram, files, num - 1, files[num - 1], &c, &err), 0);
	assert_int_equal(c.left, 0);
}

static void load_over(struct ram *ram, int base, int fd, const struct buf *record)
{
	const int files[] = {base, fd};

	load_files(ram, base < 0 ? files + 1 : files, base < 0 ? 1 : 2, record);
}

/* Bytes here and there: in a chunk of the base's, in another, in one that was nothing, and zeros where there was
 * something. */
static void write_some(uint8_t *p, uint8_t by)
{
	p[by * 4096] = by;
	p[6 * RAM_CHUNK + 12345] = by;
	p[6 * RAM_CHUNK + 12345 + 7 * 4096] = by;
	p[7 * RAM_CHUNK + by * 4096] = by;
	p[SIZE - 1] = 0;
}

static void check_changed(const uint8_t *p, uint8_t by)
{
	assert_int_equal(p[0], 1);
	assert_int_equal(p[by * 4096], by);
	assert_int_equal(p[5 * RAM_CHUNK - 1], 2);
	assert_int_equal(p[6 * RAM_CHUNK], 3);
	assert_int_equal(p[6 * RAM_CHUNK + 12345 - 4096], 3);
	assert_int_equal(p[6 * RAM_CHUNK + 12345], by);
	assert_int_equal(p[6 * RAM_CHUNK + 12345 + 4096], 3);
	assert_int_equal(p[6 * RAM_CHUNK + 12345 + 7 * 4096], by);
	assert_int_equal(p[7 * RAM_CHUNK + by * 4096], by);
	assert_int_equal(p[SIZE - 1], 0);
}

static void test_overlay(void **state)
{
	struct buf record = {0}, over = {0}, second = {0}, third = {0};
	struct ram parent, child, grandchild;
	uint64_t bytes;
	int base = save_ram(fill_some, &record, &bytes), fd, fd2, fd3;

	load_ram(&parent, base, &record);
	assert_int_equal(parent.host[SIZE - 2], 0); /* a look changes nothing */
	fd = save_over(&parent, &over, &bytes);
	assert_int_equal(bytes, 0);
	close(fd);
	over.len = 0;
	write_some(parent.host, 9);
	fd = save_over(&parent, &over, &bytes);
	assert_int_equal(bytes, 5 * 4096);
	load_over(&child, base, fd, &over);
	check_changed(parent.host, 9);
	check_changed(child.host, 9);
	/* Each on its own; and saved again, it is still two files. */
	parent.host[0] = 99;
	write_some(child.host, 11);
	fd2 = save_over(&child, &second, &bytes);
	assert_int_equal(bytes, 8 * 4096); /* the page between two of one run is one of them */
	load_over(&grandchild, base, fd2, &second);
	ram_unmap(&child);
	ram_unmap(&parent);
	check_changed(grandchild.host, 11);
	assert_int_equal(grandchild.host[9 * 4096], 9);
	assert_int_equal(grandchild.host[7 * RAM_CHUNK + 9 * 4096], 9);
	/* As one file. */
	third.len = 0;
	fd3 = new_file();
	save(&grandchild, fd3, &third, &bytes);
	ram_unmap(&grandchild);
	load_ram(&child, fd3, &third);
	check_changed(child.host, 11);
	ram_unmap(&child);
	close(base);
	close(fd);
	close(fd2);
	close(fd3);
	buf_done(&record);
	buf_done(&over);
	buf_done(&second);
	buf_done(&third);
}

static void not_loaded(const int *under, unsigned num, int fd, const struct buf *record, const char *word)
{
	struct cursor c = cursor_of(record->data, record->len);
	struct sm_error err = {0};
	struct ram ram;

	assert_int_equal(ram_map(&ram, SIZE, &err), 0);
	assert_true(overlay_load(&ram, under, num, fd, &c, &err) < 0);
	assert_int_equal(err.kind, SM_ERROR_CORRUPT);
	assert_non_null(strstr(err.message, word));
	ram_unmap(&ram);
}

/* A chain: each generation changes something, and is restored from all files before it. */
struct chain {
	int files[OVERLAY_MAX + 1];
	struct buf record;
	struct ram ram;
	unsigned num;
};

static void chain_begin(struct chain *c)
{
	uint64_t bytes;

	*c = (struct chain){.num = 1};
	c->files[0] = save_ram(fill_some, &c->record, &bytes);
	load_ram(&c->ram, c->files[0], &c->record);
}

/* Saves what there is, and goes on from that. The bytes it took. */
static uint64_t chain_save(struct chain *c)
{
	uint64_t bytes;

	c->record.len = 0;
	c->files[c->num] =
		save_with(&c->ram, &(struct overlay_options){.keep = c->num, .lean = true}, &c->record, &bytes);
	c->num++;
	ram_unmap(&c->ram);
	load_files(&c->ram, c->files, c->num, &c->record);
	return bytes;
}

static void chain_done(struct chain *c)
{
	ram_unmap(&c->ram);
	buf_done(&c->record);
	while (c->num)
		close(c->files[--c->num]);
}

static void test_chain(void **state)
{
	struct buf record = {0};
	struct ram as_one;
	struct chain c;
	uint64_t bytes;
	int fd;

	chain_begin(&c);
	assert_false(overlay_possible(&c.ram, 0));
	assert_false(overlay_possible(&c.ram, 2));
	assert_int_equal(chain_save(&c), 0); /* nothing has changed */
	/* A long run, which is mapped; a short one, which is copied; one in a chunk that was nothing. */
	memset(c.ram.host + 6 * RAM_CHUNK + 20 * 4096, 21, 20 * 4096);
	c.ram.host[6 * RAM_CHUNK + 100 * 4096] = 22;
	c.ram.host[10 * RAM_CHUNK] = 23;
	assert_int_equal(chain_save(&c), 22 * 4096);
	/* What was copied in, and what is written with what it was, is not written to a file again. */
	c.ram.host[6 * RAM_CHUNK + 21 * 4096] = 21;
	assert_int_equal(chain_save(&c), 0);
	/* Over pages of another diff; zeros where one had something, in a chunk of which the first file has nothing;
	 * and a page there beside it. */
	c.ram.host[6 * RAM_CHUNK + 25 * 4096] = 41;
	c.ram.host[10 * RAM_CHUNK] = 0;
	c.ram.host[10 * RAM_CHUNK + 5 * 4096] = 42;
	assert_int_equal(chain_save(&c), 3 * 4096);
	c.ram.host[0] = 51;
	assert_int_equal(chain_save(&c), 4096);
	assert_int_equal(c.ram.host[0], 51);
	assert_int_equal(c.ram.host[5 * RAM_CHUNK - 1], 2);
	assert_int_equal(c.ram.host[6 * RAM_CHUNK], 3);
	assert_int_equal(c.ram.host[6 * RAM_CHUNK + 24 * 4096 + 7], 21);
	assert_int_equal(c.ram.host[6 * RAM_CHUNK + 25 * 4096], 41);
	assert_int_equal(c.ram.host[6 * RAM_CHUNK + 25 * 4096 + 1], 21);
	assert_int_equal(c.ram.host[6 * RAM_CHUNK + 100 * 4096], 22);
	assert_int_equal(c.ram.host[6 * RAM_CHUNK + 100 * 4096 + 1], 3);
	assert_int_equal(c.ram.host[10 * RAM_CHUNK], 0);
	assert_int_equal(c.ram.host[10 * RAM_CHUNK + 5 * 4096], 42);
	assert_int_equal(c.ram.host[11 * RAM_CHUNK], 0);
	assert_int_equal(c.ram.host[SIZE - 1], 4);
	/* Whole, and as a branch over four of its six files. */
	fd = new_file();
	save(&c.ram, fd, &record, &bytes);
	load_ram(&as_one, fd, &record);
	assert_memory_equal(as_one.host, c.ram.host, SIZE);
	ram_unmap(&as_one);
	close(fd);
	record.len = 0;
	fd = save_with(&c.ram, &(struct overlay_options){.keep = 4, .lean = true}, &record, &bytes);
	assert_int_equal(bytes, 4 * 4096);
	load_files(&as_one, (const int[]){c.files[0], c.files[1], c.files[2], c.files[3], fd}, 5, &record);
	assert_memory_equal(as_one.host, c.ram.host, SIZE);
	ram_unmap(&as_one);
	close(fd);
	while (c.num <= OVERLAY_MAX) {
		c.ram.host[c.num * 4096] = (uint8_t)c.num;
		assert_int_equal(chain_save(&c), 4096);
	}
	assert_false(overlay_possible(&c.ram, c.num));
	assert_int_equal(c.ram.host[9 * 4096], 9);
	buf_done(&record);
	chain_done(&c);
}

/* Without a pagemap all is looked at, and the same is found. */
static void test_chain_without_pagemap(void **state)
{
	struct chain c;

	chain_begin(&c);
	close(c.ram.pagemap);
	c.ram.pagemap = -1;
	c.ram.host[0] = 51;
	c.ram.host[9 * RAM_CHUNK] = 52;
	assert_int_equal(chain_save(&c), 2 * 4096);
	assert_int_equal(c.ram.host[0], 51);
	assert_int_equal(c.ram.host[9 * RAM_CHUNK], 52);
	assert_int_equal(c.ram.host[6 * RAM_CHUNK], 3);
	chain_done(&c);
}

#define HEAD 14 /* of a record: size, count, 16 chunks */
#define MAP (SIZE / 4096 / 8)

/* Records and files that do not belong together. */
static void test_chain_refused(void **state)
{
	int short_file = new_file();
	struct chain c;
	uint8_t *over;

	chain_begin(&c);
	c.ram.host[4096] = 1;
	chain_save(&c);
	c.ram.host[8192] = 1;
	chain_save(&c);
	assert_int_equal(c.record.len, HEAD + 2 * MAP);
	over = c.record.data + HEAD;
	assert_true(over[0] == 2 && over[MAP] == 4);
	not_loaded(c.files, 1, c.files[2], &c.record, "in 2 files over another, not in 1");
	not_loaded(NULL, 0, c.files[2], &c.record, "in 2 files over another, not in 1");
	not_loaded((const int[]){c.files[0], short_file}, 2, c.files[2], &c.record, "the memory file has 0 bytes");
	not_loaded(c.files, 2, short_file, &c.record, "the memory file has 0 bytes");
	buf_put(&c.record, "", 1);
	not_loaded(c.files, 2, c.files[2], &c.record, "not as long");
	for (c.record.len--; c.record.len-- > 12;)
		not_loaded(c.files, 2, c.files[2], &c.record, "not as long");
	c.record.len = HEAD + 2 * MAP;
	c.record.data[8] = OVERLAY_MAX + 1;
	not_loaded(c.files, 2, c.files[2], &c.record, "in 10 files");
	c.record.data[11] = 0xff;
	not_loaded(c.files, 2, c.files[2], &c.record, "files over another");
	chain_done(&c);
	close(short_file);
}

static unsigned mappings(const struct ram *ram)
{
	unsigned long from, to;
	unsigned found = 0;
	char line[512];
	FILE *f = fopen("/proc/self/maps", "re");

	assert_non_null(f);
	while (fgets(line, sizeof(line), f))
		if (sscanf(line, "%lx-%lx", &from, &to) == 2)
			found += from >= (uintptr_t)ram->host && to <= (uintptr_t)ram->host + ram->size;
	fclose(f);
	return found;
}

/* However much has changed here and there, there are not more mappings than a process may have. The files are holes. */
static void test_chain_of_many_runs(void **state)
{
	const uint64_t size = 128 * RAM_CHUNK;
	static uint8_t based[128 / 8], over[128 * 512 / 8];
	int files[2] = {new_file(), new_file()};
	struct sm_error err = {0};
	struct buf record = {0};
	struct cursor c;
	struct ram ram;

	memset(based, 0xff, sizeof(based));
	for (uint64_t page = 0; page < size / 4096; page++) /* 5376 runs, of which 4096 could be mapped */
		if (page % 512 % 12 < 9)
			ram_set_bit(over, page);
	assert_true(ftruncate(files[0], (off_t)size) == 0 && ftruncate(files[1], (off_t)size) == 0);
	assert_int_equal(pwrite(files[0], "ab", 2, 9 * 4096 - 1), 2);
	assert_int_equal(pwrite(files[1], "cd", 2, 9 * 4096 - 1), 2);
	buf_put_u64(&record, size);
	buf_put_u32(&record, 1);
	buf_put(&record, based, sizeof(based));
	buf_put(&record, over, sizeof(over));
	assert_int_equal(ram_map(&ram, size, &err), 0);
	c = cursor_of(record.data, record.len);
	assert_int_equal(overlay_load(&ram, files, 1, files[1], &c, &err), 0);
	assert_true(mappings(&ram) < 2 * 4096);
	assert_int_equal(ram.host[9 * 4096 - 1], 'c');
	assert_int_equal(ram.host[9 * 4096], 'b');
	ram_unmap(&ram);
	buf_done(&record);
	close(files[0]);
	close(files[1]);
}

/* Of a machine that booted there is no base. */
static void test_overlay_alone(void **state)
{
	struct sm_error err = {0};
	struct buf over = {0};
	struct ram ram, child;
	uint64_t bytes;
	int fd;

	assert_int_equal(ram_map(&ram, SIZE, &err), 0);
	fill_some(ram.host);
	fd = save_over(&ram, &over, &bytes);
	assert_int_equal(bytes, 3 * 4096 + RAM_CHUNK);
	load_over(&child, -1, fd, &over);
	assert_memory_equal(child.host, ram.host, SIZE);
	ram_unmap(&child);
	/* A record that wants one, is cut short, or of another size. */
	over.data[12] |= 1;
	not_loaded(NULL, 0, fd, &over, "not there");
	over.len--;
	not_loaded(&fd, 1, fd, &over, "not as long");
	over.len++;
	over.data[3] ^= 1;
	not_loaded(&fd, 1, fd, &over, "does not fit");
	ram_unmap(&ram);
	close(fd);
	buf_done(&over);
}

static void fill_nothing(uint8_t *p)
{
}

static void test_ram_empty(void **state)
{
	struct buf record = {0};
	struct ram ram;
	uint64_t bytes;
	int fd = save_ram(fill_nothing, &record, &bytes);

	assert_int_equal(bytes, 0);
	load_ram(&ram, fd, &record);
	assert_int_equal(ram.host[SIZE - 1], 0);
	ram_unmap(&ram);
	buf_done(&record);
	close(fd);
}

static void refused(int fd, const void *record, size_t len)
{
	struct cursor c = cursor_of(record, len);
	struct sm_error err = {0};
	struct ram ram;

	assert_int_equal(ram_map(&ram, SIZE, &err), 0);
	assert_true(ram_load(&ram, fd, &c, &err) < 0);
	assert_int_equal(err.kind, SM_ERROR_CORRUPT);
	ram_unmap(&ram);
}

static void test_ram_refused(void **state)
{
	struct buf record = {0};
	uint64_t bytes;
	int fd = save_ram(fill_some, &record, &bytes), null = new_file();

	refused(fd, record.data, record.len - 1);
	refused(null, record.data, record.len); /* an empty file */
	record.data[2] ^= 1;			/* another size */
	refused(fd, record.data, record.len);
	record.data[2] ^= 1;
	assert_int_equal(ftruncate(fd, SIZE - 4096), 0);
	refused(fd, record.data, record.len);
	buf_done(&record);
	close(null);
	close(fd);
}

/* RAM of `size`, of which a base's file has `boot` bytes. */
static void map_plugged(struct ram *ram, uint64_t size, uint64_t boot)
{
	struct sm_error err = {0};

	assert_int_equal(ram_map(ram, size, &err), 0);
	ram->boot = boot;
}

static int over_base(struct ram *ram, int base, int top, const struct buf *record)
{
	struct cursor c = cursor_of(record->data, record->len);
	struct sm_error err = {0};

	return overlay_load(ram, &base, 1, top, &c, &err);
}

/*
 * Memory plugged to what a base has: restored from its file, saved as a diff over it, saved whole, each restored again;
 * and refused where a diff claims that the base has some of it.
 */
static void test_plugged(void **state)
{
	const uint64_t size = SIZE + 3 * RAM_CHUNK;
	struct buf record = {0}, diff = {0}, whole = {0};
	struct overlay_options o = {.keep = 1, .lean = true};
	struct sm_error err = {0};
	struct cursor c;
	struct ram ram, again;
	uint64_t bytes;
	uint8_t *changed;
	int base = save_ram(fill_some, &record, &bytes), top = new_file(), all = new_file();

	map_plugged(&ram, size, SIZE);
	c = cursor_of(record.data, record.len);
	assert_int_equal(ram_load(&ram, base, &c, &err), 0);
	assert_int_equal(ram.host[0], 1);
	assert_int_equal(ram.host[SIZE - 1], 4);
	assert_int_equal(ram.host[SIZE], 0);
	assert_int_equal(ram.host[size - 1], 0);
	assert_false(ram_from_file(&ram, SIZE / RAM_CHUNK));
	ram.host[0] = 77;
	ram.host[SIZE + RAM_CHUNK] = 5;
	ram.host[size - 1] = 6;
	changed = overlay_changed(&ram, 1);
	assert_non_null(changed);
	assert_int_equal(overlay_save(&ram, changed, &o, top, &diff, &bytes, &err), 0);
	assert_int_equal(bytes, 3 * 4096);
	free(changed);
	save(&ram, all, &whole, &bytes);
	ram_unmap(&ram);

	map_plugged(&again, size, SIZE);
	assert_int_equal(over_base(&again, base, top, &diff), 0);
	assert_int_equal(again.host[0], 77);
	assert_int_equal(again.host[SIZE - 1], 4);
	assert_int_equal(again.host[SIZE], 0);
	assert_int_equal(again.host[SIZE + RAM_CHUNK], 5);
	assert_int_equal(again.host[size - 1], 6);
	ram_unmap(&again);

	map_plugged(&again, size, SIZE);
	c = cursor_of(whole.data, whole.len);
	assert_int_equal(ram_load(&again, all, &c, &err), 0);
	assert_int_equal(again.host[0], 77);
	assert_int_equal(again.host[size - 1], 6);
	assert_true(ram_from_file(&again, size / RAM_CHUNK - 1));
	ram_unmap(&again);

	/* A size that is neither: the base's file with a record of all, a diff over a base that is too small. */
	map_plugged(&again, size, SIZE - RAM_CHUNK);
	c = cursor_of(record.data, record.len);
	assert_int_equal(ram_load(&again, base, &c, &err), -EINVAL);
	ram_unmap(&again);
	map_plugged(&again, size, SIZE);
	c = cursor_of(whole.data, whole.len);
	assert_int_equal(ram_load(&again, base, &c, &err), -EINVAL);
	ram_unmap(&again);
	diff.data[12 + (SIZE / RAM_CHUNK) / 8] |= 1;
	map_plugged(&again, size, SIZE);
	assert_int_equal(over_base(&again, base, top, &diff), -EINVAL);
	ram_unmap(&again);
	buf_done(&record);
	buf_done(&diff);
	buf_done(&whole);
	close(base);
	close(top);
	close(all);
}

/* ------------------------------------------------------------------------------------------ state */

static const struct vmm_config config = {.memory = SIZE, .cpus = 2, .window_size = GIB};

static void put_section(struct buf *b, uint32_t tag, const void *p, size_t len)
{
	buf_put_u32(b, tag);
	buf_put_u32(b, (uint32_t)len);
	buf_put(b, p, len);
}

/* A state file of `config`'s shape; `change` may spoil it before it is sealed with its sum. */
static int state_file(void (*change)(struct buf *b))
{
	struct buf b = {0}, shape = {0};
	int fd = new_file();

	buf_put_u64(&shape, SIZE);
	buf_put_u32(&shape, 2);
	buf_put_u64(&shape, GIB);
	buf_put_u64(&shape, 64 * GIB);
	buf_put(&b, snapshot_magic, sizeof(snapshot_magic));
	buf_put_u32(&b, SNAPSHOT_VERSION);
	put_section(&b, SNAPSHOT_VM, shape.data, shape.len);
	put_section(&b, SNAPSHOT_RAM, "ram", 3);
	put_section(&b, SNAPSHOT_ARCH, "arch", 4);
	put_section(&b, SNAPSHOT_DEV, "\1\0\0\0", 4);
	if (change)
		change(&b);
	buf_put_u32(&b, SNAPSHOT_END);
	buf_put_u32(&b, ~crc32c(UINT32_MAX, b.data, b.len));
	assert_int_equal(pwrite_full(fd, b.data, b.len, 0), 0);
	buf_done(&b);
	buf_done(&shape);
	return fd;
}

static void expect(int fd, const struct vmm_config *cfg, enum sm_error_kind kind, const char *word)
{
	struct snapshot s;
	struct sm_error err = {0};

	assert_true(snapshot_open(&s, fd, cfg, &err) < 0);
	assert_int_equal(err.kind, kind);
	assert_non_null(strstr(err.message, word));
	assert_null(s.data);
	close(fd);
}

static void test_state_whole(void **state)
{
	struct snapshot s;
	struct sm_error err = {0};
	int fd = state_file(NULL);

	assert_int_equal(snapshot_open(&s, fd, &config, &err), 0);
	assert_int_equal(s.window_gpa, 64 * GIB);
	assert_int_equal(s.ram.left, 3);
	assert_memory_equal(s.ram.p, "ram", 3);
	assert_memory_equal(s.arch.p, "arch", 4);
	assert_int_equal(s.devices.left, 12);
	assert_int_equal(s.memory, SIZE);
	assert_false(s.pluggable);
	snapshot_done(&s);
	close(fd);
}

static void with_plug(struct buf *b)
{
	b->data[b->len - 4] = SLOT_MEM;
}

static void no_memory(struct buf *b)
{
	memset(b->data + 20, 0, 8);
}

static void odd_memory(struct buf *b)
{
	b->data[21] = 0x10;
}

/* A machine that memory can be plugged into may have more than what it is restored from, up to a limit, but not less.
 */
static void test_state_with_more_memory(void **state)
{
	struct vmm_config more = config;
	struct sm_error err = {0};
	struct snapshot s;
	int fd = state_file(with_plug);

	more.memory = SIZE + 4 * MIB;
	assert_int_equal(snapshot_open(&s, fd, &more, &err), 0);
	assert_int_equal(s.memory, SIZE);
	assert_true(s.pluggable);
	snapshot_done(&s);
	close(fd);
	expect(state_file(NULL), &more, SM_ERROR_UNSUPPORTED, "32 MiB");
	more.memory = SIZE - RAM_CHUNK;
	expect(state_file(with_plug), &more, SM_ERROR_UNSUPPORTED, "32 MiB");
	more.memory = SIZE + VIRTIO_MEM_REGION_MAX + RAM_CHUNK;
	expect(state_file(with_plug), &more, SM_ERROR_UNSUPPORTED, "32 MiB");
	expect(state_file(no_memory), &config, SM_ERROR_CORRUPT, "memory's size");
	expect(state_file(odd_memory), &config, SM_ERROR_CORRUPT, "memory's size");
}

static void other_magic(struct buf *b)
{
	b->data[0] ^= 1;
}

static void other_version(struct buf *b)
{
	b->data[8]++;
}

static void other_order(struct buf *b)
{
	b->data[12] = SNAPSHOT_ARCH;
}

static void long_section(struct buf *b)
{
	memset(b->data + 16, 0xff, 4);
}

static void test_state_refused(void **state)
{
	struct vmm_config other = config;
	int fd = state_file(NULL);
	uint8_t byte = 0x55;

	expect(state_file(other_magic), &config, SM_ERROR_CORRUPT, "not a state file");
	expect(state_file(other_version), &config, SM_ERROR_UNSUPPORTED, "version 2");
	expect(state_file(other_order), &config, SM_ERROR_CORRUPT, "sections");
	expect(state_file(long_section), &config, SM_ERROR_CORRUPT, "sections");
	other.cpus = 1;
	expect(state_file(NULL), &other, SM_ERROR_UNSUPPORTED, "2 CPUs");
	other = config;
	other.memory *= 2;
	expect(state_file(NULL), &other, SM_ERROR_UNSUPPORTED, "32 MiB");
	expect(new_file(), &config, SM_ERROR_CORRUPT, "size");
	/* One byte anywhere. */
	assert_int_equal(pwrite(fd, &byte, 1, 40), 1);
	expect(fd, &config, SM_ERROR_CORRUPT, "checksum");
	fd = state_file(NULL);
	assert_int_equal(ftruncate(fd, 60), 0);
	expect(fd, &config, SM_ERROR_CORRUPT, "checksum");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_ram_again),
		cmocka_unit_test(test_ram_mark),
		cmocka_unit_test(test_ram_of_a_moment),
		cmocka_unit_test(test_overlay),
		cmocka_unit_test(test_overlay_alone),
		cmocka_unit_test(test_chain),
		cmocka_unit_test(test_chain_without_pagemap),
		cmocka_unit_test(test_chain_refused),
		cmocka_unit_test(test_chain_of_many_runs),
		cmocka_unit_test(test_ram_empty),
		cmocka_unit_test(test_ram_refused),
		cmocka_unit_test(test_state_whole),
		cmocka_unit_test(test_state_refused),
		cmocka_unit_test(test_plugged),
		cmocka_unit_test(test_state_with_more_memory),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
