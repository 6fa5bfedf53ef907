/* SPDX-License-Identifier: Apache-2.0 */
/* Watching files by inotify, blocking, in a process of its own. */
#ifndef GUEST_FILEWATCH_H
#define GUEST_FILEWATCH_H

#include <stdbool.h>

/* Tells what happens at path (and with recursive in all directories beneath) as records of fileevent.h to the socket,
 * until its other end is closed, or what is watched is gone. */
void filewatch_run(int socket, const char *path, bool recursive);

#endif
