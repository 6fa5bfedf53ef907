/* SPDX-License-Identifier: Apache-2.0 */
/*
 * branch-search: tries several ways on from one moment, at once; the first that succeeds wins.
 *
 *	cc branch-search.c -o branch-search $(pkg-config --cflags --libs supermachine)
 *	branch-search IMAGE PREPARATION TRY...
 *
 * A VM of IMAGE does what is the same for all, PREPARATION, once. Then it is branched into as many VMs as there are
 * TRYs, each a copy of it with all that it has in memory and on its disk, and each runs one of them; both are for
 * `sh -c`. The first that ends with status 0 ends all others: what it printed is printed, and its number is said.
 * One thread waits for all of them.
 */
#define _POSIX_C_SOURCE 200809L
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>

#include <supermachine.h>

#define MAX_TRIES 64

struct search {
	const char *const *tries;
	nfds_t count;
	struct sm_vm *vms[MAX_TRIES];
	struct sm_exec *execs[MAX_TRIES]; /* NULL: it has failed */
};

static int start(struct sm_vm *vm, const char *script, struct sm_exec **ret, struct sm_error *err)
{
	const char *const argv[] = {"sh", "-c", script, NULL};
	struct sm_exec_options o = SM_EXEC_OPTIONS_INIT;

	o.argv = argv;
	return sm_vm_exec(vm, &o, ret, err);
}

/* What is the same for all: 0 when it has succeeded. */
static int prepare(struct sm_vm *vm, const char *script, struct sm_error *err)
{
	struct sm_outcome outcome = SM_OUTCOME_INIT;
	struct sm_exec *exec;
	int r = start(vm, script, &exec, err);

	if (r < 0)
		return r;
	r = sm_exec_wait(exec, &outcome, err);
	sm_exec_close(exec);
	if (r == 0 && outcome.status != 0)
		fprintf(stderr, "branch-search: the preparation ended with status %d\n", outcome.status);
	return r < 0 ? r : outcome.status;
}

/* The VM that they come from has no command of its own, and ends with the process. */
static int open_parent(struct sm_client *client, const char *image, struct sm_vm **ret, struct sm_error *err)
{
	struct sm_vm_options o = SM_VM_OPTIONS_INIT;

	o.image = image;
	o.memory = 256 << 20;
	o.no_command = true;
	return sm_vm_start(client, &o, ret, err);
}

/* One has ended. True: it was the right one. */
static int is_success(struct search *s, nfds_t i, struct sm_error *err)
{
	struct sm_result *result;
	int r = sm_exec_collect(s->execs[i], &result, err);

	s->execs[i] = sm_exec_close(s->execs[i]);
	if (r < 0)
		return r;
	r = result->outcome.status == 0;
	if (r)
		fwrite(result->out.data, 1, result->out.length, stdout);
	fprintf(stderr, "branch-search: try %u ended with status %d\n", (unsigned)i + 1, result->outcome.status);
	sm_result_free(result);
	return r;
}

/* The number of the winner from 1, 0: there is none, or a failure. */
static int await_first(struct search *s, struct sm_error *err)
{
	struct pollfd fds[MAX_TRIES];
	nfds_t running = s->count;

	while (running) {
		for (nfds_t i = 0; i < s->count; i++) {
			fds[i] = (struct pollfd){.fd = -1, .events = POLLIN};
			if (s->execs[i] && (fds[i].fd = sm_exec_fd(s->execs[i], err)) < 0)
				return -1;
		}
		if (poll(fds, s->count, -1) < 0)
			return -1;
		for (nfds_t i = 0; i < s->count; i++) {
			int r = fds[i].fd >= 0 && fds[i].revents ? sm_exec_poll(s->execs[i], err) : 0;

			if (r == 1) {
				running--;
				r = is_success(s, i, err);
			}
			if (r)
				return r < 0 ? r : (int)i + 1;
		}
	}
	return 0;
}

static int search(struct search *s, struct sm_vm *parent, struct sm_error *err)
{
	struct sm_vm_options o = SM_VM_OPTIONS_INIT;
	int r = sm_vm_branch(parent, &o, s->count, s->vms, NULL, err);

	for (nfds_t i = 0; i < s->count && r == 0; i++)
		r = start(s->vms[i], s->tries[i], &s->execs[i], err);
	if (r == 0)
		r = await_first(s, err);
	for (nfds_t i = 0; i < s->count; i++) {
		sm_exec_close(s->execs[i]);
		sm_vm_close(s->vms[i]); /* ends it */
	}
	return r;
}

int main(int argc, char **argv)
{
	struct sm_error err = {0};
	struct search s = {0};
	struct sm_client *client = NULL;
	struct sm_vm *parent = NULL;
	int r;

	if (argc < 4 || argc - 3 > MAX_TRIES) {
		fputs("usage: branch-search IMAGE PREPARATION TRY...\n", stderr);
		return 2;
	}
	s.tries = (const char *const *)argv + 3;
	s.count = (nfds_t)argc - 3;
	r = sm_client_open(NULL, &client, &err);
	if (r == 0)
		r = open_parent(client, argv[1], &parent, &err);
	if (r == 0)
		r = prepare(parent, argv[2], &err);
	if (r == 0)
		r = search(&s, parent, &err);
	if (r < 0)
		fprintf(stderr, "branch-search: %s\n", err.message);
	else if (r > 0 && (nfds_t)r <= s.count)
		fprintf(stderr, "branch-search: try %d won\n", r);
	sm_vm_close(parent);
	sm_client_close(client);
	return r > 0 ? 0 : 1;
}
