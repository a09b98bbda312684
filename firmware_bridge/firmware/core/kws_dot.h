/* What XpulpV2 has beyond RV32IM, where the chip has it (KWS_DOT_XPULP), else the same in C.
 *
 * KWS_DOT_WORDS: kernels take four values at a time through kws_dot4; without it, one at a time, which is faster where
 * there is no such instruction. Encodings: RI5CY user manual; written as .insn for any RISC-V assembler.
 */
#ifndef KWS_DOT_H
#define KWS_DOT_H

#include <stdint.h>
#include <string.h>

#if defined(KWS_DOT_XPULP)
#define KWS_DOT_WORDS 1

/* pv.sdotsp.b: four int8 products added to a sum */
static inline int32_t kws_dot4(uint32_t a, uint32_t b, int32_t sum) {
    __asm__(".insn r 0x57, 1, 0x5C, %0, %1, %2" : "+r"(sum) : "r"(a), "r"(b));
    return sum;
}

/* p.lw with post-increment */
static inline uint32_t kws_next_word(const int8_t **at) {
    uint32_t word;
    __asm__(".insn i 0x0B, 2, %0, %1, 4" : "=&r"(word), "+r"(*at) : "m"(*(const uint32_t *)(const void *)*at));
    return word;
}

/* p.lbu with post-increment by a register */
static inline uint32_t kws_next_byte(const int8_t **at, uint32_t step) {
    uint32_t byte;
    __asm__(".insn r 0x0B, 7, 0x20, %0, %1, %2" : "=&r"(byte), "+r"(*at) : "r"(step), "m"(**at));
    return byte;
}

/* pv.insert.b: three bytes as one word, the fourth 0 */
static inline uint32_t kws_three_bytes(uint32_t a, uint32_t b, uint32_t c) {
    __asm__(".insn r 0x57, 7, 0x59, %0, %1, x0" : "+r"(a) : "r"(b));
    __asm__(".insn r 0x57, 7, 0x58, %0, %1, x1" : "+r"(a) : "r"(c));
    return a;
}

static inline int32_t kws_within(int32_t value, int32_t low, int32_t high) {
    __asm__(".insn r 0x33, 6, 0x02, %0, %1, %2" : "=r"(value) : "r"(value), "r"(low));  /* p.max */
    __asm__(".insn r 0x33, 4, 0x02, %0, %1, %2" : "=r"(value) : "r"(value), "r"(high)); /* p.min */
    return value;
}
#else
static inline int32_t kws_dot4(uint32_t a, uint32_t b, int32_t sum) {
    for (uint32_t i = 0; i < 32; i += 8) {
        sum += (int32_t)(int8_t)(a >> i) * (int8_t)(b >> i);
    }
    return sum;
}

static inline uint32_t kws_next_word(const int8_t **at) {
    uint32_t word;
    __builtin_memcpy(&word, __builtin_assume_aligned(*at, 4), sizeof word);
    *at += 4;
    return word;
}

static inline uint32_t kws_next_byte(const int8_t **at, uint32_t step) {
    uint32_t byte = (uint8_t)**at;
    *at += step;
    return byte;
}

static inline uint32_t kws_three_bytes(uint32_t a, uint32_t b, uint32_t c) { return a | b << 8 | c << 16; }

static inline int32_t kws_within(int32_t value, int32_t low, int32_t high) {
    return value < low ? low : value > high ? high : value;
}
#endif

#endif
