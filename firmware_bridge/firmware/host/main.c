/* The firmware as a program: the link is standard input and output. Eight cores are played one after the other, or,
 * with KWS_THREADS, by threads. */
#ifdef KWS_THREADS
#include <pthread.h>
#endif
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "../core/kws_board.h"

#define MEMORY_BYTES (6u << 20)
#define FAR_BYTES (4u << 20)
#define SCRATCH_BYTES (16u << 10)
#define N_CORES 8u

static void send_bytes(void *self, const uint8_t *bytes, uint32_t n) {
    (void)self;
    while (n > 0) {
        ssize_t written = write(STDOUT_FILENO, bytes, n);
        if (written <= 0) {
            exit(1);
        }
        bytes += written;
        n -= (uint32_t)written;
    }
}

static int set_baud(void *self, uint32_t baud) {
    (void)self, (void)baud;
    return 1;
}

static uint64_t no_cycles(void *self) {
    (void)self;
    return 0;
}

#ifdef KWS_THREADS
typedef struct {
    kws_task task;
    void *context;
    uint32_t core;
} thread_part;

static void *run_thread(void *context) {
    thread_part *part = context;
    part->task(part->context, part->core, N_CORES);
    return NULL;
}

static void on_every_core(void *self, kws_task task, void *context) {
    (void)self;
    pthread_t threads[N_CORES];
    thread_part parts[N_CORES];
    for (uint32_t core = 0; core < N_CORES; core++) {
        parts[core] = (thread_part){task, context, core};
        if (pthread_create(&threads[core], NULL, run_thread, &parts[core]) != 0) {
            exit(1);
        }
    }
    for (uint32_t core = 0; core < N_CORES; core++) {
        pthread_join(threads[core], NULL);
    }
}
#else
static void on_every_core(void *self, kws_task task, void *context) {
    (void)self;
    for (uint32_t core = 0; core < N_CORES; core++) {
        task(context, N_CORES - 1u - core, N_CORES); /* backwards: no core may count on one before it */
    }
}
#endif

static void here(void *self, void (*work)(void *), void *context) {
    (void)self;
    work(context);
}

static void copy(void *self, void *to, const void *from, uint32_t n) {
    (void)self;
    memcpy(to, from, n);
}

static uint8_t far_memory[FAR_BYTES];

static void far_read(void *self, void *to, uint32_t from, uint32_t n) {
    (void)self;
    memcpy(to, far_memory + from, n);
}

static void far_write(void *self, uint32_t to, const void *from, uint32_t n) {
    (void)self;
    memcpy(far_memory + to, from, n);
}

/* A size from the environment, a multiple of 8 */
static uint32_t given(const char *name, uint32_t otherwise) {
    const char *wanted = getenv(name);
    return wanted ? (uint32_t)strtoul(wanted, NULL, 10) & ~7u : otherwise;
}

int main(void) {
    static kws_board board;
    static uint32_t scratch[N_CORES * SCRATCH_BYTES / 4u];
    /* KWS_NEAR_BYTES: layers are brought into a near memory of this size; KWS_MEMORY_BYTES: what does not fit this lies
     * far; both as on GAP8 */
    uint32_t near_bytes = given("KWS_NEAR_BYTES", 0), memory_bytes = given("KWS_MEMORY_BYTES", MEMORY_BYTES);
    uint8_t *memory = malloc(memory_bytes);
    kws_port port = {send_bytes, set_baud, no_cycles, on_every_core, here, copy, NULL, near_bytes ? malloc(near_bytes) : NULL,
                     near_bytes, N_CORES, KWS_CYCLES_NONE, "host", FAR_BYTES, far_read, far_write};
    if (memory == NULL) {
        return 1;
    }
    kws_board_init(&board, &port, (uint32_t)getpid(), memory, memory_bytes, (int8_t *)scratch, SCRATCH_BYTES);
    uint8_t bytes[4096];
    for (ssize_t n; (n = read(STDIN_FILENO, bytes, sizeof bytes)) > 0;) {
        for (ssize_t i = 0; i < n; i++) {
            kws_board_byte(&board, bytes[i]);
        }
    }
    return 0;
}
