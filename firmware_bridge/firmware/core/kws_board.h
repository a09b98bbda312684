/* The board's side of the serial bridge: bytes in, packets out. No I/O, no clock, no malloc: the port owns these.
 *
 * A port fills a kws_port, gives memory, and calls kws_board_byte for each byte that arrives; answers go out through
 * port->send. One request is in flight; a request that is repeated word for word is answered again, not done again.
 */
#ifndef KWS_BOARD_H
#define KWS_BOARD_H

#include <stdint.h>

#include "kws_image.h"
#include "kws_packet.h"
#include "kws_port.h"

#define KWS_PROTOCOL 1u
#define KWS_FIRMWARE 1u
#define KWS_MAX_SLOTS 4u
#define KWS_MAX_PAYLOAD 8192u
#define KWS_DIGEST_BYTES 16u

/* Requests; an answer has the same type with the top bit set, a refusal is KWS_ERROR. Numbers are little-endian. */
enum kws_type {
    KWS_HELLO = 1, /* -> protocol u8, firmware u8, cycle source u8, n slots u8, boot id u32, largest payload u32,
                      free image bytes u32, most bytes of maps u32, chip 16 bytes, then each slot's digest (16) */
    KWS_SET_BAUD,  /* baud u32 -> nothing, at the old rate; then the new one */
    KWS_BEGIN,     /* size u32, crc32 u32, digest 16 -> slot u8 (255: send it), next offset u32 */
    KWS_CHUNK,     /* offset u32, bytes -> next offset u32 */
    KWS_COMMIT,    /* -> slot u8 */
    KWS_INFER,     /* slot u8, flags u8, patch -> see KWS_FRAMES */
    KWS_FRAMES,    /* slot u8, flags u8, crc32 of the whole patch after them u32, frames
                      -> slot u8, cycle source u8, n classes u16, n layers u16, cycles u64, scores, n x (cycles u32,
                         operations u32) where flags has KWS_WITH_LAYERS */
    KWS_PING,      /* bytes -> the same */
    KWS_RESET,     /* -> nothing; then no model is resident and the boot id is another */
    KWS_ERROR = 0xff /* code u8, detail u32 */
};

#define KWS_ANSWER 0x80u
#define KWS_WITH_LAYERS 1u
#define KWS_NO_SLOT 255u

enum kws_code {
    KWS_BAD_PACKET = 1, /* unreadable: sequence number 0 */
    KWS_BAD_TYPE,
    KWS_BAD_SIZE,
    KWS_BAD_SLOT,
    KWS_NO_ROOM,        /* detail: bytes free */
    KWS_BAD_OFFSET,     /* detail: offset wanted */
    KWS_BAD_IMAGE,      /* detail: enum kws_image_fault */
    KWS_OTHER_PATCH,    /* the frames do not give the patch meant: send it whole */
    KWS_BAD_BAUD
};

typedef struct {
    kws_image image;
    uint8_t digest[KWS_DIGEST_BYTES];
    int8_t *patch; /* the last one: a ring that moves */
    uint32_t patch_known;
} kws_slot;

typedef struct {
    kws_port port;
    uint32_t boot_id;
    uint8_t *memory; /* images and patches, one behind the other; at its end the arena, as large as any of them needs */
    uint32_t memory_bytes, used;
    int8_t *arena;
    uint32_t arena_bytes, far_used;
    int8_t *scratch; /* KWS_MAX_CORES x scratch_bytes */
    uint32_t scratch_bytes;
    const kws_image *running;
    kws_slot slots[KWS_MAX_SLOTS];
    uint32_t n_slots;
    uint32_t loading_size, loading_crc, loading_next, loading_far; /* the image under way; whether it lies far */
    uint8_t loading_digest[KWS_DIGEST_BYTES];
    uint32_t layer_cycles[KWS_MAX_LAYERS];
    uint64_t total_cycles;
    uint32_t received;
    uint32_t overflown;
    uint32_t last_crc, last_size; /* the request answered last, and the answer's bytes */
    uint32_t answer_size;
    uint8_t buffer[KWS_COBS_SIZE(KWS_MAX_PAYLOAD + KWS_PACKET_OVERHEAD)];
    uint8_t payload[KWS_MAX_PAYLOAD];
    uint8_t answer[KWS_COBS_SIZE(KWS_MAX_PAYLOAD + KWS_PACKET_OVERHEAD) + 1u];
} kws_board;

/* Start. `memory` is 8-aligned; `scratch` holds n_cores x scratch_bytes. `boot_id`: another at each start. */
void kws_board_init(kws_board *board, const kws_port *port, uint32_t boot_id, uint8_t *memory, uint32_t memory_bytes,
                    int8_t *scratch, uint32_t scratch_bytes);

/* One byte off the wire. Returns 1 where it ended a packet that could be read. */
int kws_board_byte(kws_board *board, uint8_t byte);

/* Run a resident model over its patch; scores are then at arena + image.output. */
void kws_board_run(kws_board *board, uint32_t slot);

#endif
