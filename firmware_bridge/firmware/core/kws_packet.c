#include "kws_packet.h"

uint32_t kws_crc32(uint32_t crc, const uint8_t *bytes, uint32_t n) {
    /* half a byte at a time: a table of 64 bytes */
    static const uint32_t table[16] = {0x00000000u, 0x1db71064u, 0x3b6e20c8u, 0x26d930acu, 0x76dc4190u, 0x6b6b51f4u,
                                       0x4db26158u, 0x5005713cu, 0xedb88320u, 0xf00f9344u, 0xd6d6a3e8u, 0xcb61b38cu,
                                       0x9b64c2b0u, 0x86d3d2d4u, 0xa00ae278u, 0xbdbdf21cu};
    crc = ~crc;
    for (uint32_t i = 0; i < n; i++) {
        crc ^= bytes[i];
        crc = (crc >> 4) ^ table[crc & 15u];
        crc = (crc >> 4) ^ table[crc & 15u];
    }
    return ~crc;
}

int32_t kws_cobs_decode(uint8_t *bytes, uint32_t n) {
    uint32_t read = 0, written = 0;
    while (read < n) {
        uint32_t code = bytes[read++];
        if (code == 0 || code - 1u > n - read) {
            return -1;
        }
        for (uint32_t i = 1; i < code; i++) {
            bytes[written++] = bytes[read++];
        }
        if (code < 255u && read < n) {
            bytes[written++] = 0;
        }
    }
    return (int32_t)written;
}

typedef struct {
    uint8_t *out;
    uint32_t code, end; /* where the run's length goes, and the next byte */
} encoder;

static void put(encoder *e, uint8_t byte) {
    if (e->end - e->code == 255u) { /* a full run stands for no zero */
        e->out[e->code] = 255;
        e->code = e->end++;
    }
    if (byte != 0) {
        e->out[e->end++] = byte;
    } else {
        e->out[e->code] = (uint8_t)(e->end - e->code);
        e->code = e->end++;
    }
}

uint32_t kws_packet_encode(uint8_t *out, uint8_t type, uint8_t sequence, const uint8_t *payload, uint32_t n) {
    const uint8_t head[2] = {type, sequence};
    uint32_t crc = kws_crc32(kws_crc32(0, head, 2), payload, n);
    encoder e = {out, 0, 1};
    put(&e, type);
    put(&e, sequence);
    for (uint32_t i = 0; i < n; i++) {
        put(&e, payload[i]);
    }
    for (uint32_t i = 0; i < 4; i++) {
        put(&e, (uint8_t)(crc >> (8u * i)));
    }
    out[e.code] = (uint8_t)(e.end - e.code);
    out[e.end++] = 0;
    return e.end;
}

int32_t kws_packet_check(const uint8_t *bytes, int32_t n) {
    if (n < (int32_t)KWS_PACKET_OVERHEAD) {
        return -1;
    }
    const uint8_t *tail = bytes + n - 4;
    uint32_t crc = (uint32_t)tail[0] | (uint32_t)tail[1] << 8 | (uint32_t)tail[2] << 16 | (uint32_t)tail[3] << 24;
    return kws_crc32(0, bytes, (uint32_t)n - 4u) == crc ? n - (int32_t)KWS_PACKET_OVERHEAD : -1;
}
