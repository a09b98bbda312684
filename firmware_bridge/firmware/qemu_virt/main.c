/* QEMU's `virt` machine: the link by semihosting, goldfish clock at 0x101000. One core; cycles are instructions. */
#include "../core/kws_board.h"

#define MEMORY_BYTES (6u << 20)
#define SCRATCH_BYTES (16u << 10)

#define CLOCK ((volatile uint32_t *)0x101000u)

/* The link is QEMU's own standard input and output, read and written by semihosting: whole packets in one exit, and the
 * machine sleeps while none come. QEMU's UART costs its loop a turn for each byte, and waiting for one keeps a core busy. */
enum { SYS_OPEN = 1, SYS_WRITE = 5, SYS_READ = 6, SYS_EXIT = 0x18 };
enum { FOR_READING = 1, FOR_WRITING = 5 }; /* rb, wb */
#define APPLICATION_EXIT 0x20026u

static __attribute__((noinline)) uint32_t call(uint32_t number, uint32_t block) {
    register uint32_t a0 __asm__("a0") = number;
    register uint32_t a1 __asm__("a1") = block;
    __asm__ volatile(".option push\n\t.option norvc\n\t.balign 16\n\t"
                     "slli x0, x0, 0x1f\n\tebreak\n\tsrai x0, x0, 7\n\t.option pop"
                     : "+r"(a0)
                     : "r"(a1)
                     : "memory");
    return a0;
}

static uint32_t opened(const char *name, uint32_t length, uint32_t mode) {
    const uint32_t block[3] = {(uint32_t)(uintptr_t)name, mode, length};
    return call(SYS_OPEN, (uint32_t)(uintptr_t)block);
}

/* How many bytes were moved; 0 where none can be. A call tells how many were not. */
static uint32_t moved(uint32_t number, uint32_t handle, const uint8_t *bytes, uint32_t n) {
    const uint32_t block[3] = {handle, (uint32_t)(uintptr_t)bytes, n};
    uint32_t left = call(number, (uint32_t)(uintptr_t)block);
    return left <= n ? n - left : 0;
}

static uint32_t out;

static void send_bytes(void *self, const uint8_t *bytes, uint32_t n) {
    (void)self;
    for (uint32_t sent; n && (sent = moved(SYS_WRITE, out, bytes, n)) > 0; n -= sent) {
        bytes += sent;
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
    out = opened("/dev/stdout", 11, FOR_WRITING);
    const uint32_t in = opened("/dev/stdin", 10, FOR_READING);
    uint8_t some[512];
    for (uint32_t n; (n = moved(SYS_READ, in, some, sizeof some)) > 0;) {
        for (uint32_t i = 0; i < n; i++) {
            kws_board_byte(&board, some[i]);
        }
    }
    return (int)call(SYS_EXIT, APPLICATION_EXIT); /* whoever was at the other end is gone */
}
