/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The tar stream of a layer, verified on the way. Two threads share the work of one layer:
 *
 *	producer (own thread)			consumer (whoever calls oci_layer_read)
 *	pread -> hash of what is stored		hash of what is unpacked (the diff ID)
 *	      -> decode into a chunk	-ring->	copy out, parse, write
 *
 * Inflating is the dearest step, hashing the unpacked bytes the next, so this cut balances them. A chunk is small
 *enough to be still in the producer's cache when the consumer hashes it. States of a stream: running (the ring fills
 *and drains); ended or failed, set once by the producer after its last chunk; the consumer reports either after it has
 *drained the ring, and from then on always again. A plain layer whose digest is its diff ID is hashed once.
 */
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/util.h"
#include "oci/decoder.h"
#include "oci/digest.h"
#include "oci/registry.h"
#include "oci/source.h"

#define CHUNK_SIZE (256 * 1024)
#define NUM_CHUNKS 8
#define READ_SIZE (128 * 1024)

struct chunk {
	uint8_t *data;
	size_t len;
};

struct oci_layer_stream {
	/* set before the thread starts */
	const struct oci_source *src;
	unsigned index;
	struct oci_layer layer; /* a copy; member is not ours */
	uint64_t max_bytes;
	struct extent extent;
	pthread_t thread;
	bool threaded;

	/* producer's */
	struct decoder *decoder;
	struct hasher stored;
	uint8_t *in;
	uint64_t unpacked;

	/* under lock */
	pthread_mutex_t lock;
	pthread_cond_t changed;
	unsigned head, filled; /* first chunk that is full, and how many are */
	bool closing, ended;
	int result;
	struct sm_error error; /* with result */

	struct chunk chunks[NUM_CHUNKS]; /* [head, head + filled) are the consumer's, the rest the producer's */
	_Atomic uint64_t position;

	/* consumer's */
	struct hasher diff;
	size_t taken; /* of the first full chunk */
	bool holding; /* the first full chunk is hashed and partly copied out */
	int final;    /* what every further read returns, once `done` */
	bool done;
	struct sm_error final_error;
};

static int bad_layer(const struct oci_layer_stream *s, enum sm_error_kind kind, int code, struct sm_error *err,
		     const char *why)
{
	const char *digest = *s->layer.digest ? s->layer.digest : s->layer.diff_id;

	return error_set(err, kind, code, "%s: layer %u (%s): %s", s->src->spec, s->index, digest, why);
}

/* ---- producer */

/* The next free chunk, NULL when the stream is being closed. */
static struct chunk *wait_free(struct oci_layer_stream *s)
{
	struct chunk *c;

	pthread_mutex_lock(&s->lock);
	while (s->filled == NUM_CHUNKS && !s->closing)
		pthread_cond_wait(&s->changed, &s->lock);
	c = s->closing ? NULL : &s->chunks[(s->head + s->filled) % NUM_CHUNKS];
	pthread_mutex_unlock(&s->lock);
	return c;
}

static void hand_over(struct oci_layer_stream *s, size_t len)
{
	pthread_mutex_lock(&s->lock);
	s->chunks[(s->head + s->filled) % NUM_CHUNKS].len = len;
	s->filled++;
	pthread_cond_signal(&s->changed);
	pthread_mutex_unlock(&s->lock);
}

static int remote_failed(const struct oci_layer_stream *s, int r, struct sm_error *err)
{
	return error_wrap(err, r, "%s: layer %u", s->src->spec, s->index);
}

/* Reads and hashes the next piece of the blob. Count, 0 at the end. */
static ssize_t read_stored(struct oci_layer_stream *s, uint64_t at, struct sm_error *err)
{
	struct remote *remote = s->extent.remote;
	ssize_t n = remote ? remote->read(remote, at, s->in, READ_SIZE, err)
			   : extent_read(&s->extent, at, s->in, READ_SIZE);

	if (n < 0 && remote)
		return remote_failed(s, (int)n, err);
	if (n < 0)
		return bad_layer(s, SM_ERROR_IO, (int)-n, err, strerror((int)-n));
	if ((uint64_t)n < MIN(READ_SIZE, s->extent.size - at))
		return bad_layer(s, SM_ERROR_CORRUPT, EBADMSG, err, "its file became shorter while it was read");
	if (n && s->stored.algorithm)
		hasher_update(&s->stored, s->in, (size_t)n);
	atomic_store_explicit(&s->position, at + (uint64_t)n, memory_order_relaxed);
	return n;
}

static int check_digest(const struct oci_layer_stream *s, struct hasher *h, const char *want, const char *which,
			struct sm_error *err)
{
	char have[OCI_DIGEST_SIZE], why[400];

	if (!h->algorithm)
		return 0;
	hasher_finish(h, have);
	if (streq(have, want))
		return 0;
	snprintf(why, sizeof(why), "%s has digest %s, not %s", which, have, want);
	return bad_layer(s, SM_ERROR_CORRUPT, EBADMSG, err, why);
}

/* At the end of the stored bytes. */
static int finish_stored(struct oci_layer_stream *s, struct sm_error *err)
{
	const char *why = NULL;
	int r = check_digest(s, &s->stored, s->layer.digest, "its content", err);

	/* The digest first: where both are wrong, it is the digest that says what happened. */
	if (r < 0 || !s->decoder)
		return r;
	r = decoder_finish(s->decoder, &why);
	return r < 0 ? bad_layer(s, SM_ERROR_CORRUPT, EBADMSG, err, why) : 0;
}

/* After a decoding error: if the stored bytes are not those that the digest names, that is the error to tell. */
static int blame(struct oci_layer_stream *s, uint64_t at, const char *why, struct sm_error *err)
{
	for (;;) {
		ssize_t n = read_stored(s, at, err);

		if (n < 0)
			return (int)n;
		if (n == 0)
			break;
		at += (uint64_t)n;
		pthread_mutex_lock(&s->lock);
		if (s->closing)
			at = s->extent.size;
		pthread_mutex_unlock(&s->lock);
	}
	if (check_digest(s, &s->stored, s->layer.digest, "its content", err) < 0)
		return -EBADMSG;
	return bad_layer(s, SM_ERROR_CORRUPT, EBADMSG, err, why);
}

static int over_limit(struct oci_layer_stream *s, struct sm_error *err)
{
	char why[96], size[16];

	snprintf(why, sizeof(why), "it unpacks to more than the limit of %s", format_size(s->max_bytes, size));
	return bad_layer(s, SM_ERROR_LIMIT, EFBIG, err, why);
}

/* The first piece of a blob has come: how is it compressed? */
static int see(struct oci_layer_stream *s, size_t len, struct sm_error *err)
{
	const char *name = NULL;
	char why[96];
	int r;

	if (compression_detect(s->in, len, &s->layer.compression, &name) < 0) {
		snprintf(why, sizeof(why), "it is compressed with %s; images use gzip or zstd", name);
		return bad_layer(s, SM_ERROR_UNSUPPORTED, ENOTSUP, err, why);
	}
	r = decoder_new(s->layer.compression, &s->decoder);
	return r < 0 ? error_sys(err, -r, "%s: layer %u", s->src->spec, s->index) : 0;
}

static int produce(struct oci_layer_stream *s, struct sm_error *err)
{
	struct decoder_buffers b = {0};
	struct chunk *c = wait_free(s);
	bool drained = true; /* the decoder holds nothing back */
	uint64_t at = 0;

	if (!c)
		return -ECANCELED;
	b.out = c->data;
	b.out_len = CHUNK_SIZE;
	for (;;) {
		size_t room = b.out_len;
		const char *why = NULL;

		if (b.in_len == 0) {
			ssize_t n = read_stored(s, at, err);

			if (n < 0)
				return (int)n;
			at += (uint64_t)n;
			b.in = s->in;
			b.in_len = (size_t)n;
			if (!s->decoder && (n = see(s, b.in_len, err)) < 0)
				return (int)n;
		}
		if (b.in_len == 0 && drained) {
			if (room < CHUNK_SIZE)
				hand_over(s, CHUNK_SIZE - room);
			return finish_stored(s, err);
		}
		if (decoder_run(s->decoder, &b, &why) < 0)
			return blame(s, at, why, err);
		s->unpacked += room - b.out_len;
		if (s->unpacked > s->max_bytes)
			return over_limit(s, err);
		drained = b.in_len == 0 && b.out_len;
		if (b.out_len)
			continue;
		hand_over(s, CHUNK_SIZE);
		c = wait_free(s);
		if (!c)
			return -ECANCELED;
		b.out = c->data;
		b.out_len = CHUNK_SIZE;
	}
}

static void *producer(void *arg)
{
	struct oci_layer_stream *s = arg;
	struct sm_error error = {0};
	int r = produce(s, &error);

	pthread_mutex_lock(&s->lock);
	s->ended = true;
	s->result = r;
	s->error = error;
	pthread_cond_signal(&s->changed);
	pthread_mutex_unlock(&s->lock);
	return NULL;
}

/* ---- consumer */

static const char *what_differs(const struct oci_layer_stream *s)
{
	return *s->layer.digest && !s->stored.algorithm ? "its content" : "its unpacked content";
}

/* Makes the first full chunk ours to copy from: waits for one, hashes it. 1, 0 at the end, -errno. */
static int take_chunk(struct oci_layer_stream *s, struct sm_error *err)
{
	struct chunk *c;
	int r;

	pthread_mutex_lock(&s->lock);
	while (s->filled == 0 && !s->ended)
		pthread_cond_wait(&s->changed, &s->lock);
	c = s->filled ? &s->chunks[s->head] : NULL;
	r = c ? 1 : s->result;
	if (!c && r < 0 && err)
		*err = s->error;
	pthread_mutex_unlock(&s->lock);
	if (!c)
		return r < 0 ? r : check_digest(s, &s->diff, s->layer.diff_id, what_differs(s), err);
	if (s->diff.algorithm)
		hasher_update(&s->diff, c->data, c->len);
	s->taken = 0;
	s->holding = true;
	return 1;
}

static void give_back(struct oci_layer_stream *s)
{
	pthread_mutex_lock(&s->lock);
	s->head = (s->head + 1) % NUM_CHUNKS;
	s->filled--;
	pthread_cond_signal(&s->changed);
	pthread_mutex_unlock(&s->lock);
	s->holding = false;
}

/* Makes sure that a chunk is held; false at the end, whose verdict stays. */
static bool hold_chunk(struct oci_layer_stream *s)
{
	int r;

	if (s->holding || s->done)
		return s->holding;
	r = take_chunk(s, &s->final_error);
	if (r > 0)
		return true;
	s->done = true;
	s->final = r;
	return false;
}

static int verdict(const struct oci_layer_stream *s, struct sm_error *err)
{
	if (s->final < 0 && err)
		*err = s->final_error;
	return s->final;
}

ssize_t oci_layer_read(struct oci_layer_stream *s, void *p, size_t len, struct sm_error *err)
{
	size_t done = 0;

	while (done < len && hold_chunk(s)) {
		struct chunk *c = &s->chunks[s->head]; /* head is moved by this thread alone */
		size_t n = MIN(len - done, c->len - s->taken);

		memcpy((uint8_t *)p + done, c->data + s->taken, n);
		done += n;
		s->taken += n;
		if (s->taken == c->len)
			give_back(s);
	}
	if (done || len == 0)
		return (ssize_t)done;
	return verdict(s, err);
}

int oci_layer_verify(struct oci_layer_stream *s, struct sm_error *err)
{
	while (hold_chunk(s))
		give_back(s);
	return verdict(s, err);
}

uint64_t oci_layer_position(const struct oci_layer_stream *s)
{
	return atomic_load_explicit(&s->position, memory_order_relaxed);
}

/* ---- both ends */

static int start_hashing(struct oci_layer_stream *s)
{
	int r = hasher_init(&s->diff, s->layer.diff_id);

	/* The stored bytes are the unpacked ones: the consumer's hash is enough. */
	if (r < 0 || !*s->layer.digest ||
	    (!s->layer.unseen && s->layer.compression == OCI_PLAIN && streq(s->layer.digest, s->layer.diff_id)))
		return r;
	return hasher_init(&s->stored, s->layer.digest);
}

static int start(struct oci_layer_stream *s)
{
	sigset_t all, old;
	int r = start_hashing(s);

	if (r == 0 && !s->layer.unseen)
		r = decoder_new(s->layer.compression, &s->decoder);
	if (r < 0)
		return r;
	s->in = malloc(READ_SIZE);
	if (!s->in)
		return -ENOMEM;
	for (int i = 0; i < NUM_CHUNKS; i++) {
		s->chunks[i].data = malloc(CHUNK_SIZE);
		if (!s->chunks[i].data)
			return -ENOMEM;
	}
	/* Signals are the host program's affair: none is taken by a thread of ours. */
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	r = pthread_create(&s->thread, NULL, producer, s);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	s->threaded = r == 0;
	return -r;
}

static int open_extent(struct oci_layer_stream *s, struct sm_error *err)
{
	const struct oci_source *src = s->src;
	int r;

	if (src->kind == SOURCE_REGISTRY) {
		/* Of what is unpacked to nothing there could be any amount. */
		if (s->layer.size > s->max_bytes)
			return over_limit(s, err);
		return remote_open(src->registry, s->layer.digest, s->layer.size, &s->extent, err);
	}
	r = src->store->open(src->store, s->layer.member, &s->extent, err);
	if (r == -ENOENT)
		return bad_layer(s, SM_ERROR_NOT_FOUND, ENOENT, err, "it is missing");
	if (r < 0)
		return source_wrap(src, r, err);
	if (s->extent.size != s->layer.size)
		return bad_layer(s, SM_ERROR_CORRUPT, EBADMSG, err, "its file has changed size");
	return 0;
}

int oci_layer_open(struct oci_source *src, const struct oci_image *img, unsigned i, uint64_t max_bytes,
		   struct oci_layer_stream **ret, struct sm_error *err)
{
	struct oci_layer_stream *s;
	int r;

	if (i >= img->num_layers)
		return error_set(err, SM_ERROR_INVALID, EINVAL, "%s: there is no layer %u", src->spec, i);
	s = calloc(1, sizeof(*s));
	if (!s)
		return error_sys(err, ENOMEM, "%s", src->spec);
	pthread_mutex_init(&s->lock, NULL);
	pthread_cond_init(&s->changed, NULL);
	s->src = src;
	s->index = i;
	s->layer = img->layers[i];
	s->max_bytes = max_bytes;
	s->extent.fd = -1;
	r = open_extent(s, err);
	if (r == 0) {
		r = start(s);
		if (r < 0)
			r = error_sys(err, -r, "%s: layer %u", src->spec, i);
	}
	if (r < 0) {
		oci_layer_close(s);
		return r;
	}
	*ret = s;
	return 0;
}

struct oci_layer_stream *oci_layer_close(struct oci_layer_stream *s)
{
	if (!s)
		return NULL;
	if (s->threaded) {
		pthread_mutex_lock(&s->lock);
		s->closing = true;
		pthread_cond_signal(&s->changed);
		pthread_mutex_unlock(&s->lock);
		if (s->extent.remote)
			s->extent.remote->stop(s->extent.remote);
		pthread_join(s->thread, NULL);
	}
	for (int i = 0; i < NUM_CHUNKS; i++)
		free(s->chunks[i].data);
	free(s->in);
	decoder_free(s->decoder);
	extent_close(&s->extent);
	pthread_cond_destroy(&s->changed);
	pthread_mutex_destroy(&s->lock);
	free(s);
	return NULL;
}
