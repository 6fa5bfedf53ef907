/* SPDX-License-Identifier: Apache-2.0 */
/*
 * libcurl's multi interface with one transfer, so that the body can be pulled: its callback fills a buffer, and pauses
 * the transfer while that is full. See http.h.
 */
#include "oci/http.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/buf.h"
#include "base/cleanup.h"
#include "base/libcurl.h"
#include "base/util.h"

#define MAX_HEADERS (64U << 10) /* all of one answer */
#define MAX_REDIRECTS 8
#define MAX_URL 8192
#define BUFFERED (256U << 10)
#define CONNECT_SECONDS 30L
#define POLL_MS 100
#define MAX_DRAINED 16384U
#define AGENT "supermachine/" SM_VERSION

struct http {
	const struct curl_functions *curl;
	struct http_options options;
	CURLM *multi;
	CURL *easy;
	bool active; /* easy is in multi */

	/* of the present request */
	const atomic_bool *stop;
	struct curl_slist *headers;
	struct origin origin;
	struct http_answer answer;
	char *location; /* of a redirect */
	size_t header_bytes;
	bool headed, paused, done;
	CURLcode result; /* once done */
	bool too_long;	 /* its headers were */
	char why[CURL_ERROR_SIZE];
	struct buf body; /* [taken, len) is to be read */
	size_t taken;
	uint64_t quiet_since, asked_at;
};

int http_new(const struct http_options *o, struct http **ret, struct sm_error *err)
{
	const struct curl_functions *curl = curl_load(err);
	struct http *h;

	if (!curl)
		return -ELIBACC;
	h = calloc(1, sizeof(*h));
	if (!h)
		return error_sys(err, ENOMEM, "registry");
	h->curl = curl;
	h->options = *o;
	h->multi = curl->curl_multi_init();
	h->easy = curl->curl_easy_init();
	if (!h->multi || !h->easy) {
		http_free(h);
		return error_sys(err, ENOMEM, "registry");
	}
	*ret = h;
	return 0;
}

struct http *http_free(struct http *h)
{
	if (!h)
		return NULL;
	http_end(h);
	if (h->easy)
		h->curl->curl_easy_cleanup(h->easy);
	if (h->multi)
		h->curl->curl_multi_cleanup(h->multi);
	buf_done(&h->body);
	free(h);
	return NULL;
}

void http_end(struct http *h)
{
	if (h->active)
		h->curl->curl_multi_remove_handle(h->multi, h->easy);
	h->active = false;
	h->curl->curl_slist_free_all(h->headers);
	h->headers = NULL;
	free(h->location);
	h->location = NULL;
	h->body.len = h->taken = 0;
}

/* ---- what libcurl calls */

static size_t on_body(char *p, size_t one, size_t n, void *arg)
{
	struct http *h = arg;
	size_t held = h->body.len - h->taken;

	(void)one;
	if (held && held + n > BUFFERED) {
		h->paused = true;
		return CURL_WRITEFUNC_PAUSE;
	}
	if (h->taken) {
		buf_consume(&h->body, h->taken);
		h->taken = 0;
	}
	return buf_put(&h->body, p, n) < 0 ? 0 : n;
}

/* "NAME: value" gives the value without the spaces around it. */
static bool header_is(const char *line, size_t len, const char *name, const char **ret, size_t *ret_len)
{
	size_t n = strlen(name);

	if (len <= n || strncasecmp(line, name, n) != 0 || line[n] != ':')
		return false;
	line += n + 1;
	len -= n + 1;
	while (len && strchr(" \t", *line))
		line++, len--;
	while (len && strchr(" \t\r\n", line[len - 1]))
		len--;
	*ret = line;
	*ret_len = len;
	return true;
}

static uint64_t parse_digits(const char *p, size_t len)
{
	uint64_t v = 0;

	if (!len || len > 18)
		return HTTP_UNKNOWN;
	for (size_t i = 0; i < len; i++) {
		if (p[i] < '0' || p[i] > '9')
			return HTTP_UNKNOWN;
		v = v * 10 + (uint64_t)(p[i] - '0');
	}
	return v;
}

/* "bytes FIRST-LAST/SIZE" */
static uint64_t parse_range(const char *p, size_t len)
{
	const char *dash = memchr(p, '-', len);

	if (!dash || len < 6 || strncasecmp(p, "bytes ", 6) != 0)
		return HTTP_UNKNOWN;
	return parse_digits(p + 6, (size_t)(dash - p) - 6);
}

static size_t on_header(char *p, size_t one, size_t n, void *arg)
{
	struct http *h = arg;
	struct http_answer *a = &h->answer;
	const char *value;
	size_t len;

	(void)one;
	h->header_bytes += n;
	if (h->header_bytes > MAX_HEADERS) {
		h->too_long = true;
		return 0;
	}
	if (n >= 5 && strncasecmp(p, "HTTP/", 5) == 0) { /* an interim answer (1xx) came before */
		*a = (struct http_answer){.length = HTTP_UNKNOWN, .first = HTTP_UNKNOWN};
	} else if (header_is(p, n, "WWW-Authenticate", &value, &len)) {
		if (challenge_parse(value, len, &a->challenge) < 0)
			a->bad_challenge = true;
	} else if (header_is(p, n, "Location", &value, &len)) {
		free(h->location);
		h->location = len && len <= MAX_URL ? strndup(value, len) : NULL;
	} else if (header_is(p, n, "Content-Length", &value, &len)) {
		a->length = parse_digits(value, len);
	} else if (header_is(p, n, "Content-Range", &value, &len)) {
		a->first = parse_range(value, len);
	} else if (n <= 2 && (*p == '\r' || *p == '\n')) {
		h->curl->curl_easy_getinfo(h->easy, CURLINFO_RESPONSE_CODE, &a->status);
		h->headed = a->status >= 200;
	}
	return n;
}

/* ---- waiting */

static bool asked_to_stop(struct http *h, uint64_t now)
{
	if (h->stop && atomic_load(h->stop))
		return true;
	if (!h->options.stopped || now - h->asked_at < POLL_MS * 1000000ULL / 2)
		return false;
	h->asked_at = now;
	return h->options.stopped(h->options.arg) != 0;
}

static int network_error(struct http *h, CURLcode code, bool *ret_temporary, struct sm_error *err)
{
	const char *host = h->origin.host;
	const char *why = h->why[0] ? h->why : h->curl->curl_easy_strerror(code);
	char line[160];

	*ret_temporary = false;
	snprintf(line, sizeof(line), "%.*s", (int)strcspn(why, "\r\n"), why);
	if (h->too_long)
		return error_set(err, SM_ERROR_LIMIT, EFBIG, "%s sends more than %u bytes of headers", host,
				 MAX_HEADERS);
	switch (code) {
	case CURLE_COULDNT_RESOLVE_HOST:
		return error_set(err, SM_ERROR_NETWORK, EHOSTUNREACH,
				 "cannot find the host %s: is the name right, and the network up?", host);
	case CURLE_COULDNT_RESOLVE_PROXY:
		return error_set(err, SM_ERROR_NETWORK, EHOSTUNREACH,
				 "cannot find the proxy that the environment names (https_proxy)");
	case CURLE_COULDNT_CONNECT:
		return error_set(err, SM_ERROR_NETWORK, ECONNREFUSED, "cannot connect to %s port %s", host,
				 h->origin.port);
	case CURLE_PEER_FAILED_VERIFICATION:
	case CURLE_SSL_CACERT_BADFILE:
		return error_set(err, SM_ERROR_NETWORK, EPROTO,
				 "the certificate of %s is not trusted: its authority's belongs in "
				 "/etc/docker/certs.d/%s%s%s/ca.crt (%s)",
				 host, host, streq(h->origin.port, "443") ? "" : ":",
				 streq(h->origin.port, "443") ? "" : h->origin.port, line);
	case CURLE_SSL_CONNECT_ERROR:
		return error_set(err, SM_ERROR_NETWORK, EPROTO, "no TLS with %s port %s: %s", host, h->origin.port,
				 line);
	case CURLE_OUT_OF_MEMORY:
		return error_sys(err, ENOMEM, "%s", host);
	case CURLE_OPERATION_TIMEDOUT:
		*ret_temporary = true;
		return error_set(err, SM_ERROR_NETWORK, ETIMEDOUT, "%s does not answer", host);
	default:
		*ret_temporary = true;
		return error_set(err, SM_ERROR_NETWORK, ECONNRESET, "the connection to %s broke off: %s", host, line);
	}
}

static int stalled(struct http *h, bool *ret_temporary, struct sm_error *err)
{
	*ret_temporary = true;
	return error_set(err, SM_ERROR_NETWORK, ETIMEDOUT, "%s has not sent a byte for %u ms", h->origin.host,
			 h->options.stall_ms);
}

/* Lets the transfer go on, and waits for the network if there was nothing to do. */
static int step(struct http *h, bool *ret_temporary, struct sm_error *err)
{
	size_t before = h->header_bytes, held = h->body.len - h->taken;
	int running = 0, left;
	CURLMsg *m;
	uint64_t now;

	if (h->paused) {
		h->paused = false;
		h->curl->curl_easy_pause(h->easy, CURLPAUSE_CONT);
	}
	if (h->curl->curl_multi_perform(h->multi, &running) != CURLM_OK)
		return error_sys(err, EIO, "%s", h->origin.host);
	while ((m = h->curl->curl_multi_info_read(h->multi, &left)))
		if (m->msg == CURLMSG_DONE) {
			h->done = true;
			h->result = m->data.result;
		}
	now = time_now_ns();
	if (h->done || h->header_bytes != before || h->body.len - h->taken != held) {
		h->quiet_since = now;
		return asked_to_stop(h, now) ? error_set(err, SM_ERROR_CANCELLED, ECANCELED, "cancelled") : 0;
	}
	if (asked_to_stop(h, now))
		return error_set(err, SM_ERROR_CANCELLED, ECANCELED, "cancelled");
	if (now - h->quiet_since > h->options.stall_ms * 1000000ULL)
		return stalled(h, ret_temporary, err);
	if (h->curl->curl_multi_poll(h->multi, NULL, 0, POLL_MS, NULL) != CURLM_OK)
		return error_sys(err, EIO, "%s", h->origin.host);
	return 0;
}

/* ---- a request */

static bool add_header(struct http *h, const char *name, const char *value)
{
	_free_ char *line = NULL;
	struct curl_slist *more;

	if (!value)
		return true;
	if (asprintf(&line, "%s: %s", name, value) < 0) {
		line = NULL;
		return false;
	}
	more = h->curl->curl_slist_append(h->headers, line);
	explicit_bzero(line, strlen(line));
	h->headers = more ? more : h->headers;
	return more;
}

static void set_options(struct http *h, const struct http_request *req, const char *url)
{
	__typeof__(curl_easy_setopt) *set = h->curl->curl_easy_setopt;
	CURL *e = h->easy;

	h->curl->curl_easy_reset(e);
	set(e, CURLOPT_URL, url);
	set(e, CURLOPT_PROTOCOLS_STR, "http,https");
	set(e, CURLOPT_FOLLOWLOCATION, 0L);
	set(e, CURLOPT_NOSIGNAL, 1L);
	set(e, CURLOPT_QUICK_EXIT, 1L);
	set(e, CURLOPT_NETRC, (long)CURL_NETRC_IGNORED);
	set(e, CURLOPT_SUPPRESS_CONNECT_HEADERS, 1L);
	set(e, CURLOPT_CONNECTTIMEOUT, CONNECT_SECONDS);
	set(e, CURLOPT_TCP_KEEPALIVE, 1L);
	set(e, CURLOPT_BUFFERSIZE, 65536L);
	set(e, CURLOPT_USERAGENT, AGENT);
	set(e, CURLOPT_ERRORBUFFER, h->why);
	set(e, CURLOPT_HTTPHEADER, h->headers);
	set(e, CURLOPT_WRITEFUNCTION, on_body);
	set(e, CURLOPT_WRITEDATA, h);
	set(e, CURLOPT_HEADERFUNCTION, on_header);
	set(e, CURLOPT_HEADERDATA, h);
	if (host_is_loopback(h->origin.host))
		set(e, CURLOPT_PROXY, "");
	if (req->ca_file)
		set(e, CURLOPT_CAINFO, req->ca_file);
	if (req->form)
		set(e, CURLOPT_COPYPOSTFIELDS, req->form);
	if (req->from) {
		char range[32];

		snprintf(range, sizeof(range), "%llu-", (unsigned long long)req->from);
		set(e, CURLOPT_RANGE, range);
	}
}

/* One exchange, without redirects: 0 once the head of the answer is there. */
static int exchange(struct http *h, const struct http_request *req, const char *url, bool with_credentials,
		    bool *ret_temporary, struct sm_error *err)
{
	int r = 0;

	http_end(h);
	h->stop = req->stop;
	h->header_bytes = 0;
	h->headed = h->paused = h->done = h->too_long = false;
	h->result = CURLE_OK;
	h->why[0] = 0;
	h->answer = (struct http_answer){.length = HTTP_UNKNOWN, .first = HTTP_UNKNOWN};
	h->quiet_since = time_now_ns();
	if (!add_header(h, "Authorization", with_credentials ? req->authorization : NULL) ||
	    !add_header(h, "Accept", req->accept))
		return error_sys(err, ENOMEM, "%s", h->origin.host);
	set_options(h, req, url);
	if (h->curl->curl_multi_add_handle(h->multi, h->easy) != CURLM_OK)
		return error_sys(err, ENOMEM, "%s", h->origin.host);
	h->active = true;
	while (r == 0 && !h->headed && !h->done)
		r = step(h, ret_temporary, err);
	/* What goes wrong after the head is for the reader of the body. */
	if (r == 0 && !h->headed)
		r = network_error(h, h->result == CURLE_OK ? CURLE_GOT_NOTHING : h->result, ret_temporary, err);
	return r;
}

static bool is_redirect(long status)
{
	return status == 301 || status == 302 || status == 303 || status == 307 || status == 308;
}

/* Reads a short body to its end, so that the connection can be used again. */
static int drain(struct http *h, bool *ret_temporary, struct sm_error *err)
{
	int r = 0;

	while (r == 0 && !h->done && h->answer.length <= MAX_DRAINED) {
		h->taken = h->body.len;
		r = step(h, ret_temporary, err);
	}
	return r;
}

/* Replaces *url by where the answer leads. */
static int follow(struct http *h, char **url, struct sm_error *err)
{
	struct origin to;
	char *next;
	int r;

	if (!h->location)
		return error_set(err, SM_ERROR_CORRUPT, EBADMSG, "%s redirects, but not to a usable address",
				 h->origin.host);
	r = url_join(*url, h->location, &next, err);
	if (r < 0)
		return r;
	free(*url);
	*url = next;
	r = origin_parse(next, &to, err);
	return r < 0 ? r : http_check_redirect(&h->origin, &to, err);
}

int http_start(struct http *h, const struct http_request *req, struct http_answer *ret, bool *ret_temporary,
	       struct sm_error *err)
{
	_free_ char *url = strdup(req->url);
	struct origin first;
	int r;

	*ret_temporary = false;
	if (!url)
		return error_sys(err, ENOMEM, "registry");
	r = origin_parse(url, &first, err);
	for (unsigned n = 0; r == 0; n++) {
		r = origin_parse(url, &h->origin, err);
		if (r == 0)
			r = exchange(h, req, url, origin_same(&first, &h->origin), ret_temporary, err);
		if (r == 0 && h->answer.status == 401)
			r = drain(h, ret_temporary, err);
		if (r < 0 || !is_redirect(h->answer.status))
			break;
		if (n == MAX_REDIRECTS)
			r = error_set(err, SM_ERROR_LIMIT, ELOOP, "%s redirects more than %d times", first.host,
				      MAX_REDIRECTS);
		else if (req->form) /* what was posted is for him alone whom it was posted to */
			r = error_set(err, SM_ERROR_CORRUPT, EBADMSG, "%s redirects credentials", first.host);
		if (r == 0)
			r = drain(h, ret_temporary, err);
		if (r == 0)
			r = follow(h, &url, err);
	}
	if (r < 0) {
		http_end(h);
		return r;
	}
	snprintf(h->answer.host, sizeof(h->answer.host), "%s", h->origin.host);
	*ret = h->answer;
	return 0;
}

ssize_t http_read(struct http *h, void *p, size_t len, bool *ret_temporary, struct sm_error *err)
{
	size_t n;
	int r = 0;

	*ret_temporary = false;
	h->quiet_since = time_now_ns(); /* the time that the reader took is not the peer's */
	while (r == 0 && h->body.len == h->taken && !h->done)
		r = step(h, ret_temporary, err);
	if (r < 0)
		return r;
	n = MIN(len, h->body.len - h->taken);
	if (n) {
		memcpy(p, h->body.data + h->taken, n);
		h->taken += n;
		return (ssize_t)n;
	}
	if (h->body.error)
		return error_sys(err, ENOMEM, "%s", h->origin.host);
	return h->result == CURLE_OK ? 0 : network_error(h, h->result, ret_temporary, err);
}

int http_read_all(struct http *h, size_t max, const char *what, char **ret, size_t *ret_len, bool *ret_temporary,
		  struct sm_error *err)
{
	_cleanup_(buf_done) struct buf all = {0};
	char piece[16384];
	ssize_t n;

	while ((n = http_read(h, piece, sizeof(piece), ret_temporary, err)) > 0) {
		if (all.len + (size_t)n > max)
			return error_set(err, SM_ERROR_LIMIT, EFBIG, "%s is over %zu bytes", what, max);
		buf_put(&all, piece, (size_t)n);
	}
	if (n < 0)
		return (int)n;
	if (buf_put_u8(&all, 0) < 0)
		return error_sys(err, ENOMEM, "%s", what);
	*ret_len = all.len - 1;
	*ret = (char *)TAKE_PTR(all.data);
	return 0;
}
