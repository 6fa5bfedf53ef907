/* SPDX-License-Identifier: Apache-2.0 */
/* CRC-32C (RFC 3720, appendix B.4) for what is small: half a byte at a time, no tables of kilobytes. */
#ifndef BASE_CRC32C_H
#define BASE_CRC32C_H

#include <stddef.h>
#include <stdint.h>

/* Starts with UINT32_MAX and goes on with what the call before returned; the final inversion is the caller's. */
static inline uint32_t crc32c(uint32_t crc, const void *data, size_t len)
{
	static const uint32_t table[16] = {
		0x00000000, 0x105ec76f, 0x20bd8ede, 0x30e349b1, 0x417b1dbc, 0x5125dad3, 0x61c69362, 0x7198540d,
		0x82f63b78, 0x92a8fc17, 0xa24bb5a6, 0xb21572c9, 0xc38d26c4, 0xd3d3e1ab, 0xe330a81a, 0xf36e6f75,
	};

	for (const uint8_t *p = data; len; p++, len--) {
		crc = crc >> 4 ^ table[(crc ^ *p) & 15];
		crc = crc >> 4 ^ table[(crc ^ *p >> 4) & 15];
	}
	return crc;
}

#endif
