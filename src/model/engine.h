/* The engine's memory, shared by forward, heads and backward. */
#ifndef PHALANX_MODEL_ENGINE_H
#define PHALANX_MODEL_ENGINE_H

#include "block.h"

struct px_engine {
    px_shape shape;
    px_engine_plan plan;
    px_compute compute;
    void *memory; /* everything below */

    /* the batch of the last forward */
    int tokens, sequences;
    int32_t *ids, *positions; /* [max_tokens] */
    px_span *spans;           /* [max_sequences] */
    char *keys, *values;      /* the spans' cache, one layer at a time */
    px_tail tail;             /* of the last block; [max_sequences] */
    int32_t *first;           /* [max_sequences] of the tail */
    int32_t *place;           /* [max_tokens] a row's place in `last` and `hidden`; -1: it is not there */
    int kept;                 /* rows that are */

    px_activations *layers; /* [L]; one set for all in inference */
    px_real *last;          /* [max_tokens, C] output of the last block */
    px_real *hidden;        /* [max_tokens, C] after the final norm */
    px_real *mean, *rstd;   /* [max_tokens] of the final norm */
    bool fresh;             /* the gradients are forgotten, until the next backward has written them */
    uint8_t *used;          /* [vocab_size] rows of the embedding's gradient; NULL: all; the caller's */
    px_gradients gradients; /* dnorm is also the gradient of hidden, between head and blocks */

    /* a chunk of rows of the LM head */
    int head_rows;
    px_real *head_hidden, *head_gradient; /* [head_rows, C] */
    px_real *logits;                      /* [head_rows, V] */
    px_row_stats *stats;                  /* [head_rows] */
    double *dlogprob, *dentropy;          /* [head_rows] */
};

/* Before a head's backward: fresh gradients become 0 wherever no product writes them all. head: one will write the head's. */
void px_engine_begin_gradients(px_engine *engine, const px_model *model, px_real *grads, bool head);
const px_tail *px_engine_tail(const px_engine *engine, int layer); /* NULL: all rows of the layer go on */
/* Blocks first .. last-1. */
void px_engine_blocks_forward(px_engine *engine, const px_model *model, int first, int last);
void px_engine_blocks_backward(px_engine *engine, const px_model *model, px_real *grads, int first, int last,
                               px_grad_ready on_ready, void *arg);

#endif
