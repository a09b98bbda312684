/* The wire: type, sequence number, payload, CRC-32 (IEEE 802.3, little-endian), COBS-encoded, ended by a zero byte. */
#ifndef KWS_PACKET_H
#define KWS_PACKET_H

#include <stdint.h>

#define KWS_PACKET_OVERHEAD 6u /* type, sequence number, CRC-32 */
#define KWS_COBS_SIZE(n) ((n) + (n) / 254u + 1u)

/* CRC-32 going on from `crc` (0 to begin with). */
uint32_t kws_crc32(uint32_t crc, const uint8_t *bytes, uint32_t n);

/* Decode `n` encoded bytes (without the zero) in place. Returns the decoded size, or -1: they are no COBS. */
int32_t kws_cobs_decode(uint8_t *bytes, uint32_t n);

/* Encode one packet into `out` (KWS_COBS_SIZE(n + KWS_PACKET_OVERHEAD) + 1 bytes). Returns its size, the zero included. */
uint32_t kws_packet_encode(uint8_t *out, uint8_t type, uint8_t sequence, const uint8_t *payload, uint32_t n);

/* Check a decoded packet of `n` bytes. Returns its payload's size, or -1: too short or a wrong CRC. */
int32_t kws_packet_check(const uint8_t *bytes, int32_t n);

#endif
