/* A board image: a model compiled by `kws-board compile`, read where it lies. Little-endian, every offset a multiple of 4.
 *
 * header  KWS_HEADER_WORDS words, then n_layers records of KWS_LAYER_WORDS words, then the constants they point to.
 * Nothing in an image is trusted: kws_image_open checks every offset and size before a kernel sees it.
 */
#ifndef KWS_IMAGE_H
#define KWS_IMAGE_H

#include <stdint.h>

#define KWS_IMAGE_MAGIC 0x4253574bu /* "KWSB" */
#define KWS_IMAGE_VERSION 1u
#define KWS_HEADER_WORDS 16u
#define KWS_HEADER_USED 12u /* the rest is zero */
#define KWS_LAYER_WORDS 36u
#define KWS_MAX_LAYERS 160u
#define KWS_MAX_CLASSES 256u
#define KWS_MAX_DIMENSION 65536u

enum kws_kind {
    KWS_CONV,         /* weights (out, row_bytes): kernel rows of (kh, kw, in), padded with zeros to a multiple of 4 */
    KWS_DEPTHWISE,    /* weights (out, kh * kw) */
    KWS_LINEAR,       /* as KWS_CONV, over the whole map; rounded once */
    KWS_AVERAGE_POOL,
    KWS_MEAN,
    KWS_ADD,
    KWS_MUL,
    KWS_LOOKUP,       /* weights: 256 bytes */
    KWS_SOFTMAX,      /* bias: 256 exponentials */
    KWS_KINDS
};

enum kws_image_fault {
    KWS_IMAGE_OK,
    KWS_IMAGE_NOT_ONE,     /* no magic, or another version */
    KWS_IMAGE_SIZE,        /* its size is not what its header says */
    KWS_IMAGE_CHECKSUM,
    KWS_IMAGE_LAYER,       /* a layer that points outside, or whose shapes do not fit */
    KWS_IMAGE_MEMORY       /* its maps do not fit this board */
};

/* One step, as in the image. Map offsets count from the arena, constants' from the image. */
typedef struct {
    uint32_t kind;
    uint32_t in0, in1, out;
    uint32_t in_h, in_w, in_c;
    uint32_t out_h, out_w, out_c;
    uint32_t kernel_h, kernel_w, stride_h, stride_w, pad_top, pad_left;
    int32_t in0_zero_point, in1_zero_point, out_zero_point, low, high;
    uint32_t weights, weight_bytes, bias, multipliers, shifts;
    uint32_t row_bytes;    /* of one output's weights */
    uint32_t operations;
    uint32_t in1_values;   /* add, mul: values of the second map; depthwise: outputs an input channel has */
    uint32_t n_tables;     /* multipliers and shifts there are */
    uint32_t first_channel; /* conv: what weights, bias and tables begin with; 0 in an image */
    uint32_t end_channel;   /* conv: 0 for all */
    uint32_t band_rows;     /* 0; else this layer and the next, a depthwise one, run that many of its rows at a time:
                               of this layer's map the arena holds what they read */
    uint32_t band_bytes;    /* of the arena at `out`, where band_rows is not 0 */
    uint32_t quick;         /* every sum is within 2^29, every shift within -20 ... -1, of add and mul ... 0 */
    uint32_t spare;
} kws_layer;

typedef struct {
    const uint8_t *bytes; /* all of it, or of an image that lies far its header and layers */
    /* 0, or how its constants are read, the image beginning at far_at, and where a layer's are kept while it runs */
    void (*read)(void *self, void *to, uint32_t from, uint32_t n);
    void *read_self;
    uint32_t far_at;
    uint8_t *stage;
    uint32_t n_layers;
    uint32_t arena_bytes;
    uint32_t input, input_bytes, frame_bytes; /* frame_bytes: of one row of the patch */
    uint32_t output, n_classes;
    uint32_t scratch_bytes; /* a core needs */
    const kws_layer *layers;
} kws_image;

/* Bytes of a header and its layers, which are always near. `bytes`: at least the header. */
uint32_t kws_image_head_bytes(const uint8_t *bytes);

/* The image's CRC-32 from byte `from`, wherever it lies. */
uint32_t kws_image_crc32(const kws_image *image, uint32_t from, uint32_t n);

/* Open an image of `size` bytes whose `bytes` (4-aligned; all, or the head) and `read` are set. `arena_bytes`,
 * `scratch_bytes`: what this board has. */
enum kws_image_fault kws_image_open(kws_image *image, uint32_t size, uint32_t arena_bytes, uint32_t scratch_bytes);

#endif
