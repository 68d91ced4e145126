/* Inside rlhf: what every trainer's create and iterate share. */
#ifndef PHALANX_RLHF_TRAINER_H
#define PHALANX_RLHF_TRAINER_H

#include "phalanx/rlhf.h"

/* Sets the algorithm and its value arrays (NaN). */
px_status px_trainer_begin(px_trainer *trainer, const px_algorithm *algorithm);
/* All values NaN: what an iteration starts from. */
void px_trainer_clear(px_trainer *trainer);
/* Counts a skipped step: metric num_steps_skipped, an event, and PX_DIVERGED after `limit` in a row. */
px_status px_trainer_skipped(px_trainer *trainer, int64_t iteration, const char *module, bool skipped, int limit);

/* A ragged batch under construction; sized once. */
typedef struct px_ragged {
    int32_t *ids, *starts;   /* [max_tokens], [max_sequences + 1] */
    int32_t *rows, *targets; /* [max_tokens] head rows of the batch and the ids they predict */
    int64_t *items;          /* [max_tokens] minibatch item of each head row */
    int tokens, sequences, row_count;
} px_ragged;
px_status px_ragged_alloc(px_ragged *ragged, int max_tokens);
size_t px_ragged_bytes(int max_tokens);
void px_ragged_free(px_ragged *ragged);
void px_ragged_clear(px_ragged *ragged);
/* Appends a sequence, returns the token index of its first id. */
int px_ragged_add(px_ragged *ragged, const int32_t *ids, int length);
void px_ragged_row(px_ragged *ragged, int row, int32_t target, int64_t item);
px_batch px_ragged_batch(const px_ragged *ragged);

#endif
