/* SPDX-License-Identifier: Apache-2.0 */
/*
 * libcurl, loaded when it is first needed: it brings thirty libraries along, whose loading takes longer than all else
 * that most commands do, and only what speaks to a registry needs it. So all of its functions are called through the
 * table that curl_load returns.
 */
#ifndef BASE_LIBCURL_H
#define BASE_LIBCURL_H

/* The checks of argument types are macros over the functions' names, which here are members of a table. */
#define CURL_DISABLE_TYPECHECK
#include <curl/curl.h>
#undef curl_easy_setopt
#undef curl_easy_getinfo

#include "base/error.h"

/* What is used of it. */
#define CURL_FUNCTIONS(F)                                                                                              \
	F(curl_easy_cleanup)                                                                                           \
	F(curl_easy_getinfo)                                                                                           \
	F(curl_easy_init)                                                                                              \
	F(curl_easy_pause)                                                                                             \
	F(curl_easy_reset)                                                                                             \
	F(curl_easy_setopt)                                                                                            \
	F(curl_easy_strerror)                                                                                          \
	F(curl_free)                                                                                                   \
	F(curl_global_init)                                                                                            \
	F(curl_multi_add_handle)                                                                                       \
	F(curl_multi_cleanup)                                                                                          \
	F(curl_multi_info_read)                                                                                        \
	F(curl_multi_init)                                                                                             \
	F(curl_multi_perform)                                                                                          \
	F(curl_multi_poll)                                                                                             \
	F(curl_multi_remove_handle)                                                                                    \
	F(curl_slist_append)                                                                                           \
	F(curl_slist_free_all)                                                                                         \
	F(curl_url)                                                                                                    \
	F(curl_url_cleanup)                                                                                            \
	F(curl_url_get)                                                                                                \
	F(curl_url_set)

struct curl_functions {
#define CURL_MEMBER(name) __typeof__(name) *name;
	CURL_FUNCTIONS(CURL_MEMBER)
#undef CURL_MEMBER
};
/* The functions, the process's own for good, and the library initialised; NULL (SM_ERROR_HOST): err says what is
 * missing. From any thread. */
const struct curl_functions *curl_load(struct sm_error *err) MUST_CHECK;

#endif
