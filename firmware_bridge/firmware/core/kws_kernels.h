/* int8 kernels, bit-exact with TFLite's reference kernels. Each runs on `n_cores` cores at once, which share the outputs. */
#ifndef KWS_KERNELS_H
#define KWS_KERNELS_H

#include <stdint.h>

#include "kws_image.h"

/* One core's part of one layer. Returns when its outputs are written; the caller waits for all cores. */
void kws_run_layer(const kws_image *image, const kws_layer *layer, int8_t *arena, int8_t *scratch, uint32_t core,
                   uint32_t n_cores);

/* x * multiplier * 2^(shift - 31), rounded twice: to 2^-31, halves up, then to an integer, halves away from zero. */
int32_t kws_requantise(int32_t x, int32_t multiplier, int32_t shift);

/* The same rounded once, halves up. */
int32_t kws_requantise_once(int32_t x, int32_t multiplier, int32_t shift);

#endif
