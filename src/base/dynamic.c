/* SPDX-License-Identifier: Apache-2.0 */
/* See dynamic.h. */
#include "base/dynamic.h"

#include <dlfcn.h>

bool dynamic_load(const char *const *libraries, const char *const *names, void **ret, size_t num)
{
	void *library = NULL;

	for (const char *const *l = libraries; !library && *l; l++)
		library = dlopen(*l, RTLD_LAZY | RTLD_LOCAL);
	for (size_t i = 0; library && i < num; i++)
		if (!(ret[i] = dlsym(library, names[i])))
			return false;
	return library;
}
