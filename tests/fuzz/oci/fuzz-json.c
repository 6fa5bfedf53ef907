/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Every JSON document of an image: the first byte says which, the rest is the text. Beyond memory safety: what is
 * accepted keeps the promises of doc.h (valid digests, bounded counts, a reason on failure).
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "oci/digest.h"
#include "oci/doc.h"
#include "oci/json.h"

#define MUST(x)                                                                                                        \
	do {                                                                                                           \
		if (!(x))                                                                                              \
			abort();                                                                                       \
	} while (0)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_error(int r, const struct sm_error *err)
{
	MUST(r == 0 || (r < 0 && err->code == -r && err->message[0] && !strpbrk(err->message, "\n\r\x1b")));
}

static void fuzz_index(const char *text, size_t len)
{
	struct index_doc doc = {0};
	struct sm_error err = {0};
	int r = index_parse(text, len, "index", &doc, &err);

	check_error(r, &err);
	for (size_t i = 0; r == 0 && i < doc.num_children; i++)
		MUST(digest_valid(doc.children[i].digest) && doc.children[i].media_type);
	index_done(&doc);
}

static void fuzz_manifest(const char *text, size_t len)
{
	struct manifest_doc doc = {0};
	struct sm_error err = {0};
	int r = manifest_parse(text, len, "manifest", 8, &doc, &err);

	check_error(r, &err);
	if (r < 0)
		return;
	MUST(doc.num_layers <= 8 && doc.config->kind == MEDIA_CONFIG);
	for (size_t i = 0; i < doc.num_layers; i++)
		MUST(digest_valid(doc.layers[i].digest));
	manifest_done(&doc);
}

static void fuzz_config(const char *text, size_t len)
{
	struct oci_config config;
	struct sm_error err = {0};
	char **ids;
	int r = config_parse(text, len, "config", &config, &ids, &err);

	check_error(r, &err);
	if (r < 0)
		return;
	MUST(config.created >= 0);
	for (char **id = ids; *id; id++)
		MUST(digest_valid(*id) && strlen(*id) == 71);
	strings_free(ids);
	config_done(&config);
}

static void fuzz_docker(const char *text, size_t len)
{
	struct docker_doc doc = {0};
	struct sm_error err = {0};
	int r = docker_parse(text, len, "manifest.json", &doc, &err);

	check_error(r, &err);
	for (size_t i = 0; r == 0 && i < doc.num_images; i++)
		MUST(doc.images[i].config && doc.images[i].layers);
	docker_done(&doc);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	enum media_kind kind;
	struct sm_error err = {0};
	char *text;

	if (size == 0)
		return 0;
	/* A copy of exact size: reads past its end are seen. */
	text = malloc(size);
	memcpy(text, data + 1, size - 1);
	switch (data[0] % 5) {
	case 0:
		fuzz_index(text, size - 1);
		break;
	case 1:
		fuzz_manifest(text, size - 1);
		break;
	case 2:
		fuzz_config(text, size - 1);
		break;
	case 3:
		fuzz_docker(text, size - 1);
		break;
	default:
		check_error(document_kind(text, size - 1, "document", &kind, &err), &err);
	}
	free(text);
	return 0;
}
