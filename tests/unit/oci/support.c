/* SPDX-License-Identifier: Apache-2.0 */
/* See support.h. */
#include "support.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/fileio.h"
#include "base/util.h"

bool run(const char *fmt, ...)
{
	char command[8192];
	va_list ap;
	int n;

	va_start(ap, fmt);
	n = vsnprintf(command, sizeof(command), fmt, ap);
	va_end(ap);
	assert_true(n < (int)sizeof(command));
	return system(command) == 0;
}

void must_run(const char *fmt, ...)
{
	char command[8192];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(command, sizeof(command), fmt, ap);
	va_end(ap);
	if (!run("%s", command))
		fail_msg("failed: %s", command);
}

int scratch_setup(void **state)
{
	char template[] = "/tmp/test-oci-XXXXXX", path[4096];

	if (!mkdtemp(template) || chdir(template) < 0)
		return -1;
	*state = strdup(template);
	snprintf(path, sizeof(path), "%s:%s", MKIMAGE_DIR, getenv("PATH"));
	setenv("PATH", path, 1);
	setenv("TMPDIR", template, 1);
	/* The sanitizers' settings are for this process, not for tools that it runs. */
	must_run("mkdir -p a/etc a/bin b && echo one >a/etc/one && echo tool >a/bin/tool && echo two >b/two && : "
		 ">b/.wh.gone");
	must_run("head -c 1000000 /dev/zero | openssl enc -aes-128-ctr -nosalt -K 00 -iv 00 2>/dev/null >a.random");
	must_run("mkdir c && cp a.random c/random && cat c/random c/random >c/twice");
	must_run("for d in a b c; do tar -C $d --sort=name --owner=0 --group=0 --mtime=@1 -cf $d.tar .; done");
	return 0;
}

int scratch_teardown(void **state)
{
	char *path = *state;
	int r = chdir("/") < 0 ? -1 : remove_tree_at(AT_FDCWD, path);

	free(path);
	return r;
}

static int stream_layers(struct oci_source *src, const struct oci_image *img, uint64_t max_bytes, uint64_t *total,
			 struct sm_error *err)
{
	char buf[65536];

	for (unsigned i = 0; i < img->num_layers; i++) {
		struct oci_layer_stream *s;
		ssize_t n = oci_layer_open(src, img, i, max_bytes, &s, err);

		if (n < 0)
			return (int)n;
		while ((n = oci_layer_read(s, buf, sizeof(buf), err)) > 0)
			*total += (uint64_t)n;
		/* The end is the end, and an error stays. */
		assert_int_equal(oci_layer_read(s, buf, sizeof(buf), NULL), n);
		if (n == 0)
			assert_int_equal(oci_layer_position(s), img->layers[i].size);
		oci_layer_close(s);
		if (n < 0)
			return (int)n;
	}
	return 0;
}

int stream_all(const char *spec, const char *platform, uint64_t max_bytes, uint64_t *ret_bytes, struct sm_error *err)
{
	struct oci_source *src;
	struct oci_image img;
	uint64_t total = 0;
	int r = oci_open(spec, NULL, &src, err);

	if (r < 0)
		return r;
	r = oci_resolve(src, platform, 16, &img, err);
	if (r == 0) {
		r = stream_layers(src, &img, max_bytes, &total, err);
		oci_image_done(&img);
	}
	oci_close(src);
	if (ret_bytes)
		*ret_bytes = total;
	return r;
}

void expect_stream(const char *spec, int want, const char *text)
{
	struct sm_error err = {0};
	int r = stream_all(spec, "linux/amd64", 64 * MIB, NULL, &err);

	if (r != want || (want < 0 && !strstr(err.message, text)))
		fail_msg("%s: got %d '%s', expected %d '%s'", spec, r, err.message, want, text);
	if (want == 0)
		return;
	assert_int_equal(err.code, -want);
	assert_true(str_starts(err.message, spec));
	assert_null(strpbrk(err.message, "\n\x1b"));
}
