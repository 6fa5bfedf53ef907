/* SPDX-License-Identifier: Apache-2.0 */
/* Who an URL leads to, and who may send us there. By libcurl's own parser, so that both mean the same. See http.h. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "base/libcurl.h"
#include "base/util.h"
#include "oci/http.h"
#include "oci/json.h"

static bool copy_part(const struct curl_functions *curl, CURLU *u, CURLUPart part, char *out, size_t size)
{
	char *text = NULL;
	bool good = curl->curl_url_get(u, part, &text, CURLU_DEFAULT_PORT) == CURLUE_OK && strlen(text) < size;

	if (good)
		snprintf(out, size, "%s", text);
	curl->curl_free(text);
	return good && *out;
}

int origin_parse(const char *url, struct origin *ret, struct sm_error *err)
{
	const struct curl_functions *curl = curl_load(err);
	CURLU *u = curl ? curl->curl_url() : NULL;
	char scheme[8], buf[SHOW_SIZE];
	bool good;

	if (!curl)
		return -ELIBACC;
	if (!u)
		return error_sys(err, ENOMEM, "registry");
	good = curl->curl_url_set(u, CURLUPART_URL, url, CURLU_DISALLOW_USER) == CURLUE_OK &&
	       copy_part(curl, u, CURLUPART_SCHEME, scheme, sizeof(scheme)) &&
	       copy_part(curl, u, CURLUPART_HOST, ret->host, sizeof(ret->host)) &&
	       copy_part(curl, u, CURLUPART_PORT, ret->port, sizeof(ret->port));
	curl->curl_url_cleanup(u);
	ret->https = good && streq(scheme, "https");
	if (good && (ret->https || streq(scheme, "http")))
		return 0;
	/* Neither a user's password nor a query is for others to see. */
	snprintf(buf, sizeof(buf), "%.*s", (int)MIN(strcspn(url, strchr(url, '@') ? ":?#@" : "?#"), (size_t)60), url);
	return error_set(err, SM_ERROR_CORRUPT, EBADMSG, "the registry names an address that is not one of https: '%s'",
			 show(buf, buf));
}

int url_join(const char *base, const char *location, char **ret, struct sm_error *err)
{
	const struct curl_functions *curl = curl_load(err);
	CURLU *u = curl ? curl->curl_url() : NULL;
	char *joined = NULL;
	int r = 0;

	if (!curl)
		return -ELIBACC;
	if (!u || curl->curl_url_set(u, CURLUPART_URL, base, 0) != CURLUE_OK ||
	    curl->curl_url_set(u, CURLUPART_URL, location, CURLU_URLENCODE) != CURLUE_OK ||
	    curl->curl_url_get(u, CURLUPART_URL, &joined, 0) != CURLUE_OK)
		r = error_set(err, SM_ERROR_CORRUPT, EBADMSG,
			      "a redirect of the registry's leads to no usable address");
	if (r == 0) {
		*ret = strdup(joined);
		r = *ret ? 0 : error_sys(err, ENOMEM, "registry");
	}
	curl->curl_free(joined);
	curl->curl_url_cleanup(u);
	return r;
}

bool origin_same(const struct origin *a, const struct origin *b)
{
	return a->https == b->https && strcasecmp(a->host, b->host) == 0 && streq(a->port, b->port);
}

bool host_is_loopback(const char *host)
{
	return strcasecmp(host, "localhost") == 0 || streq(host, "[::1]") || streq(host, "::1") ||
	       (str_starts(host, "127.") && strspn(host, "0123456789.") == strlen(host));
}

int http_check_redirect(const struct origin *from, const struct origin *to, struct sm_error *err)
{
	char buf[SHOW_SIZE];

	if (!to->https && (from->https || !host_is_loopback(to->host)))
		return error_set(err, SM_ERROR_CORRUPT, EBADMSG, "%s redirects to %s without encryption", from->host,
				 show(to->host, buf));
	if (host_is_loopback(to->host) && !host_is_loopback(from->host))
		return error_set(err, SM_ERROR_CORRUPT, EBADMSG, "%s redirects to this host", from->host);
	return 0;
}
