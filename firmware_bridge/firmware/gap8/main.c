/* GAP8: the fabric controller keeps the link, the cluster's eight cores compute, layers come into L1 by DMA.
 *
 * It runs on gvsoc, the simulator of the chip; it has not run on hardware.
 */
#include <string.h>

#include "../core/kws_board.h"
#include "chip.h"

#define MEMORY_BYTES (416u << 10)
#define FAR_BYTES (8u << 20)
#define FAR_PIECE 512u /* bytes of one burst: HyperRAM wants to refresh itself every 4 us */
#define SCRATCH_BYTES 1024u
#define NEAR_BYTES (44u << 10)
#define RX_BYTES 4096u
#define TX_BYTES 256u
#define SOC_HZ 150000000u
#define CLUSTER_HZ 150000000u

static struct {
    void (*work)(void *);
    void *context;
    kws_task task;
    void *task_context;
} mailbox __attribute__((section(".l1")));

static volatile uint32_t asked, done; /* counts of what the fabric controller wants of the cluster; in L2 */

static uint8_t near_memory[NEAR_BYTES] __attribute__((section(".l1"), aligned(8)));
static int8_t scratch[N_CORES * SCRATCH_BYTES] __attribute__((section(".l1"), aligned(8)));

/* Bytes off the wire. The uDMA writes whole words, has room for two transfers, and tells nothing of one under way: so each
 * byte is a transfer of its own, the next one always waiting behind it. Bytes are fetched wherever this core waits. */
static uint32_t landing[2];
static uint32_t next_landing;
static uint8_t received[RX_BYTES];
static uint32_t n_received, n_handled;

static void set_rate(uint32_t baud) { UART_SETUP = UART_8N1_TX_RX | (SOC_HZ / baud - 1u) << UART_DIVIDER_BIT; }

static void expect_byte(void) {
    UART_RX_ADDRESS = (uint32_t)(uintptr_t)&landing[next_landing];
    UART_RX_SIZE = 1;
    UART_RX_CONFIG = UDMA_ENABLE;
    next_landing ^= 1u;
}

static void receive(void) {
    while (!(UART_RX_CONFIG & UDMA_WAITING)) {
        uint8_t byte = *(volatile uint8_t *)&landing[next_landing];
        if (n_received - n_handled < RX_BYTES) {
            received[n_received++ % RX_BYTES] = byte;
        }
        expect_byte();
    }
}

static void send_bytes(void *self, const uint8_t *bytes, uint32_t n) {
    static uint32_t words[TX_BYTES / 4u]; /* the uDMA reads whole words */
    (void)self;
    for (uint32_t at = 0; at < n; at += TX_BYTES) {
        uint32_t part = n - at < TX_BYTES ? n - at : TX_BYTES;
        memcpy(words, bytes + at, part);
        UART_TX_ADDRESS = (uint32_t)(uintptr_t)words;
        UART_TX_SIZE = part;
        UART_TX_CONFIG = UDMA_ENABLE;
        while ((UART_TX_CONFIG & UDMA_ENABLE) || (UART_STATUS & UART_TX_BUSY)) {
            receive();
        }
    }
}

static int set_baud(void *self, uint32_t baud) {
    (void)self;
    set_rate(baud);
    return 1;
}

static void barrier(void) { (void)sleep_on(BARRIER_WAIT_CLEAR); }

static uint64_t cluster_cycles(void *self) {
    (void)self;
    return TIMER_COUNT;
}

/* On core 0: the others wait at the barrier for a task. */
static void fork(void *self, kws_task task, void *context) {
    (void)self;
    mailbox.task_context = context;
    mailbox.task = task;
    barrier();
    task(context, 0, N_CORES);
    barrier();
}

static void copy(void *self, void *to, const void *from, uint32_t n) {
    (void)self;
    int to_near = (uint32_t)(uintptr_t)to < L1_BASE + 0x10000u;
    const uint8_t *f = from;
    uint8_t *t = to;
    while (n > 0) {
        uint32_t part = n < DMA_MAX_BYTES ? n : DMA_MAX_BYTES, counter = DMA_COMMAND;
        DMA_COMMAND = part | (to_near ? DMA_TO_NEAR : 0) | DMA_INCREMENT;
        DMA_COMMAND = (uint32_t)(uintptr_t)(to_near ? t : f);
        DMA_COMMAND = (uint32_t)(uintptr_t)(to_near ? f : t);
        while (DMA_STATUS & 1u << counter) {
        }
        DMA_STATUS = 1u << counter;
        f += part, t += part, n -= part;
    }
}

/* HyperRAM, from the fabric controller or core 0 of the cluster. The uDMA has words of L2: others go through `piece`. */
static uint32_t piece[FAR_PIECE / 4u];

static void far_read(void *self, void *to, uint32_t from, uint32_t n) {
    (void)self;
    for (uint32_t part; n > 0; to = (uint8_t *)to + part, from += part, n -= part) {
        part = n < FAR_PIECE ? n : FAR_PIECE;
        int straight = (uint32_t)(uintptr_t)to >= L2_BASE && (uint32_t)(uintptr_t)to % 4u == 0 && part % 4u == 0;
        HYPER_EXTERNAL_ADDRESS = from;
        HYPER_RX_ADDRESS = (uint32_t)(uintptr_t)(straight ? to : piece);
        HYPER_RX_SIZE = part;
        HYPER_RX_CONFIG = UDMA_ENABLE;
        while (HYPER_RX_CONFIG & UDMA_ENABLE) {
        }
        if (!straight) {
            memcpy(to, piece, part);
        }
    }
}

static void far_write(void *self, uint32_t to, const void *from, uint32_t n) {
    (void)self;
    for (uint32_t part; n > 0; from = (const uint8_t *)from + part, to += part, n -= part) {
        part = n < FAR_PIECE ? n : FAR_PIECE;
        memcpy(piece, from, part);
        HYPER_EXTERNAL_ADDRESS = to;
        HYPER_TX_ADDRESS = (uint32_t)(uintptr_t)piece;
        HYPER_TX_SIZE = part;
        HYPER_TX_CONFIG = UDMA_ENABLE;
        while (HYPER_TX_CONFIG & UDMA_ENABLE) {
            receive();
        }
        for (uint32_t i = 0; i < FAR_PIECE; i++) { /* the last words are still on their way */
            receive();
        }
    }
}

/* On the fabric controller: let core 0 do the work, and wait. */
static void offload(void *self, void (*work)(void *), void *context) {
    (void)self;
    mailbox.work = work;
    mailbox.context = context;
    asked++;
    CLUSTER_SOFTWARE_EVENT_0 = 1u;
    while (done != asked) {
        receive();
    }
}

void cluster_main(uint32_t core);

void cluster_main(uint32_t core) {
    EVENT_MASK = BARRIER_EVENT;
    if (core != 0) {
        for (;;) {
            barrier();
            mailbox.task(mailbox.task_context, core, N_CORES);
            barrier();
        }
    }
    BARRIER_CORES = (1u << N_CORES) - 1u; /* who has come already is counted; before the target: none of none is all */
    BARRIER_TARGET = (1u << N_CORES) - 1u;
    TIMER_CONFIG = 0;
    TIMER_START = 1;
    for (;;) {
        EVENT_MASK = WORK_EVENT; /* never both: a barrier would take the one for the other */
        (void)sleep_on(EVENT_WAIT_CLEAR);
        EVENT_MASK = BARRIER_EVENT;
        if (done != asked) {
            mailbox.work(mailbox.context);
            done = asked;
        }
    }
}

static void set_clocks(void) {
    /* reference x multiplier / 2^(divider - 1); normal mode, output once locked */
    uint32_t divider = 2, multiplier = SOC_HZ / REF_CLOCK_HZ * divider;
    FLL_SOC_CONF1 = 1u << 31 | 1u << 30 | divider << 26 | multiplier;
    FLL_CLUSTER_CONF1 = 1u << 31 | 1u << 30 | divider << 26 | CLUSTER_HZ / REF_CLOCK_HZ * divider;
}

static void start_cluster(void) {
    PMU_BYPASS |= PMU_CLUSTER_CLOCK_GATE;
    PMU_BYPASS |= PMU_CLUSTER_ON;
    PMU_ISOLATE = 0;
    PMU_BYPASS &= ~PMU_CLUSTER_RESET;
    PMU_BYPASS &= ~PMU_CLUSTER_CLOCK_GATE;
    CLUSTER_CLOCK_GATE = 1;
    CLUSTER_ICACHE_ENABLE = 0xffffffffu;
    extern const uint8_t boot_address[];
    for (uint32_t core = 0; core < N_CORES; core++) {
        CLUSTER_BOOT_ADDRESS(core) = (uint32_t)(uintptr_t)boot_address;
    }
    CLUSTER_FETCH_ENABLE = (1u << N_CORES) - 1u;
}

int main(void) {
    static kws_board board;
    static uint64_t memory[MEMORY_BYTES / 8u];
    static const kws_port port = {
        send_bytes, set_baud, cluster_cycles, fork,   offload, copy, 0, near_memory, NEAR_BYTES, N_CORES, KWS_CYCLES_COUNTER,
        "gap8",     FAR_BYTES, far_read,       far_write,
    };
    FABRIC_ICACHE_ENABLE = 0xffffffffu;
    set_clocks();
    start_cluster();
    UDMA_CLOCK_GATE |= 1u << UART_ID | 1u << HYPER_ID;
    HYPER_RAM_CONFIG |= HYPER_IS_RAM;
    set_rate(115200);
    expect_byte();
    expect_byte();
    kws_board_init(&board, &port, REG(0x1A100000u) ^ REG(0x1A10000Cu) ^ 0x67617038u, (uint8_t *)memory, MEMORY_BYTES, scratch,
                   SCRATCH_BYTES);
    for (;;) {
        receive();
        while (n_handled != n_received) {
            kws_board_byte(&board, received[n_handled++ % RX_BYTES]);
        }
    }
}
