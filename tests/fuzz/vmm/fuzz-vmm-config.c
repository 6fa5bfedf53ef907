/* SPDX-License-Identifier: Apache-2.0 */
/* The configuration parser: any bytes give a configuration that can be trusted, or an error with a message. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/util.h"
#include "vmm/config.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(int ok)
{
	if (!ok)
		abort();
}

static void check_parts(const struct vmm_file *parts, unsigned n, uint64_t limit)
{
	for (unsigned i = 0; i < n; i++)
		check(parts[i].fd >= 0 && parts[i].size && range_inside(parts[i].offset, parts[i].size, limit));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct vmm_config cfg;
	struct sm_error err = {0};

	if (vmm_config_parse((const char *)data, size, &cfg, &err) < 0) {
		check(err.message[0] != '\0');
		return 0;
	}
	check(cfg.memory >= VMM_MIN_MEMORY && cfg.cpus >= 1 && cfg.cpus <= VMM_MAX_CPUS);
	check(cfg.num_blk <= VMM_MAX_BLK && cfg.num_window <= VMM_MAX_PARTS);
	check((cfg.kernel >= 0) != (cfg.restore_state >= 0 && cfg.restore_memory >= 0));
	check(strlen(cfg.name) < sizeof(cfg.name) && cfg.cmdline);
	check_parts(cfg.window, cfg.num_window, cfg.window_size);
	for (unsigned i = 0; i < cfg.num_blk; i++) {
		check_parts(cfg.blk[i].concat, cfg.blk[i].num_concat, INT64_MAX);
		check(cfg.blk[i].idle ? cfg.blk[i].top.fd < 0 : cfg.blk[i].read_only == (cfg.blk[i].top.fd < 0));
	}
	vmm_config_done(&cfg);
	return 0;
}
