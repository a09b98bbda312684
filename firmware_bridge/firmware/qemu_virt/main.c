/* QEMU's `virt` machine: NS16550 UART at 0x10000000, goldfish clock at 0x101000. One core; cycles are instructions. */
#include "../core/kws_board.h"

#define MEMORY_BYTES (6u << 20)
#define SCRATCH_BYTES (16u << 10)

#define UART ((volatile uint8_t *)0x10000000u)
#define LINE_STATUS 5
#define DATA_READY 1u
#define TRANSMIT_EMPTY 0x20u
#define FIFO_CONTROL 2
#define CLOCK ((volatile uint32_t *)0x101000u)

static void send_bytes(void *self, const uint8_t *bytes, uint32_t n) {
    (void)self;
    for (uint32_t i = 0; i < n; i++) {
        while (!(UART[LINE_STATUS] & TRANSMIT_EMPTY)) {
        }
        UART[0] = bytes[i];
    }
}

static int set_baud(void *self, uint32_t baud) {
    (void)self, (void)baud; /* the emulated UART has no rate */
    return 1;
}

static uint64_t instructions(void *self) {
    (void)self;
    uint32_t high, low, again;
    do {
        __asm__ volatile("csrr %0, 0xc82\n\tcsrr %1, 0xc02\n\tcsrr %2, 0xc82" : "=r"(high), "=r"(low), "=r"(again));
    } while (high != again);
    return (uint64_t)high << 32 | low;
}

static void one_core(void *self, kws_task task, void *context) {
    (void)self;
    task(context, 0, 1);
}

static void here(void *self, void (*work)(void *), void *context) {
    (void)self;
    work(context);
}

int main(void) {
    static kws_board board;
    static uint64_t memory[MEMORY_BYTES / 8u];
    static uint32_t scratch[SCRATCH_BYTES / 4u];
    static const kws_port port = {
        send_bytes, set_baud, instructions, one_core, here, 0, 0, 0, 0, 1, KWS_CYCLES_INSTRUCTIONS, "qemu_virt", 0, 0, 0,
    };
    uint32_t boot_id = CLOCK[0];
    boot_id ^= CLOCK[1] << 8;
    kws_board_init(&board, &port, boot_id, (uint8_t *)memory, MEMORY_BYTES, (int8_t *)scratch, SCRATCH_BYTES);
    UART[FIFO_CONTROL] = 1;
    for (;;) {
        if (UART[LINE_STATUS] & DATA_READY) {
            kws_board_byte(&board, UART[0]);
        }
    }
}
