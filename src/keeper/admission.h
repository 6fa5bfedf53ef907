/* SPDX-License-Identifier: Apache-2.0 */
/* What a keeper that waits before its start says in the VM's directory, for the library. */
#ifndef KEEPER_ADMISSION_H
#define KEEPER_ADMISSION_H

#define ADMISSION_FILE "waiting"
#define ADMISSION_MEMORY "memory" /* that there is enough of it; anything else: that other VMs have started */

#endif
