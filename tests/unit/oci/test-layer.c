/* SPDX-License-Identifier: Apache-2.0 */
/* Layer streams: the bytes, the checks at the end, limits, streams closed half-way, many at once. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/fileio.h"
#include "base/util.h"
#include "support.h"

static struct oci_source *open_image(const char *spec, struct oci_image *img)
{
	struct oci_source *src;
	struct sm_error err = {0};

	if (oci_open(spec, NULL, &src, &err) < 0 || oci_resolve(src, "linux/amd64", 16, img, &err) < 0)
		fail_msg("%s", err.message);
	return src;
}

/* Reads layer i in pieces of `step` and compares with the tar it was made from. */
static void compare(struct oci_source *src, const struct oci_image *img, unsigned i, const char *tar, size_t step)
{
	struct oci_layer_stream *s;
	struct sm_error err = {0};
	char *want, *buf = malloc(step);
	size_t len, at = 0;
	ssize_t n;

	assert_int_equal(read_file_at(AT_FDCWD, tar, 64 * MIB, &want, &len), 0);
	assert_int_equal(oci_layer_open(src, img, i, len, &s, &err), 0);
	while ((n = oci_layer_read(s, buf, step, &err)) > 0) {
		assert_true(at + (size_t)n <= len);
		assert_memory_equal(buf, want + at, n);
		at += (size_t)n;
	}
	if (n < 0)
		fail_msg("%s", err.message);
	assert_int_equal(at, len);
	oci_layer_close(s);
	free(buf);
	free(want);
}

/* Every way to store a layer, read in small, odd and large pieces. */
static void test_content(void **state)
{
	static const size_t steps[] = {513, 262144, 300001, 5000000};
	struct oci_image img;
	struct oci_source *src;

	must_run("mkimage --layer c.tar,plain --layer c.tar,gzip --layer c.tar,gzip,members=7 --layer c.tar,zstd "
		 "--layer c.tar,zstd,members=5,skip,nosize --layer c.tar,level=0 --layer "
		 "a.tar,mt=application/vnd.oci.image.layer.v1.tar "
		 "ways");
	src = open_image("oci:ways", &img);
	assert_int_equal(img.layers[0].compression, OCI_PLAIN);
	assert_int_equal(img.layers[1].compression, OCI_GZIP);
	assert_int_equal(img.layers[4].compression, OCI_ZSTD);
	assert_int_equal(img.layers[6].compression, OCI_GZIP); /* by content, whatever its media type says */
	for (unsigned i = 0; i < 7; i++)
		for (size_t j = 0; j < ARRAY_SIZE(steps); j++)
			compare(src, &img, i, i == 6 ? "a.tar" : "c.tar", steps[j]);
	oci_image_done(&img);
	oci_close(src);
}

static void test_broken(void **state)
{
	static const struct {
		const char *layer;
		int want;
		const char *text;
	} list[] = {
		{"c.tar,cut=1", -EBADMSG, "layer 0 (sha256:"},
		{"c.tar,cut=1", -EBADMSG, "the gzip data ends too early"},
		{"c.tar,cut=2000000", -EBADMSG, "the gzip data ends too early"},
		{"c.tar,zstd,cut=1", -EBADMSG, "the zstd data ends too early"},
		{"c.tar,zstd,cut=500000", -EBADMSG, "the zstd data ends too early"},
		{"c.tar,plain,cut=1", -EBADMSG, "its unpacked content has digest sha256:"},
		{"c.tar,append=100", -EBADMSG, "garbage behind the last gzip member"},
		{"c.tar,zeropad=512", -EBADMSG, "garbage behind the last gzip member"},
		{"c.tar,zstd,append=100", -EBADMSG, "garbage behind the last zstd frame"},
		{"c.tar,zstd,zeropad=1", -EBADMSG, "zstd"},
		{"c.tar,plain,append=100", -EBADMSG, "its unpacked content has digest sha256:"},
		{"c.tar,break=2000000", -EBADMSG, "gzip"},
		{"c.tar,break=-5", -EBADMSG, "a gzip checksum is wrong"},
		{"c.tar,zstd,break=500000", -EBADMSG, "zstd"},
		{"c.tar,plain,break=2000000", -EBADMSG, "its unpacked content has digest sha256:"},
		{"c.tar,flip=2000000", -EBADMSG, "its content has digest sha256:"},
		{"c.tar,flip=5", -EBADMSG, "its content has digest sha256:"}, /* what a decoder would not notice */
		{"c.tar,flip=-1", -EBADMSG, "its content has digest sha256:"},
		{"c.tar,zstd,flip=500000", -EBADMSG, "its content has digest sha256:"},
		{"c.tar,plain,flip=2000000", -EBADMSG, "its content has digest sha256:"},
		{"c.tar,chop=1", -EBADMSG, "its descriptor says"},
		{"c.tar,extend=1", -EBADMSG, "its descriptor says"},
		{"c.tar,diffid=sha256:0000000000000000000000000000000000000000000000000000000000000000", -EBADMSG,
		 "its unpacked content has digest sha256:"},
		{"c.tar,digest=sha256:0000000000000000000000000000000000000000000000000000000000000000", -EBADMSG,
		 "its content has digest sha256:"},
		{"zeros:100M", -EFBIG, "it unpacks to more than the limit of 64.0 MiB"},
		{"zeros:100M,zstd", -EFBIG, "it unpacks to more than the limit of 64.0 MiB"},
		{"zeros:100M,plain", -EFBIG, "it unpacks to more than the limit of 64.0 MiB"},
		{"file:xz.layer,plain", -ENOTSUP, "layer 0 is compressed with xz"},
		{"file:/dev/null,plain", 0, ""},
		{"file:/dev/null", 0, ""},
		{"file:/dev/null,zstd", 0, ""},
	};

	must_run("xz -c a.tar >xz.layer");
	for (size_t i = 0; i < ARRAY_SIZE(list); i++) {
		must_run("mkimage --layer %s broken", list[i].layer);
		expect_stream("oci:broken", list[i].want, list[i].text);
	}
	/* A docker archive has no digest of the blob: the diff ID is what holds. */
	must_run("mkimage --format docker --layer c.tar,flip=2000000 broken.tar");
	expect_stream("docker-archive:broken.tar", -EBADMSG, "its unpacked content has digest sha256:");
}

static unsigned open_descriptors(void)
{
	DIR *d = opendir("/proc/self/fd");
	unsigned n = 0;

	while (readdir(d))
		n++;
	closedir(d);
	return n;
}

/* Closed before anything was read, in the middle, and at every stage: no thread hangs, no descriptor stays. */
static void test_early_close(void **state)
{
	unsigned before = open_descriptors();
	struct oci_image img;
	struct oci_source *src;
	char *buf = malloc(4 * MIB);

	must_run("mkimage --layer c.tar --layer c.tar,zstd --layer c.tar,plain --layer c.tar,break=2900000 early");
	src = open_image("oci:early", &img);
	for (unsigned i = 0; i < 4; i++)
		for (size_t n = 0; n < 2900000; n += 500001) {
			struct oci_layer_stream *s;

			assert_int_equal(oci_layer_open(src, &img, i, 64 * MIB, &s, NULL), 0);
			assert_int_equal(oci_layer_read(s, buf, n, NULL), n);
			assert_null(oci_layer_close(s));
		}
	oci_image_done(&img);
	oci_close(src);
	free(buf);
	assert_int_equal(open_descriptors(), before);
}

struct job {
	struct oci_source *src;
	const struct oci_image *img;
	pthread_t thread;
	unsigned layer;
	int result;
	uint64_t bytes;
};

static void *job_main(void *arg)
{
	struct job *j = arg;
	struct oci_layer_stream *s;
	char buf[10000];
	ssize_t n = oci_layer_open(j->src, j->img, j->layer, 64 * MIB, &s, NULL);

	if (n == 0) {
		while ((n = oci_layer_read(s, buf, sizeof(buf), NULL)) > 0)
			j->bytes += (uint64_t)n;
		oci_layer_close(s);
	}
	j->result = (int)n;
	return NULL;
}

static void test_parallel(void **state)
{
	static const char *const specs[] = {"oci:par", "oci-archive:par.tar", "docker-archive:par-docker.tar"};

	must_run("for f in oci:par oci-archive:par.tar docker:par-docker.tar; do mkimage --format ${f%%:*} --layer "
		 "c.tar,gzip --layer a.tar "
		 "--layer c.tar,zstd --layer c.tar,plain --layer b.tar --layer c.tar,gzip,members=3 ${f#*:}; done");
	for (size_t k = 0; k < ARRAY_SIZE(specs); k++) {
		struct job jobs[12];
		struct oci_image img;
		struct oci_source *src = open_image(specs[k], &img);

		for (unsigned i = 0; i < 12; i++) {
			jobs[i] = (struct job){.src = src, .img = &img, .layer = i % 6};
			assert_int_equal(pthread_create(&jobs[i].thread, NULL, job_main, &jobs[i]), 0);
		}
		for (unsigned i = 0; i < 12; i++) {
			pthread_join(jobs[i].thread, NULL);
			assert_int_equal(jobs[i].result, 0);
			assert_int_equal(jobs[i].bytes, i % 6 == 1 || i % 6 == 4 ? 10240 : jobs[0].bytes);
		}
		oci_image_done(&img);
		oci_close(src);
	}
}

static void verify(const char *spec, int want, const char *text)
{
	struct oci_image img;
	struct oci_source *src = open_image(spec, &img);
	struct oci_layer_stream *s;
	struct sm_error err = {0};
	char buf[1000];

	assert_int_equal(oci_layer_open(src, &img, 0, 64 * MIB, &s, &err), 0);
	assert_int_equal(oci_layer_read(s, buf, sizeof(buf), &err), sizeof(buf));
	assert_int_equal(oci_layer_verify(s, &err), want);
	if (want < 0)
		assert_non_null(strstr(err.message, text));
	assert_int_equal(oci_layer_verify(s, NULL), want);
	assert_int_equal(oci_layer_read(s, buf, sizeof(buf), NULL), want);
	oci_layer_close(s);
	oci_image_done(&img);
	oci_close(src);
}

/* Bytes that a reader of tar will stumble over, damaged or made so. */
static void test_verify(void **state)
{
	must_run("mkimage --layer c.tar verify && mkimage --layer c.tar,flip=2000000 damaged && mkimage --layer "
		 "file:a.random nonsense");
	verify("oci:verify", 0, NULL);
	verify("oci:damaged", -EBADMSG, "its content has digest");
	verify("oci:nonsense", 0, NULL);
}

/* The file changes under the reader: said so, never a crash or wrong bytes. */
static void test_shrinking_file(void **state)
{
	struct oci_image img;
	struct oci_source *src;
	struct oci_layer_stream *s;
	struct sm_error err = {0};
	char path[256], *buf = malloc(64 * MIB);

	must_run("mkimage --layer c.tar shrink");
	src = open_image("oci:shrink", &img);
	snprintf(path, sizeof(path), "shrink/%s", img.layers[0].member);
	assert_int_equal(oci_layer_open(src, &img, 0, 64 * MIB, &s, &err), 0);
	assert_int_equal(truncate(path, 1000000), 0);
	while (oci_layer_read(s, buf, 64 * MIB, &err) > 0)
		;
	assert_int_equal(err.code, EBADMSG);
	assert_non_null(strstr(err.message, "became shorter"));
	oci_layer_close(s);
	assert_int_equal(oci_layer_open(src, &img, 0, 64 * MIB, &s, &err), -EBADMSG);
	assert_non_null(strstr(err.message, "has changed size"));
	unlink(path);
	assert_int_equal(oci_layer_open(src, &img, 0, 64 * MIB, &s, &err), -ENOENT);
	assert_int_equal(oci_layer_open(src, &img, 1, 64 * MIB, &s, &err), -EINVAL);
	oci_image_done(&img);
	oci_close(src);
	free(buf);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_content),	 cmocka_unit_test(test_broken), cmocka_unit_test(test_early_close),
		cmocka_unit_test(test_parallel), cmocka_unit_test(test_verify), cmocka_unit_test(test_shrinking_file),
	};

	return cmocka_run_group_tests_name("oci-layer", tests, scratch_setup, scratch_teardown);
}
