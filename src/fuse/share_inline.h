/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The packets of a shared tree's lanes in the stream itself, where that carries no descriptors (share_proto.h). Both
 * sides: writing a frame, and the head of one that comes, with its lengths checked. Internal to the room.
 */
#ifndef FUSE_SHARE_INLINE_H
#define FUSE_SHARE_INLINE_H

#include "fuse/share_proto.h"

struct share_frame {
	uint32_t lane, packet, bulk; /* packet, bulk: how long each is */
};

/* Writes all of it; the socket blocks. 0 or -errno. */
int share_frame_send(int sock, const struct share_frame *f, const void *packet, const void *bulk) MUST_CHECK;
/* From a head's bytes: 0, or -EPROTO for lengths that no packet of ours has, or a lane that there is not. */
int share_frame_get(const uint8_t head[SHARE_HEAD], unsigned lanes, struct share_frame *ret) MUST_CHECK;

#endif
