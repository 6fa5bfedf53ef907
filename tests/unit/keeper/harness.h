/* SPDX-License-Identifier: Apache-2.0 */
/* A VM directory with a keeper running in a child process, its monitor the scripted one, and a client to talk to it. */
#ifndef TEST_KEEPER_HARNESS_H
#define TEST_KEEPER_HARNESS_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <cmocka.h>

#include "base/slots.h"
#include "keeper/keeper.h"
#include "lib/lib.h"

struct rig {
	char dir[64], socket[96], snapshot[96];
	int dirfd;
	pid_t keeper;
	struct conn conn;
	struct call wait, main;
	size_t received; /* bytes of stdout and stderr */
	char text[256];	 /* the first of them */
	bool hold;	 /* do not give credit for what comes */
	uint64_t held[2];
};

struct rig_options {
	const char *script; /* of fake_vmm.c */
	const char *argv[3];
	bool owner, keep, stdin_open;
	uint64_t timeout_ns, ttl_ns, idle_ns;
	enum sm_on_idle on_idle;
	unsigned cpu_limit, clients; /* clients: 0: enough */
	struct keeper_limits limits; /* 0: long */
	const char *vmm;	     /* NULL: the scripted one */
	bool base, adopt, resume, background;
	uint64_t reserve, patience, spare; /* keeper_args' */
	struct slots *first;		   /* opened, and first in line: until it is closed the keeper has to wait */
	bool given_up;			   /* the record of its end is there already */
	const char *secrets[3];		   /* their names */
	bool volume;			   /* it has one, whose file is "disk"; resume: which has changed */
	const char *state;		   /* restore: what the snapshot's state file says; "": there is none */
};

void rig_start(struct rig *r, const struct rig_options *o);
void rig_connect(struct rig *r); /* waits until it listens */
void rig_wait_channel(struct rig *r, bool owner);
void rig_attach(struct rig *r);
/* CLAIMs a spare for this command, as a VM of this host name; r->wait is its channel. */
void rig_claim(struct rig *r, const char *const *argv, const char *hostname, bool keep);
/* The keeper is gone, and so is the directory. */
void rig_vanished(struct rig *r);
void rig_stop(struct rig *r, enum keeper_stop_mode mode, int signal, uint64_t grace_ns);
/* Runs the connection until the flag is set; fails after 20 s. */
void rig_until(struct rig *r, const bool *flag);
/* The record, once the keeper is gone: checks that it left nothing behind, cleans up. */
struct vm_exit rig_finish(struct rig *r);
void rig_disconnect(struct rig *r);

#endif
