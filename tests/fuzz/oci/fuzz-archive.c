/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Archives as tar files: the input is a whole archive. It is opened and resolved as both sorts, and every layer is read
 * to its end or its error. What is found lies inside the file.
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/fileio.h"
#include "oci/oci.h"

#define MAX_UNPACKED (1 << 20)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void read_layers(struct oci_source *src, const struct oci_image *img)
{
	for (unsigned i = 0; i < img->num_layers; i++) {
		struct oci_layer_stream *s;
		struct sm_error err = {0};
		uint64_t total = 0;
		char buf[4096];
		ssize_t n;

		if (oci_layer_open(src, img, i, MAX_UNPACKED, &s, &err) < 0)
			continue;
		while ((n = oci_layer_read(s, buf, sizeof(buf), &err)) > 0)
			total += (uint64_t)n;
		if (total > MAX_UNPACKED || (n < 0 && !err.message[0]))
			abort();
		oci_layer_close(s);
	}
}

static void try_spec(const char *transport, int fd)
{
	struct oci_source *src;
	struct oci_image img;
	struct sm_error err = {0};
	char spec[64];

	snprintf(spec, sizeof(spec), "%s/proc/self/fd/%d", transport, fd);
	if (oci_open(spec, "/tmp", &src, &err) < 0)
		return;
	if (oci_resolve(src, "linux/amd64", 8, &img, &err) == 0) {
		read_layers(src, &img);
		oci_image_done(&img);
	}
	oci_close(src);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	int fd = memfd_create("archive", MFD_CLOEXEC);

	if (fd < 0 || write_full(fd, data, size) < 0)
		abort();
	try_spec("oci-archive:", fd);
	try_spec("docker-archive:", fd);
	close(fd);
	return 0;
}
