/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A system call filter (seccomp): a list of what is allowed. Parts are put together and then installed, for good: the
 * monitor's are vmm/seal.c; filter_process is for a process of few needs, all at once.
 */
#ifndef BASE_FILTER_H
#define BASE_FILTER_H

#include <linux/filter.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

/* One allowed system call; several rules for one number are alternatives. */
struct filter_rule {
	uint16_t nr;
	enum { FILTER_ANY, FILTER_EQUAL, FILTER_CLEAR } check;
	uint8_t arg;	/* 0..5: the argument checked, its low 32 bits */
	uint32_t value; /* FILTER_EQUAL: must be this; FILTER_CLEAR: none of these bits may be set */
};

#define CALL(name)                                                                                                     \
	{                                                                                                              \
		__NR_##name, FILTER_ANY, 0, 0                                                                          \
	}
#define CALL_WITH(name, a, v)                                                                                          \
	{                                                                                                              \
		__NR_##name, FILTER_EQUAL, a, (uint32_t)(v)                                                            \
	}
#define CALL_WITHOUT(name, a, v)                                                                                       \
	{                                                                                                              \
		__NR_##name, FILTER_CLEAR, a, (uint32_t)(v)                                                            \
	}

#define FILTER_MAX 512
#define FILTER_LOAD (BPF_LD | BPF_W | BPF_ABS)
#define FILTER_JUMP_EQ (BPF_JMP | BPF_JEQ | BPF_K)
#define FILTER_JUMP_SET (BPF_JMP | BPF_JSET | BPF_K)
#define FILTER_RETURN (BPF_RET | BPF_K)
#define FILTER_ARG(n) (16u + 8u * (n)) /* the low half of an argument (struct seccomp_data) */

struct filter {
	struct sock_filter insns[FILTER_MAX];
	unsigned count;
};

/* First of all. Every part begins with the call's number in the accumulator and leaves it there. */
void filter_begin(struct filter *p);
void filter_emit(struct filter *p, uint16_t code, uint32_t k, uint8_t jt, uint8_t jf);
void filter_rules(struct filter *p, const struct filter_rule *rules, size_t n);
/* Plain numbers, each list ending with -1, the lists with NULL. A call whose arguments matter is not granted so. */
void filter_lists(struct filter *p, const int *const *lists);
/* What the C library calls by itself: locks, allocation, time, the end. */
void filter_libc(struct filter *p);
/* otherwise: what becomes of all other calls (SECCOMP_RET_*). all_threads: of the process, not the caller alone. 0 or
 * -errno. */
int filter_install(struct filter *p, uint32_t otherwise, bool all_threads) MUST_CHECK;

/* No new privileges for this process, and no other calls than the C library's, what is done with files that are open,
 * and these: any other fails as if the kernel did not have it (ENOSYS), for which the C library has other ways. 0 or
 * -errno. */
int filter_process(const struct filter_rule *rules, size_t n, const int *const *lists) MUST_CHECK;

#endif
