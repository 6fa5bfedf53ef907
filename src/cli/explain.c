/* SPDX-License-Identifier: Apache-2.0 */
/* The sentences of `explain`. See explain.h. */
#include "cli/explain.h"

#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/util.h"
#include "cli/text.h"

/* ------------------------------------------------------------------------------------------- events */

static int number_of(const struct sm_event *e, const char *key)
{
	size_t len = strlen(key);

	for (const char *const *a = e->attributes; a && *a; a++)
		if (strncmp(*a, key, len) == 0 && (*a)[len] == '=')
			return atoi(*a + len + 1);
	return 0;
}

void explain_event(struct explain_events *x, const struct sm_event *e)
{
	const char *action = e->action;

	if (streq(action, "start")) {
		*x = (struct explain_events){0}; /* what was before belongs to an earlier run */
	} else if (streq(action, "kill")) {
		x->kills++;
		x->last_signal = number_of(e, "signal");
	} else if (streq(action, "pause")) {
		x->pauses++;
		x->paused_at = e->time_ns;
	} else if (streq(action, "unpause") || streq(action, "die")) {
		if (x->paused_at)
			x->paused_ns += e->time_ns - x->paused_at;
		x->paused_at = 0;
	} else if (streq(action, "oom")) {
		x->ooms++;
	} else if (streq(action, "exec_start")) {
		x->execs++;
	} else if (streq(action, "exec_die") && number_of(e, "exitCode")) {
		x->failed_execs++;
	}
}

static void put_events(FILE *f, const struct sm_vm_info *vm, const struct explain_events *x, int64_t now_ns)
{
	int64_t paused = x->paused_ns + (x->paused_at ? now_ns - x->paused_at : 0);
	char n[16];

	if (x->kills == 1)
		fprintf(f, "It was sent signal %d by kill.\n", x->last_signal);
	else if (x->kills)
		fprintf(f, "It was sent %u signals by kill, the last of them %d.\n", x->kills, x->last_signal);
	if (x->ooms && vm->outcome.reason != SM_REASON_OOM)
		fprintf(f, "Its guest ran out of memory meanwhile.\n");
	if (x->pauses)
		fprintf(f, "It was paused %u time%s, for %s in all.\n", x->pauses, x->pauses == 1 ? "" : "s",
			text_duration((uint64_t)MAX(paused, 0), n));
	if (x->execs)
		fprintf(f, "%u other command%s ran in it, %u of which failed.\n", x->execs, x->execs == 1 ? "" : "s",
			x->failed_execs);
}

/* ------------------------------------------------------------------------------------------- its end */

static void put_reason(FILE *f, const struct sm_vm_info *vm)
{
	const struct sm_outcome *o = &vm->outcome;
	char n[16];

	switch (o->reason) {
	case SM_REASON_EXITED:
		fprintf(f, "Its command ended by itself, with status %d%s.\n", o->status,
			o->status ? "" : ", which means success");
		break;
	case SM_REASON_SIGNALLED:
		fprintf(f, "Its command was ended by signal %d (status %d).\n", o->signal, o->status);
		break;
	case SM_REASON_TIMEOUT:
		fprintf(f, "Its time limit ran out after %s.\n", text_duration(o->duration_ns, n));
		break;
	case SM_REASON_TTL:
		fprintf(f, "It was stopped when it had lived for as long as its --ttl allows.\n");
		break;
	case SM_REASON_IDLE:
		fprintf(f, "It was ended as nobody had used it for as long as its --idle allows.\n");
		break;
	case SM_REASON_OOM:
		fprintf(f, "Its command was killed as the guest was out of memory: it has %s, run -m gives more.\n",
			format_size(vm->memory, n));
		break;
	case SM_REASON_DISK_FULL:
		if (o->message[0]) /* it was the host's, as the message says */
			fprintf(f, "Its command failed (status %d) for want of room on the host's disk.\n", o->status);
		else
			fprintf(f,
				"Its command failed (status %d) after its disk was full: it has %s, run --disk gives "
				"more.\n",
				o->status, format_size(vm->disk_size, n));
		break;
	case SM_REASON_GUEST_PANIC:
		fprintf(f, "Its guest's kernel gave up.\n");
		break;
	case SM_REASON_GUEST_SHUTDOWN:
		fprintf(f, "Its guest powered itself off or rebooted while the command ran.\n");
		break;
	case SM_REASON_MONITOR_DIED:
		fprintf(f, "Its monitor, the program that is its hardware, crashed or was killed.\n");
		break;
	case SM_REASON_KEEPER_DIED:
		fprintf(f, "Its keeper, the program that looks after it, crashed or was killed.\n");
		break;
	case SM_REASON_HOST_RESTARTED:
		fprintf(f, "The host, or the machine that it ran in, was restarted.\n");
		break;
	case SM_REASON_STOPPED:
		fprintf(f, "It was stopped by somebody: stop, kill, or a signal while it started (status %d).\n",
			o->status);
		break;
	case SM_REASON_CLIENT_GONE:
		fprintf(f, "The program that ran it in the foreground went away.\n");
		break;
	case SM_REASON_START_FAILED:
		fprintf(f, "It never came as far as its command.\n");
		break;
	case SM_REASON_NOT_FOUND:
		fprintf(f, "Its image has no such command.\n");
		break;
	case SM_REASON_NOT_EXECUTABLE:
		fprintf(f, "Its command cannot be executed.\n");
		break;
	default:
		fprintf(f, "It ended: %s (status %d).\n", sm_reason_name(o->reason), o->status);
	}
	if (o->message[0]) {
		fputs("What was noted then: ", f);
		text_put(f, o->message);
		fputs(".\n", f);
	}
}

/* --------------------------------------------------------------------------------------- where time went */

static const char *stage_is(const char *name)
{
	static const char *const names[][2] = {
		{"prepare", "what was done before it: its files, the machine, a snapshot to start from"},
		{"queue", "it waited for memory, or until other VMs had started"},
		{"monitor", "its monitor's start"},
		{"boot", "the boot of its kernel"},
		{"restore", "going on from the snapshot"},
		{"setup", "its file systems and network names"},
		{"snapshot", "making a snapshot to start from"},
		{"exec", "the start of its command"},
	};

	for (size_t i = 0; i < ARRAY_SIZE(names); i++)
		if (streq(name, names[i][0]))
			return names[i][1];
	return name;
}

static bool starts(const struct sm_stage *s)
{
	return !streq(s->name, "command") && !streq(s->name, "shutdown");
}

/* The longest step of the way to the command, and with which stages before it and after it. */
static void put_stages(FILE *f, const struct sm_outcome *o)
{
	const struct sm_stage *longest = NULL, *part = NULL;
	unsigned n = MIN(o->num_stages, SM_MAX_STAGES);
	bool booted = false, restored = false;
	uint64_t total = 0;
	char a[16], b[16];

	for (unsigned i = 0; i < n; i++) {
		const struct sm_stage *s = &o->stages[i];

		if (strchr(s->name, '.')) {
			if (!part || s->ns > part->ns)
				part = s;
			continue;
		}
		booted |= streq(s->name, "boot");
		restored |= streq(s->name, "restore");
		if (streq(s->name, "shutdown"))
			fprintf(f, "Its guest took %s to go down.\n", text_duration(s->ns, a));
		if (!starts(s))
			continue;
		total += s->ns;
		if (!longest || s->ns > longest->ns)
			longest = s;
	}
	if (!longest)
		return;
	fprintf(f, "On the way to its command it spent %s", text_duration(total, a));
	fprintf(f, ", most of it, %s, on ", text_duration(longest->ns, b));
	text_put(f, stage_is(longest->name));
	fputs(".\n", f);
	if (part && streq(longest->name, "monitor")) {
		fprintf(f, "Of that the longest step was ");
		text_put(f, strchr(part->name, '.') + 1);
		fprintf(f, ", %s.\n", text_duration(part->ns, a));
	}
	if (booted)
		fputs("It booted; a start from a snapshot has no such step.\n", f);
	else if (restored)
		fputs("It went on from a snapshot instead of booting.\n", f);
}

static void put_usage(FILE *f, const struct sm_vm_info *vm)
{
	const struct sm_outcome *o = &vm->outcome;
	char n[16], m[16];

	if (o->duration_ns && o->reason != SM_REASON_TIMEOUT)
		fprintf(f, "Its command ran for %s.\n", text_duration(o->duration_ns, n));
	if (o->peak_rss)
		fprintf(f, "The largest of its processes had %s in memory, of the VM's %s.\n",
			format_size(o->peak_rss, n), format_size(vm->memory, m));
}

/* ------------------------------------------------------------------------------------------- all of it */

static void put_state(FILE *f, const struct sm_vm_info *vm, int64_t now_ns)
{
	char n[16];

	switch (vm->state) {
	case SM_VM_STARTING:
		fputs("It is starting: its command does not run yet.\n", f);
		break;
	case SM_VM_RUNNING:
		fprintf(f, "It runs, its command for %s.\n", text_age(vm->started_ns, now_ns, n));
		break;
	case SM_VM_STOPPING:
		fputs("It is stopping: its command has ended or was asked to.\n", f);
		break;
	case SM_VM_PAUSED:
		fputs("It is paused: nothing in it runs until supermachine unpause.\n", f);
		break;
	case SM_VM_SUSPENDED:
		fputs("It is suspended: it is on the disk, as it was, until supermachine resume.\n", f);
		break;
	case SM_VM_EXITED:
		put_reason(f, vm);
		break;
	}
}

void explain_put(FILE *f, const struct sm_vm_info *vm, const struct explain_events *x, int64_t now_ns)
{
	text_put(f, vm->name[0] ? vm->name : vm->id);
	fputs(", of the image ", f);
	text_put(f, vm->image);
	fputs(":\n", f);
	put_state(f, vm, now_ns);
	put_events(f, vm, x, now_ns);
	if (vm->state == SM_VM_EXITED) {
		put_usage(f, vm);
		put_stages(f, &vm->outcome);
	}
	if (vm->in_machine)
		fputs("It ran in the machine, not on this host's own KVM: supermachine doctor tells why.\n", f);
}

void explain_tail(FILE *f, const char *heading, char *text, unsigned lines)
{
	size_t len = strlen(text);
	char *line = text + len;

	while (line > text && line[-1] == '\n')
		*--line = '\0';
	if (line == text)
		return;
	while (line > text && (line[-1] != '\n' || --lines))
		line--;
	fprintf(f, "\n%s\n", heading);
	for (char *next; line; line = next) {
		next = strchr(line, '\n');
		if (next)
			*next++ = '\0';
		line[strcspn(line, "\r")] = '\0';
		fputs("  ", f);
		text_put(f, line);
		putc('\n', f);
	}
}
