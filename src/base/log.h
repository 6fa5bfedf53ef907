/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Diagnostics of the programs (monitor, keeper, machine, agent): lines to stderr, "LEVEL room: text".
 * The library never calls this: it has the client's log callback.
 */
#ifndef BASE_LOG_H
#define BASE_LOG_H

#include "base/error.h"

enum log_level { LOG_ERROR, LOG_WARN, LOG_INFO, LOG_DEBUG };

void log_set_level(enum log_level level); /* default LOG_WARN, or what SUPERMACHINE_LOG says */
/*
 * The level of a room by what SUPERMACHINE_LOG may be: error, warn, info or debug for all, ROOM=LEVEL for one, several
 * by commas; what is no level is passed over. room NULL: the most that any has.
 */
int log_level_of(const char *spec, const char *room);
void log_line(enum log_level level, const char *room, const char *fmt, ...) PRINTF_LIKE(3, 4);

#define log_error(room, ...) log_line(LOG_ERROR, room, __VA_ARGS__)
#define log_warn(room, ...) log_line(LOG_WARN, room, __VA_ARGS__)
#define log_info(room, ...) log_line(LOG_INFO, room, __VA_ARGS__)
#define log_debug(room, ...) log_line(LOG_DEBUG, room, __VA_ARGS__)

#endif
