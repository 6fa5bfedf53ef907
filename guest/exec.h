/* SPDX-License-Identifier: Apache-2.0 */
/* A command in the making, running or ending: what exec.c shares with its helpers. */
#ifndef GUEST_EXEC_H
#define GUEST_EXEC_H

#include "guest/agent.h"
#include "guest/child.h"
#include "guest/environment.h"
#include "proto/flow.h"

/* What is needed to run the commands that follow: all of them have the first one's streams. */
struct chain {
	struct proto_exec x;
	struct user user;
	struct environment env;
	int fds[3];
};

struct exec {
	struct exec *next;
	struct agent *a;
	uint32_t ch;
	bool has_channel, detached, tty, timed_out, accepted, reaped, main;
	bool orphan; /* the image's command of a guest that lost its keeper: waits for PROTO_ADOPT, streams held */
	pid_t pid;
	int forced_signal; /* its default action was carried out by us: see act_for_init */
	int blocked_signal;
	unsigned looks;
	struct loop_source *look_again;
	int status;
	uint64_t start_ns, end_ns, peak_rss;
	int report_fd;
	struct loop_source *report_src, *timer;
	uint8_t report[sizeof(int32_t) + sizeof(struct child_failure)];
	size_t report_len;
	struct outflow out[2]; /* streams 1 and 2 */
	struct inflow in;
	int cgroup_fd;
	uint32_t cgroup_id;
	struct inflow staged; /* stream 0 goes there until staged_left bytes have come: files that come with it */
	uint64_t staged_left;
	struct chain *chain; /* NULL: no command follows this one */
	uint32_t step;	     /* how many went before it */
};

/* exec.c, for exec_begin.c */
extern const struct mux_callbacks exec_callbacks;
void exec_free(struct exec *e);
void exec_kill(struct exec *e);
void exec_on_report(struct loop *loop, struct loop_source *src, uint32_t events, void *arg);
void exec_on_timeout(struct loop *loop, struct loop_source *src, void *arg);

/* exec_begin.c: the chain's next command. On failure (-errno) none follows. */
int exec_next(struct exec *e) MUST_CHECK;
void chain_free(struct chain *c);

/* signals.c: to the command's process group; and the keys of its terminal that make signals. */
void exec_deliver(struct exec *e, int sig);
void exec_heed_keys(struct exec *e, const uint8_t *p, size_t len);

/* streams.c: the ends that the child gets, and those that stay. All -1 at first. */
struct ends {
	int child[3], ours[3];
	int staged, stage; /* the child's and ours of what files that come with it arrive by */
};
#define ENDS_NONE                                                                                                      \
	{                                                                                                              \
		{-1, -1, -1}, {-1, -1, -1}, -1, -1                                                                     \
	}
void ends_close(struct ends *s);
/* Pipes, or a terminal, as x asks; on failure (-errno) ends_close is still due. */
int ends_make(struct ends *s, const struct proto_exec *x, const struct user *u) MUST_CHECK;

#endif
