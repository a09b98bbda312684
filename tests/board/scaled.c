/* The short ways of scaling sums against the exact one, on random and extreme values of the range that they are for. */
#include <stdio.h>

#include "../../firmware_bridge/firmware/core/kws_kernels.c"

static uint64_t state = 88172645463325252u;

static uint32_t next(void) { /* xorshift64 (Marsaglia, 2003) */
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return (uint32_t)(state >> 32);
}

int main(void) {
    unsigned long n = 0;
    for (; n < 4000000u; n++) {
        int32_t sum = (int32_t)(next() % (1u << 30)) - (1 << 29) + 1, right = (int32_t)(1u + next() % 20u);
        int32_t multiplier = (int32_t)(next() % 8u ? (1u << 30) + next() % (1u << 30) : next() % (1u << 31)), shift = -right;
        sum >>= next() % 4u * 8u;                                   /* small ones too */
        if (next() % 4u == 0 && multiplier != 0) {                  /* near a tie of the second rounding */
            int64_t tie = (2 * (int64_t)(int32_t)(next() % 300u) - 300 + 1) << (right - 1);
            int64_t near = (tie << 31) / multiplier + (int32_t)(next() % 3u) - 1;
            sum = near > -(1 << 29) && near < 1 << 29 ? (int32_t)near : sum;
        }
        int32_t zero = next() % 2u ? -128 : (int32_t)(next() % 256u) - 128, low = zero, high = (int32_t)(next() % 128u);
        scales all = {&sum, &multiplier, &shift, zero, low < high ? low : -128, high};
        scale exact = scale_of(&all, 0, EXACT), quick = scale_of(&all, 0, QUICK);
        int8_t wanted = scaled(&exact, sum, EXACT);
        int wrong = scaled(&quick, sum, QUICK) != wanted;
        wrong |= kws_requantise(sum, multiplier, shift) != quick_sum(sum, multiplier, right);
        wrong |= kws_requantise(sum, multiplier, 0) != quick_sum(sum, multiplier, 0);
        scales whole = {&sum, &multiplier, &shift, -128, -128, 127};
        exact = scale_of(&whole, 0, EXACT);
        quick = scale_of(&whole, 0, QUICK_POSITIVE);
        wrong |= scaled(&quick, sum, QUICK_POSITIVE) != scaled(&exact, sum, EXACT);
        if (wrong) {
            printf("%d x %d >> %d, zero %d: found a difference\n", sum, multiplier, right, zero);
            return 1;
        }
    }
    printf("%lu equal\n", n);
    return 0;
}
