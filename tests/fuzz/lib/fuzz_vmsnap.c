/* SPDX-License-Identifier: Apache-2.0 */
/* metadata.json of a VM's snapshot: what is accepted comes back the same. */
#include <stdlib.h>
#include <string.h>

#include "lib/vmsnap.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct sm_error err = {0};
	struct vmsnap m, again;
	char *text = NULL;

	if (vmsnap_parse((const char *)data, size, &m, &err) < 0)
		return 0;
	if (!vm_id_valid(m.vm) || strv_len((const char *const *)m.layers) > VM_MAX_LAYERS || !m.cpus || !m.memory)
		abort();
	if (vmsnap_format(&m, &text, NULL) < 0 || vmsnap_parse(text, strlen(text), &again, NULL) < 0 ||
	    strcmp(m.image_id, again.image_id) != 0 || m.window != again.window)
		abort();
	if (m.depth > VMSNAP_MAX_DEPTH || !m.depth != !m.parent.name[0] || strchr(m.parent.name, '/') ||
	    m.depth != again.depth || strcmp(m.parent.name, again.parent.name) != 0 ||
	    strcmp(m.base_file, again.base_file) != 0)
		abort();
	free(text);
	vmsnap_done(&m);
	vmsnap_done(&again);
	return 0;
}
