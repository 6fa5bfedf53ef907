/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The layers of the container's overlays, held open from SETUP on: they lie outside of the root that the agent enters,
 * and tell what the VM has changed (CHANGES of copy.c).
 */
#include "guest/setup.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/fileio.h"
#include "base/util.h"

int layers_keep(struct agent *a, const char *target, const char *lower, const char *upper, struct sm_error *err)
{
	struct layer *more = realloc(a->layers, (a->num_layers + 1) * sizeof(*more)), *l;

	if (!more)
		return error_sys(err, ENOMEM, "layers of %s", target);
	a->layers = more;
	l = &more[a->num_layers];
	*l = (struct layer){.target = strdup(target),
			    .lower = open(lower, O_RDONLY | O_DIRECTORY | O_CLOEXEC),
			    .upper = open(upper, O_RDONLY | O_DIRECTORY | O_CLOEXEC)};
	a->num_layers++;
	if (!l->target)
		return error_sys(err, ENOMEM, "layers of %s", target);
	return l->lower < 0 || l->upper < 0 ? error_sys(err, errno, "layers of %s", target) : 0;
}

const struct layer *layers_find(const struct agent *a, const char *target)
{
	for (size_t i = 0; i < a->num_layers; i++)
		if (streq(a->layers[i].target, target))
			return &a->layers[i];
	return NULL;
}

void layers_done(struct agent *a)
{
	for (size_t i = 0; i < a->num_layers; i++) {
		fd_close(a->layers[i].lower);
		fd_close(a->layers[i].upper);
		free(a->layers[i].target);
	}
	free(a->layers);
	a->layers = NULL;
	a->num_layers = 0;
}
