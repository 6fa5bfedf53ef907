/* SPDX-License-Identifier: Apache-2.0 */
/* Loads libarchive. See libarchive.h. */
#include "base/libarchive.h"

#include <errno.h>
#include <pthread.h>

#include "base/dynamic.h"
#include "base/util.h"

/* The interface that all of libarchive 3 has. */
#define LIBRARY "libarchive.so.13"

static struct archive_functions functions;
static bool loaded;
static pthread_once_t once = PTHREAD_ONCE_INIT;

/* In the order of the members. */
static const char *const names[] = {ARCHIVE_FUNCTIONS(DYNAMIC_NAME)};
_Static_assert(sizeof(functions) == sizeof(names), "one function, one name");

static void load(void)
{
	static const char *const libraries[] = {LIBRARY, NULL};

	loaded = dynamic_load(libraries, names, (void **)&functions, ARRAY_SIZE(names));
}

const struct archive_functions *archive_load(struct sm_error *err)
{
	pthread_once(&once, load);
	if (loaded)
		return &functions;
	error_set(err, SM_ERROR_HOST, ELIBACC, "archives need %s (Debian: apt install libarchive13)", LIBRARY);
	return NULL;
}
