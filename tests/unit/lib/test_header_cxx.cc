// SPDX-License-Identifier: Apache-2.0
// The public header is C++ too.
#include "supermachine.h"

int main()
{
	sm_outcome outcome = SM_OUTCOME_INIT;
	sm_exec_options options = SM_EXEC_OPTIONS_INIT;

	return options.stdout_fd == -1 && outcome.status == 0 && sm_version() ? 0 : 1;
}
