/* SPDX-License-Identifier: Apache-2.0 */
/* Tests of kernel images and packages: made-up bzImages, ELF kernels and .deb files, good and broken; and the installed
 * kernel if there is one. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <glob.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/cleanup.h"
#include "base/fileio.h"
#include "kernel/internal.h"

struct world {
	char dir[64], image[128];
};

static int setup(void **state)
{
	struct world *w = calloc(1, sizeof(*w));

	strcpy(w->dir, "/tmp/sm-test-image.XXXXXX");
	if (!mkdtemp(w->dir))
		return -1;
	snprintf(w->image, sizeof(w->image), "%s/vmlinuz", w->dir);
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

static void shell(const char *fmt, ...) PRINTF_LIKE(1, 2);
static void shell(const char *fmt, ...)
{
	char command[2048];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(command, sizeof(command), fmt, ap);
	va_end(ap);
	assert_int_equal(system(command), 0);
}

static void put(uint8_t *p, size_t off, uint32_t v, unsigned bytes)
{
	for (unsigned i = 0; i < bytes; i++)
		p[off + i] = (uint8_t)(v >> (8 * i));
}

/* A bzImage with one sector of setup, whose payload is `compressed` plus its four bytes of size. */
static void make_bzimage(const struct world *w, const char *compressed, uint32_t length_lie)
{
	_cleanup_(buf_done) struct buf b = {0};
	_free_ char *payload = NULL;
	size_t len = 0;
	uint8_t head[2048] = {0};

	if (compressed)
		assert_int_equal(read_file_at(AT_FDCWD, compressed, 1 << 20, &payload, &len), 0);
	put(head, 0x1f1, 3, 1); /* sectors of setup: the protected part begins at 2048 */
	memcpy(head + 0x202, "HdrS", 4);
	put(head, 0x20e, 0x600, 2); /* the version string stands at 0x200 + this */
	strcpy((char *)head + 0x800 - 0x100, "unused");
	put(head, 0x20e, 0x300, 2);
	strcpy((char *)head + 0x500, "9.8.7-test-amd64 (who@where) #1 SMP");
	put(head, 0x248, 16, 4);
	put(head, 0x24c, length_lie ? length_lie : (uint32_t)len + 4, 4);
	buf_put(&b, head, sizeof(head));
	buf_put_zero(&b, 16);
	buf_put(&b, payload, len);
	buf_put_u32(&b, 0);
	assert_int_equal(b.error, 0);
	assert_int_equal(write_file_atomic_at(AT_FDCWD, w->image, b.data, b.len, 0644), 0);
}

static void test_release_of_a_bzimage(void **state)
{
	struct world *w = *state;
	_free_ char *release = NULL;

	make_bzimage(w, NULL, 0);
	assert_int_equal(kernel_image_release(w->image, &release, NULL), 0);
	assert_string_equal(release, "9.8.7-test-amd64");
}

static void test_release_of_an_elf_kernel(void **state)
{
	struct world *w = *state;
	_free_ char *release = NULL;

	shell("printf '\\177ELFxxxxLinux version 5.4.3-own (me) #2\\n' >%s", w->image);
	assert_int_equal(kernel_image_release(w->image, &release, NULL), 0);
	assert_string_equal(release, "5.4.3-own");
}

static void test_what_is_no_kernel_is_refused(void **state)
{
	static const char *const contents[] = {
		"", "x", "#!/bin/sh\\n", "\\177ELF", "\\177ELF Linux version ", "\\177ELF Linux version 5.4"};
	struct world *w = *state;
	struct sm_error err = {0};
	struct stat st;
	char *release = NULL;

	for (size_t i = 0; i < sizeof(contents) / sizeof(*contents); i++) {
		shell("printf '%s' >%s", contents[i], w->image);
		assert_int_equal(kernel_image_release(w->image, &release, &err), -EINVAL);
		assert_non_null(strstr(err.message, w->image));
	}
	make_bzimage(w, NULL, 0);
	assert_int_equal(stat(w->image, &st), 0);
	shell("truncate -s 1280 %s", w->image); /* 0x500: the version would begin here */
	assert_int_equal(kernel_image_release(w->image, &release, &err), -EINVAL);
	assert_int_equal(kernel_image_release(w->dir, &release, &err), -EINVAL);
	assert_int_equal(kernel_image_release("/nonexistent", &release, &err), -ENOENT);
}

static void test_the_elf_kernel_is_unpacked_and_kept(void **state)
{
	static const char *const packers[] = {"gzip -c", "xz --check=crc32 --x86 --lzma2 -c", "zstd -q -c"};
	struct world *w = *state;

	shell("(printf '\\177ELF'; head -c 300000 /dev/urandom) >%s/elf", w->dir);
	for (size_t i = 0; i < sizeof(packers) / sizeof(*packers); i++) {
		struct kernel k = {.image = w->image, .release = (char *)"9.8.7"};
		_free_ char *path = NULL, *again = NULL, *packed = NULL;

		shell("%s %s/elf >%s/packed", packers[i], w->dir, w->dir);
		assert_true(asprintf(&packed, "%s/packed", w->dir) > 0);
		make_bzimage(w, packed, 0);
		assert_int_equal(kernel_vmlinux_cached(&k, w->dir, &path, NULL), 0);
		shell("cmp %s %s/elf", path, w->dir);
		assert_int_equal(kernel_vmlinux_cached(&k, w->dir, &again, NULL), 0);
		assert_string_equal(path, again);
		shell("rm -r %s/kernels", w->dir);
	}
}

static void test_a_broken_payload_is_refused(void **state)
{
	struct world *w = *state;
	struct kernel k = {.image = w->image, .release = (char *)"9.8.7"};
	struct sm_error err = {0};
	_free_ char *packed = NULL;
	char *path = NULL;

	assert_true(asprintf(&packed, "%s/packed", w->dir) > 0);
	shell("(printf '\\177ELF'; head -c 300000 /dev/urandom) | gzip -c | head -c 200000 >%s", packed);
	make_bzimage(w, packed, 0);
	assert_true(kernel_vmlinux_cached(&k, w->dir, &path, &err) < 0);
	shell("echo not an elf kernel | gzip -c >%s", packed);
	make_bzimage(w, packed, 0);
	assert_int_equal(kernel_vmlinux_cached(&k, w->dir, &path, &err), -EBADMSG);
	for (uint32_t lie = 1; lie; lie *= 16) { /* lengths before and beyond the end */
		make_bzimage(w, packed, lie);
		assert_true(kernel_vmlinux_cached(&k, w->dir, &path, &err) < 0);
	}
	assert_null(path);
	shell("test -z \"$(ls %s/kernels 2>/dev/null)\"", w->dir);
}

static void test_a_package_is_unpacked(void **state)
{
	struct world *w = *state;
	_free_ char *deb = NULL, *to = NULL;

	shell("cd %s && mkdir -p d/boot d/lib/modules/1.2/kernel d/usr/share d/etc && echo k >d/boot/vmlinuz-1.2 && "
	      "echo m "
	      ">d/lib/modules/1.2/kernel/m.ko && echo doc >d/usr/share/doc && ln -s /etc d/lib/modules/1.2/source && "
	      "echo 2.0 "
	      ">debian-binary && tar -C d -cJf data.tar.xz . && tar -czf control.tar.gz debian-binary && "
	      "ar rc p.deb debian-binary control.tar.gz data.tar.xz",
	      w->dir);
	assert_true(asprintf(&deb, "%s/p.deb", w->dir) > 0 && asprintf(&to, "%s/to", w->dir) > 0);
	shell("mkdir %s", to);
	assert_int_equal(kernel_unpack_deb(deb, to, NULL), 0);
	shell("cd %s && test \"$(find . -type f -o -type l | sort | tr '\\n' ' ')\" = './boot/vmlinuz-1.2 "
	      "./lib/modules/1.2/kernel/m.ko '",
	      to);
}

static void test_a_broken_package_is_refused(void **state)
{
	struct world *w = *state;
	struct sm_error err = {0};
	_free_ char *deb = NULL;

	assert_true(asprintf(&deb, "%s/p.deb", w->dir) > 0);
	shell("head -c 5000 /dev/urandom >%s", deb);
	assert_int_equal(kernel_unpack_deb(deb, w->dir, &err), -EBADMSG);
	shell("cd %s && rm p.deb && echo 2.0 >debian-binary && ar rc p.deb debian-binary", w->dir);
	assert_int_equal(kernel_unpack_deb(deb, w->dir, &err), -EBADMSG);
	shell("cd %s && rm p.deb && head -c 999 /dev/urandom >data.tar && ar rc p.deb data.tar", w->dir);
	assert_int_equal(kernel_unpack_deb(deb, w->dir, &err), -EBADMSG);
	/* Names that would leave the directory. */
	shell("cd %s && rm p.deb data.tar && mkdir -p a/lib/modules && echo x >evil && tar -C a/lib --transform "
	      "'s#^evil#./lib/modules/../../../evil2#' -P -cf data.tar ../../evil && tar -P --transform "
	      "'s#.*#./lib/modules/../../../../tmp/sm-evil#' -cf data.tar evil && ar rc p.deb data.tar && mkdir in",
	      w->dir);
	assert_true(kernel_unpack_deb(deb, w->dir, &err) <= 0); /* passed over or refused */
	assert_int_equal(access("/tmp/sm-evil", F_OK), -1);
}

static void test_the_installed_kernel_is_found(void **state)
{
	struct world *w = *state;
	struct kernel k = {0}, same = {0};
	glob_t g;
	int r = glob("/boot/vmlinuz-*-cloud-amd64", 0, NULL, &g);

	if (r == 0)
		globfree(&g);
	if (r != 0)
		skip();
	assert_int_equal(kernel_find(NULL, w->dir, &k, NULL), 0);
	assert_non_null(strstr(k.image, k.release));
	assert_non_null(strstr(k.modules, k.release));
	assert_int_equal(kernel_find(k.image, w->dir, &same, NULL), 0);
	assert_string_equal(k.release, same.release);
	assert_string_equal(k.modules, same.modules);
	kernel_done(&k);
	kernel_done(&same);
}

#define TEST(t) cmocka_unit_test_setup_teardown(t, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_release_of_a_bzimage),	 TEST(test_release_of_an_elf_kernel),
		TEST(test_what_is_no_kernel_is_refused), TEST(test_the_elf_kernel_is_unpacked_and_kept),
		TEST(test_a_broken_payload_is_refused),	 TEST(test_a_package_is_unpacked),
		TEST(test_a_broken_package_is_refused),	 TEST(test_the_installed_kernel_is_found),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
