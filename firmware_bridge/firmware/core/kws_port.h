/* What a port gives to the core: a link, a counter, cores, and where fast memory is. */
#ifndef KWS_PORT_H
#define KWS_PORT_H

#include <stdint.h>

#define KWS_MAX_CORES 8u
#define KWS_CHIP_BYTES 16u

enum kws_cycle_source { KWS_CYCLES_NONE, KWS_CYCLES_COUNTER, KWS_CYCLES_INSTRUCTIONS };

typedef void (*kws_task)(void *context, uint32_t core, uint32_t n_cores);

/* What a port gives. */
typedef struct {
    void (*send)(void *self, const uint8_t *bytes, uint32_t n);
    int (*set_baud)(void *self, uint32_t baud); /* called after the answer is sent; 0: cannot */
    uint64_t (*cycles)(void *self);
    void (*fork)(void *self, kws_task task, void *context); /* run the task on every core, return when all are done */
    void (*offload)(void *self, void (*work)(void *), void *context); /* run it where fork may be called, and wait */
    void (*copy)(void *self, void *to, const void *from, uint32_t n); /* between the arena or pool and `near_bytes` */
    void *self;
    uint8_t *near_memory; /* fast memory that layers are brought into piece by piece; 0: they run where they lie */
    uint32_t near_bytes;
    uint32_t n_cores;
    enum kws_cycle_source cycle_source;
    char chip[KWS_CHIP_BYTES];
    /* memory beyond, for images that have no room: read and written in pieces, addresses multiples of 4; 0: there is none */
    uint32_t far_bytes;
    void (*far_read)(void *self, void *to, uint32_t from, uint32_t n);
    void (*far_write)(void *self, uint32_t to, const void *from, uint32_t n);
} kws_port;

#endif
