/* What a stranger can send, for a fuzzer: packets, or an image with its size and checksums put right, which is run.
 *
 * input: a byte, whose bit 0 says which (0 packets, 1 an image) and whose bits 1 and 2 how much near memory there is
 *   packets  (type, size low, size high, size bytes) again and again
 *   image    its bytes
 *
 * Built by clang with -fsanitize=fuzzer, or with KWS_FUZZ_STDIN as a program that reads inputs from standard input, each
 * after its size in 4 bytes.
 */
#define main host_main
#include "main.c"
#undef main

#include "../core/kws_packet.h"

#define FUZZ_MEMORY_BYTES (1u << 19)
#define PART_BYTES 4096u

static void send_nowhere(void *self, const uint8_t *bytes, uint32_t n) { (void)self, (void)bytes, (void)n; }

static void request(kws_board *board, uint8_t type, uint8_t sequence, const uint8_t *payload, uint32_t n) {
    static uint8_t wire[KWS_COBS_SIZE(65535u + KWS_PACKET_OVERHEAD) + 1u];
    uint32_t size = kws_packet_encode(wire, type, sequence, payload, n);
    for (uint32_t i = 0; i < size; i++) {
        kws_board_byte(board, wire[i]);
    }
}

static void put32(uint8_t *p, uint32_t value) {
    for (uint32_t i = 0; i < 4; i++) {
        p[i] = (uint8_t)(value >> (8u * i));
    }
}

static void run_packets(kws_board *board, const uint8_t *data, size_t size) {
    for (uint8_t sequence = 1; size >= 3; sequence++) {
        uint32_t n = (uint32_t)data[1] | (uint32_t)data[2] << 8;
        n = n > size - 3 ? (uint32_t)(size - 3) : n;
        request(board, data[0], sequence, data + 3, n);
        data += 3 + n;
        size -= 3 + n;
    }
}

static void run_image(kws_board *board, const uint8_t *data, size_t size) {
    uint32_t n = (uint32_t)size & ~3u;
    uint8_t head[8 + KWS_DIGEST_BYTES] = {0}, part[4 + PART_BYTES], *image = malloc(n);
    if (image == NULL) {
        abort();
    }
    memcpy(image, data, n);
    put32(image + 8, n);
    put32(image + 12, kws_crc32(0, image + 16, n - 16));
    put32(head, n);
    put32(head + 4, kws_crc32(0, image, n));
    head[8] = 1;
    request(board, KWS_BEGIN, 1, head, sizeof head);
    for (uint32_t at = 0; at < n; at += PART_BYTES) {
        uint32_t some = n - at < PART_BYTES ? n - at : PART_BYTES;
        put32(part, at);
        memcpy(part + 4, image + at, some);
        request(board, KWS_CHUNK, (uint8_t)(2 + at / PART_BYTES), part, 4 + some);
    }
    request(board, KWS_COMMIT, 1, NULL, 0);
    free(image);
    if (board->n_slots) {
        kws_board_run(board, 0);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static const uint32_t near_sizes[] = {0, 704, 3000, 44u << 10};
    static kws_board board;
    static uint32_t scratch[N_CORES * SCRATCH_BYTES / 4u];
    if (size < 1 + 4u * KWS_HEADER_WORDS || size > FUZZ_MEMORY_BYTES) {
        return 0;
    }
    uint32_t near_bytes = near_sizes[data[0] >> 1 & 3u];
    uint8_t *memory = calloc(1, FUZZ_MEMORY_BYTES), *near = near_bytes ? malloc(near_bytes) : NULL;
    kws_port port = {send_nowhere, set_baud, no_cycles, on_every_core, here, copy, NULL, near, near_bytes, N_CORES,
                     KWS_CYCLES_NONE, "fuzz", FAR_BYTES, far_read, far_write};
    if (memory == NULL || (near_bytes && near == NULL)) {
        abort();
    }
    kws_board_init(&board, &port, 1, memory, FUZZ_MEMORY_BYTES, (int8_t *)scratch, SCRATCH_BYTES);
    (data[0] & 1u ? run_image : run_packets)(&board, data + 1, size - 1);
    free(near);
    free(memory);
    return 0;
}

#ifdef KWS_FUZZ_STDIN
int main(void) {
    for (uint32_t n; fread(&n, sizeof n, 1, stdin) == 1;) {
        uint8_t *exact = malloc(n ? n : 1); /* so that a read beyond its end is seen */
        if (n > FUZZ_MEMORY_BYTES || exact == NULL || fread(exact, 1, n, stdin) != n) {
            return 1;
        }
        LLVMFuzzerTestOneInput(exact, n);
        free(exact);
    }
    return 0;
}
#endif
