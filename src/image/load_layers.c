/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Converting the layers of an image that the store lacks, several at a time.
 *
 * A layer under way is tmp/<diff ID>.blob and .index, both flock'ed: a second load of the same layer waits for the
 * first and then finds it done; what a killed one leaves is overwritten by the next, or removed by prune. The blob is
 * renamed first, the index last: an index without its blob's size is not a layer.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/util.h"
#include "image/index.h"
#include "image/load.h"

#define REPORT_BYTES (1U << 20)
#define MAX_THREADS 16U

/* One layer's stream on its way into the converter. */
struct feed {
	struct load *load;
	struct oci_layer_stream *stream;
	uint64_t reported;
	struct sm_error error; /* of the source, which names image and layer by itself */
};

int load_progress(struct load *l, const char *stage, uint64_t done, uint64_t total, struct sm_error *err)
{
	if (l->progress.update && l->progress.update(l->progress.arg, stage, done, total) != 0)
		return error_set(err, SM_ERROR_CANCELLED, ECANCELED, "cancelled");
	return 0;
}

bool layer_present(struct image_store *store, const char *hex)
{
	char path[STORE_PATH_MAX];
	_fd_ int fd = openat(store->fd, store_path(path, "layers", hex, ""), O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	struct index_reader *index;
	struct stat st;
	bool good;

	if (fd < 0 || index_open(fd, &index, NULL) < 0)
		return false;
	good = fstatat(store->fd, store_path(path, "blobs", hex, ""), &st, AT_SYMLINK_NOFOLLOW) == 0 &&
	       S_ISREG(st.st_mode) && (uint64_t)st.st_size >= index_totals(index)->blob_size;
	index_close(index);
	return good;
}

static int report(struct feed *f, struct sm_error *err)
{
	uint64_t position = oci_layer_position(f->stream), more = position - f->reported;
	struct load *l = f->load;
	int r;

	if (more < REPORT_BYTES)
		return 0;
	f->reported = position;
	pthread_mutex_lock(&l->lock);
	l->done += more;
	r = load_progress(l, "layers", MIN(l->done, l->total), l->total, err);
	pthread_mutex_unlock(&l->lock);
	return r;
}

static ssize_t feed_read(void *arg, void *p, size_t len, struct sm_error *err)
{
	struct feed *f = arg;
	ssize_t n;
	int r;

	if (atomic_load_explicit(&f->load->stop, memory_order_relaxed))
		return error_set(err, SM_ERROR_CANCELLED, ECANCELED, "cancelled");
	n = oci_layer_read(f->stream, p, len, err);
	if (n < 0 && err)
		f->error = *err;
	if (n <= 0)
		return n;
	if (atomic_fetch_add(&f->load->unpacked, (uint64_t)n) + (uint64_t)n > f->load->limits.max_image_bytes)
		return error_set(err, SM_ERROR_LIMIT, EFBIG, "the image's layers are longer than %llu bytes together",
				 (unsigned long long)f->load->limits.max_image_bytes);
	r = report(f, err);
	return r < 0 ? r : n;
}

int load_layer_error(const struct load *l, unsigned i, int r, struct sm_error *err)
{
	const struct oci_layer *layer = &l->img.layers[i];

	return error_wrap(err, r, "layer %u (%s)", i, layer->digest[0] ? layer->digest : layer->diff_id);
}

/* The source's own words, and after them where the converter was, which it has put before them. */
static int source_error(const struct sm_error *source, int r, struct sm_error *err)
{
	struct sm_error both = *source;
	size_t all = strlen(err->message), own = strlen(source->message);

	if (all > own + 2) {
		size_t room = sizeof(both.message) - own;

		snprintf(both.message + own, room, ", at %.*s", (int)(all - own - 2), err->message);
	}
	*err = both;
	return r;
}

static int convert(struct load *l, unsigned i, int blob_fd, int index_fd, struct sm_error *err)
{
	struct layer_limits limits = {.max_entries = l->limits.max_entries,
				      .max_bytes = l->limits.max_layer_bytes,
				      .max_depth = l->limits.max_depth,
				      .max_path = l->limits.max_path};
	struct feed feed = {.load = l};
	struct tar_input input = {.read = feed_read, .arg = &feed};
	struct layer_stats stats;
	int r = oci_layer_open(l->oci, &l->img, i, l->limits.max_layer_bytes, &feed.stream, err);

	if (r < 0)
		return r;
	r = layer_convert(&input, &limits, blob_fd, index_fd, &stats, err);
	oci_layer_close(feed.stream);
	if (r < 0)
		return feed.error.kind ? source_error(&feed.error, r, err) : load_layer_error(l, i, r, err);
	return 0;
}

int load_is_stopped(void *arg)
{
	struct load *l = arg;
	int r = atomic_load(&l->stop);

	pthread_mutex_lock(&l->lock);
	if (!r)
		r = load_progress(l, l->total ? "layers" : "manifest", MIN(l->done, l->total), l->total, NULL);
	pthread_mutex_unlock(&l->lock);
	return r;
}

/* With both temporaries ours: makes the layer, unless somebody did while we waited. */
static int make_layer(struct load *l, unsigned i, int blob_fd, int index_fd, const char *blob_tmp,
		      const char *index_tmp, struct sm_error *err)
{
	char final[STORE_PATH_MAX];
	int r;

	if (layer_present(l->store, l->hex[i])) {
		unlinkat(l->store->fd, index_tmp, 0);
		unlinkat(l->store->fd, blob_tmp, 0);
		return 0;
	}
	r = convert(l, i, blob_fd, index_fd, err);
	if (r == 0)
		r = tmp_publish(l->store, blob_fd, blob_tmp, store_path(final, "blobs", l->hex[i], ""), err);
	if (r == 0)
		r = tmp_publish(l->store, index_fd, index_tmp, store_path(final, "layers", l->hex[i], ""), err);
	if (r < 0) {
		unlinkat(l->store->fd, index_tmp, 0);
		unlinkat(l->store->fd, blob_tmp, 0);
	}
	return r;
}

static int load_layer(struct load *l, unsigned i, struct sm_error *err)
{
	char blob_tmp[STORE_PATH_MAX], index_tmp[STORE_PATH_MAX];
	_fd_ int blob_fd = -1, index_fd = -1;
	int r;

	store_path(blob_tmp, "tmp", l->hex[i], ".blob");
	store_path(index_tmp, "tmp", l->hex[i], ".index");
	r = tmp_open(l->store, blob_tmp, load_is_stopped, l, &blob_fd, err);
	if (r == 0)
		r = tmp_open(l->store, index_tmp, load_is_stopped, l, &index_fd, err);
	if (r == 0)
		r = make_layer(l, i, blob_fd, index_fd, blob_tmp, index_tmp, err);
	return r;
}

/* The largest missing layer that nobody has taken, so that the last ones to end are short; or num_layers. */
static unsigned take_layer(struct load *l)
{
	unsigned best = l->img.num_layers;

	pthread_mutex_lock(&l->lock);
	for (unsigned i = 0; i < l->img.num_layers; i++)
		if (l->missing[i] && (best == l->img.num_layers || l->img.layers[i].size > l->img.layers[best].size))
			best = i;
	if (best < l->img.num_layers)
		l->missing[best] = false;
	pthread_mutex_unlock(&l->lock);
	return best;
}

/* The first error counts; what the others say afterwards is only that they were stopped. */
static void fail(struct load *l, int r, const struct sm_error *err)
{
	pthread_mutex_lock(&l->lock);
	if (l->result == 0) {
		l->result = r;
		l->error = *err;
	}
	pthread_mutex_unlock(&l->lock);
	atomic_store(&l->stop, true);
}

static void *worker(void *arg)
{
	struct load *l = arg;
	unsigned i;

	while (!atomic_load(&l->stop) && (i = take_layer(l)) < l->img.num_layers) {
		struct sm_error err = {0};
		int r = load_layer(l, i, &err);

		if (r < 0)
			fail(l, r, &err);
	}
	return NULL;
}

static unsigned count_missing(struct load *l)
{
	unsigned n = 0;

	l->total = l->done = 0;
	for (unsigned i = 0; i < l->img.num_layers; i++) {
		l->missing[i] = l->first[i] == i && !layer_present(l->store, l->hex[i]);
		if (!l->missing[i])
			continue;
		l->total += l->img.layers[i].size;
		n++;
	}
	return n;
}

int load_layers(struct load *l, struct sm_error *err)
{
	unsigned missing = count_missing(l), n = 0;
	pthread_t threads[MAX_THREADS];
	int r;

	if (!missing)
		return 0;
	r = load_progress(l, "layers", 0, l->total, err);
	if (r < 0)
		return r;
	/* This thread is one of the workers, and the only one if no more can be had. */
	while (n + 1 < MIN(MIN(l->limits.threads, missing), MAX_THREADS) &&
	       pthread_create(&threads[n], NULL, worker, l) == 0)
		n++;
	worker(l);
	while (n)
		pthread_join(threads[--n], NULL);
	if (l->result < 0) {
		if (err)
			*err = l->error;
		return l->result;
	}
	r = store_sync_dir(l->store, "blobs", err);
	return r < 0 ? r : store_sync_dir(l->store, "layers", err);
}
