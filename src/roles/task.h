/* Inside roles: the prompts of one iteration or evaluation, who has them, and the samples that came back. */
#ifndef PHALANX_ROLES_TASK_H
#define PHALANX_ROLES_TASK_H

#include "split.h"

enum { PX_SLOT_WAITING = -1, PX_SLOT_DONE = -2 };

typedef struct px_task {
    bool open, evaluation;
    int64_t iteration;
    int prompts, each, left; /* left: slots without samples */
    int64_t *rows;           /* [prompts] */
    int32_t *owner;          /* [prompts] worker that has it, or PX_SLOT_... */
    px_completion *completions; /* [prompts * each] */
    int32_t *ids, *rank;     /* [prompts * each][room]; [prompts * each] */
    float *logprobs;
    int64_t *seq_no;         /* [prompts * each] */
} px_task;

px_status px_task_alloc(px_task *task, int prompts, int each, int room);
void px_task_free(px_task *task);
size_t px_task_bytes(int prompts, int each, int room);
/* All slots wait for a worker. */
void px_task_open(px_task *task, int64_t iteration, int prompts, int each);
/* Is this message a batch for the task (NULL: for none)? Its sizes are checked before they are used: it may come from a rank
 * that has lost its mind. room: most tokens of a completion. */
bool px_task_fits(const px_task *task, int room, const px_envelope *head, size_t bytes);
/* Takes the samples of the slots that have none yet; the batch fits. */
void px_task_take(px_task *task, int rank, const px_envelope *head);

#endif
