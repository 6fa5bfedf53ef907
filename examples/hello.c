/* SPDX-License-Identifier: Apache-2.0 */
/*
 * hello: a command in a new VM, and what it said.
 *
 *	cc hello.c -o hello $(pkg-config --cflags --libs supermachine)
 *	hello IMAGE COMMAND [ARGUMENT...]		its status becomes ours
 */
#include <stdio.h>

#include <supermachine.h>

int main(int argc, char **argv)
{
	struct sm_vm_options vm = SM_VM_OPTIONS_INIT;
	struct sm_run_options options = SM_RUN_OPTIONS_INIT;
	struct sm_client *client;
	struct sm_result *result;
	struct sm_error err = {0};
	int status;

	if (argc < 3) {
		fprintf(stderr, "usage: hello IMAGE COMMAND [ARGUMENT...]\n");
		return 2;
	}
	vm.memory = 256 << 20;
	vm.timeout_ns = 60 * 1000000000ull;
	options.vm = &vm;
	options.input = "from outside\n";
	options.input_size = 13;
	if (sm_client_open(NULL, &client, &err) < 0 ||
	    sm_run(client, argv[1], (const char *const *)argv + 2, &options, &result, &err) < 0) {
		fprintf(stderr, "hello: %s\n", err.message);
		return 125;
	}
	fwrite(result->out.data, 1, result->out.length, stdout);
	fwrite(result->err.data, 1, result->err.length, stderr);
	fprintf(stderr, "hello: %s, status %d, %.3f s, %llu KiB\n", sm_reason_name(result->outcome.reason),
		result->outcome.status, (double)result->outcome.duration_ns / 1e9,
		(unsigned long long)result->outcome.peak_rss / 1024);
	status = result->outcome.status;
	sm_result_free(result);
	sm_client_close(client);
	return status;
}
