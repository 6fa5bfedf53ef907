/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Tests of the initramfs: a made-up module tree (tiny ELF files with a .modinfo section) goes in; cpio(1), which the
 * kernel's format comes from, says what came out.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/cleanup.h"
#include "base/fileio.h"
#include "base/util.h"
#include "kernel/kernel.h"
#include "kernel/modules.h"

struct world {
	char dir[64];
	struct kernel kernel;
	char modules[128], out[128], init[128];
};

static void put_text(const struct world *w, const char *name, const char *text)
{
	char path[512];

	snprintf(path, sizeof(path), "%s/mod/%s", w->dir, name);
	assert_int_equal(write_file_atomic_at(AT_FDCWD, path, text, strlen(text), 0644), 0);
}

/* An ELF with a null section, .modinfo (info has NULs in it) and the name table. */
static void make_elf(struct buf *b, const char *info, size_t info_len)
{
	static const char names[] = "\0.modinfo\0.shstrtab";
	uint64_t info_at = sizeof(Elf64_Ehdr) + 3 * sizeof(Elf64_Shdr), names_at = info_at + info_len;
	Elf64_Ehdr eh = {.e_ident = {0x7f, 'E', 'L', 'F', ELFCLASS64, ELFDATA2LSB, EV_CURRENT},
			 .e_type = ET_REL,
			 .e_machine = EM_X86_64,
			 .e_shoff = sizeof(eh),
			 .e_shentsize = sizeof(Elf64_Shdr),
			 .e_shnum = 3,
			 .e_shstrndx = 2};
	Elf64_Shdr sections[3] = {
		{0},
		{.sh_name = 1, .sh_type = SHT_PROGBITS, .sh_offset = info_at, .sh_size = info_len},
		{.sh_name = 10, .sh_type = SHT_STRTAB, .sh_offset = names_at, .sh_size = sizeof(names)},
	};

	buf_put(b, &eh, sizeof(eh));
	buf_put(b, sections, sizeof(sections));
	buf_put(b, info, info_len);
	assert_int_equal(buf_put(b, names, sizeof(names)), 0);
}

static void put_module(const struct world *w, const char *file, const char *depends, const char *softdep)
{
	_cleanup_(buf_done) struct buf elf = {0};
	char info[256], path[512];
	int n = snprintf(info, sizeof(info), "license=GPL%cdepends=%s%csoftdep=%s%cname=x", 0, depends, 0, softdep, 0) +
		1;

	make_elf(&elf, info, (size_t)n);
	snprintf(path, sizeof(path), "%s/mod/%s", w->dir, file);
	assert_int_equal(write_file_atomic_at(AT_FDCWD, path, elf.data, elf.len, 0644), 0);
}

static void shell(const char *fmt, ...) PRINTF_LIKE(1, 2);
static void shell(const char *fmt, ...)
{
	char command[1024];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(command, sizeof(command), fmt, ap);
	va_end(ap);
	assert_int_equal(system(command), 0);
}

static char *output_of(const char *fmt, ...) PRINTF_LIKE(1, 2);
static char *output_of(const char *fmt, ...)
{
	char command[1024];
	char *text = calloc(1, 65536);
	va_list ap;
	FILE *f;

	va_start(ap, fmt);
	vsnprintf(command, sizeof(command), fmt, ap);
	va_end(ap);
	f = popen(command, "r");
	assert_non_null(f);
	assert_non_null(text);
	assert_true(fread(text, 1, 65535, f) < 65535);
	assert_int_equal(pclose(f), 0);
	return text;
}

static int setup(void **state)
{
	struct world *w = calloc(1, sizeof(*w));

	strcpy(w->dir, "/tmp/sm-test-kernel.XXXXXX");
	if (!mkdtemp(w->dir))
		return -1;
	snprintf(w->modules, sizeof(w->modules), "%s/mod", w->dir);
	snprintf(w->out, sizeof(w->out), "%s/out", w->dir);
	snprintf(w->init, sizeof(w->init), "%s/init", w->dir);
	w->kernel = (struct kernel){.image = w->dir, .release = (char *)"1.2.3-test", .modules = w->modules};
	shell("mkdir -p %s/kernel/fs %s/kernel/drivers; echo agent >%s", w->modules, w->modules, w->init);
	put_module(w, "kernel/drivers/virtio_ring.ko", "", "");
	put_module(w, "kernel/drivers/virtio.ko", "virtio_ring", "");
	put_module(w, "kernel/drivers/virtio-rng.ko", "virtio", "");
	put_module(w, "kernel/fs/lib.ko", "", "pre: sum there nowhere post: virtio_rng");
	put_module(w, "kernel/fs/erofs.ko", "lib,virtio", "");
	put_module(w, "kernel/fs/sum_fast.ko", "", "");
	put_module(w, "kernel/fs/loop_a.ko", "loop_b", "");
	put_module(w, "kernel/fs/loop_b.ko", "loop_a", "");
	put_module(w, "kernel/fs/broken.ko", "absent", "");
	shell("cd %s && xz -k kernel/fs/erofs.ko && mv kernel/fs/erofs.ko %s/erofs.plain && zstd -q --rm "
	      "kernel/fs/lib.ko",
	      w->modules, w->dir);
	put_text(
		w, "modules.dep",
		"kernel/drivers/virtio_ring.ko:\nkernel/drivers/virtio.ko: kernel/drivers/virtio_ring.ko\n"
		"kernel/drivers/virtio-rng.ko:\nkernel/fs/lib.ko.zst:\nkernel/fs/erofs.ko.xz:\nkernel/fs/sum_fast.ko:\n"
		"kernel/fs/loop_a.ko:\nkernel/fs/loop_b.ko:\nkernel/fs/broken.ko:\n");
	put_text(w, "modules.builtin", "kernel/fs/ext4.ko\n");
	put_text(w, "modules.alias", "# comment\nalias sum sum_fast\nalias sum* other\n");
	put_text(w, "modules.builtin.modinfo", "ext4.alias=there");
	*state = w;
	return 0;
}

static int teardown(void **state)
{
	struct world *w = *state;

	remove_tree_at(AT_FDCWD, w->dir);
	free(w);
	return 0;
}

static int build(struct world *w, const char *const *modules, struct sm_error *err)
{
	struct initramfs_file files[] = {{.path = "init", .source = w->init, .mode = 0755},
					 {.path = "etc/deep/copy", .source = w->init, .mode = 0600}};

	return initramfs_build(&w->kernel, modules, files, 2, w->out, err);
}

#define LIST(...) ((const char *const[]){__VA_ARGS__, NULL})

static void test_load_order_is_the_closure(void **state)
{
	struct world *w = *state;
	struct sm_error err = {0};
	_free_ char *order = NULL;

	assert_int_equal(build(w, LIST("virtio_rng", "erofs", "ext4", "?absent", "virtio"), &err), 0);
	order = output_of("cd %s && cpio -i --quiet --to-stdout modules <out", w->dir);
	/* dash equals underscore; built in and optional ones are left out; the soft "sum" is found by its alias. */
	assert_string_equal(order, "virtio_ring.ko\nvirtio.ko\nvirtio_rng.ko\nsum_fast.ko\nlib.ko\nerofs.ko\n");
}

static void test_cpio_reads_it(void **state)
{
	struct world *w = *state;
	_free_ char *list = NULL;

	assert_int_equal(build(w, LIST("erofs"), NULL), 0);
	list = output_of("cd %s && cpio -tv --quiet <out | awk '{print $1, $NF}'", w->dir);
	assert_non_null(strstr(list, "-rwxr-xr-x init\n"));
	assert_non_null(strstr(list, "drwxr-xr-x etc/deep\n-rw------- etc/deep/copy\n"));
	assert_non_null(strstr(list, "crw------- dev/console\n"));
	/* What was compressed is not any more. */
	shell("cd %s && mkdir x && cd x && cpio -id --quiet <../out && cmp lib/modules/erofs.ko ../erofs.plain && cmp "
	      "init ../init",
	      w->dir);
}

static void test_equal_inputs_give_equal_bytes(void **state)
{
	struct world *w = *state;

	assert_int_equal(build(w, LIST("erofs", "virtio_rng"), NULL), 0);
	shell("cp %s %s.first && sleep 0.01 && touch %s", w->out, w->out, w->init);
	assert_int_equal(build(w, LIST("erofs", "virtio_rng"), NULL), 0);
	shell("cmp %s %s.first", w->out, w->out);
}

static void test_modules_without_depmod(void **state)
{
	struct world *w = *state;
	_free_ char *order = NULL;

	/* A package just unpacked: names without the suffix of the compression. */
	shell("cd %s && rm modules.alias modules.builtin.modinfo && sed 's/:.*//; s/\\.xz$//; s/\\.zst$//' modules.dep "
	      ">modules.order && rm modules.dep",
	      w->modules);
	assert_int_equal(build(w, LIST("erofs"), NULL), 0);
	order = output_of("cd %s && cpio -i --quiet --to-stdout modules <out", w->dir);
	assert_string_equal(order, "lib.ko\nvirtio_ring.ko\nvirtio.ko\nerofs.ko\n");
}

static void test_failures_name_the_module_and_leave_no_file(void **state)
{
	struct world *w = *state;
	struct sm_error err = {0};

	assert_int_equal(build(w, LIST("nothing"), &err), -ENOENT);
	assert_non_null(strstr(err.message, "nothing"));
	assert_int_equal(build(w, LIST("broken"), &err), -ENOENT);
	assert_non_null(strstr(err.message, "broken"));
	assert_non_null(strstr(err.message, "absent"));
	assert_int_equal(build(w, LIST("loop_a"), &err), -ELOOP);
	put_text(w, "kernel/fs/sum_fast.ko", "\177ELF not really");
	assert_int_equal(build(w, LIST("sum_fast"), &err), -EBADMSG);
	put_text(w, "kernel/fs/sum_fast.ko", "neither this");
	assert_true(build(w, LIST("sum_fast"), &err) < 0);
	assert_non_null(strstr(err.message, "sum_fast"));
	assert_int_equal(access(w->out, F_OK), -1);
}

static int count(void *arg, const char *key, const char *value)
{
	(*(int *)arg)++;
	return 0;
}

/* Every byte of a good module in turn takes odd values, and every length is tried: no read outside (sanitizers tell).
 */
static void test_broken_modules_are_refused(void **state)
{
	_cleanup_(buf_done) struct buf elf = {0};
	int seen = 0;

	make_elf(&elf, "a=1\0b=2", 8);
	assert_int_equal(module_info(elf.data, elf.len, count, &seen), 0);
	assert_int_equal(seen, 2);
	for (size_t len = 0; len < elf.len; len++) {
		uint8_t *copy = malloc(len ? len : 1);

		memcpy(copy, elf.data, len);
		assert_int_equal(module_info(copy, len, count, &seen), -EBADMSG);
		free(copy);
	}
	for (size_t i = 0; i < elf.len; i++)
		for (unsigned v = 0; v < 4; v++) {
			uint8_t was = elf.data[i];
			int r;

			elf.data[i] = (const uint8_t[]){0, 1, 0x7f, 0xff}[v];
			r = module_info(elf.data, elf.len, count, &seen);
			assert_true(r == 0 || r == -EBADMSG);
			elf.data[i] = was;
		}
}

static void test_cache_is_kept_until_an_input_changes(void **state)
{
	struct world *w = *state;
	struct initramfs_file file = {.path = "init", .source = w->init, .mode = 0755};
	_free_ char *a = NULL, *b = NULL, *c = NULL;
	struct stat before, after;

	assert_int_equal(initramfs_cached(&w->kernel, LIST("erofs"), &file, 1, w->dir, "test", &a, NULL), 0);
	assert_int_equal(stat(a, &before), 0);
	assert_int_equal(initramfs_cached(&w->kernel, LIST("erofs"), &file, 1, w->dir, "test", &b, NULL), 0);
	assert_string_equal(a, b);
	assert_int_equal(stat(b, &after), 0);
	assert_int_equal(before.st_ino, after.st_ino);
	shell("echo newer agent >%s", w->init);
	assert_int_equal(initramfs_cached(&w->kernel, LIST("erofs"), &file, 1, w->dir, "test", &c, NULL), 0);
	assert_string_not_equal(a, c);
	/* What nobody used for long goes when something new comes, and a use counts. */
	shell("touch -d '8 days ago' %s %s && echo newest agent >%s", a, c, w->init);
	free(TAKE_PTR(b));
	assert_int_equal(initramfs_cached(&w->kernel, LIST("virtio"), &file, 1, w->dir, "test", &b, NULL), 0);
	assert_int_equal(access(a, F_OK), -1);
	shell("touch -d '8 days ago' %s", b);
	free(TAKE_PTR(c));
	assert_int_equal(initramfs_cached(&w->kernel, LIST("virtio"), &file, 1, w->dir, "test", &c, NULL), 0);
	assert_string_equal(b, c);
	free(TAKE_PTR(c));
	assert_int_equal(initramfs_cached(&w->kernel, LIST("erofs"), &file, 1, w->dir, "test", &c, NULL), 0);
	assert_int_equal(access(b, F_OK), 0);
}

static void test_a_missing_file_is_named(void **state)
{
	struct world *w = *state;
	struct initramfs_file file = {.path = "init", .source = "/nonexistent/agent", .mode = 0755};
	struct sm_error err = {0};
	char *path = NULL;

	assert_int_equal(initramfs_cached(&w->kernel, LIST("erofs"), &file, 1, w->dir, "test", &path, &err), -ENOENT);
	assert_non_null(strstr(err.message, "/nonexistent/agent"));
}

/* What a bundle has of a kernel makes the same initramfs, without anything of the first. */
static void test_a_copy_has_all_that_is_needed(void **state)
{
	struct world *w = *state;
	struct kernel k = {.release = w->kernel.release};
	_free_ char *image = NULL, *modules = NULL, *copy = NULL, *list = NULL;
	struct sm_error err = {0};

	assert_true(asprintf(&copy, "%s/copy", w->dir) > 0);
	assert_true(asprintf(&image, "%s/boot/vmlinuz-%s", copy, k.release) > 0);
	assert_true(asprintf(&modules, "%s/lib/modules/%s", copy, k.release) > 0);
	assert_int_equal(build(w, LIST("virtio_rng", "erofs", "ext4"), NULL), 0);
	shell("mv %s %s.first", w->out, w->out);
	w->kernel.image = w->init;
	assert_int_equal(kernel_copy(&w->kernel, LIST("virtio_rng", "?absent", "erofs", "ext4"), copy, &err), 0);
	shell("cmp %s %s", w->init, image);
	list = output_of("cd %s/kernel && ls", modules);
	assert_string_equal(list, "erofs.ko\nlib.ko\nsum_fast.ko\nvirtio.ko\nvirtio_ring.ko\nvirtio_rng.ko\n");
	shell("rm -r %s", w->modules);
	k.image = image;
	k.modules = modules;
	w->kernel = k;
	assert_int_equal(build(w, LIST("virtio_rng", "erofs", "ext4"), &err), 0);
	shell("cmp %s %s.first", w->out, w->out);
	assert_int_equal(kernel_copy(&k, LIST("nothing"), w->init, &err), -ENOTDIR);
	assert_non_null(strstr(err.message, w->init));
}

#define TEST(t) cmocka_unit_test_setup_teardown(t, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_load_order_is_the_closure),
		TEST(test_cpio_reads_it),
		TEST(test_equal_inputs_give_equal_bytes),
		TEST(test_modules_without_depmod),
		TEST(test_failures_name_the_module_and_leave_no_file),
		TEST(test_broken_modules_are_refused),
		TEST(test_cache_is_kept_until_an_input_changes),
		TEST(test_a_missing_file_is_named),
		TEST(test_a_copy_has_all_that_is_needed),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
