#include "kws_board.h"

#include <string.h>

#include "kws_team.h"

static uint32_t get32(const uint8_t *p) {
    return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

static uint8_t *put32(uint8_t *p, uint32_t value) {
    for (uint32_t i = 0; i < 4; i++) {
        *p++ = (uint8_t)(value >> (8u * i));
    }
    return p;
}

static uint32_t aligned(uint32_t n) { return (n + 3u) & ~3u; }

void kws_board_init(kws_board *board, const kws_port *port, uint32_t boot_id, uint8_t *memory, uint32_t memory_bytes,
                    int8_t *scratch, uint32_t scratch_bytes) {
    memset(board, 0, sizeof *board);
    board->port = *port;
    board->boot_id = boot_id;
    board->memory = memory;
    board->memory_bytes = memory_bytes;
    board->arena = (int8_t *)memory + memory_bytes;
    board->scratch = scratch;
    board->scratch_bytes = scratch_bytes;
}

static void run_layers(void *context) {
    kws_board *board = context;
    kws_port *port = &board->port;
    const kws_image *image = board->running;
    kws_team team = {port, board->arena, board->scratch, board->scratch_bytes, 0};
    uint64_t began = port->cycles(port->self), before = began;
    kws_team_begin(&team, image);
    for (uint32_t i = 0; i < image->n_layers; i++) {
        const kws_layer *layer = &image->layers[i];
        int done = i > 0 && layer[-1].band_rows != 0;
        kws_image at_hand = *image;
        kws_layer staged[2];
        if (image->read != 0 && !done) {
            kws_stage(image, layer, staged, &at_hand);
            layer = staged;
        }
        if (layer->band_rows != 0) { /* what both take is counted for this one, and nothing for the next */
            kws_run_fused(&team, &at_hand, layer);
        } else if (!done) {
            kws_run_on_team(&team, &at_hand, layer);
        }
        if (i + 1u == image->n_layers) {
            kws_team_end(&team, image);
        }
        uint64_t now = port->cycles(port->self);
        board->layer_cycles[i] = (uint32_t)(now - before);
        before = now;
    }
    board->total_cycles = before - began;
}

void kws_board_run(kws_board *board, uint32_t slot) {
    board->running = &board->slots[slot].image;
    memcpy(board->arena + board->running->input, board->slots[slot].patch, board->running->input_bytes);
    board->port.offload(board->port.self, run_layers, board);
}

static void answer(kws_board *board, uint8_t type, uint8_t sequence, uint32_t n) {
    board->answer_size = kws_packet_encode(board->answer, type, sequence, board->payload, n);
    board->port.send(board->port.self, board->answer, board->answer_size);
}

static void refuse(kws_board *board, uint8_t sequence, enum kws_code code, uint32_t detail) {
    board->payload[0] = (uint8_t)code;
    put32(board->payload + 1, detail);
    answer(board, KWS_ERROR, sequence, 5);
}

static uint32_t free_bytes(const kws_board *board) { return board->memory_bytes - board->used - board->arena_bytes; }

static uint32_t free_far_bytes(const kws_board *board) { return board->port.far_bytes - board->far_used; }

static void hello(kws_board *board, uint8_t sequence) {
    uint8_t *p = board->payload;
    *p++ = KWS_PROTOCOL;
    *p++ = KWS_FIRMWARE;
    *p++ = (uint8_t)board->port.cycle_source;
    *p++ = (uint8_t)board->n_slots;
    p = put32(p, board->boot_id);
    p = put32(p, KWS_MAX_PAYLOAD);
    p = put32(p, free_bytes(board));
    p = put32(p, board->memory_bytes - board->used);
    memcpy(p, board->port.chip, KWS_CHIP_BYTES);
    p += KWS_CHIP_BYTES;
    for (uint32_t i = 0; i < board->n_slots; i++, p += KWS_DIGEST_BYTES) {
        memcpy(p, board->slots[i].digest, KWS_DIGEST_BYTES);
    }
    answer(board, KWS_HELLO | KWS_ANSWER, sequence, (uint32_t)(p - board->payload));
}

static uint32_t resident(const kws_board *board, const uint8_t *digest) {
    for (uint32_t i = 0; i < board->n_slots; i++) {
        if (memcmp(board->slots[i].digest, digest, KWS_DIGEST_BYTES) == 0) {
            return i;
        }
    }
    return KWS_NO_SLOT;
}

static void begin(kws_board *board, uint8_t sequence, const uint8_t *in, uint32_t n) {
    if (n != 8u + KWS_DIGEST_BYTES) {
        refuse(board, sequence, KWS_BAD_SIZE, 8u + KWS_DIGEST_BYTES);
        return;
    }
    uint32_t size = get32(in), slot = resident(board, in + 8), room = free_bytes(board), far_room = free_far_bytes(board);
    room = far_room > room ? far_room : room;
    if (slot == KWS_NO_SLOT && (board->n_slots == KWS_MAX_SLOTS || size > room || size % 4u)) {
        refuse(board, sequence, KWS_NO_ROOM, board->n_slots == KWS_MAX_SLOTS ? 0 : room);
        return;
    }
    int going_on = board->loading_size == size && board->loading_crc == get32(in + 4) &&
                   memcmp(board->loading_digest, in + 8, KWS_DIGEST_BYTES) == 0;
    if (slot == KWS_NO_SLOT && !going_on) {
        board->loading_size = size;
        board->loading_crc = get32(in + 4);
        board->loading_next = 0;
        board->loading_far = size > free_bytes(board);
        memcpy(board->loading_digest, in + 8, KWS_DIGEST_BYTES);
    }
    board->payload[0] = (uint8_t)slot;
    put32(board->payload + 1, board->loading_next);
    answer(board, KWS_BEGIN | KWS_ANSWER, sequence, 5);
}

static void chunk(kws_board *board, uint8_t sequence, const uint8_t *in, uint32_t n) {
    if (n < 5u) {
        refuse(board, sequence, KWS_BAD_SIZE, 5);
    } else if (get32(in) != board->loading_next || n - 4u > board->loading_size - board->loading_next) {
        refuse(board, sequence, KWS_BAD_OFFSET, board->loading_next);
    } else if (board->loading_far && n % 4u) {
        refuse(board, sequence, KWS_BAD_SIZE, n & ~3u);
    } else {
        /* of an image that lies far, as much of its beginning as there is room for is kept here too */
        uint32_t at = board->loading_next, room = free_bytes(board), kept = at < room ? room - at : 0;
        memcpy(board->memory + board->used + at, in + 4, kept < n - 4u ? kept : n - 4u);
        if (board->loading_far) {
            board->port.far_write(board->port.self, board->far_used + at, in + 4, n - 4u);
        }
        board->loading_next += n - 4u;
        put32(board->payload, board->loading_next);
        answer(board, KWS_CHUNK | KWS_ANSWER, sequence, 4);
    }
}

/* Open the image that has come, and give it its place. */
static enum kws_image_fault take(kws_board *board, kws_slot *made) {
    kws_image *image = &made->image;
    uint32_t size = board->loading_size, room = board->memory_bytes - board->used, most = free_bytes(board);
    image->bytes = board->memory + board->used;
    image->read = board->loading_far ? board->port.far_read : 0;
    image->read_self = board->port.self;
    image->far_at = board->far_used;
    if (size < 4u * KWS_HEADER_WORDS || most < 4u * KWS_HEADER_WORDS) {
        return KWS_IMAGE_NOT_ONE;
    }
    uint32_t here = board->loading_far ? kws_image_head_bytes(image->bytes) : size;
    if (here > most || here > size) {
        return KWS_IMAGE_MEMORY;
    }
    if (kws_image_crc32(image, 0, size) != board->loading_crc) {
        return KWS_IMAGE_CHECKSUM;
    }
    enum kws_image_fault fault = kws_image_open(image, size, room - here, board->scratch_bytes);
    if (fault != KWS_IMAGE_OK) {
        return fault;
    }
    uint32_t stage = board->loading_far ? kws_stage_bytes(image) : 0, patch = aligned(image->input_bytes);
    uint32_t maps = (image->arena_bytes + 7u) & ~7u;
    maps = maps > board->arena_bytes ? maps : board->arena_bytes;
    if (stage > room || patch > room - stage || here > room - stage - patch || maps > room - stage - patch - here) {
        return KWS_IMAGE_MEMORY;
    }
    image->stage = board->memory + board->used + here;
    made->patch = (int8_t *)image->stage + stage;
    made->patch_known = 0;
    memcpy(made->digest, board->loading_digest, KWS_DIGEST_BYTES);
    board->used += here + stage + patch;
    board->far_used += board->loading_far ? size : 0;
    board->arena_bytes = maps;
    board->arena = (int8_t *)board->memory + board->memory_bytes - maps;
    return KWS_IMAGE_OK;
}

static void commit(kws_board *board, uint8_t sequence) {
    uint32_t slot = resident(board, board->loading_digest);
    if (slot == KWS_NO_SLOT) {
        if (board->loading_size == 0 || board->loading_next != board->loading_size) {
            refuse(board, sequence, KWS_BAD_OFFSET, board->loading_next);
            return;
        }
        enum kws_image_fault fault = take(board, &board->slots[board->n_slots]);
        board->loading_next = 0;
        board->loading_size = 0;
        if (fault != KWS_IMAGE_OK) {
            refuse(board, sequence, KWS_BAD_IMAGE, (uint32_t)fault);
            return;
        }
        slot = board->n_slots++;
    }
    board->payload[0] = (uint8_t)slot;
    answer(board, KWS_COMMIT | KWS_ANSWER, sequence, 1);
}

static void result(kws_board *board, uint8_t type, uint8_t sequence, uint32_t slot, uint32_t flags) {
    kws_board_run(board, slot);
    const kws_image *image = &board->slots[slot].image;
    uint32_t n_layers = flags & KWS_WITH_LAYERS ? image->n_layers : 0;
    uint8_t *p = board->payload;
    *p++ = (uint8_t)slot;
    *p++ = (uint8_t)board->port.cycle_source;
    *p++ = (uint8_t)image->n_classes;
    *p++ = (uint8_t)(image->n_classes >> 8);
    *p++ = (uint8_t)n_layers;
    *p++ = (uint8_t)(n_layers >> 8);
    p = put32(p, (uint32_t)board->total_cycles);
    p = put32(p, (uint32_t)(board->total_cycles >> 32));
    memcpy(p, board->arena + image->output, image->n_classes);
    p += image->n_classes;
    for (uint32_t i = 0; i < n_layers; i++) {
        p = put32(p, board->layer_cycles[i]);
        p = put32(p, image->layers[i].operations);
    }
    answer(board, type | KWS_ANSWER, sequence, (uint32_t)(p - board->payload));
}

static void infer(kws_board *board, uint8_t sequence, const uint8_t *in, uint32_t n) {
    if (n < 2u || in[0] >= board->n_slots) {
        refuse(board, sequence, KWS_BAD_SLOT, board->n_slots);
        return;
    }
    kws_slot *slot = &board->slots[in[0]];
    if (n - 2u != slot->image.input_bytes) {
        refuse(board, sequence, KWS_BAD_SIZE, slot->image.input_bytes + 2u);
        return;
    }
    memcpy(slot->patch, in + 2, n - 2u);
    slot->patch_known = 1;
    result(board, KWS_INFER, sequence, in[0], in[1]);
}

static void frames(kws_board *board, uint8_t sequence, const uint8_t *in, uint32_t n) {
    if (n < 6u || in[0] >= board->n_slots) {
        refuse(board, sequence, KWS_BAD_SLOT, board->n_slots);
        return;
    }
    kws_slot *slot = &board->slots[in[0]];
    uint32_t total = slot->image.input_bytes, n_new = n - 6u, kept = total - n_new;
    if (n_new > total || n_new % slot->image.frame_bytes) {
        refuse(board, sequence, KWS_BAD_SIZE, total + 6u);
        return;
    }
    uint32_t crc = kws_crc32(kws_crc32(0, (const uint8_t *)slot->patch + n_new, kept), in + 6, n_new);
    if (!slot->patch_known || crc != get32(in + 2)) {
        refuse(board, sequence, KWS_OTHER_PATCH, 0);
        return;
    }
    memmove(slot->patch, slot->patch + n_new, kept);
    memcpy(slot->patch + kept, in + 6, n_new);
    result(board, KWS_FRAMES, sequence, in[0], in[1]);
}

static void ping(kws_board *board, uint8_t sequence, const uint8_t *in, uint32_t n) {
    memcpy(board->payload, in, n);
    answer(board, KWS_PING | KWS_ANSWER, sequence, n);
}

static void set_baud(kws_board *board, uint8_t sequence, const uint8_t *in, uint32_t n) {
    if (n != 4u || get32(in) < 9600u || get32(in) > 4000000u) {
        refuse(board, sequence, KWS_BAD_BAUD, 0);
        return;
    }
    answer(board, KWS_SET_BAUD | KWS_ANSWER, sequence, 0);
    board->port.set_baud(board->port.self, get32(in));
}

static void reset(kws_board *board, uint8_t sequence) {
    board->n_slots = 0;
    board->used = board->far_used = board->arena_bytes = 0;
    board->arena = (int8_t *)board->memory + board->memory_bytes;
    board->loading_size = board->loading_next = 0;
    board->boot_id = board->boot_id * 1664525u + 1013904223u;
    answer(board, KWS_RESET | KWS_ANSWER, sequence, 0);
}

static void handle(kws_board *board, uint8_t type, uint8_t sequence, const uint8_t *in, uint32_t n) {
    switch (type) {
    case KWS_HELLO:
        hello(board, sequence);
        break;
    case KWS_SET_BAUD:
        set_baud(board, sequence, in, n);
        break;
    case KWS_BEGIN:
        begin(board, sequence, in, n);
        break;
    case KWS_CHUNK:
        chunk(board, sequence, in, n);
        break;
    case KWS_COMMIT:
        commit(board, sequence);
        break;
    case KWS_INFER:
        infer(board, sequence, in, n);
        break;
    case KWS_FRAMES:
        frames(board, sequence, in, n);
        break;
    case KWS_PING:
        ping(board, sequence, in, n);
        break;
    case KWS_RESET:
        reset(board, sequence);
        break;
    default:
        refuse(board, sequence, KWS_BAD_TYPE, type);
        break;
    }
}

int kws_board_byte(kws_board *board, uint8_t byte) {
    if (byte != 0) {
        if (board->received == sizeof board->buffer) {
            board->overflown = 1;
        } else {
            board->buffer[board->received++] = byte;
        }
        return 0;
    }
    uint32_t n = board->received;
    int overflown = (int)board->overflown;
    board->received = board->overflown = 0;
    if (n == 0 && !overflown) {
        return 0;
    }
    int32_t size = overflown ? -1 : kws_cobs_decode(board->buffer, n);
    int32_t payload = kws_packet_check(board->buffer, size);
    if (payload > (int32_t)KWS_MAX_PAYLOAD) { /* zeros take no more room encoded than decoded */
        board->last_size = 0;
        refuse(board, board->buffer[1], KWS_BAD_SIZE, KWS_MAX_PAYLOAD);
        return 0;
    }
    if (payload < 0) {
        board->last_size = 0; /* the answer kept is no longer the last */
        refuse(board, 0, KWS_BAD_PACKET, n);
        return 0;
    }
    /* the packet's own CRC tells it from every other, its sequence number from a wanted repetition of the same */
    uint32_t crc = get32(board->buffer + size - 4);
    if (board->last_size == (uint32_t)size && board->last_crc == crc && board->buffer[0] != KWS_HELLO) {
        board->port.send(board->port.self, board->answer, board->answer_size);
        return 1;
    }
    board->last_size = (uint32_t)size;
    board->last_crc = crc;
    handle(board, board->buffer[0], board->buffer[1], board->buffer + 2, (uint32_t)payload);
    return 1;
}
