/* SPDX-License-Identifier: Apache-2.0 */
/*
 * supermachine: OCI images as hardware-isolated microVMs.
 *
 * The one public header of libsupermachine. Plain C11 (and C++17), opaque handles, no global state,
 * no signal handlers, no printing, no exit.
 */
#ifndef SUPERMACHINE_H
#define SUPERMACHINE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#if defined(__GNUC__)
#define SM_PUBLIC __attribute__((visibility("default")))
#else
#define SM_PUBLIC
#endif

/* ------------------------------------------------------------------------------------------ errors */

/** What sort of thing went wrong: stable numbers that a program may switch on. */
enum sm_error_kind {
	SM_ERROR_NONE = 0,
	SM_ERROR_INVALID = 1,	  /**< The caller's argument or option is wrong. */
	SM_ERROR_NOT_FOUND = 2,	  /**< No such image, VM, file or command. */
	SM_ERROR_EXISTS = 3,	  /**< The name is taken. */
	SM_ERROR_CORRUPT = 4,	  /**< Input that breaks its own format: an image, a record, a frame. */
	SM_ERROR_LIMIT = 5,	  /**< Input larger than a limit allows. */
	SM_ERROR_UNSUPPORTED = 6, /**< A valid request that this version or host cannot serve. */
	SM_ERROR_HOST = 7,	  /**< The host lacks something: KVM, a kernel, space, a permission. */
	SM_ERROR_GUEST = 8,	  /**< The guest failed: a panic, an agent that broke the protocol. */
	SM_ERROR_STATE = 9,	  /**< Not possible in the object's present state (a stopped VM, say). */
	SM_ERROR_TIMEOUT = 10,	  /**< A limit on time ran out. */
	SM_ERROR_CANCELLED = 11,  /**< The caller asked to stop. */
	SM_ERROR_IO = 12,	  /**< A system call failed; @ref sm_error.code says how. */
};

#define SM_ERROR_MESSAGE_SIZE 1024

/**
 * Why a call failed. Caller-owned storage: put it on the stack, zeroed, and pass its address, or pass NULL.
 * Written only on failure. `message` is one line, names the image, VM or path it is about, and ends
 * without a full stop or newline.
 */
struct sm_error {
	enum sm_error_kind kind;
	int code; /**< A positive errno; the call returned its negation. */
	char message[SM_ERROR_MESSAGE_SIZE];
};

#ifdef __cplusplus
}
#endif
#endif
