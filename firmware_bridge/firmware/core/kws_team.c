#include "kws_team.h"

#include "kws_kernels.h"

typedef struct {
    const kws_team *team;
    const kws_image *image;
    const kws_layer *layer;
    int8_t *arena;
} part;

static void run_part(void *context, uint32_t core, uint32_t n_cores) {
    const part *p = context;
    int8_t *scratch = p->team->scratch + core * p->team->scratch_bytes;
    kws_run_layer(p->image, p->layer, p->arena, scratch, core, n_cores);
}

static void fork(const kws_team *team, const kws_image *image, const kws_layer *layer, int8_t *arena) {
    part p = {team, image, layer, arena};
    team->port->fork(team->port->self, run_part, &p);
}

static uint32_t aligned(uint32_t n) { return (n + 3u) & ~3u; }

/* Near memory under way: pieces are put one behind the other. */
typedef struct {
    const kws_team *team;
    uint32_t used;
} near_room;

static uint32_t bring(near_room *room, const void *from, uint32_t n) {
    uint32_t at = room->used;
    kws_port *port = room->team->port;
    port->copy(port->self, port->near_memory + at, from, n);
    room->used += aligned(n);
    return at;
}

/* Bytes of constants of `n` output channels. */
static uint32_t constant_bytes(const kws_layer *l, uint32_t n) {
    switch (l->kind) {
    case KWS_CONV:
    case KWS_LINEAR:
        return n * l->row_bytes + 12u * n;
    case KWS_DEPTHWISE:
        return aligned(l->weight_bytes) + 12u * n;
    case KWS_LOOKUP:
        return 256u;
    case KWS_SOFTMAX:
        return 1024u;
    default:
        return 8u * l->n_tables;
    }
}

uint32_t kws_stage_bytes(const kws_image *image) {
    uint32_t most = 0, before = 0;
    for (uint32_t i = 0; i < image->n_layers; i++) {
        uint32_t n = constant_bytes(&image->layers[i], image->layers[i].out_c);
        uint32_t both = n + (i > 0 && image->layers[i - 1u].band_rows != 0 ? before : 0);
        most = both > most ? both : most;
        before = n;
    }
    return aligned(most);
}

static uint32_t read_far(const kws_image *image, uint32_t from, uint32_t n, uint32_t *used) {
    uint32_t at = *used;
    image->read(image->read_self, image->stage + at, image->far_at + from, n);
    *used += aligned(n);
    return at;
}

void kws_stage(const kws_image *image, const kws_layer *layer, kws_layer staged[2], kws_image *at_hand) {
    uint32_t used = 0;
    *at_hand = *image;
    at_hand->bytes = image->stage;
    for (uint32_t i = 0; i < (layer->band_rows != 0 ? 2u : 1u); i++) {
        kws_layer *l = &staged[i];
        *l = layer[i];
        if (l->weight_bytes) {
            l->weights = read_far(image, l->weights, l->weight_bytes, &used);
        }
        if (l->kind == KWS_SOFTMAX) {
            l->bias = read_far(image, l->bias, 1024u, &used);
        } else if (l->kind == KWS_CONV || l->kind == KWS_LINEAR || l->kind == KWS_DEPTHWISE) {
            l->bias = read_far(image, l->bias, 4u * l->out_c, &used);
        }
        if (l->n_tables) {
            l->multipliers = read_far(image, l->multipliers, 4u * l->n_tables, &used);
            l->shifts = read_far(image, l->shifts, 4u * l->n_tables, &used);
        }
    }
}

/* The layer's constants for channels [first, end), near; the copy of the layer points to them. */
static void bring_constants(near_room *room, const kws_image *image, kws_layer *l, uint32_t first, uint32_t end) {
    const uint8_t *bytes = image->bytes;
    uint32_t n = end - first;
    int by_row = l->kind == KWS_CONV || l->kind == KWS_LINEAR;
    if (l->weight_bytes) {
        uint32_t skipped = by_row ? first * l->row_bytes : 0;
        l->weights = bring(room, bytes + l->weights + skipped, by_row ? n * l->row_bytes : l->weight_bytes);
    }
    if (by_row || l->kind == KWS_DEPTHWISE) {
        l->bias = bring(room, bytes + l->bias + 4u * first, 4u * n);
        l->multipliers = bring(room, bytes + l->multipliers + 4u * first, 4u * n);
        l->shifts = bring(room, bytes + l->shifts + 4u * first, 4u * n);
    } else if (l->kind == KWS_SOFTMAX) {
        l->bias = bring(room, bytes + l->bias, 1024u);
    } else if (l->n_tables) {
        l->multipliers = bring(room, bytes + l->multipliers, 4u * l->n_tables);
        l->shifts = bring(room, bytes + l->shifts, 4u * l->n_tables);
    }
}

/* Input rows that output rows [first, end) read. */
static void input_rows(const kws_layer *l, uint32_t first, uint32_t end, uint32_t *from, uint32_t *to) {
    uint32_t begin = first * l->stride_h, last = (end - 1u) * l->stride_h + l->kernel_h;
    *from = begin > l->pad_top ? begin - l->pad_top : 0;
    *to = last > l->pad_top ? last - l->pad_top : 0;
    *to = *to > l->in_h ? l->in_h : *to;
}

static uint32_t tile_bytes(const kws_layer *l, uint32_t rows) {
    uint32_t in_rows = (rows - 1u) * l->stride_h + l->kernel_h;
    in_rows = in_rows > l->in_h ? l->in_h : in_rows;
    return aligned(in_rows * l->in_w * l->in_c) + aligned(rows * l->out_w * l->out_c);
}

/* The most output rows whose maps fit beside the constants of `group` channels; 0: not one. */
static uint32_t rows_beside(const kws_layer *layer, uint32_t group, uint32_t room_bytes) {
    uint32_t rows = layer->out_h;
    while (rows > 0 && constant_bytes(layer, group) + tile_bytes(layer, rows) > room_bytes) {
        rows--;
    }
    return rows;
}

#define LEAST_GROUP 32u /* channels, of a convolution whose constants are brought in parts */

/* A convolution or pool, a band of output rows at a time, a group of output channels at a time within. */
static int run_banded(const kws_team *team, const kws_image *image, const kws_layer *layer) {
    kws_port *port = team->port;
    uint32_t group = layer->out_c, rows = rows_beside(layer, group, port->near_bytes);
    if (rows == 0) { /* not all constants at once: as few bands as can be, each of which brings them all again */
        uint32_t fewest = layer->out_h + 1u;
        for (uint32_t g = group; layer->kind == KWS_CONV && g > 4u;) {
            g = (g / 2u + 3u) & ~3u;
            uint32_t fit = rows_beside(layer, g, port->near_bytes), n = fit ? (layer->out_h + fit - 1u) / fit : fewest;
            if (n < fewest) {
                fewest = n, group = g, rows = fit;
            }
            if (g <= LEAST_GROUP) {
                break;
            }
        }
        if (rows == 0) {
            return 0;
        }
    }
    kws_image near_image = *image;
    near_image.bytes = port->near_memory;
    near_room constants = {team, 0};
    kws_layer held = *layer;
    if (group == layer->out_c) { /* kept for every band */
        bring_constants(&constants, image, &held, 0, group);
    }
    for (uint32_t row = 0; row < layer->out_h; row += rows) {
        uint32_t end = row + rows > layer->out_h ? layer->out_h : row + rows, from, to;
        input_rows(layer, row, end, &from, &to);
        near_room maps = constants;
        kws_layer tile = held;
        tile.in0 = bring(&maps, team->arena + layer->in0 + from * layer->in_w * layer->in_c,
                         (to - from) * layer->in_w * layer->in_c);
        tile.out = maps.used;
        maps.used += aligned((end - row) * layer->out_w * layer->out_c);
        tile.in_h = to - from;
        tile.out_h = end - row;
        tile.pad_top = layer->pad_top > row * layer->stride_h ? layer->pad_top - row * layer->stride_h : 0;
        for (uint32_t first = 0; first < layer->out_c; first += group) {
            uint32_t after = first + group > layer->out_c ? layer->out_c : first + group;
            if (group < layer->out_c) {
                near_room part_room = maps;
                tile.weights = layer->weights;
                tile.bias = layer->bias;
                tile.multipliers = layer->multipliers;
                tile.shifts = layer->shifts;
                bring_constants(&part_room, image, &tile, first, after);
                tile.first_channel = first;
                tile.end_channel = after;
            }
            fork(team, &near_image, &tile, (int8_t *)port->near_memory);
        }
        port->copy(port->self, team->arena + layer->out + row * layer->out_w * layer->out_c, port->near_memory + tile.out,
                   (end - row) * layer->out_w * layer->out_c);
    }
    return 1;
}

/* A sum, a product or a table, some rows of the map at a time. */
static int run_in_pieces(const kws_team *team, const kws_image *image, const kws_layer *layer) {
    kws_port *port = team->port;
    uint32_t row_bytes = layer->in_w * layer->in_c, second = layer->kind == KWS_LOOKUP ? 0 : layer->in1_values;
    int gate = second && second != layer->in_h * row_bytes; /* one value a channel, the same for every row */
    uint32_t fixed = constant_bytes(layer, 0) + (gate ? aligned(second) : 0), maps_a_row = second && !gate ? 3u : 2u;
    uint32_t rows = layer->in_h;
    while (fixed + maps_a_row * aligned(rows * row_bytes) > port->near_bytes) {
        if (rows == 1u) {
            return 0;
        }
        rows = (rows + 1u) / 2u;
    }
    kws_image near_image = *image;
    near_image.bytes = port->near_memory;
    near_room constants = {team, 0};
    kws_layer held = *layer;
    bring_constants(&constants, image, &held, 0, layer->out_c);
    if (gate) {
        held.in1 = bring(&constants, team->arena + layer->in1, second);
    }
    for (uint32_t row = 0; row < layer->in_h; row += rows) {
        uint32_t n = (row + rows > layer->in_h ? layer->in_h - row : rows) * row_bytes, at = row * row_bytes;
        near_room room = constants;
        kws_layer piece = held;
        piece.in_h = n / row_bytes;
        piece.in0 = bring(&room, team->arena + layer->in0 + at, n);
        if (second && !gate) {
            piece.in1 = bring(&room, team->arena + layer->in1 + at, n);
            piece.in1_values = n;
        }
        piece.out = room.used;
        fork(team, &near_image, &piece, (int8_t *)port->near_memory);
        port->copy(port->self, team->arena + layer->out + at, port->near_memory + piece.out, n);
    }
    return 1;
}

/* A layer with its maps whole. */
static int run_whole(const kws_team *team, const kws_image *image, const kws_layer *layer) {
    kws_port *port = team->port;
    uint32_t in_bytes = layer->in_h * layer->in_w * layer->in_c, out_bytes = layer->out_h * layer->out_w * layer->out_c;
    if (constant_bytes(layer, layer->out_c) + aligned(in_bytes) + aligned(out_bytes) > port->near_bytes) {
        return 0;
    }
    kws_image near_image = *image;
    near_image.bytes = port->near_memory;
    near_room room = {team, 0};
    kws_layer l = *layer;
    bring_constants(&room, image, &l, 0, layer->out_c);
    l.in0 = bring(&room, team->arena + layer->in0, in_bytes);
    l.out = room.used;
    fork(team, &near_image, &l, (int8_t *)port->near_memory);
    port->copy(port->self, team->arena + layer->out, port->near_memory + l.out, out_bytes);
    return 1;
}

static int run_near(const kws_team *team, const kws_image *image, const kws_layer *layer) {
    switch (layer->kind) {
    case KWS_CONV:
    case KWS_DEPTHWISE:
    case KWS_AVERAGE_POOL:
        return run_banded(team, image, layer);
    case KWS_ADD:
    case KWS_MUL:
    case KWS_LOOKUP:
        return run_in_pieces(team, image, layer);
    default:
        return run_whole(team, image, layer);
    }
}

void kws_team_begin(kws_team *team, const kws_image *image) {
    kws_port *port = team->port;
    uint32_t most = 0, maps = aligned(image->arena_bytes);
    for (uint32_t i = 0; i < image->n_layers; i++) {
        uint32_t n = constant_bytes(&image->layers[i], image->layers[i].out_c);
        most = n > most ? n : most;
    }
    team->near_arena = 0;
    if (port->near_memory != 0 && maps <= port->near_bytes && most <= port->near_bytes - maps) {
        team->near_arena = maps;
        port->copy(port->self, port->near_memory + image->input, team->arena + image->input, image->input_bytes);
    }
}

void kws_team_end(const kws_team *team, const kws_image *image) {
    if (team->near_arena) {
        kws_port *port = team->port;
        port->copy(port->self, team->arena + image->output, port->near_memory + image->output, image->n_classes);
    }
}

static void run_beside_maps(const kws_team *team, const kws_image *image, const kws_layer *layer) {
    kws_image near_image = *image;
    near_image.bytes = team->port->near_memory;
    near_room room = {team, team->near_arena};
    kws_layer l = *layer;
    bring_constants(&room, image, &l, 0, layer->out_c);
    fork(team, &near_image, &l, (int8_t *)team->port->near_memory);
}

void kws_run_on_team(const kws_team *team, const kws_image *image, const kws_layer *layer) {
    if (team->near_arena) {
        run_beside_maps(team, image, layer);
    } else if (team->port->near_memory == 0 || !run_near(team, image, layer)) {
        fork(team, image, layer, team->arena);
    }
}

void kws_run_fused(const kws_team *team, const kws_image *image, const kws_layer *layer) {
    const kws_layer *next = layer + 1;
    for (uint32_t row = 0; row < next->out_h; row += layer->band_rows) {
        uint32_t end = row + layer->band_rows > next->out_h ? next->out_h : row + layer->band_rows;
        uint32_t middle, middle_end, first, last;
        input_rows(next, row, end, &middle, &middle_end);
        input_rows(layer, middle, middle_end, &first, &last);
        kws_layer one = *layer, two = *next;
        one.in0 = layer->in0 + first * layer->in_w * layer->in_c;
        one.in_h = last - first;
        one.out_h = middle_end - middle;
        one.pad_top = layer->pad_top > middle * layer->stride_h ? layer->pad_top - middle * layer->stride_h : 0;
        two.in_h = middle_end - middle;
        two.out = next->out + row * next->out_w * next->out_c;
        two.out_h = end - row;
        two.pad_top = next->pad_top > row * next->stride_h ? next->pad_top - row * next->stride_h : 0;
        kws_run_on_team(team, image, &one);
        kws_run_on_team(team, image, &two);
    }
}
