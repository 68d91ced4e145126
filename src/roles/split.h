/* Inside roles: what travels between the driver and the ranks that sample for it.
 *
 * The driver hands out requests of a few prompts each; a runner answers each with one batch. A batch is a function of the
 * weights, the prompts and their places alone, so any runner may answer for any other, and an answer that comes twice or
 * late is dropped by its key (iteration, prompt). Every message starts with a px_envelope. */
#ifndef PHALANX_ROLES_SPLIT_H
#define PHALANX_ROLES_SPLIT_H

#include "run.h"

typedef enum px_wire_kind {
    PX_READY = 1,  /* runner: prepared */
    PX_ALIVE,      /* both: nothing new, still at it */
    PX_BATCH,      /* runner: head, px_sampled[], ids, log-probabilities */
    PX_DROPPED,    /* runner: a request that it cannot answer: its weights are gone or spoilt, or it has too many */
    PX_FAILED,     /* runner: head, the error's text; first: its code */
    PX_BYE,        /* runner: has seen the end */
    PX_REQUEST,    /* driver: head, rows of the prompts [count] */
    PX_WEIGHTS,    /* driver: head, a piece of the weights; first: number of the piece */
    PX_END,        /* driver: the stage is over */
    PX_GROUP,      /* driver: head, ranks that go on [count]; first: the others are dead */
} px_wire_kind;

typedef struct px_envelope {
    int32_t kind, stage;     /* stage: number of the stage, so that a late message is not taken for another stage's */
    int64_t iteration, seq_no;
    uint64_t hash;           /* of the weights of seq_no */
    int32_t evaluation;      /* 1: prompts of the evaluation set */
    int32_t id;              /* of the request */
    int32_t first, count;    /* prompt slots */
    int32_t each, pad;       /* samples of a prompt */
} px_envelope;

typedef struct px_sampled {
    int32_t length, finish;
} px_sampled;

enum { PX_PIECE = 1 << 18, PX_MAX_IN_FLIGHT = 16, PX_TEXT_BYTES = 2048 };

/* What both sides derive from the configuration alone. */
typedef struct px_wire {
    int stage, room, each, evaluation_each; /* room: tokens of a completion */
    int prompts, evaluation_prompts;        /* most in a request */
    int in_flight;                          /* requests at a runner */
    int staleness;                          /* iterations that are sampled ahead */
    double timeout;                         /* seconds of silence after which a runner is left out */
    double heartbeat;                       /* seconds without a message after which there is a PX_ALIVE */
    size_t largest;                         /* bytes of a message */
} px_wire;
void px_wire_derive(px_wire *wire, const px_session *session);
px_status px_wire_check(const px_session *session); /* PX_CONFIG: one prompt's samples are more than a message holds */

/* weights.c */
/* Collective over all ranks of the job; the status is this rank's own. */
px_status px_weights_open(px_weights *weights, size_t block, int buffers);
void px_weights_close(px_weights *weights);
size_t px_weights_bytes(size_t block, int buffers);
int px_session_buffers(const px_session *session); /* split.c */
/* The buffer of a version under construction, from now on this rank's to write: nobody takes it for anything until it is
 * sealed. NULL: the node has this version or a newer one, or is being given a newer one. */
char *px_weights_begin(px_weights *weights, int64_t seq_no);
/* Whether it still is: another rank of the node may have begun anew while this one stood still. */
bool px_weights_writing(const px_weights *weights, int64_t seq_no);
uint64_t px_weights_seal(px_weights *weights, int64_t seq_no); /* the hash */
/* A rank has stood still while it wrote, here, and may write yet: what was read is to be hashed once more after use. */
bool px_weights_contested(const px_weights *weights);
void px_weights_withdraw(px_weights *weights, int64_t seq_no); /* its bytes are not those that were published */
/* NULL: that version is not there. */
const void *px_weights_find(const px_weights *weights, int64_t seq_no);
bool px_weights_over(const px_weights *weights, int64_t seq_no); /* it is not there, and a newer one is: it will not come */

/* collect.c: the driver's side. */
typedef struct px_collector px_collector;
px_status px_collector_create(px_collector **collector, px_session *session);
/* Room for samples, once the prompt sets are known. */
px_status px_collector_prepare(px_collector *collector);
/* What the first allocates for messages, and the second for samples. */
size_t px_collector_boxes(const px_session *session);
size_t px_collector_bytes(const px_session *session);
px_status px_collector_run(void *collector, px_trainer *trainer, px_rollout *rollout, int64_t iteration, bool evaluation,
                           int64_t seq_no, const px_completion **completions, px_collect_report *report);
/* The weights of a version may be read from now on, and go to the other nodes whenever the driver polls. */
void px_collector_publish(void *collector, const px_model *policy, int64_t seq_no);
/* Tells all that the stage is over; alive[ranks of the job] then says who has answered. */
void px_collector_end(px_collector *collector, uint8_t *alive);
/* Tells those of ranks[count] (of the job) that are not of the core who goes on, and whether all others are dead. */
void px_collector_regroup(px_collector *collector, const int *ranks, int count, bool dead);
void px_collector_destroy(px_collector *collector);

/* env_runner.c: the other side. Returns when the driver says so. */
px_status px_env_runner(px_session *session);
size_t px_env_runner_bytes(const px_session *session); /* what it allocates beside the sampler */

/* split.c */
/* Runs a stage on its core, with the other ranks sampling for it. Collective over the job. */
px_status px_session_split(px_session *session, px_status (*core)(px_session *session));
/* The ranks of the job that go on after a split stage become the group; dead: all others are. Collective over them. */
px_status px_regroup(const int *ranks, int count, bool dead);

#endif
