/* SPDX-License-Identifier: Apache-2.0 */
/* Loads libcurl. See libcurl.h. */
#include "base/libcurl.h"

#include <errno.h>
#include <pthread.h>

#include "base/dynamic.h"
#include "base/util.h"

static struct curl_functions functions;
static bool loaded;
static pthread_once_t once = PTHREAD_ONCE_INIT;

/* In the order of the members. */
static const char *const names[] = {CURL_FUNCTIONS(DYNAMIC_NAME)};
_Static_assert(sizeof(functions) == sizeof(names), "one function, one name");

static void load(void)
{
	/* Two builds of one library with one interface: whichever is installed. */
	static const char *const flavours[] = {"libcurl-gnutls.so.4", "libcurl.so.4", NULL};

	loaded = dynamic_load(flavours, names, (void **)&functions, ARRAY_SIZE(names)) &&
		 functions.curl_global_init(CURL_GLOBAL_DEFAULT) == CURLE_OK;
}

const struct curl_functions *curl_load(struct sm_error *err)
{
	pthread_once(&once, load);
	if (loaded)
		return &functions;
	error_set(err, SM_ERROR_HOST, ELIBACC, "registries need libcurl (Debian: apt install libcurl3-gnutls)");
	return NULL;
}
