#include "kws_image.h"

#include "kws_packet.h"

static uint32_t word(const uint8_t *bytes, uint32_t index) {
    const uint8_t *p = bytes + 4u * index;
    return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

uint32_t kws_image_head_bytes(const uint8_t *bytes) {
    uint32_t n_layers = word(bytes, 4);
    return 4u * (KWS_HEADER_WORDS + KWS_LAYER_WORDS * (n_layers < KWS_MAX_LAYERS ? n_layers : KWS_MAX_LAYERS));
}

uint32_t kws_image_crc32(const kws_image *image, uint32_t from, uint32_t n) {
    if (image->read == 0) {
        return kws_crc32(0, image->bytes + from, n);
    }
    uint32_t crc = 0, piece[64];
    for (uint32_t part; n > 0; from += part, n -= part) {
        part = n < sizeof piece ? n : (uint32_t)sizeof piece;
        image->read(image->read_self, piece, image->far_at + from, part);
        crc = kws_crc32(crc, (const uint8_t *)piece, part);
    }
    return crc;
}

static uint32_t constant(const kws_image *image, uint32_t index) {
    uint32_t value;
    if (image->read == 0) {
        return word(image->bytes, index);
    }
    image->read(image->read_self, &value, image->far_at + 4u * index, 4u);
    return value;
}

/* a * b * c, or UINT32_MAX where that is no 32-bit size; each factor at most KWS_MAX_DIMENSION */
static uint32_t volume(uint32_t a, uint32_t b, uint32_t c) {
    uint64_t product = (uint64_t)a * b;
    if (product > UINT32_MAX) {
        return UINT32_MAX;
    }
    product *= c;
    return product > UINT32_MAX ? UINT32_MAX : (uint32_t)product;
}

static int inside(uint32_t first, uint32_t n, uint32_t end) { return first <= end && n <= end - first; }

static int constants(uint32_t offset, uint32_t n_bytes, uint32_t size) {
    return offset % 4u == 0 && inside(offset, n_bytes, size);
}

static int dimension(uint32_t n) { return n >= 1u && n <= KWS_MAX_DIMENSION; }

static int zero_point(int32_t z) { return z >= -128 && z <= 127; }

/* A window's output size: the last one begins inside the padded map, and each holds at least one value of the map. */
static int window_fits(uint32_t in, uint32_t out, uint32_t kernel, uint32_t stride, uint32_t pad) {
    return pad < kernel && (uint64_t)(out - 1u) * stride < (uint64_t)in + pad;
}

static int tables_fit(const kws_layer *l, uint32_t n, uint32_t size, const kws_image *image) {
    if (l->n_tables != n || !constants(l->multipliers, 4u * n, size) || !constants(l->shifts, 4u * n, size)) {
        return 0;
    }
    int32_t least = l->quick ? -20 : -31, most = !l->quick ? 30 : l->kind == KWS_ADD || l->kind == KWS_MUL ? 0 : -1;
    for (uint32_t i = 0; i < n; i++) {
        int32_t multiplier = (int32_t)constant(image, l->multipliers / 4u + i);
        int32_t shift = (int32_t)constant(image, l->shifts / 4u + i);
        if (multiplier < 0 || shift < least || shift > most) {
            return 0;
        }
    }
    return 1;
}

/* A convolution and the depthwise layer after it, which reads nothing but its map, a band of rows at a time. */
static int band_fits(const kws_layer *l, const kws_image *image) {
    const kws_layer *next = l + 1;
    if (l->kind != KWS_CONV || next >= image->layers + image->n_layers || next->kind != KWS_DEPTHWISE ||
        next->band_rows != 0 || next->in_h != l->out_h || next->in_w != l->out_w || next->in_c != l->out_c ||
        next->in0 != l->out || !dimension(l->band_rows) || !dimension(next->kernel_h) || !dimension(next->stride_h)) {
        return 0;
    }
    uint64_t rows = (uint64_t)(l->band_rows - 1u) * next->stride_h + next->kernel_h;
    rows = rows > l->out_h ? l->out_h : rows;
    return volume((uint32_t)rows, l->out_w, l->out_c) <= l->band_bytes;
}

/* Sizes of what its kind does not have are zero: who brings constants near goes by the sizes alone. */
static int owns_no_more(const kws_layer *l) {
    int weights = l->kind == KWS_CONV || l->kind == KWS_DEPTHWISE || l->kind == KWS_LINEAR || l->kind == KWS_LOOKUP;
    int tables = l->kind != KWS_AVERAGE_POOL && l->kind != KWS_LOOKUP && l->kind != KWS_SOFTMAX;
    return (weights || l->weight_bytes == 0) && (tables || l->n_tables == 0) && l->first_channel == 0 &&
           l->end_channel == 0 && l->quick <= 1u && (l->band_rows != 0 || l->band_bytes == 0) && l->spare == 0;
}

static int layer_fits(const kws_layer *l, const kws_image *image, uint32_t size, uint32_t scratch_bytes) {
    const uint32_t dimensions[] = {l->in_h,  l->in_w,     l->in_c,     l->out_h,    l->out_w,
                                   l->out_c, l->kernel_h, l->kernel_w, l->stride_h, l->stride_w};
    for (uint32_t i = 0; i < sizeof dimensions / sizeof *dimensions; i++) {
        if (!dimension(dimensions[i])) {
            return 0;
        }
    }
    uint32_t in_bytes = volume(l->in_h, l->in_w, l->in_c), out_bytes = volume(l->out_h, l->out_w, l->out_c);
    uint32_t in_held = in_bytes, out_held = out_bytes; /* what the arena holds of them */
    if (l->band_rows != 0) {
        if (!band_fits(l, image)) {
            return 0;
        }
        out_held = l->band_bytes;
    } else if (l != image->layers && l[-1].band_rows != 0) {
        in_held = l[-1].band_bytes; /* band_fits has seen that this is the depthwise layer meant */
    }
    if (l->kind >= KWS_KINDS || !owns_no_more(l) || !inside(l->in0, in_held, image->arena_bytes) || l->in0 % 4u || l->out % 4u ||
        !inside(l->out, out_held, image->arena_bytes) || l->low < -128 || l->high > 127 || l->low > l->high ||
        !zero_point(l->in0_zero_point) || !zero_point(l->in1_zero_point) || !zero_point(l->out_zero_point)) {
        return 0;
    }
    int windowed = window_fits(l->in_h, l->out_h, l->kernel_h, l->stride_h, l->pad_top) &&
                   window_fits(l->in_w, l->out_w, l->kernel_w, l->stride_w, l->pad_left);
    uint32_t taps = volume(l->kernel_h, l->kernel_w, 1u);
    switch (l->kind) {
    case KWS_CONV: {
        uint32_t row = volume(l->kernel_h, l->kernel_w, l->in_c);
        return windowed && l->row_bytes % 4u == 0 &&
               l->row_bytes >= row && l->row_bytes <= scratch_bytes / 2u &&
               l->weight_bytes == volume(l->out_c, l->row_bytes, 1u) && constants(l->weights, l->weight_bytes, size) &&
               constants(l->bias, 4u * l->out_c, size) && tables_fit(l, l->out_c, size, image);
    }
    case KWS_LINEAR:
        return l->out_h == 1u && l->out_w == 1u && l->row_bytes % 4u == 0 && l->row_bytes >= in_bytes &&
               l->row_bytes <= scratch_bytes / 2u && l->weight_bytes == volume(l->out_c, l->row_bytes, 1u) &&
               constants(l->weights, l->weight_bytes, size) && constants(l->bias, 4u * l->out_c, size) &&
               tables_fit(l, l->out_c, size, image);
    case KWS_DEPTHWISE:
        return windowed && taps <= 64u && l->in1_values >= 1u && l->in1_values <= KWS_MAX_DIMENSION &&
               (uint64_t)l->in_c * l->in1_values == l->out_c && l->in_c <= scratch_bytes &&
               l->weight_bytes == volume(taps, l->out_c, 1u) && constants(l->weights, l->weight_bytes, size) &&
               constants(l->bias, 4u * l->out_c, size) && tables_fit(l, l->out_c, size, image);
    case KWS_AVERAGE_POOL:
        return windowed && l->in_c == l->out_c;
    case KWS_MEAN:
        return l->in_c == l->out_c && (l->kernel_h == 1u || l->kernel_h == l->in_h) &&
               (l->kernel_w == 1u || l->kernel_w == l->in_w) && l->out_h == l->in_h / l->kernel_h &&
               l->out_w == l->in_w / l->kernel_w && tables_fit(l, 1u, size, image);
    case KWS_ADD:
        return in_bytes == out_bytes && l->in1_values == in_bytes && inside(l->in1, in_bytes, image->arena_bytes) &&
               tables_fit(l, 3u, size, image);
    case KWS_MUL:
        return in_bytes == out_bytes && (l->in1_values == in_bytes || l->in1_values == l->in_c) &&
               inside(l->in1, l->in1_values, image->arena_bytes) && tables_fit(l, 1u, size, image);
    case KWS_LOOKUP:
        return in_bytes == out_bytes && l->weight_bytes == 256u && constants(l->weights, 256u, size);
    case KWS_SOFTMAX:
        return in_bytes == out_bytes && in_bytes <= KWS_MAX_CLASSES && constants(l->bias, 1024u, size);
    default:
        return 0;
    }
}

enum kws_image_fault kws_image_open(kws_image *image, uint32_t size, uint32_t arena_bytes, uint32_t scratch_bytes) {
    const uint8_t *bytes = image->bytes;
    if (size < 4u * KWS_HEADER_WORDS || word(bytes, 0) != KWS_IMAGE_MAGIC || word(bytes, 1) != KWS_IMAGE_VERSION) {
        return KWS_IMAGE_NOT_ONE;
    }
    if (word(bytes, 2) != size || size % 4u) {
        return KWS_IMAGE_SIZE;
    }
    if (kws_image_crc32(image, 16u, size - 16u) != word(bytes, 3)) {
        return KWS_IMAGE_CHECKSUM;
    }
    image->n_layers = word(bytes, 4);
    image->arena_bytes = word(bytes, 5);
    image->input = word(bytes, 6);
    image->input_bytes = word(bytes, 7);
    image->frame_bytes = word(bytes, 8);
    image->output = word(bytes, 9);
    image->n_classes = word(bytes, 10);
    image->scratch_bytes = word(bytes, 11);
    image->layers = (const kws_layer *)(const void *)(bytes + 4u * KWS_HEADER_WORDS);
    if (image->arena_bytes > arena_bytes || image->scratch_bytes > scratch_bytes) {
        return KWS_IMAGE_MEMORY;
    }
    if (image->n_layers < 1u || image->n_layers > KWS_MAX_LAYERS || image->input % 4u ||
        !inside(4u * KWS_HEADER_WORDS, 4u * KWS_LAYER_WORDS * image->n_layers, size) || image->n_classes < 1u ||
        image->n_classes > KWS_MAX_CLASSES || !inside(image->input, image->input_bytes, image->arena_bytes) ||
        !inside(image->output, image->n_classes, image->arena_bytes) || image->frame_bytes < 1u ||
        image->input_bytes % image->frame_bytes) {
        return KWS_IMAGE_LAYER;
    }
    for (uint32_t i = KWS_HEADER_USED; i < KWS_HEADER_WORDS; i++) {
        if (word(bytes, i) != 0) {
            return KWS_IMAGE_LAYER;
        }
    }
    for (uint32_t i = 0; i < image->n_layers; i++) {
        if (!layer_fits(&image->layers[i], image, size, image->scratch_bytes)) {
            return KWS_IMAGE_LAYER;
        }
    }
    return KWS_IMAGE_OK;
}
