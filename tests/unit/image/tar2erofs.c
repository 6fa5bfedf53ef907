/* SPDX-License-Identifier: Apache-2.0 */
/* tar2erofs OUT LAYER.tar...: what `load` makes of these layers, as one file, for scripts that compare it with a
 * kernel's view. */
#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

#include "layers.h"

int main(int argc, char **argv)
{
	int fds[TEST_MAX_LAYERS], out;
	struct erofs_result result;
	struct sm_error err = {0};

	if (argc < 3 || argc - 2 > TEST_MAX_LAYERS) {
		fprintf(stderr, "usage: tar2erofs OUT LAYER.tar...\n");
		return 2;
	}
	for (int i = 2; i < argc; i++) {
		fds[i - 2] = open(argv[i], O_RDONLY | O_CLOEXEC);
		if (fds[i - 2] < 0) {
			perror(argv[i]);
			return 1;
		}
	}
	out = open(argv[1], O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
	if (out < 0 || layers_build(fds, (unsigned)argc - 2, out, &result, &err) < 0) {
		fprintf(stderr, "tar2erofs: %s\n", err.message);
		return 1;
	}
	printf("%llu inodes, metadata %llu, window %llu bytes\n", (unsigned long long)result.inodes,
	       (unsigned long long)result.meta_size, (unsigned long long)result.window_size);
	return 0;
}
