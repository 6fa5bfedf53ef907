// SPDX-License-Identifier: Apache-2.0
/*
 * Runs in a guest, for 28-hygiene.sh: looks at its clocks on all CPUs for as long as it is left to, also while the
 * guest is saved and goes on elsewhere. A thread on each CPU reads the time stamp counter and CLOCK_MONOTONIC under one
 * lock, so each must be no less than what any other CPU has read before; another one sleeps 20 ms again and again.
 * Twice a second a line goes to the file FILE, in its place: how often a clock went back, the longest time that
 * CLOCK_MONOTONIC says between two looks (in ms), how often it was looked at, and how often the sleeper woke.
 */
#define _GNU_SOURCE
#include <pthread.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>
#include <x86intrin.h>

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static uint64_t last_tsc, last_ns, back, longest, looks, wakes;

static uint64_t now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static void look(void)
{
	unsigned cpu;
	uint64_t tsc, ns;

	pthread_mutex_lock(&lock);
	tsc = __rdtscp(&cpu);
	ns = now_ns();
	back += tsc < last_tsc || ns < last_ns;
	if (last_ns && ns > last_ns && ns - last_ns > longest)
		longest = ns - last_ns;
	last_tsc = tsc;
	last_ns = ns;
	looks++;
	pthread_mutex_unlock(&lock);
}

static void *on_cpu(void *arg)
{
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET((int)(intptr_t)arg, &set);
	if (sched_setaffinity(0, sizeof(set), &set) < 0)
		exit(2);
	for (;;) {
		for (int i = 0; i < 100; i++)
			look();
		usleep(2000);
	}
}

static void *sleeper(void *arg)
{
	for (;;) {
		usleep(20000);
		pthread_mutex_lock(&lock);
		wakes++;
		pthread_mutex_unlock(&lock);
	}
	return arg;
}

int main(int argc, char **argv)
{
	char temporary[256];
	pthread_t t;

	if (argc != 2 || pthread_create(&t, NULL, sleeper, NULL))
		return 1;
	for (long i = 0; i < sysconf(_SC_NPROCESSORS_ONLN); i++)
		if (pthread_create(&t, NULL, on_cpu, (void *)(intptr_t)i))
			return 1;
	snprintf(temporary, sizeof(temporary), "%s.next", argv[1]);
	for (;;) {
		FILE *f = fopen(temporary, "w");

		if (!f)
			return 1;
		pthread_mutex_lock(&lock);
		fprintf(f, "%llu %llu %llu %llu\n", (unsigned long long)back, (unsigned long long)longest / 1000000,
			(unsigned long long)looks, (unsigned long long)wakes);
		pthread_mutex_unlock(&lock);
		fclose(f);
		rename(temporary, argv[1]);
		usleep(500000);
	}
}
