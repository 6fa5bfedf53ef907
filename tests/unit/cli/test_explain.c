/* SPDX-License-Identifier: Apache-2.0 */
/* explain: the sentences follow from the record and the events, and only from them. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "base/util.h"
#include "cli/explain.h"

#define SECOND INT64_C(1000000000)

static struct sm_vm_info ended(enum sm_reason reason, int status)
{
	struct sm_vm_info vm = {.id = "0123456789ab",
				.name = "web",
				.image = "box",
				.state = SM_VM_EXITED,
				.memory = 256 << 20,
				.disk_size = 32 << 20,
				.outcome = SM_OUTCOME_INIT};

	vm.outcome.reason = reason;
	vm.outcome.status = status;
	return vm;
}

static void event(struct explain_events *x, int64_t s, const char *action, const char *attribute)
{
	const char *const attributes[] = {attribute, NULL};
	struct sm_event e = {.time_ns = s * SECOND, .type = "vm", .action = action, .attributes = attributes};

	explain_event(x, &e);
}

static char *told(const struct sm_vm_info *vm, const struct explain_events *x)
{
	static const struct explain_events none;
	static char *text; /* not on the stack: gcc 12 takes what comes back for a pointer to it */
	static size_t len;
	FILE *f = open_memstream(&text, &len);

	assert_non_null(f);
	explain_put(f, vm, x ? x : &none, 100 * SECOND);
	fclose(f);
	return text;
}

static void check(const struct sm_vm_info *vm, const struct explain_events *x, const char *want)
{
	char *text = told(vm, x);

	assert_string_equal(text, want);
	free(text);
}

static void stage(struct sm_vm_info *vm, const char *name, uint64_t ms)
{
	struct sm_stage *s = &vm->outcome.stages[vm->outcome.num_stages++];

	snprintf(s->name, sizeof(s->name), "%s", name);
	s->ns = ms * 1000000;
}

static void ends(void **state)
{
	struct sm_vm_info vm = ended(SM_REASON_EXITED, 0);

	check(&vm, NULL, "web, of the image box:\nIts command ended by itself, with status 0, which means success.\n");
	vm.outcome.status = 3;
	vm.name = "";
	check(&vm, NULL, "0123456789ab, of the image box:\nIts command ended by itself, with status 3.\n");
	vm = ended(SM_REASON_OOM, 137);
	vm.outcome.peak_rss = 200 << 20;
	check(&vm, NULL,
	      "web, of the image box:\nIts command was killed as the guest was out of memory: it has 256 MiB, run -m "
	      "gives more.\n"
	      "The largest of its processes had 200 MiB in memory, of the VM's 256 MiB.\n");
	vm = ended(SM_REASON_DISK_FULL, 1);
	check(&vm, NULL,
	      "web, of the image box:\nIts command failed (status 1) after its disk was full: it has 32.0 MiB, run "
	      "--disk "
	      "gives more.\n");
	/* What came from the guest cannot play with the terminal. */
	vm = ended(SM_REASON_GUEST_PANIC, 125);
	strcpy(vm.outcome.message, "Kernel panic\x1b[2J");
	check(&vm, NULL,
	      "web, of the image box:\nIts guest's kernel gave up.\nWhat was noted then: Kernel panic\\x1b[2J.\n");
}

/* A reason without a sentence of its own, and one that nobody knows, still say something. */
static void every_reason(void **state)
{
	for (int r = 0; r < 64; r++) {
		struct sm_vm_info vm = ended((enum sm_reason)r, 1);
		char *text = told(&vm, NULL);

		assert_non_null(strchr(text, '\n'));
		assert_true(strlen(strchr(text, '\n')) > 10);
		assert_null(strstr(text, "(null)"));
		free(text);
	}
}

static void stages(void **state)
{
	struct sm_vm_info vm = ended(SM_REASON_EXITED, 0);

	vm.outcome.duration_ns = 2 * SECOND;
	stage(&vm, "prepare", 10);
	stage(&vm, "monitor.kvm", 5);
	stage(&vm, "monitor.devices", 15);
	stage(&vm, "monitor", 20);
	stage(&vm, "boot", 700);
	stage(&vm, "exec", 20);
	stage(&vm, "command", 2000);
	stage(&vm, "shutdown", 30);
	check(&vm, NULL,
	      "web, of the image box:\nIts command ended by itself, with status 0, which means success.\n"
	      "Its command ran for 2s.\nIts guest took 30ms to go down.\n"
	      "On the way to its command it spent 750ms, most of it, 700ms, on the boot of its kernel.\n"
	      "It booted; a start from a snapshot has no such step.\n");
	strcpy(vm.outcome.stages[4].name, "restore");
	vm.outcome.stages[4].ns = 1000000;
	vm.outcome.stages[7].ns = 0;
	vm.outcome.num_stages = 7;
	check(&vm, NULL,
	      "web, of the image box:\nIts command ended by itself, with status 0, which means success.\n"
	      "Its command ran for 2s.\n"
	      "On the way to its command it spent 51ms, most of it, 20ms, on its monitor's start.\n"
	      "Of that the longest step was devices, 15ms.\n"
	      "It went on from a snapshot instead of booting.\n");
}

static void events(void **state)
{
	struct sm_vm_info vm = ended(SM_REASON_STOPPED, 143);
	struct explain_events x = {0};

	event(&x, 1, "start", NULL);
	event(&x, 2, "kill", "signal=9"); /* of the run before */
	event(&x, 3, "die", "exitCode=137");
	event(&x, 10, "start", NULL);
	event(&x, 11, "exec_start", "command=x");
	event(&x, 12, "exec_die", "exitCode=3");
	event(&x, 13, "exec_start", "command=x");
	event(&x, 14, "exec_die", "exitCode=0");
	event(&x, 20, "pause", NULL);
	event(&x, 25, "unpause", NULL);
	event(&x, 30, "kill", "signal=15");
	event(&x, 40, "pause", NULL);
	event(&x, 41, "die", "exitCode=143");
	check(&vm, &x,
	      "web, of the image box:\n"
	      "It was stopped by somebody: stop, kill, or a signal while it started (status 143).\n"
	      "It was sent signal 15 by kill.\nIt was paused 2 times, for 6s in all.\n"
	      "2 other commands ran in it, 1 of which failed.\n");
	x = (struct explain_events){0};
	vm.state = SM_VM_PAUSED;
	vm.in_machine = true;
	event(&x, 90, "pause", NULL);
	check(&vm, &x,
	      "web, of the image box:\nIt is paused: nothing in it runs until supermachine unpause.\n"
	      "It was paused 1 time, for 10s in all.\n"
	      "It ran in the machine, not on this host's own KVM: supermachine doctor tells why.\n");
}

static void tail(void **state)
{
	static const struct {
		const char *text, *want;
	} cases[] = {
		{"", ""},
		{"\n\n", ""},
		{"a", "\nH\n  a\n"},
		{"a\nb\nc\n\n", "\nH\n  b\n  c\n"},
		{"a\r\n\x1b]0;x\a\n", "\nH\n  a\n  \\x1b]0;x\\x07\n"},
	};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		char *text = strdup(cases[i].text), *got = NULL;
		size_t len;
		FILE *f = open_memstream(&got, &len);

		explain_tail(f, "H", text, 2);
		fclose(f);
		assert_string_equal(got, cases[i].want);
		free(got);
		free(text);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(ends),	  cmocka_unit_test(every_reason), cmocka_unit_test(stages),
		cmocka_unit_test(events), cmocka_unit_test(tail),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
