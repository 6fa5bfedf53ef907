/* SPDX-License-Identifier: Apache-2.0 */
/* A kernel module's ELF file of any bytes. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "kernel/modules.h"

static int see(void *arg, const char *key, const char *value)
{
	size_t *total = arg;

	*total += strlen(key) + strlen(value); /* both are strings within the file */
	return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	size_t total = 0;

	if (module_info(data, size, see, &total) == 0 && total > size * 70000)
		abort();
	return 0;
}
