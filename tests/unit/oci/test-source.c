/* SPDX-License-Identifier: Apache-2.0 */
/* Whole images: every transport, names and platforms, and what is refused before a layer is read. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <fcntl.h>

#include "base/util.h"
#include "support.h"

#define TWO "--layer a.tar --layer b.tar"

static void resolve(const char *spec, const char *platform, struct oci_image *img)
{
	struct oci_source *src;
	struct sm_error err = {0};

	if (oci_open(spec, NULL, &src, &err) < 0 || oci_resolve(src, platform, 16, img, &err) < 0)
		fail_msg("%s", err.message);
	oci_close(src);
}

static void expect_name(const char *spec, const char *name)
{
	struct oci_image img;

	resolve(spec, "linux/amd64", &img);
	if (name)
		assert_string_equal(img.name ?: "(none)", name);
	else
		assert_null(img.name);
	oci_image_done(&img);
}

/* The same two layers by every transport: the same image id and the same bytes. */
static void test_transports(void **state)
{
	static const char *const specs[] = {
		"oci:demo",
		"oci:demo:latest",
		"oci:demo/",
		"oci-archive:demo.tar",
		"oci-archive:demo.tar:latest",
		"oci-archive:demo-rev.tar",
		"oci-archive:demo.tgz",
		"oci-archive:demo.tar.zst",
		"docker-archive:docker.tar",
		"docker-archive:docker.tar:x/demo:1",
		"docker-archive:docker-new.tar",
		"docker-archive:docker-new.tar:x/demo:1",
		"oci-archive:docker-new.tar",
		"dir:dir",
		"oci:with:colon",
		"oci:with:colon:latest",
	};
	char id[72] = "";

	must_run("mkimage " TWO " --cmd '[\"sh\"]' demo && cp -r demo with:colon");
	must_run("mkimage --format oci-archive " TWO
		 " --cmd '[\"sh\"]' demo.tar && gzip -k <demo.tar >demo.tgz && zstd -q <demo.tar >demo.tar.zst");
	must_run("mkimage --format oci-archive --reverse --dot --pax " TWO " --cmd '[\"sh\"]' demo-rev.tar");
	must_run("mkimage --format docker --tag x/demo:1 " TWO " --cmd '[\"sh\"]' docker.tar");
	must_run("mkimage --format docker-new --tag x/demo:1 " TWO " --cmd '[\"sh\"]' docker-new.tar");
	must_run("mkimage --format dir " TWO " --cmd '[\"sh\"]' dir");
	for (size_t i = 0; i < ARRAY_SIZE(specs); i++) {
		struct oci_image img;
		uint64_t bytes = 0;
		struct sm_error err = {0};

		resolve(specs[i], "linux/amd64", &img);
		if (i == 0)
			strcpy(id, img.id);
		assert_string_equal(img.id, id);
		assert_int_equal(img.num_layers, 2);
		assert_string_equal(img.config.cmd[0], "sh");
		assert_int_equal(strstr(specs[i], "docker-archive") ? 0 : 71, strlen(img.manifest_digest));
		oci_image_done(&img);
		if (stream_all(specs[i], "linux/amd64", MIB, &bytes, &err) < 0)
			fail_msg("%s", err.message);
		assert_int_equal(bytes, 20480);
	}
}

static void read_stdin(const char *file, int want, const char *text)
{
	struct sm_error err = {0};
	uint64_t bytes = 0;
	int saved = dup(STDIN_FILENO), fd = open(file, O_RDONLY), r;

	assert_true(fd >= 0);
	dup2(fd, STDIN_FILENO);
	r = stream_all("-", "linux/amd64", MIB, &bytes, &err);
	dup2(saved, STDIN_FILENO);
	close(saved);
	close(fd);
	if (r != want || (want < 0 && !strstr(err.message, text)))
		fail_msg("%s: got %d '%s', expected %d '%s'", file, r, err.message, want, text);
	if (want == 0)
		assert_int_equal(bytes, 20480);
}

/* Standard input: both sorts of archive, compressed or not; nothing is left in the spool directory. */
static void test_stdin(void **state)
{
	must_run("mkdir spool");
	setenv("TMPDIR", "spool", 1);
	must_run("mkimage --format docker --tag x " TWO " in-docker.tar && mkimage --format docker-new --tag x " TWO
		 " in-new.tar");
	must_run("mkimage --format oci-archive " TWO
		 " in-oci.tar && gzip -k in-docker.tar in-oci.tar && zstd -q -k in-new.tar && xz -k in-oci.tar");
	must_run("head -c 3000 in-oci.tar.gz | head -c -20 >in-cut.gz && head -c 6000 in-oci.tar >in-cut.tar");
	read_stdin("in-docker.tar", 0, "");
	read_stdin("in-new.tar", 0, "");
	read_stdin("in-oci.tar", 0, "");
	read_stdin("in-docker.tar.gz", 0, "");
	read_stdin("in-oci.tar.gz", 0, "");
	read_stdin("in-new.tar.zst", 0, "");
	read_stdin("/dev/null", -EBADMSG, "-: standard input is not a tar archive");
	read_stdin("in-oci.tar.xz", -ENOTSUP, "compressed with xz");
	read_stdin("in-cut.gz", -EBADMSG, "ends too early");
	read_stdin("in-cut.tar", -EBADMSG, "-: ");
	must_run("mkfifo in-fifo && (cat in-docker.tar >in-fifo &)");
	expect_stream("docker-archive:in-fifo", 0, "");
	must_run("test -z \"$(ls -A spool)\"");
	setenv("TMPDIR", *state, 1);
}

static void test_names(void **state)
{
	must_run("mkimage --layer a.tar my-app && mkimage --layer a.tar --tag v2 UPPER && mkimage --layer a.tar --tag "
		 "host:5000/x/y:3 full");
	must_run("mkimage --layer a.tar --no-tag none && mkimage --layer a.tar --tag '_bad_' odd && mkimage --format "
		 "dir --layer a.tar sdir");
	must_run("mkimage --layer a.tar --tag t ann && sed -i "
		 "'s|\"annotations\":{|&\"io.containerd.image.name\":\"registry.example/library/named:7\",|' "
		 "ann/index.json");
	must_run("mkimage --format docker --no-tag --layer a.tar untagged.tar && mkimage --format docker --tag A/B:1 "
		 "--layer a.tar badtag.tar");
	expect_name("oci:my-app", "my-app:latest");
	expect_name("oci:./my-app/:latest", "my-app:latest");
	expect_name("oci:UPPER:v2", "upper:v2");
	expect_name("oci:full", "host:5000/x/y:3");
	expect_name("oci:full:3", "host:5000/x/y:3");
	expect_name("oci:full:host:5000/x/y:3", "host:5000/x/y:3");
	expect_name("oci:none", "none:latest");
	expect_name("oci:ann:t", "registry.example/library/named:7");
	expect_name("oci:ann:7", "registry.example/library/named:7");
	expect_name("dir:sdir", "sdir:latest");
	expect_name("docker-archive:untagged.tar", NULL);
	expect_name("docker-archive:badtag.tar", NULL);
	expect_name("oci:odd", "odd:_bad_");
}

/* Several images in one layout: by tag; without one, "latest", or an error that lists them. */
static void test_several(void **state)
{
	struct oci_image img;

	must_run("mkimage --layer a.tar --tag one many && mkimage --append --layer b.tar --tag two --cmd '[\"2\"]' "
		 "many");
	resolve("oci:many:two", "linux/amd64", &img);
	assert_string_equal(img.config.cmd[0], "2");
	oci_image_done(&img);
	expect_stream("oci:many", -EINVAL, "several images in it, add the name of one of them: one, two");
	expect_stream("oci:many:three", -ENOENT, "there is no image 'three' in it, only one, two");
	must_run("mkimage --append --layer a.tar --tag latest --cmd '[\"L\"]' many");
	resolve("oci:many", "linux/amd64", &img);
	assert_string_equal(img.config.cmd[0], "L");
	oci_image_done(&img);
}

static void expect_platform(const char *spec, const char *platform, const char *cmd)
{
	struct oci_image img;

	resolve(spec, platform, &img);
	assert_string_equal(img.config.cmd[0], cmd);
	oci_image_done(&img);
}

static void test_platforms(void **state)
{
	struct sm_error err = {0};

	must_run("mkimage --layer a.tar --platform linux/arm64 --cmd '[\"arm64\"]' multi && "
		 "mkimage --append --layer a.tar --platform unknown/unknown multi && "
		 "mkimage --append --layer a.tar --platform linux/amd64/v3 --cmd '[\"amd64v3\"]' multi && "
		 "mkimage --append --layer a.tar --platform linux/amd64 --cmd '[\"amd64\"]' multi && "
		 "mkimage --append --layer a.tar --platform linux/arm/v6 --cmd '[\"armv6\"]' multi && "
		 "mkimage --append --layer a.tar --platform linux/arm/v7 --cmd '[\"armv7\"]' multi");
	must_run("cp -r multi wrapped && mkimage --append --wrap 3 wrapped");
	must_run("mkimage --layer a.tar --platform linux/s390x single && mkimage --docker-types --layer a.tar "
		 "--platform linux/amd64 --cmd "
		 "'[\"dk\"]' docker-types && mkimage --append --docker-types --wrap 1 docker-types");
	for (int wrapped = 0; wrapped < 2; wrapped++) {
		const char *spec = wrapped ? "oci:wrapped" : "oci:multi";

		expect_platform(spec, "linux/amd64", "amd64");
		expect_platform(spec, "linux/x86_64", "amd64");
		expect_platform(spec, "linux/amd64/v3", "amd64v3");
		expect_platform(spec, "linux/arm64/v8", "arm64");
		expect_platform(spec, "linux/arm64", "arm64");
		expect_platform(spec, "linux/arm/v7", "armv7");
		expect_platform(spec, "linux/arm/v6", "armv6");
		assert_int_equal(stream_all(spec, "linux/riscv64", MIB, NULL, &err), -ENOTSUP);
		assert_non_null(
			strstr(err.message,
			       "no image for linux/riscv64 in it, only for linux/arm64, linux/amd64/v3, linux/amd64"));
		assert_null(strstr(err.message, "unknown"));
	}
	expect_platform("oci:docker-types", "linux/amd64", "dk");
	expect_stream("oci:single", -ENOTSUP, "only for linux/s390x");
	/* Where the descriptor says nothing, the configuration does. */
	must_run("mkimage --format docker --layer a.tar --platform linux/s390x s390x.tar && "
		 "mkimage --layer a.tar --platform linux/s390x --del index.manifests.0.platform silent");
	expect_stream("docker-archive:s390x.tar", -ENOTSUP, "the image is for linux/s390x, not for linux/amd64");
	expect_stream("oci:silent", -ENOTSUP, "the image is for linux/s390x, not for linux/amd64");
	assert_int_equal(stream_all("oci:multi", "linux", MIB, NULL, &err), -EINVAL);
}

/* Indexes inside indexes: as deep as anyone needs, and neither for ever nor in a circle. */
static void test_indexes(void **state)
{
	must_run("mkimage --layer a.tar --wrap 7 deep7 && mkimage --layer a.tar --wrap 9 deep9");
	expect_stream("oci:deep7", 0, "");
	expect_stream("oci:deep9", -ELOOP, "inside each other");
	must_run("mkimage --layer a.tar --cycle cycle");
	expect_stream("oci:cycle", -EBADMSG, "has digest");
	must_run("mkimage --layer a.tar --wrap 1 gone && rm gone/blobs/sha256/$(sed "
		 "'s/.*sha256:\\([0-9a-f]*\\).*/\\1/' gone/index.json)");
	expect_stream("oci:gone", -ENOENT, "is missing");
}

struct hostile {
	const char *args; /* of mkimage, besides the output "h" */
	const char *spec;
	int want;
	const char *text;
};

static void check_hostile(const struct hostile *list, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		must_run("mkimage %s h", list[i].args);
		expect_stream(list[i].spec, list[i].want, list[i].text);
	}
}

static void test_hostile_documents(void **state)
{
	static const struct hostile list[] = {
		{TWO " --omit layout", "oci:h", -EBADMSG, "oci-layout or index.json is missing"},
		{TWO " --omit index", "oci:h", -EBADMSG, "oci-layout or index.json is missing"},
		{TWO " --set 'layout.imageLayoutVersion=\"2.0.0\"'", "oci:h", -ENOTSUP,
		 "the layout has version '2.0.0'"},
		{TWO " --set 'layout=[]'", "oci:h", -EBADMSG, "'imageLayoutVersion' is missing"},
		{TWO " --set index=7", "oci:h", -EBADMSG, "index.json is not valid JSON"},
		{TWO " --set 'index.manifests=[]'", "oci:h", -ENOENT, "there is no image in it"},
		{TWO " --set 'index.manifests.0.mediaType=\"text/plain\"'", "oci:h", -ENOENT,
		 "there is no image manifest in it"},
		{TWO " --set 'index.manifests.0.size=7'", "oci:h", -EBADMSG, "its descriptor says 7"},
		{TWO " --set 'index.manifests.0.digest=\"sha256:../../../etc/passwd\"'", "oci:h", -EBADMSG,
		 "is not a sha256"},
		{TWO " --set 'index.manifests.0.digest=\"sha1:0123\"'", "oci:h", -EBADMSG, "is not a sha256"},
		{TWO " --omit manifest", "oci:h", -ENOENT, "manifest sha256:"},
		{TWO " --corrupt manifest", "oci:h", -EBADMSG, "has digest sha256:"},
		{TWO " --omit config", "oci:h", -ENOENT, "configuration sha256:"},
		{TWO " --corrupt config", "oci:h", -EBADMSG, "configuration sha256:"},
		{TWO " --set 'manifest.config.size=1'", "oci:h", -EBADMSG, "its descriptor says 1"},
		{TWO " --set 'manifest.layers.1.size=1'", "oci:h", -EBADMSG, "layer 1 (sha256:"},
		{TWO " --set 'manifest.layers.1.size=-5'", "oci:h", -EBADMSG, "layers[1]: 'size' is not an integer"},
		{TWO " --set 'manifest.layers=7'", "oci:h", -EBADMSG, "'layers' is not an array"},
		{TWO " --set 'manifest.layers=[]'", "oci:h", -EBADMSG,
		 "the manifest has 0 layers, the configuration 2 diff_ids"},
		{TWO " --set 'manifest.mediaType=\"application/vnd.oci.image.index.v1+json\"'", "oci:h", -EBADMSG,
		 "calls itself"},
		{TWO " --set 'config.rootfs.diff_ids=[]'", "oci:h", -EBADMSG, "2 layers, the configuration 0 diff_ids"},
		{TWO " --del config.rootfs", "oci:h", -EBADMSG, "'rootfs' is missing"},
		{TWO " --set 'config.os=\"windows\"' --del index.manifests.0.platform", "oci:h", -ENOTSUP,
		 "the image is for windows/amd64"},
		{"--layer a.tar,mt=application/x-secret", "oci:h", -ENOTSUP,
		 "layer 0 is of unknown media type 'application/x-secret'"},
		{"--layer a.tar --layer b.tar,missing", "oci:h", -ENOENT, "layer 1 (sha256:"},
		{"--layer a.tar,missing,foreign", "oci:h", -ENOENT, "does not let others distribute"},
		{"--layer a.tar --raw index=/dev/null", "oci:h", -EBADMSG, "index.json is not valid JSON"},
		{"--layer a.tar --raw index=a.random", "oci:h", -EFBIG, "index.json "},
		{"--format docker --layer a.tar --omit docker", "docker-archive:h", -EBADMSG,
		 "manifest.json is missing"},
		{"--format docker --layer a.tar --omit config", "docker-archive:h", -ENOENT, "is missing"},
		{"--format docker --layer a.tar --corrupt config", "docker-archive:h", -EBADMSG, "has digest sha256:"},
		{"--format docker --layer a.tar,missing", "docker-archive:h", -ENOENT, "layer 0 ("},
		{"--format docker --layer a.tar --set 'docker.0.Layers.0=\"../../../etc/passwd\"'", "docker-archive:h",
		 -ENOENT, "layer 0 (../../../etc/passwd) is missing"},
		{"--format docker --layer a.tar --set 'docker.0.Layers.0=\"/etc/passwd\"'", "docker-archive:h", -ENOENT,
		 "is missing"},
		{"--format docker --layer a.tar --set 'docker=[]'", "docker-archive:h", -ENOENT,
		 "there is no image in it"},
		{"--format docker --layer a.tar", "docker-archive:h:nope", -ENOENT,
		 "there is no image 'nope' in it, only latest"},
		{"--format docker --layer a.tar", "oci-archive:h", -EBADMSG, "(docker-archive:FILE?)"},
		{"--format oci-archive --layer a.tar", "docker-archive:h", -EBADMSG, "(oci-archive:FILE?)"},
		{"--format dir --layer a.tar", "oci:h", -EBADMSG, "(dir:PATH?)"},
		{"--layer a.tar", "dir:h", -EBADMSG, "(oci:DIR?)"},
	};

	check_hostile(list, ARRAY_SIZE(list));
}

static void test_hostile_archives(void **state)
{
	static const struct hostile list[] = {
		{"--format oci-archive " TWO " --tar-cut 12000", "oci-archive:h", -EBADMSG, "oci-archive:h"},
		{"--format docker " TWO " --symlink manifest.json=manifest.json", "docker-archive:h", -EBADMSG,
		 "manifest.json is missing"},
		{"--format docker " TWO " --symlink manifest.json=/etc/passwd", "docker-archive:h", -EBADMSG,
		 "manifest.json is missing"},
		{"--format docker " TWO " --symlink manifest.json=../../etc/passwd", "docker-archive:h", -EBADMSG,
		 "manifest.json is missing"},
		{"--format docker " TWO " --symlink manifest.json=x --symlink x=y --symlink y=x", "docker-archive:h",
		 -EBADMSG, "manifest.json is missing"},
		{"--format docker " TWO " --member ../../evil=a.tar", "docker-archive:h", 0, ""},
		{"--format docker " TWO " --member /manifest.json=a.tar", "docker-archive:h", -EBADMSG,
		 "manifest.json is not valid JSON"},
	};

	check_hostile(list, ARRAY_SIZE(list));
	/* Layers by way of a symbolic and a hard link, as Docker and skopeo write them; the last of several members
	 * counts. */
	must_run("mkimage --format docker --layer a.tar --layer a.tar --layer b.tar twice.tar");
	expect_stream("docker-archive:twice.tar", 0, "");
	must_run("mkdir x && tar -C x -xf twice.tar && ln a.tar x/hard && sed -i 's|[0-9a-f]*/layer.tar|hard|' "
		 "x/manifest.json && "
		 "cp x/hard x/zz && rm x/hard && ln x/zz x/hard && tar -C x -cf hard.tar .");
	expect_stream("docker-archive:hard.tar", 0, "");
	must_run("mkdir y && echo '[]' >y/manifest.json && tar -C y -cf last.tar manifest.json && tar -C x -rf "
		 "last.tar .");
	expect_stream("docker-archive:last.tar", 0, "");
	must_run("truncate -s 20480 empty.tar && head -c 40000 a.random >noise");
	expect_stream("oci-archive:empty.tar", -EBADMSG, "not an OCI layout");
	expect_stream("oci-archive:noise", -EBADMSG, "oci-archive:noise: noise is not a tar archive");
	/* A size that reaches behind the end, and one that is negative (base 256). */
	must_run("cp demo.tar big.tar && printf '77777777777' | dd of=big.tar bs=1 seek=124 conv=notrunc status=none");
	expect_stream("oci-archive:big.tar", -EBADMSG, "oci-archive:big.tar: ");
	must_run("mkdir sparse && truncate -s 1M sparse/blob && echo x >>sparse/blob && tar -C sparse -S -cf "
		 "sparse.tar blob");
	expect_stream("oci-archive:sparse.tar", -ENOTSUP, "is stored sparsely");
}

/* Nothing but regular files is opened, and no name leads out of a directory. */
static void test_hostile_directories(void **state)
{
	must_run("mkimage --layer a.tar fifo && rm fifo/index.json && mkfifo fifo/index.json");
	expect_stream("oci:fifo", -EBADMSG, "index.json is missing");
	must_run("mkimage --layer a.tar dev && for f in dev/blobs/sha256/*; do rm $f; ln -s /dev/zero $f; done");
	expect_stream("oci:dev", -EBADMSG, "is not a regular file");
	must_run("mkimage --layer a.tar sub && for f in sub/blobs/sha256/*; do rm $f; mkdir $f; done");
	expect_stream("oci:sub", -EBADMSG, "is not a regular file");
	must_run("mkimage --layer a.tar far && mv far/blobs elsewhere && ln -s ../elsewhere far/blobs");
	expect_stream("oci:far", 0, "");
	expect_stream("oci:absent", -ENOENT, "open absent: No such file or directory");
	expect_stream("oci:absent:tag", -ENOENT, "open absent: No such file or directory");
	expect_stream("oci:a.tar", -ENOTDIR, "Not a directory");
	expect_stream("oci-archive:demo", -EISDIR, "Is a directory");
	expect_stream("oci:", -EINVAL, "no path behind");
	expect_stream("debian", -EINVAL, "not an image source");
}

static void test_sha512(void **state)
{
	struct oci_image img;

	must_run("mkimage --alg sha512 " TWO " s512 && mkimage --alg sha512 --layer a.tar,flip=100 s512bad");
	resolve("oci:s512", "linux/amd64", &img);
	assert_int_equal(strlen(img.manifest_digest), 135);
	assert_int_equal(strlen(img.id), 71);
	oci_image_done(&img);
	expect_stream("oci:s512", 0, "");
	expect_stream("oci:s512bad", -EBADMSG, "its content has digest sha512:");
}

/* What real tools write, where they are installed. */
static void test_real_tools(void **state)
{
	if (!run("command -v umoci skopeo >/dev/null")) {
		print_message("umoci or skopeo is not installed\n");
		skip();
	}
	must_run("umoci init --layout u && umoci new --image u:one && umoci raw add-layer --image u:one a.tar && "
		 "umoci raw add-layer --image u:one c.tar && umoci config --image u:one --config.cmd run --config.env "
		 "A=b "
		 "--config.exposedports 80/tcp --config.volume /v --config.user 7:8");
	must_run("skopeo copy -q oci:u:one docker-archive:sk.tar:x/y:1 && skopeo copy -q oci:u:one "
		 "oci-archive:sk-oci.tar:x/y:1 && "
		 "skopeo copy -q oci:u:one dir:sk-dir && skopeo copy -q --dest-compress-format zstd oci:u:one "
		 "dir:sk-zstd && "
		 "skopeo copy -q --format v2s2 oci:u:one dir:sk-v2s2 && skopeo copy -q --dest-decompress oci:u:one "
		 "dir:sk-plain");
	expect_stream("oci:u:one", 0, "");
	expect_stream("docker-archive:sk.tar", 0, "");
	expect_stream("oci-archive:sk-oci.tar", 0, "");
	expect_stream("dir:sk-dir", 0, "");
	expect_stream("dir:sk-zstd", 0, "");
	expect_stream("dir:sk-v2s2", 0, "");
	expect_stream("dir:sk-plain", 0, "");
	/* skopeo names it in full, with a registry of its own choice */
	expect_name("oci-archive:sk-oci.tar", "x/y:1");
	expect_name("oci:u:one", "u:one");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_transports),
		cmocka_unit_test(test_stdin),
		cmocka_unit_test(test_names),
		cmocka_unit_test(test_several),
		cmocka_unit_test(test_platforms),
		cmocka_unit_test(test_indexes),
		cmocka_unit_test(test_hostile_documents),
		cmocka_unit_test(test_hostile_archives),
		cmocka_unit_test(test_hostile_directories),
		cmocka_unit_test(test_sha512),
		cmocka_unit_test(test_real_tools),
	};

	return cmocka_run_group_tests_name("oci-source", tests, scratch_setup, scratch_teardown);
}
