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

/* Dot products of two rows of n values (a multiple of 4, not 0) with four rows of weights, each added to its sum. A
 * hardware loop (lp.setup; its offset names the last instruction, in halfwords) of six loads and eight dot products. */
static inline void kws_dot_2x4(const int8_t *x0, const int8_t *x1, const int8_t *w, uint32_t n, int32_t s[8]) {
    uint32_t a, b, c, d;
    __asm__(".balign 4\n"
            ".insn i 0x7B, 4, x0, %[steps], 28\n"
            ".insn i 0x0B, 2, %[a], %[x0], 4\n"
            ".insn i 0x0B, 2, %[b], %[x1], 4\n"
            ".insn r 0x03, 7, 0x10, %[c], %[w], %[row1]\n" /* p.lw with a register's offset */
            ".insn r 0x03, 7, 0x10, %[d], %[w], %[row2]\n"
            ".insn r 0x57, 1, 0x5C, %[s1], %[a], %[c]\n"
            ".insn r 0x57, 1, 0x5C, %[s5], %[b], %[c]\n"
            ".insn r 0x03, 7, 0x10, %[c], %[w], %[row3]\n"
            ".insn r 0x57, 1, 0x5C, %[s2], %[a], %[d]\n"
            ".insn r 0x57, 1, 0x5C, %[s6], %[b], %[d]\n"
            ".insn i 0x0B, 2, %[d], %[w], 4\n"
            ".insn r 0x57, 1, 0x5C, %[s3], %[a], %[c]\n"
            ".insn r 0x57, 1, 0x5C, %[s7], %[b], %[c]\n"
            ".insn r 0x57, 1, 0x5C, %[s0], %[a], %[d]\n"
            ".insn r 0x57, 1, 0x5C, %[s4], %[b], %[d]\n"
            : [s0] "+&r"(s[0]), [s1] "+&r"(s[1]), [s2] "+&r"(s[2]), [s3] "+&r"(s[3]), [s4] "+&r"(s[4]),
              [s5] "+&r"(s[5]), [s6] "+&r"(s[6]), [s7] "+&r"(s[7]), [x0] "+&r"(x0), [x1] "+&r"(x1), [w] "+&r"(w),
              [a] "=&r"(a), [b] "=&r"(b), [c] "=&r"(c), [d] "=&r"(d)
            : [row1] "r"(n), [row2] "r"(2u * n), [row3] "r"(3u * n), [steps] "r"(n / 4u)
            : "memory");
}

static inline int32_t kws_within(int32_t value, int32_t low, int32_t high) {
    __asm__(".insn r 0x33, 6, 0x02, %0, %1, %2" : "=r"(value) : "r"(value), "r"(low));  /* p.max */
    __asm__(".insn r 0x33, 4, 0x02, %0, %1, %2" : "=r"(value) : "r"(value), "r"(high)); /* p.min */
    return value;
}

/* p.clip: to int8 */
static inline int32_t kws_to_int8(int32_t value) {
    __asm__(".insn r 0x33, 1, 0x0A, %0, %1, x8" : "=r"(value) : "r"(value));
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

static inline void kws_dot_2x4(const int8_t *x0, const int8_t *x1, const int8_t *w, uint32_t n, int32_t s[8]) {
#ifdef KWS_DOT_WORDS
    const int8_t *rows[4] = {w, w + n, w + 2u * n, w + 3u * n};
    for (uint32_t i = 0; i < n; i += 4u) {
        uint32_t a = kws_next_word(&x0), b = kws_next_word(&x1);
        for (uint32_t j = 0; j < 4u; j++) {
            uint32_t c = kws_next_word(&rows[j]);
            s[j] = kws_dot4(a, c, s[j]);
            s[4u + j] = kws_dot4(b, c, s[4u + j]);
        }
    }
#else
    const int8_t *w1 = w + n, *w2 = w + 2u * n, *w3 = w + 3u * n;
    int32_t s0 = s[0], s1 = s[1], s2 = s[2], s3 = s[3], s4 = s[4], s5 = s[5], s6 = s[6], s7 = s[7];
    for (uint32_t i = 0; i < n; i++) {
        int32_t a = x0[i], b = x1[i], c0 = w[i], c1 = w1[i], c2 = w2[i], c3 = w3[i];
        s0 += a * c0;
        s1 += a * c1;
        s2 += a * c2;
        s3 += a * c3;
        s4 += b * c0;
        s5 += b * c1;
        s6 += b * c2;
        s7 += b * c3;
    }
    s[0] = s0, s[1] = s1, s[2] = s2, s[3] = s3, s[4] = s4, s[5] = s5, s[6] = s6, s[7] = s7;
#endif
}

static inline int32_t kws_within(int32_t value, int32_t low, int32_t high) {
    return value < low ? low : value > high ? high : value;
}

static inline int32_t kws_to_int8(int32_t value) { return kws_within(value, -128, 127); }
#endif

#endif
