/* Which pieces of which rows make a step of language-model training: a function of data, configuration and seed alone.
 * Private to rlhf. */
#ifndef PX_RLHF_LM_BATCHES_H
#define PX_RLHF_LM_BATCHES_H

#include "phalanx/rlhf.h"

/* What one sequence of a step is: a row, or where pretraining cuts long texts a part of one. */
typedef struct px_piece {
    int64_t row;
    int32_t offset, length;
} px_piece;
int px_piece_targets(const px_row *row, const px_piece *piece); /* tokens to predict */

typedef struct px_lm_batches {
    const px_lm_config *config; /* borrowed */
    int64_t *before;            /* [rows / STRIDE + 1] pieces before every STRIDE-th row */
    int64_t piece_count;
    int32_t shortest;           /* piece */
    px_part *parts;             /* pieces of each file, with its weight */
    px_order order;
    /* The step that next made. */
    px_piece *pieces; /* [most] */
    int32_t *lengths; /* [most] of the pieces */
    int64_t count, most;
    int64_t end; /* pieces of config->epochs passes; 0: no end */
    /* The window whose steps are packed; window 0: none are. */
    int64_t window, first, places; /* the most places; position of the first; how many it has */
    px_rng rng;
    int64_t *drawn, *numbers; /* [window] of pieces, by place and by step */
    int64_t *starts;          /* [window + 1] where each step begins in numbers */
    int64_t *turn, steps;     /* [window] the bin that each step is; how many there are */
    int32_t *sizes, *bin;     /* [window] of the pieces, by place */
} px_lm_batches;

px_status px_lm_batches_init(px_lm_batches *batches, const px_lm_config *config, uint64_t seed, const char *stage);
void px_lm_batches_free(px_lm_batches *batches);
/* Before they are made: pieces of a step at most, and memory. */
int64_t px_lm_batches_most(const px_lm_config *config);
size_t px_lm_batches_bytes(const px_lm_config *config);
/* The next step: batch_size pieces in the data order, or as many as fit into batch_tokens (at least one), packed or one after
 * another; fewer where config->epochs end. cursor: pieces taken so far, over all epochs; it moves on. */
px_status px_lm_batches_next(px_lm_batches *batches, double *cursor);

#endif
