/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Guest RAM: private memory, fresh or over a snapshot's memory file.
 *
 * A memory file is an image of RAM (low, high and plugged back to back), sparse: pages of zeros are holes. It is looked
 * at in chunks of 2 MiB. A chunk without data is anonymous memory on huge pages, so that new memory comes by one fault
 * where there would be 512; a chunk with data is a private mapping of the file, so that all machines restored from it
 * share the clean pages. The file must not change while it is mapped.
 */
#ifndef VMM_RAM_H
#define VMM_RAM_H

#include <stdbool.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/cursor.h"
#include "base/error.h"

#define RAM_CHUNK (2ULL << 20)
#define RAM_PAGE 4096ULL
#define RAM_CHUNK_PAGES (RAM_CHUNK / RAM_PAGE)
/* So many files can lie over one, and this one's memory is the last of them (overlay.h). */
#define OVERLAY_MAX 9u
/* Of a page's entry in a pagemap (Documentation/admin-guide/mm/pagemap.rst). */
#define RAM_PAGE_TOUCHED (1ULL << 63 | 1ULL << 62) /* present, swapped */
#define RAM_PAGE_FILE (1ULL << 61)		   /* the file's own, no copy of it */

struct ram {
	uint8_t *host; /* RAM_CHUNK-aligned */
	uint64_t size;
	uint64_t boot;	 /* of that, what the guest booted with; a first file may have only this */
	uint8_t *chunks; /* a bit a chunk: it came from a file; NULL: none did */
	uint8_t *based;	 /* of memory in several files (overlay.h): a bit a chunk, it lies over the first; else NULL */
	uint8_t *over[OVERLAY_MAX]; /* and a bit a page for each of the others: it came from there */
	unsigned num_over;
	int files[OVERLAY_MAX + 1]; /* all of them, the first -1 if there is none; not its own */
	int pagemap; /* /proc/self/pagemap, which a sealed process could not open; -1: everything is looked at */
};

static inline bool ram_bit(const uint8_t *bitmap, uint64_t i)
{
	return bitmap && (bitmap[i / 8] >> (i % 8) & 1);
}

static inline void ram_set_bit(uint8_t *bitmap, uint64_t i)
{
	bitmap[i / 8] |= (uint8_t)(1U << (i % 8));
}

/* True if this chunk came from a file. */
bool ram_from_file(const struct ram *ram, uint64_t chunk);

/* The pagemap's entries of a chunk's pages; -ENOSYS without a pagemap. */
int ram_pagemap(const struct ram *ram, uint64_t chunk, uint64_t ret[RAM_CHUNK_PAGES]) MUST_CHECK;

/* Private anonymous memory, aligned to RAM_CHUNK so that huge pages fit; NULL with errno. For munmap. */
uint8_t *ram_reserve(uint64_t size, int prot);

/* size: a multiple of RAM_CHUNK. On failure nothing stays. */
int ram_map(struct ram *ram, uint64_t size, struct sm_error *err) MUST_CHECK;
void ram_unmap(struct ram *ram);

/*
 * Which pages may hold anything but zeros: a bit a page, malloc'ed; NULL: no memory. It is true as long as nothing is
 * touched, also of the memory of a copy of this process that is made then: a copy cannot ask for itself, since the
 * pagemap shows the memory of the process that opened it.
 */
uint8_t *ram_touched(const struct ram *ram);
/* Writes RAM as a memory file (empty, seekable) and appends to `out` what ram_load needs. *ret_bytes: data written. */
int ram_save(const struct ram *ram, const uint8_t *touched, int fd, struct buf *out, uint64_t *ret_bytes,
	     struct sm_error *err) MUST_CHECK;
/* Maps a memory file under RAM, as `in` says; before anything has touched it. */
int ram_load(struct ram *ram, int fd, struct cursor *in, struct sm_error *err) MUST_CHECK;

/*
 * Has all of its file in the kernel's cache. What is not there when a guest asks for it KVM fetches in the background,
 * as if it was to be written (async_pf_execute): then it is a copy, and looks written.
 */
void ram_read_ahead(const struct ram *ram);

/* For overlay.c. Bytes of a bitmap with a bit a chunk. */
size_t ram_bitmap_size(const struct ram *ram);
bool ram_page_is_zero(const struct ram *ram, uint64_t page);
/* Writes pages [from, to) to their place in the file. */
int ram_write_pages(const struct ram *ram, int fd, uint64_t from, uint64_t to) MUST_CHECK;
/* Maps their place in the file instead of what is there. */
int ram_map_pages(struct ram *ram, int fd, uint64_t from, uint64_t to) MUST_CHECK;
/* Whether a first file may have this size: all of RAM, or what the guest booted with. */
bool ram_may_have(const struct ram *ram, uint64_t size);
/* Checks the size of a first file, of which the record says so much; or of another, which has all of RAM. */
int ram_check_file(const struct ram *ram, int fd, uint64_t size, struct sm_error *err) MUST_CHECK;

#endif
