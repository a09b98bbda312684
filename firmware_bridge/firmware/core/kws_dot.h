/* Four int8 products added to a sum: XpulpV2's pv.sdotsp.b where the chip has it (KWS_DOT_XPULP), else C.
 *
 * KWS_DOT_WORDS: kernels take four values at a time through kws_dot4; without it, one at a time, which is faster where
 * there is no such instruction.
 */
#ifndef KWS_DOT_H
#define KWS_DOT_H

#include <stdint.h>
#include <string.h>

#if defined(KWS_DOT_XPULP)
#define KWS_DOT_WORDS 1
static inline int32_t kws_dot4(uint32_t a, uint32_t b, int32_t sum) {
    /* RI5CY user manual, "Vectorial ALU / dot product": sdotsp.b, by its encoding for any RISC-V assembler */
    __asm__(".insn r 0x57, 1, 0x5C, %0, %1, %2" : "+r"(sum) : "r"(a), "r"(b));
    return sum;
}
#else
static inline int32_t kws_dot4(uint32_t a, uint32_t b, int32_t sum) {
    for (uint32_t i = 0; i < 32; i += 8) {
        sum += (int32_t)(int8_t)(a >> i) * (int8_t)(b >> i);
    }
    return sum;
}
#endif

static inline uint32_t kws_word(const int8_t *aligned) {
    uint32_t word;
    memcpy(&word, __builtin_assume_aligned(aligned, 4), sizeof word);
    return word;
}

#endif
