#include "kws_kernels.h"

#include "kws_dot.h"

#define ADD_LEFT_SHIFT 20
#define SUM_BITS 12

typedef struct {
    uint32_t first, end;
} range;

/* The part of 0 ... n - 1 that is `core`'s, in whole groups. */
static range share(uint32_t n, uint32_t group, uint32_t core, uint32_t n_cores) {
    uint32_t n_groups = (n + group - 1u) / group;
    uint32_t first = n_groups * core / n_cores * group, end = n_groups * (core + 1u) / n_cores * group;
    range mine = {first < n ? first : n, end < n ? end : n};
    return mine;
}

int32_t kws_requantise(int32_t x, int32_t multiplier, int32_t shift) {
    int32_t left = shift > 0 ? shift : 0, right = shift > 0 ? 0 : -shift;
    int32_t shifted = (int32_t)((uint32_t)x << left);
    int32_t high = (int32_t)(((int64_t)shifted * multiplier + (1 << 30)) >> 31);
    int32_t mask = (int32_t)((1u << right) - 1u);
    int32_t threshold = (int32_t)((uint32_t)mask >> 1) + (high < 0);
    return (high >> right) + ((high & mask) > threshold);
}

int32_t kws_requantise_once(int32_t x, int32_t multiplier, int32_t shift) {
    int32_t total = 31 - shift;
    return (int32_t)(((int64_t)x * multiplier + ((int64_t)1 << (total - 1))) >> total);
}

static const int32_t *table(const kws_image *image, uint32_t offset) {
    return (const int32_t *)(const void *)(image->bytes + offset);
}

static int8_t limited(const kws_layer *l, int32_t value) {
    return (int8_t)kws_within(value + l->out_zero_point, l->low, l->high);
}

/* A layer's tables and bounds, read once: kernels write bytes, which might be anything's for all that a compiler knows. */
typedef struct {
    const int32_t *bias, *multipliers, *shifts;
    int32_t zero_point, low, high;
} scales;

static inline scales scales_of(const kws_image *image, const kws_layer *l) {
    scales all = {table(image, l->bias), table(image, l->multipliers), table(image, l->shifts), l->out_zero_point, l->low,
                  l->high};
    return all;
}

/* One output channel of a convolution: what its sums begin with and how they become int8. */
typedef struct {
    int32_t bias, multiplier, shift, rounding, low, high;
} scale;

/* How sums become int8. QUICK: |sum| < 2^29 and -20 <= shift <= -1, so that the high word of one product is enough: the sum
 * in halves of 2^-31, then rounded; then halves away from zero, which for negative values is a carry of one less.
 * QUICK_POSITIVE: and what is negative ends as -128, whatever its rounding, so that both shifts are one. */
enum way { EXACT, QUICK, QUICK_POSITIVE };

static enum way way_of(const kws_layer *l) {
    int positive = l->out_zero_point == -128 && l->low == -128 && l->high == 127;
    return !l->quick ? EXACT : positive ? QUICK_POSITIVE : QUICK;
}

static inline scale scale_of(const scales *all, uint32_t c, enum way way) {
    scale s = {all->bias[c], all->multipliers[c], all->shifts[c], all->zero_point, all->low, all->high};
    if (way != EXACT) { /* half of what is shifted out, and the zero point */
        int32_t twice = (int32_t)((uint32_t)(2 * s.rounding + 1) << -s.shift);
        s.shift = way == QUICK ? -s.shift : 1 - s.shift;
        s.rounding = way == QUICK ? twice >> 1 : twice + 1;
    }
    return s;
}

/* x * multiplier in halves of 2^-31, |x| < 2^29 */
static inline int32_t twice_product(int32_t x, int32_t multiplier) {
    return (int32_t)(((int64_t)(x * 4) * multiplier) >> 32);
}

static inline int32_t quick_product(int32_t x, int32_t multiplier) { return (twice_product(x, multiplier) + 1) >> 1; }

static inline int8_t scaled(const scale *s, int32_t sum, enum way way) {
    if (way == EXACT) {
        return (int8_t)kws_within(kws_requantise(sum, s->multiplier, s->shift) + s->rounding, s->low, s->high);
    }
    if (way == QUICK_POSITIVE) {
        return (int8_t)kws_to_int8((twice_product(sum, s->multiplier) + s->rounding) >> s->shift);
    }
    int32_t high = quick_product(sum, s->multiplier);
    return (int8_t)kws_within((high + (high >> 31) + s->rounding) >> s->shift, s->low, s->high);
}

static int32_t dot_1x1(const int8_t *x, const int8_t *w, uint32_t n) {
    int32_t sum = 0;
#ifdef KWS_DOT_WORDS
    for (; n; n -= 4u) {
        uint32_t a = kws_next_word(&x), b = kws_next_word(&w);
        sum = kws_dot4(a, b, sum);
    }
#else
    for (uint32_t i = 0; i < n; i++) {
        sum += (int32_t)x[i] * w[i];
    }
#endif
    return sum;
}

/* Two outputs' pixels over channels [from, to) of those that weights and tables begin with; `out1` may be `out0`.
 * Bias holds -zero_point * sum(weights). */
static inline __attribute__((always_inline)) void pixels(const scales *all, const int8_t *weights, uint32_t row,
                                                         const int8_t *x0, const int8_t *x1, int8_t *out0, int8_t *out1,
                                                         uint32_t from, uint32_t to, enum way way) {
    uint32_t c = from;
    for (; c + 4u <= to; c += 4) {
        const int32_t *bias = all->bias + c;
        int32_t sums[8] = {bias[0], bias[1], bias[2], bias[3], bias[0], bias[1], bias[2], bias[3]};
        kws_dot_2x4(x0, x1, weights + c * row, row, sums);
        for (uint32_t i = 0; i < 4; i++) {
            scale s = scale_of(all, c + i, way);
            out0[c + i] = scaled(&s, sums[i], way);
            out1[c + i] = scaled(&s, sums[4 + i], way);
        }
    }
    for (; c < to; c++) {
        const int8_t *w = weights + c * row;
        scale s = scale_of(all, c, way);
        out0[c] = scaled(&s, dot_1x1(x0, w, row) + s.bias, way);
        out1[c] = scaled(&s, dot_1x1(x1, w, row) + s.bias, way);
    }
}

static void fill(int8_t *to, int32_t value, uint32_t n) {
    for (uint32_t i = 0; i < n; i++) {
        to[i] = (int8_t)value;
    }
}

/* The window of output pixel `pixel` as one row: where it lies, or copied to `scratch` with the zero point around. */
static const int8_t *window(const kws_layer *l, const int8_t *in, int8_t *scratch, uint32_t pixel) {
    uint32_t channels = l->in_c, kernel_row = l->kernel_w * channels;
    int32_t top = (int32_t)(pixel / l->out_w * l->stride_h) - (int32_t)l->pad_top;
    int32_t left = (int32_t)(pixel % l->out_w * l->stride_w) - (int32_t)l->pad_left;
    if (l->kernel_h == 1u && l->kernel_w == 1u && channels == l->row_bytes) {
        return in + ((uint32_t)top * l->in_w + (uint32_t)left) * channels;
    }
    int32_t before = left < 0 ? -left : 0;
    int32_t after = left + (int32_t)l->kernel_w - (int32_t)l->in_w;
    uint32_t n_before = (uint32_t)before * channels, n_after = after < 0 ? 0 : (uint32_t)after * channels;
    uint32_t n = kernel_row - n_before - n_after;
    int8_t *to = scratch;
    for (uint32_t i = 0; i < l->kernel_h; i++) {
        int32_t y = top + (int32_t)i;
        if (y < 0 || y >= (int32_t)l->in_h) {
            fill(to, l->in0_zero_point, kernel_row);
            to += kernel_row;
            continue;
        }
        const int8_t *from = in + ((uint32_t)y * l->in_w + (uint32_t)(left + before)) * channels;
        fill(to, l->in0_zero_point, n_before);
        to += n_before;
        uint32_t j = 0;
        for (; j + 4u <= n; j += 4u) {
            __builtin_memcpy(to + j, from + j, 4);
        }
        for (; j < n; j++) {
            to[j] = from[j];
        }
        fill(to + n, l->in0_zero_point, n_after);
        to += n + n_after;
    }
    fill(to, 0, l->row_bytes - l->kernel_h * kernel_row);
    return scratch;
}

/* Pairs of pixels are shared; where they are few, pairs times groups of four channels, a pair's groups in a row. */
static inline __attribute__((always_inline)) void conv_pixels(const kws_image *image, const kws_layer *l, int8_t *arena,
                                                              int8_t *scratch, uint32_t core, uint32_t n_cores,
                                                              enum way way) {
    const scales all = scales_of(image, l);
    const int8_t *weights = (const int8_t *)(image->bytes + l->weights), *in = arena + l->in0;
    const uint32_t channels = (l->end_channel ? l->end_channel : l->out_c) - l->first_channel, row = l->row_bytes;
    const uint32_t n = l->out_h * l->out_w, groups = (channels + 3u) / 4u, in_c = l->in_c, out_c = l->out_c;
    const int in_place = l->kernel_h * l->kernel_w == 1u && l->stride_h * l->stride_w == 1u &&
                         l->pad_top + l->pad_left == 0 && in_c == row;
    int8_t *out = arena + l->out + l->first_channel;
    const uint32_t pairs = (n + 1u) / 2u;
    range mine = share(pairs * groups, pairs >= 6u * n_cores ? groups : 1u, core, n_cores);
    uint32_t p = mine.first / groups * 2u, group = mine.first % groups;
    for (uint32_t i = mine.first, done; i < mine.end; i += done, p += 2u, group = 0) {
        uint32_t q = p + 1u < n ? p + 1u : p;
        done = groups - group < mine.end - i ? groups - group : mine.end - i;
        uint32_t to = 4u * (group + done) < channels ? 4u * (group + done) : channels;
        const int8_t *x0 = in_place ? in + p * in_c : window(l, in, scratch, p), *x1 = x0;
        if (q != p) {
            x1 = in_place ? in + q * in_c : window(l, in, scratch + row, q);
        }
        pixels(&all, weights, row, x0, x1, out + p * out_c, out + q * out_c, 4u * group, to, way);
    }
}

static void conv(const kws_image *image, const kws_layer *l, int8_t *arena, int8_t *scratch, uint32_t core,
                 uint32_t n_cores) {
    switch (way_of(l)) {
    case QUICK_POSITIVE:
        conv_pixels(image, l, arena, scratch, core, n_cores, QUICK_POSITIVE);
        break;
    case QUICK:
        conv_pixels(image, l, arena, scratch, core, n_cores, QUICK);
        break;
    default:
        conv_pixels(image, l, arena, scratch, core, n_cores, EXACT);
    }
}

static void linear(const kws_image *image, const kws_layer *l, int8_t *arena, int8_t *scratch, uint32_t core,
                   uint32_t n_cores) {
    range mine = share(l->out_c, 1, core, n_cores);
    uint32_t n = l->in_h * l->in_w * l->in_c;
    const int8_t *weights = (const int8_t *)(image->bytes + l->weights);
    const int32_t *bias = table(image, l->bias), *multipliers = table(image, l->multipliers);
    const int32_t *shifts = table(image, l->shifts);
    const int8_t *x = arena + l->in0;
    if (l->row_bytes > n) {
        memcpy(scratch, x, n);
        memset(scratch + n, 0, l->row_bytes - n);
        x = scratch;
    }
    for (uint32_t c = mine.first; c < mine.end; c++) {
        int32_t sum = dot_1x1(x, weights + c * l->row_bytes, l->row_bytes) + bias[c];
        arena[l->out + c] = limited(l, kws_requantise_once(sum, multipliers[c], shifts[c]));
    }
}

#define MAX_TAPS 64u

#ifdef KWS_DOT_WORDS
/* What one line of outputs of one channel reads: three lines of the map side by side. A line goes down or across. */
typedef struct {
    const int8_t *at[3];
    uint32_t step[3];
    uint32_t weights[3];  /* across the lines */
    uint32_t outside;     /* three zero points */
    int before, after;    /* whether there are values before the first output and after the last */
    int skips;            /* every second value only */
    scale to;
} line;

static inline uint32_t next_three(const int8_t *at[3], const uint32_t step[3]) {
    uint32_t first = kws_next_byte(&at[0], step[0]), second = kws_next_byte(&at[1], step[1]);
    return kws_three_bytes(first, second, kws_next_byte(&at[2], step[2]));
}

static inline int8_t of_nine(const line *in, uint32_t before, uint32_t here, uint32_t after, enum way way) {
    int32_t sum = kws_dot4(here, in->weights[1], kws_dot4(before, in->weights[0], in->to.bias));
    return scaled(&in->to, kws_dot4(after, in->weights[2], sum), way);
}

static inline __attribute__((always_inline)) void line_of_outputs(const line *given, int8_t *out, uint32_t out_step,
                                                                  uint32_t n, enum way way) {
    const line in = *given;
    const int8_t *at[3] = {in.at[0], in.at[1], in.at[2]};
    uint32_t before = in.before ? next_three(at, in.step) : in.outside, here = next_three(at, in.step), after;
    if (in.skips) { /* stride 2: what is after one output is before the next */
        for (; n > 0; n--, out += out_step) {
            after = n > 1u || in.after ? next_three(at, in.step) : in.outside;
            *out = of_nine(&in, before, here, after, way);
            before = after;
            here = n > 1u ? next_three(at, in.step) : 0;
        }
        return;
    }
    for (; n > 3u; n -= 3u, out += out_step) { /* each three are `before`, `here` and `after` in turn */
        after = next_three(at, in.step);
        *out = of_nine(&in, before, here, after, way);
        before = next_three(at, in.step);
        out += out_step;
        *out = of_nine(&in, here, after, before, way);
        here = next_three(at, in.step);
        out += out_step;
        *out = of_nine(&in, after, before, here, way);
    }
    for (; n > 0; n--, out += out_step) {
        after = n > 1u || in.after ? next_three(at, in.step) : in.outside;
        *out = of_nine(&in, before, here, after, way);
        before = here;
        here = after;
    }
}

static __attribute__((noinline)) void run_line(const line *in, int8_t *out, uint32_t step, uint32_t n, enum way way) {
    if (way == QUICK_POSITIVE) {
        line_of_outputs(in, out, step, n, QUICK_POSITIVE);
    } else {
        line_of_outputs(in, out, step, n, QUICK);
    }
}

/* One side of a map: along it lines go, or side by side. */
typedef struct {
    uint32_t in, out, stride, pad, in_step, out_step, weight_step;
} side;

static int can_slide(const side *s) {
    return s->stride <= 2u && s->pad <= 1u && s->in + s->pad >= (s->out - 1u) * s->stride + 2u;
}

/* 3x3 over channels of their own. Channels are shared; along a line of outputs, each three values across it are read once,
 * as a word. Lines go along the longer side. Returns 0 where a layer is none such. */
static int depthwise_3x3(const kws_image *image, const kws_layer *l, int8_t *arena, int8_t *scratch, uint32_t core,
                         uint32_t n_cores) {
    const uint32_t channels = l->in_c, zero = (uint8_t)l->in0_zero_point;
    side along = {l->in_h, l->out_h, l->stride_h, l->pad_top, l->in_w * channels, l->out_w * channels, 3u};
    side across = {l->in_w, l->out_w, l->stride_w, l->pad_left, channels, channels, 1u};
    if (!l->quick || l->kernel_h != 3u || l->kernel_w != 3u || l->in1_values != 1u) {
        return 0;
    }
    if (!can_slide(&along) || (across.out > along.out && can_slide(&across))) {
        side turned = along;
        along = across;
        across = turned;
    }
    if (!can_slide(&along)) {
        return 0;
    }
    range mine = share(l->out_c, 1, core, n_cores);
    const scales all = scales_of(image, l);
    const enum way way = way_of(l);
    const int8_t *in = arena + l->in0;
    int8_t *out = arena + l->out;
    line now;
    now.before = along.pad == 0;
    now.after = along.in + along.pad >= (along.out - 1u) * along.stride + 3u;
    now.skips = along.stride == 2u;
    now.outside = kws_three_bytes(zero, zero, zero);
    scratch[0] = (int8_t)zero;
    for (uint32_t c = mine.first; c < mine.end; c++) {
        const uint8_t *w = image->bytes + l->weights + 9u * c;
        for (uint32_t i = 0; i < 3u; i++, w += along.weight_step) {
            now.weights[i] = kws_three_bytes(w[0], w[across.weight_step], w[2u * across.weight_step]);
        }
        now.to = scale_of(&all, c, way);
        for (uint32_t j = 0; j < across.out; j++) {
            for (uint32_t i = 0; i < 3u; i++) { /* a line outside is one zero point again and again */
                int32_t from = (int32_t)(j * across.stride + i) - (int32_t)across.pad;
                int inside = from >= 0 && from < (int32_t)across.in;
                now.at[i] = inside ? in + (uint32_t)from * across.in_step + c : scratch;
                now.step[i] = inside ? along.in_step : 0;
            }
            run_line(&now, out + j * across.out_step + c, along.out_step, along.out, way);
        }
    }
    return 1;
}
#endif

/* Pixels are shared; what lies outside the map reads as the zero point, whose share is in the bias. */
static void depthwise(const kws_image *image, const kws_layer *l, int8_t *arena, int8_t *scratch, uint32_t core,
                      uint32_t n_cores) {
#ifdef KWS_DOT_WORDS
    if (depthwise_3x3(image, l, arena, scratch, core, n_cores)) {
        return;
    }
#endif
    range mine = share(l->out_h * l->out_w, 1, core, n_cores);
    const int8_t *in = arena + l->in0, *weights = (const int8_t *)(image->bytes + l->weights);
    const scales all = scales_of(image, l);
    uint32_t taps = l->kernel_h * l->kernel_w, per_input = l->in1_values;
    const int8_t *at[MAX_TAPS];
    fill(scratch, l->in0_zero_point, l->in_c);
    for (uint32_t p = mine.first; p < mine.end; p++) {
        int32_t top = (int32_t)(p / l->out_w * l->stride_h) - (int32_t)l->pad_top;
        int32_t left = (int32_t)(p % l->out_w * l->stride_w) - (int32_t)l->pad_left;
        for (uint32_t t = 0; t < taps; t++) {
            int32_t y = top + (int32_t)(t / l->kernel_w), x = left + (int32_t)(t % l->kernel_w);
            int beyond = y < 0 || y >= (int32_t)l->in_h || x < 0 || x >= (int32_t)l->in_w;
            at[t] = beyond ? scratch : in + ((uint32_t)y * l->in_w + (uint32_t)x) * l->in_c;
        }
        int8_t *out = arena + l->out + p * l->out_c;
        const int8_t *w = weights;
        for (uint32_t c = 0; c < l->out_c; c++, w += taps) {
            uint32_t source = per_input == 1u ? c : c / per_input;
            scale s = scale_of(&all, c, EXACT);
            int32_t sum = s.bias;
            if (taps == 9u) {
                sum += at[0][source] * w[0] + at[1][source] * w[1] + at[2][source] * w[2] + at[3][source] * w[3] +
                       at[4][source] * w[4] + at[5][source] * w[5] + at[6][source] * w[6] + at[7][source] * w[7] +
                       at[8][source] * w[8];
            } else {
                for (uint32_t t = 0; t < taps; t++) {
                    sum += at[t][source] * w[t];
                }
            }
            out[c] = scaled(&s, sum, EXACT);
        }
    }
}

/* Sums of one channel, or of four (KWS_DOT_WORDS: 4-aligned) that lie side by side, over rows [y0, y1) and columns [x0, x1)
 * of a map. */
static void sums_over(const kws_layer *l, const int8_t *in, uint32_t y0, uint32_t y1, uint32_t x0, uint32_t x1,
                      uint32_t group, int32_t sums[4]) {
    int32_t s0 = 0, s1 = 0, s2 = 0, s3 = 0;
    for (uint32_t y = y0; y < y1; y++) {
        const int8_t *at = in + (y * l->in_w + x0) * l->in_c;
        for (uint32_t x = x0; x < x1; x++, at += l->in_c) {
            if (group == 1u) {
                s0 += *at;
                continue;
            }
#ifdef KWS_DOT_WORDS
            const int8_t *next = at;
            uint32_t word = kws_next_word(&next);
            s0 = kws_dot4(word, 1u, s0);
            s1 = kws_dot4(word, 1u << 8, s1);
            s2 = kws_dot4(word, 1u << 16, s2);
            s3 = kws_dot4(word, 1u << 24, s3);
#else
            s0 += at[0], s1 += at[1], s2 += at[2], s3 += at[3];
#endif
        }
    }
    sums[0] = s0, sums[1] = s1, sums[2] = s2, sums[3] = s3;
}

/* Outputs are shared, four channels at a time where they come in fours. */
static void average_pool(const kws_layer *l, int8_t *arena, uint32_t core, uint32_t n_cores) {
    uint32_t group = l->out_c % 4u == 0 ? 4u : 1u;
    range mine = share(l->out_h * l->out_w * l->out_c, group, core, n_cores);
    const int8_t *in = arena + l->in0;
    int32_t sums[4];
    for (uint32_t i = mine.first; i < mine.end; i += group) {
        uint32_t p = i / l->out_c;
        int32_t top = (int32_t)(p / l->out_w * l->stride_h) - (int32_t)l->pad_top;
        int32_t left = (int32_t)(p % l->out_w * l->stride_w) - (int32_t)l->pad_left;
        int32_t y0 = top < 0 ? 0 : top, x0 = left < 0 ? 0 : left;
        int32_t y1 = top + (int32_t)l->kernel_h, x1 = left + (int32_t)l->kernel_w;
        y1 = y1 > (int32_t)l->in_h ? (int32_t)l->in_h : y1;
        x1 = x1 > (int32_t)l->in_w ? (int32_t)l->in_w : x1;
        sums_over(l, in + i % l->out_c, (uint32_t)y0, (uint32_t)y1, (uint32_t)x0, (uint32_t)x1, group, sums);
        int32_t n = (y1 - y0) * (x1 - x0);
        for (uint32_t j = 0; j < group; j++) {
            int32_t mean = (sums[j] > 0 ? sums[j] + n / 2 : sums[j] - n / 2) / n;
            arena[l->out + i + j] = (int8_t)kws_within(mean, l->low, l->high);
        }
    }
}

static void mean(const kws_image *image, const kws_layer *l, int8_t *arena, uint32_t core, uint32_t n_cores) {
    uint32_t group = l->out_c % 4u == 0 ? 4u : 1u;
    range mine = share(l->out_h * l->out_w * l->out_c, group, core, n_cores);
    const int8_t *in = arena + l->in0;
    int32_t multiplier = table(image, l->multipliers)[0], shift = table(image, l->shifts)[0];
    int32_t zero = l->in0_zero_point * (int32_t)(l->kernel_h * l->kernel_w), sums[4];
    for (uint32_t i = mine.first; i < mine.end; i += group) {
        uint32_t p = i / l->out_c;
        uint32_t y = l->kernel_h == 1u ? p / l->out_w : 0, x = l->kernel_w == 1u ? p % l->out_w : 0;
        sums_over(l, in + i % l->out_c, y, y + l->kernel_h, x, x + l->kernel_w, group, sums);
        for (uint32_t j = 0; j < group; j++) {
            arena[l->out + i + j] = limited(l, kws_requantise(sums[j] - zero, multiplier, shift));
        }
    }
}

/* x * multiplier * 2^-(31 + right), |x| < 2^29: as kws_requantise(x, multiplier, -right). */
static inline int32_t quick_sum(int32_t x, int32_t multiplier, int32_t right) {
    int32_t high = quick_product(x, multiplier);
    return right ? (high + (high >> 31) + (1 << right >> 1)) >> right : high;
}

/* quick: shifts within -20 ... 0; 255 * 2^20 twice is less than 2^29 */
static void add(const kws_image *image, const kws_layer *l, int8_t *arena, uint32_t core, uint32_t n_cores) {
    range mine = share(l->in1_values, 4, core, n_cores);
    const int8_t *a = arena + l->in0, *b = arena + l->in1;
    int8_t *out = arena + l->out;
    const int32_t *multipliers = table(image, l->multipliers), *shifts = table(image, l->shifts);
    const int32_t m0 = multipliers[0], m1 = multipliers[1], m2 = multipliers[2];
    const int32_t s0 = shifts[0], s1 = shifts[1], s2 = shifts[2], zero0 = l->in0_zero_point, zero1 = l->in1_zero_point;
    const int32_t zero = l->out_zero_point, low = l->low, high = l->high;
    const uint32_t quick = l->quick;
    for (uint32_t i = mine.first; i < mine.end; i++) {
        int32_t x = (a[i] - zero0) * (1 << ADD_LEFT_SHIFT), y = (b[i] - zero1) * (1 << ADD_LEFT_SHIFT), sum;
        if (quick) {
            sum = quick_sum(quick_sum(x, m0, -s0) + quick_sum(y, m1, -s1), m2, -s2);
        } else {
            sum = (int32_t)((uint32_t)kws_requantise(x, m0, s0) + (uint32_t)kws_requantise(y, m1, s1));
            sum = kws_requantise(sum, m2, s2);
        }
        out[i] = (int8_t)kws_within(sum + zero, low, high);
    }
}

static void mul(const kws_image *image, const kws_layer *l, int8_t *arena, uint32_t core, uint32_t n_cores) {
    uint32_t n = l->in_h * l->in_w * l->in_c, gate = l->in1_values;
    range mine = share(n, 4, core, n_cores);
    const int8_t *a = arena + l->in0, *b = arena + l->in1;
    int8_t *out = arena + l->out;
    const int32_t multiplier = table(image, l->multipliers)[0], shift = table(image, l->shifts)[0];
    const int32_t zero0 = l->in0_zero_point, zero1 = l->in1_zero_point, zero = l->out_zero_point;
    const int32_t low = l->low, high = l->high;
    const uint32_t quick = l->quick;
    uint32_t j = mine.first % gate;
    for (uint32_t i = mine.first; i < mine.end; i++, j = j + 1u == gate ? 0 : j + 1u) {
        int32_t product = (a[i] - zero0) * (b[j] - zero1);
        product = quick ? quick_sum(product, multiplier, -shift) : kws_requantise(product, multiplier, shift);
        out[i] = (int8_t)kws_within(product + zero, low, high);
    }
}

static void lookup(const kws_image *image, const kws_layer *l, int8_t *arena, uint32_t core, uint32_t n_cores) {
    range mine = share(l->in_h * l->in_w * l->in_c, 4, core, n_cores);
    const int8_t *values = (const int8_t *)(image->bytes + l->weights), *in = arena + l->in0;
    for (uint32_t i = mine.first; i < mine.end; i++) {
        arena[l->out + i] = values[in[i] + 128];
    }
}

/* gemmlowp's fixed point, Q0.31 unless told */
static int32_t high_mul(int32_t a, int32_t b) { return (int32_t)(((int64_t)a * b + (1 << 30)) >> 31); }

static int32_t rounding_shift(int32_t x, int32_t exponent) {
    int32_t mask = (int32_t)((1u << exponent) - 1u);
    return (x >> exponent) + ((x & mask) > (int32_t)((uint32_t)mask >> 1) + (x < 0));
}

static int32_t saturating_left(int32_t x, int32_t exponent) {
    int64_t y = (int64_t)x * (1 << exponent);
    return (int32_t)(y > INT32_MAX ? INT32_MAX : y < INT32_MIN ? INT32_MIN : y);
}

/* 1 / (1 + a), a in [0, 1]: Newton-Raphson from 48/17 - 32/17 x, in Q2.29 */
static int32_t one_over_one_plus(int32_t a) {
    int32_t half = (int32_t)(((int64_t)a + INT32_MAX + 1) / 2);
    int32_t x = 1515870810 + high_mul(half, -1010580540);
    for (int i = 0; i < 3; i++) {
        x += saturating_left(high_mul(x, (1 << 29) - high_mul(half, x)), 2);
    }
    return saturating_left(x, 1);
}

static void softmax(const kws_image *image, const kws_layer *l, int8_t *arena) {
    uint32_t n = l->in_h * l->in_w * l->in_c;
    const int32_t *exponentials = table(image, l->bias);
    const int8_t *in = arena + l->in0;
    int32_t greatest = -128, sum = 0;
    for (uint32_t i = 0; i < n; i++) {
        greatest = in[i] > greatest ? in[i] : greatest;
    }
    for (uint32_t i = 0; i < n; i++) {
        sum = (int32_t)((uint32_t)sum + (uint32_t)rounding_shift(exponentials[greatest - in[i]], SUM_BITS));
    }
    int32_t leading = 0;
    while (leading < 31 && !((uint32_t)sum << leading >> 31)) {
        leading++;
    }
    int32_t one_over = one_over_one_plus((int32_t)(((uint32_t)sum << leading) - (1u << 31)));
    int32_t exponent = SUM_BITS - leading + 31 - 8;
    for (uint32_t i = 0; i < n; i++) {
        int32_t score = high_mul(one_over, exponentials[greatest - in[i]]);
        score = (exponent < 0 || exponent > 31 ? 0 : rounding_shift(score, exponent)) - 128;
        arena[l->out + i] = (int8_t)(score > 127 ? 127 : score < -128 ? -128 : score);
    }
}

void kws_run_layer(const kws_image *image, const kws_layer *l, int8_t *arena, int8_t *scratch, uint32_t core,
                   uint32_t n_cores) {
    switch (l->kind) {
    case KWS_CONV:
        conv(image, l, arena, scratch, core, n_cores);
        break;
    case KWS_DEPTHWISE:
        depthwise(image, l, arena, scratch, core, n_cores);
        break;
    case KWS_LINEAR:
        linear(image, l, arena, scratch, core, n_cores);
        break;
    case KWS_AVERAGE_POOL:
        average_pool(l, arena, core, n_cores);
        break;
    case KWS_MEAN:
        mean(image, l, arena, core, n_cores);
        break;
    case KWS_ADD:
        add(image, l, arena, core, n_cores);
        break;
    case KWS_MUL:
        mul(image, l, arena, core, n_cores);
        break;
    case KWS_LOOKUP:
        lookup(image, l, arena, core, n_cores);
        break;
    case KWS_SOFTMAX:
        if (core == 0) {
            softmax(image, l, arena);
        }
        break;
    default:
        break;
    }
}
