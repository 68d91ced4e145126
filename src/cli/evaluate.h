/* The evaluations of `phalanx evaluate`. */
#ifndef PHALANX_CLI_EVALUATE_H
#define PHALANX_CLI_EVALUATE_H

#include "cli.h"

typedef struct px_evaluation {
    const char *model, *data, *per_record, *tokenizer, *template, *precision;
    px_words rewards;
    px_dtype dtype; /* that precision says */
    int64_t max_tokens, memory_mib;
    int longest; /* tokens that the model takes at once */
    bool json, helped;
} px_evaluation;

/* Collective over the ranks: each computes its share of the rows. */
px_status px_evaluate_texts(const px_evaluation *e, px_opened *opened, const px_dataset *data);
px_status px_evaluate_pairs(const px_evaluation *e, px_opened *opened, const px_dataset *data);
px_status px_evaluate_rewards(const px_evaluation *e); /* one process */
/* Prints and drops the summary on rank 0. */
px_status px_evaluation_print(const px_evaluation *e, struct json_t *summary);

#endif
