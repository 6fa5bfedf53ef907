/* SPDX-License-Identifier: Apache-2.0 */
/* The JSON documents: right ones decode to what they say; wrong types, sizes, depths and kinds are named in an error.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/util.h"
#include "oci/digest.h"
#include "oci/doc.h"
#include "oci/json.h"
#include "oci/platform.h"

#define HEX64 "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
#define SHA "sha256:" HEX64
#define INDEX_TYPE "application/vnd.oci.image.index.v1+json"
#define MANIFEST_TYPE "application/vnd.oci.image.manifest.v1+json"
#define CONFIG_TYPE "application/vnd.oci.image.config.v1+json"
#define LAYER_TYPE "application/vnd.oci.image.layer.v1.tar+gzip"
#define CONFIG_DESC "{'mediaType':'" CONFIG_TYPE "','digest':'" SHA "','size':10}"
#define LAYER_DESC "{'mediaType':'" LAYER_TYPE "','digest':'" SHA "','size':10}"
#define ROOTFS "'rootfs':{'type':'layers','diff_ids':['" SHA "']}"

/* JSON with ' for ", so that it can be read here. */
static char *json(const char *s)
{
	char *copy = strdup(s);

	for (char *p = copy; *p; p++)
		*p = *p == '\'' ? '"' : *p;
	return copy;
}

static void expect(const struct sm_error *err, int r, int want, const char *text)
{
	if (r != want || !strstr(err->message, text))
		fail_msg("got %d '%s', expected %d '%s'", r, err->message, want, text);
	assert_int_equal(err->code, -want);
	assert_null(strpbrk(err->message, "\n\x1b\x07"));
}

static void bad_manifest(const char *text, int want, const char *message)
{
	struct manifest_doc doc = {0};
	struct sm_error err = {0};
	char *s = json(text);

	expect(&err, manifest_parse(s, strlen(s), "manifest x", 4, &doc, &err), want, message);
	free(s);
}

static void test_manifest(void **state)
{
	char *s =
		json("{'schemaVersion':2,'mediaType':'" MANIFEST_TYPE "','config':" CONFIG_DESC ",'layers':[" LAYER_DESC
		     ",{'mediaType':'application/vnd.docker.image.rootfs.foreign.diff.tar.gzip','digest':'sha512:" HEX64
			     HEX64 "','size':1125899906842624}],'annotations':null,'other':[1,{'a':2.5}]}");
	struct manifest_doc doc = {0};

	assert_int_equal(manifest_parse(s, strlen(s), "manifest", 2, &doc, NULL), 0);
	assert_string_equal(doc.config->digest, SHA);
	assert_int_equal(doc.num_layers, 2);
	assert_int_equal(doc.layers[0].kind, MEDIA_LAYER);
	assert_int_equal(doc.layers[0].size, 10);
	assert_int_equal(doc.layers[1].kind, MEDIA_FOREIGN_LAYER);
	assert_int_equal(doc.layers[1].size, 1ULL << 50);
	assert_int_equal(strlen(doc.layers[1].digest), 135);
	manifest_done(&doc);
	free(s);
}

static void test_bad_manifest(void **state)
{
	bad_manifest("", -EBADMSG, "manifest x is not valid JSON");
	bad_manifest("{'config':", -EBADMSG, "not valid JSON");
	bad_manifest("[]", -EBADMSG, "not a JSON object");
	bad_manifest("{'schemaVersion':2,'schemaVersion':2}", -EBADMSG, "not valid JSON");
	bad_manifest("{'schemaVersion':1}", -ENOTSUP, "schema version 1");
	bad_manifest("{'schemaVersion':-1}", -EBADMSG, "'schemaVersion' is not an integer");
	bad_manifest("{'schemaVersion':'2'}", -EBADMSG, "'schemaVersion' is not an integer");
	bad_manifest("{'mediaType':7}", -EBADMSG, "'mediaType' is not a string");
	bad_manifest("{'mediaType':'" INDEX_TYPE "','config':" CONFIG_DESC ",'layers':[]}", -EBADMSG, "calls itself");
	bad_manifest("{'manifests':[],'config':" CONFIG_DESC ",'layers':[]}", -EBADMSG, "both an index and a manifest");
	bad_manifest("{'layers':[]}", -EBADMSG, "'config' is missing");
	bad_manifest("{'config':null,'layers':[]}", -EBADMSG, "'config' is missing");
	bad_manifest("{'config':[],'layers':[]}", -EBADMSG, "'config' is not an object");
	bad_manifest("{'config':" CONFIG_DESC "}", -EBADMSG, "'layers' is missing");
	bad_manifest("{'config':" CONFIG_DESC ",'layers':{}}", -EBADMSG, "'layers' is not an array");
	bad_manifest("{'config':" CONFIG_DESC ",'layers':[7]}", -EBADMSG, "layers[0]: not a descriptor");
	bad_manifest("{'config':" CONFIG_DESC ",'layers':[" LAYER_DESC ",{}]}", -EBADMSG,
		     "layers[1]: 'mediaType' is missing");
	bad_manifest("{'config':" CONFIG_DESC ",'layers':[{'mediaType':'" LAYER_TYPE "','size':1}]}", -EBADMSG,
		     "'digest' is missing");
	bad_manifest("{'config':" CONFIG_DESC ",'layers':[{'mediaType':'" LAYER_TYPE "','digest':'" SHA "'}]}",
		     -EBADMSG, "'size' is missing");
	bad_manifest("{'config':" CONFIG_DESC ",'layers':[{'mediaType':'" LAYER_TYPE "','digest':'" SHA
		     "','size':-1}]}",
		     -EBADMSG, "'size' is not an integer of 0 or more");
	bad_manifest("{'config':" CONFIG_DESC ",'layers':[{'mediaType':'" LAYER_TYPE "','digest':'" SHA
		     "','size':1e3}]}",
		     -EBADMSG, "'size' is not an integer");
	bad_manifest("{'config':" CONFIG_DESC ",'layers':[{'mediaType':'" LAYER_TYPE "','digest':'" SHA
		     "','size':1125899906842625}]}",
		     -EFBIG, "'size' is over");
	bad_manifest("{'config':" CONFIG_DESC ",'layers':[{'mediaType':'" LAYER_TYPE "','digest':'" SHA
		     "','size':99999999999999999999}]}",
		     -EBADMSG, "not valid JSON");
	bad_manifest("{'config':" CONFIG_DESC ",'layers':[{'mediaType':'" LAYER_TYPE
		     "','digest':'sha256:../../etc/passwd','size':1}]}",
		     -EBADMSG, "is not a sha256 or sha512 digest");
	bad_manifest("{'config':" CONFIG_DESC ",'layers':[{'mediaType':'x\\u001b[2Jy','digest':'" SHA "','size':1}]}",
		     -ENOTSUP, "layer 0 is of unknown media type 'x?[2Jy'");
	bad_manifest("{'config':" CONFIG_DESC ",'layers':[{'mediaType':'" LAYER_TYPE "+encrypted','digest':'" SHA
		     "','size':1}]}",
		     -ENOTSUP, "unknown media type");
	bad_manifest("{'config':{'mediaType':'application/vnd.cncf.helm.config.v1+json','digest':'" SHA
		     "','size':2},'layers':[]}",
		     -ENOTSUP, "is not a container image");
	bad_manifest("{'config':{'mediaType':'" CONFIG_TYPE "','digest':'" SHA "','size':4194305},'layers':[]}", -EFBIG,
		     "configuration is over");
	bad_manifest("{'config':" CONFIG_DESC ",'layers':[" LAYER_DESC "," LAYER_DESC "," LAYER_DESC "," LAYER_DESC
		     "," LAYER_DESC "]}",
		     -EFBIG, "has 5 layers, the limit is 4");
	bad_manifest("{'config':" CONFIG_DESC ",'layers':[" LAYER_DESC "],'x':'\\u0000'}", -EBADMSG, "not valid JSON");
}

static void test_index(void **state)
{
	char *s =
		json("{'schemaVersion':2,'manifests':[{'mediaType':'" MANIFEST_TYPE "; charset=utf-8','digest':'" SHA
		     "','size':5,'platform':{'os':'linux','architecture':'arm','variant':'v7'},'annotations':"
		     "{'org.opencontainers.image.ref.name':'x:1','io.containerd.image.name':'registry.example/library/"
		     "x:1','other':'y'}},"
		     "{'mediaType':'" INDEX_TYPE "','digest':'" SHA
		     "','size':5},{'mediaType':'text/plain','digest':'" SHA "','size':5}]}");
	struct index_doc doc = {0};

	assert_int_equal(index_parse(s, strlen(s), "index", &doc, NULL), 0);
	assert_int_equal(doc.num_children, 3);
	assert_int_equal(doc.children[0].kind, MEDIA_MANIFEST);
	assert_string_equal(doc.children[0].variant, "v7");
	assert_string_equal(doc.children[0].ref_name, "x:1");
	assert_string_equal(doc.children[0].full_name, "registry.example/library/x:1");
	assert_int_equal(doc.children[1].kind, MEDIA_INDEX);
	assert_null(doc.children[1].os);
	assert_int_equal(doc.children[2].kind, MEDIA_UNKNOWN);
	index_done(&doc);
	free(s);
}

static void bad_index(const char *text, int want, const char *message)
{
	struct index_doc doc = {0};
	struct sm_error err = {0};
	char *s = json(text);

	expect(&err, index_parse(s, strlen(s), "index x", &doc, &err), want, message);
	free(s);
}

static void test_bad_index(void **state)
{
	bad_index("{}", -EBADMSG, "'manifests' is missing");
	bad_index("{'manifests':[],'layers':[]}", -EBADMSG, "both an index and a manifest");
	bad_index("{'mediaType':'" MANIFEST_TYPE "','manifests':[]}", -EBADMSG, "calls itself");
	bad_index("{'manifests':[{'mediaType':'" MANIFEST_TYPE "','digest':'" SHA "','size':5,'platform':'linux'}]}",
		  -EBADMSG, "manifests[0]: 'platform' is not an object");
	bad_index("{'manifests':[{'mediaType':'" MANIFEST_TYPE "','digest':'" SHA "','size':5,'platform':{'os':7}}]}",
		  -EBADMSG, "'os' is not a string");
	bad_index("{'manifests':[{'mediaType':'" MANIFEST_TYPE "','digest':'" SHA
		  "','size':5,'annotations':{'org.opencontainers.image.ref.name':[]}}]}",
		  -EBADMSG, "ref.name' is not a string");
}

static char *repeat(const char *head, const char *unit, size_t n, const char *tail)
{
	size_t len = strlen(unit);
	char *s = malloc(strlen(head) + n * len + strlen(tail) + 1), *p = stpcpy(s, head);

	for (size_t i = 0; i < n; i++)
		p = stpcpy(p, unit);
	strcpy(p, tail);
	return s;
}

/* Limits hold before anything is allocated for what the text describes. */
static void test_limits(void **state)
{
	struct sm_error err = {0};
	json_t *doc;
	char *s = repeat("", "[", 65, "");

	expect(&err, json_read(s, strlen(s), "it", &doc, &err), -EFBIG, "it nests deeper than 64");
	free(s);
	s = repeat("[", "[],", 200000, "1]");
	expect(&err, json_read(s, strlen(s), "it", &doc, &err), -EFBIG, "more than 131072 values");
	free(s);
	s = repeat("\"", "abcdefgh", 600000, "\"");
	expect(&err, json_read(s, strlen(s), "it", &doc, &err), -EFBIG, "over 4194304 bytes");
	free(s);
	/* Brackets inside strings are not nesting, and an escaped quote does not end one. */
	s = repeat("[\"\\\"", "[", 100, "\\\\\"]");
	assert_int_equal(json_read(s, strlen(s), "it", &doc, &err), 0);
	json_decref(doc);
	free(s);
}

static void test_config(void **state)
{
	char *s = json("{'os':'linux','architecture':'amd64','variant':'','created':'2024-01-02T03:04:05.678901234+01:"
		       "30','config':{'Env':"
		       "['A=b','C'],'Entrypoint':'/"
		       "one','Cmd':['x','y'],'User':'1:2','WorkingDir':'','StopSignal':'SIGINT','ExposedPorts'"
		       ":{'80/tcp':{}},'Volumes':{'/data':{},'/"
		       "v':null},'Labels':{'k':'v','e':''},'Healthcheck':{'Test':[]}}," ROOTFS "}");
	struct oci_config c;
	char **ids;

	assert_int_equal(config_parse(s, strlen(s), "config", &c, &ids, NULL), 0);
	assert_string_equal(c.os, "linux");
	assert_null(c.variant);
	assert_int_equal(c.created, 1704159245);
	assert_string_equal(c.env[0], "A=b");
	assert_string_equal(c.env[1], "C");
	assert_null(c.env[2]);
	assert_string_equal(c.entrypoint[0], "/one");
	assert_null(c.entrypoint[1]);
	assert_string_equal(c.cmd[1], "y");
	assert_string_equal(c.user, "1:2");
	assert_null(c.working_dir);
	assert_string_equal(c.stop_signal, "SIGINT");
	assert_string_equal(c.exposed_ports[0], "80/tcp");
	assert_string_equal(c.volumes[1], "/v");
	assert_string_equal(c.labels[0], "k=v");
	assert_string_equal(c.labels[1], "e=");
	assert_null(c.labels[2]);
	assert_string_equal(ids[0], SHA);
	assert_null(ids[1]);
	strings_free(ids);
	config_done(&c);
	free(s);
	s = json("{'created':'0001-01-01T00:00:00Z','config':null,'rootfs':{'type':'layers','diff_ids':null}}");
	assert_int_equal(config_parse(s, strlen(s), "config", &c, &ids, NULL), 0);
	assert_int_equal(c.created, 0);
	assert_null(c.env);
	assert_null(ids[0]);
	strings_free(ids);
	config_done(&c);
	free(s);
}

static void bad_config(const char *text, int want, const char *message)
{
	struct oci_config c;
	struct sm_error err = {0};
	char *s = json(text), **ids;

	expect(&err, config_parse(s, strlen(s), "config x", &c, &ids, &err), want, message);
	free(s);
}

static void test_bad_config(void **state)
{
	bad_config("[]", -EBADMSG, "not a JSON object");
	bad_config("{}", -EBADMSG, "'rootfs' is missing");
	bad_config("{'rootfs':{'diff_ids':[]}}", -EBADMSG, "'type' is missing");
	bad_config("{'rootfs':{'type':'tree','diff_ids':[]}}", -ENOTSUP, "rootfs is of type 'tree'");
	bad_config("{'rootfs':{'type':'layers','diff_ids':['" SHA "',7]}}", -EBADMSG,
		   "'diff_ids' is not an array of strings");
	bad_config("{'rootfs':{'type':'layers','diff_ids':['" SHA "','sha256:zz']}}", -EBADMSG,
		   "diff_ids[1] 'sha256:zz' is not a sha256");
	bad_config("{'config':[]," ROOTFS "}", -EBADMSG, "'config' is not an object");
	bad_config("{'config':{'Env':{}}," ROOTFS "}", -EBADMSG, "'Env' is not an array");
	bad_config("{'config':{'Env':['A=1',null]}," ROOTFS "}", -EBADMSG, "'Env' is not an array of strings");
	bad_config("{'config':{'Cmd':[['sh']]}," ROOTFS "}", -EBADMSG, "'Cmd' is not an array of strings");
	bad_config("{'config':{'Labels':{'a':'b','c':7}}," ROOTFS "}", -EBADMSG,
		   "'Labels' is not an object of strings");
	bad_config("{'config':{'Volumes':['/x']}," ROOTFS "}", -EBADMSG, "'Volumes' is not an object");
	bad_config("{'config':{'User':0}," ROOTFS "}", -EBADMSG, "'User' is not a string");
	bad_config("{'os':['linux']," ROOTFS "}", -EBADMSG, "'os' is not a string");
	bad_config("{'created':'yesterday'," ROOTFS "}", -EBADMSG, "'created' is not an RFC 3339 time");
	bad_config("{'created':1704," ROOTFS "}", -EBADMSG, "'created' is not a string");
}

static void test_time(void **state)
{
	static const char *const bad[] = {"",
					  "2024",
					  "2024-01-02",
					  "2024-01-02T03:04:05",
					  "2024-13-02T03:04:05Z",
					  "2024-01-02T24:04:05Z",
					  "2024-01-02T03:04:05.Z",
					  "2024-01-02T03:04:05+1:30",
					  "24-01-02T03:04:05Z",
					  "2024-01-02T03:04:05Zx",
					  "+024-01-02T03:04:05Z",
					  "2024-01-02T03:-4:05Z"};
	int64_t t;

	assert_int_equal(time_parse("1970-01-01T00:00:00Z", &t), 0);
	assert_int_equal(t, 0);
	assert_int_equal(time_parse("1969-12-31T23:59:59.5Z", &t), 0);
	assert_int_equal(t, -1);
	assert_int_equal(time_parse("2000-02-29t23:59:59-00:30", &t), 0);
	assert_int_equal(t, 951870599);
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
		if (time_parse(bad[i], &t) != -EINVAL)
			fail_msg("'%s' was accepted", bad[i]);
}

static void test_docker(void **state)
{
	static const char *const bad[] = {"{}",
					  "[7]",
					  "[{'Layers':[]}]",
					  "[{'Config':'c'}]",
					  "[{'Config':7,'Layers':[]}]",
					  "[{'Config':'c','Layers':[7]}]",
					  "[{'Config':'c','Layers':[],'RepoTags':'x'}]"};
	char *s = json("[{'Config':'c.json','RepoTags':null,'Layers':['a/"
		       "layer.tar','b']},{'Config':'d','RepoTags':['x:1'],'Layers':[]}]");
	struct docker_doc doc = {0};

	assert_int_equal(docker_parse(s, strlen(s), "manifest.json", &doc, NULL), 0);
	assert_int_equal(doc.num_images, 2);
	assert_null(doc.images[0].tags);
	assert_string_equal(doc.images[0].layers[1], "b");
	assert_string_equal(doc.images[1].tags[0], "x:1");
	docker_done(&doc);
	free(s);
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		struct sm_error err = {0};

		s = json(bad[i]);
		assert_int_equal(docker_parse(s, strlen(s), "manifest.json", &doc, &err), -EBADMSG);
		assert_int_equal(err.kind, SM_ERROR_CORRUPT);
		free(s);
	}
}

static void test_digest(void **state)
{
	char out[OCI_DIGEST_SIZE];

	assert_true(digest_valid(SHA));
	assert_false(digest_valid("sha256:" HEX64 "0"));
	assert_false(digest_valid("sha512:" HEX64));
	assert_false(digest_valid("sha384:" HEX64));
	assert_false(digest_valid("sha256:/123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"));
	assert_false(digest_valid("SHA256:" HEX64));
	assert_int_equal(digest_of("sha256:", "abc", 3, out), 0);
	assert_string_equal(out, "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
	assert_int_equal(digest_of("sha512:", "abc", 3, out), 0);
	assert_string_equal(out, "sha512:ddaf35a193617abacc417349ae20413112e6fa4e89a97ea20a9eeee64b55d39a"
				 "2192992a274fc1a836ba3c23a3feebbd454d4423643ce80e2a9ac94fa54ca49f");
}

static void test_platform(void **state)
{
	struct platform amd, arm7, arm64, p;
	struct sm_error err = {0};

	assert_int_equal(platform_parse("linux/x86_64", &amd, NULL), 0);
	assert_string_equal(amd.architecture, "amd64");
	assert_int_equal(platform_parse("linux/armhf", &arm7, NULL), 0);
	assert_string_equal(arm7.variant, "v7");
	assert_int_equal(platform_parse("linux/arm64/v8", &arm64, NULL), 0);
	assert_int_equal(platform_parse(NULL, &p, NULL), 0);
	assert_string_equal(p.os, "linux");
	expect(&err, platform_parse("linux", &p, &err), -EINVAL, "is not a platform");
	expect(&err, platform_parse("linux/amd64/v1/x", &p, &err), -EINVAL, "is not a platform");
	expect(&err, platform_parse("linux/", &p, &err), -EINVAL, "is not a platform");

	assert_true(platform_rank(&amd, "linux", "amd64", NULL) > platform_rank(&amd, "linux", "amd64", "v2"));
	assert_true(platform_rank(&amd, "linux", "amd64", "v2") > platform_rank(&amd, "linux", "amd64", "v3"));
	assert_true(platform_rank(&amd, "linux", "amd64", "v4") > 0);
	assert_int_equal(platform_rank(&amd, "windows", "amd64", NULL), 0);
	assert_int_equal(platform_rank(&amd, "linux", "arm64", NULL), 0);
	assert_int_equal(platform_rank(&amd, "unknown", "unknown", NULL), 0);
	assert_int_equal(platform_rank(&arm64, "linux", "aarch64", NULL),
			 platform_rank(&arm64, "linux", "arm64", "v8"));
	assert_true(platform_rank(&arm7, "linux", "arm", "v7") > platform_rank(&arm7, "linux", "arm", "v6"));
	assert_true(platform_rank(&arm7, "linux", "arm", "v6") > platform_rank(&arm7, "linux", "arm", "v5"));
	assert_int_equal(platform_rank(&arm7, "linux", "arm", "v8"), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_manifest),   cmocka_unit_test(test_bad_manifest), cmocka_unit_test(test_index),
		cmocka_unit_test(test_bad_index),  cmocka_unit_test(test_limits),	cmocka_unit_test(test_config),
		cmocka_unit_test(test_bad_config), cmocka_unit_test(test_time),		cmocka_unit_test(test_docker),
		cmocka_unit_test(test_digest),	   cmocka_unit_test(test_platform),
	};

	return cmocka_run_group_tests_name("oci-doc", tests, NULL, NULL);
}
