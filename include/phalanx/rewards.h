/* rewards: rule rewards of rlhf, one list of weighted sources. A reward model is a source too, but it is scored by the
 * caller, who owns the transformer; here are the sources that read text. Local: every rank scores its own samples. */
#ifndef PHALANX_REWARDS_H
#define PHALANX_REWARDS_H

#include "phalanx/base.h"

typedef enum px_reward_kind {
    PX_REWARD_MODEL,   /* a reward model; px_rewards_score leaves its row untouched */
    PX_REWARD_LEXICON, /* word<TAB>value lines; S / sqrt(S^2 + 15), S = sum of the values of the completion's words (VADER's
                          compound normalisation, Hutto & Gilbert 2014) */
    PX_REWARD_LENGTH,  /* -|completion tokens - target| / target */
    PX_REWARD_REGEX,   /* 1 where the pattern matches the completion, else 0 */
    PX_REWARD_EXACT,   /* 1 where the completion's answer equals the record's field, else 0 */
    PX_REWARD_EXEC,    /* a program: JSON lines in, scores out */
} px_reward_kind;

typedef struct px_reward_spec { /* borrowed strings, must outlive the rewards */
    const char *name;
    px_reward_kind kind;
    double weight;
    const char *file;           /* lexicon */
    double target;              /* length, tokens */
    const char *pattern;        /* regex; exact: optional pattern whose first group is the answer in the completion */
    const char *field;          /* exact: name in the record, e.g. "answer" */
    const char *const *command; /* exec: argv, NULL-terminated; the program is found through PATH or relative to dir */
    double timeout_s;           /* exec: for each batch of requests */
    const char *dir;            /* exec: working directory of the program */
} px_reward_spec;

typedef struct px_reward_sample { /* borrowed */
    const char *prompt, *completion; /* decoded text, NUL-terminated UTF-8 */
    int completion_tokens;
    const char *record;              /* the prompt's JSON record; "{}" if none */
    int number;                      /* what messages call it */
} px_reward_sample;

#define PX_SCORE_MOST 1e18 /* a score of a larger size counts as failed: its square would leave float32 */

typedef struct px_rewards px_rewards;
/* Checks every spec, reads files, compiles patterns, starts exec programs (fork and exec: call it before MPI starts).
 * PX_CONFIG or PX_DATA names the reward and the reason. */
px_status px_rewards_open(px_rewards **rewards, const px_reward_spec *specs, int count);
/* Ends the programs: closes their input, waits up to a second, then kills. NULL is fine. */
void px_rewards_close(px_rewards *rewards);
/* Whether all sources can score completions of a prompt with this record; PX_DATA names the first that cannot. */
px_status px_rewards_check(const px_rewards *rewards, const char *record);
/* Whether a source is made of the text of completions, which is not there without a tokenizer. A program may do with the record. */
bool px_reward_reads_text(const px_reward_spec *spec);
/* raw[spec * count + sample], nats of nothing: plain scores. Rows of models are left as they are. exec: all requests are
 * written and all replies read (any order) within timeout_s, without deadlock whatever the program's buffering; polls
 * the stop level. A sample without a reply by then has NaN and a line in `events` (may be NULL), as one has that
 * px_reward_usable refuses. Other lines than replies are told there too. A program that gave no reply to a batch is killed,
 * and one that was or that died is started again. PX_DATA, with its exit status, its last line and the end of its standard
 * error: it has never replied, or dies over and over without a reply. */
px_status px_rewards_score(px_rewards *rewards, const px_reward_sample *samples, int count, double *raw, px_buf *events);
/* A score that is no number up to PX_SCORE_MOST in size becomes NaN, with a line in `events` (may be NULL). */
px_status px_reward_usable(const px_reward_spec *spec, int number, double *score, px_buf *events);
int px_rewards_count(const px_rewards *rewards);
const px_reward_spec *px_rewards_spec(const px_rewards *rewards, int index);

#endif
