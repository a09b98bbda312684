/* One layer on all cores, where it lies or brought into near memory piece by piece. */
#ifndef KWS_TEAM_H
#define KWS_TEAM_H

#include "kws_image.h"
#include "kws_port.h"

typedef struct {
    kws_port *port;
    int8_t *arena;
    int8_t *scratch; /* n_cores x scratch_bytes */
    uint32_t scratch_bytes;
    uint32_t near_arena; /* bytes of near memory that hold all maps, from its beginning; 0: maps come and go */
} kws_team;

/* Before the first layer: where all maps fit near memory beside the constants of any one layer, they stay there. */
void kws_team_begin(kws_team *team, const kws_image *image);

/* After the last: the scores are in the arena when this returns. */
void kws_team_end(const kws_team *team, const kws_image *image);

/* Bytes that the constants of any layer, or of two that run by turns, need beside an image that lies far. */
uint32_t kws_stage_bytes(const kws_image *image);

/* Bring the layer's constants, and of one with band_rows the next one's, to image->stage: `staged` are the layers and
 * `at_hand` the image that point to them. */
void kws_stage(const kws_image *image, const kws_layer *layer, kws_layer staged[2], kws_image *at_hand);

/* Run the layer; its output is in the arena, or where that is near memory, when this returns. */
void kws_run_on_team(const kws_team *team, const kws_image *image, const kws_layer *layer);

/* Run a layer with band_rows and the depthwise one after it. */
void kws_run_fused(const kws_team *team, const kws_image *image, const kws_layer *layer);

#endif
