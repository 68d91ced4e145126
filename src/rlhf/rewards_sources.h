/* The sources of rule rewards that hold something: a lexicon's table, a regular expression, a program. */
#ifndef PHALANX_RLHF_REWARDS_SOURCES_H
#define PHALANX_RLHF_REWARDS_SOURCES_H

#include "phalanx/rewards.h"

/* Words and their values. Scores are S / sqrt(S^2 + 15) over the longest entries that match on word boundaries. */
typedef struct px_lexicon px_lexicon;
px_status px_lexicon_open(px_lexicon **lexicon, const char *path);
void px_lexicon_close(px_lexicon *lexicon);
px_status px_lexicon_score(px_lexicon *lexicon, const char *text, double *score);

/* A regular expression (PCRE2, UTF-8). */
typedef struct px_regex px_regex;
px_status px_regex_open(px_regex **pattern, const char *expression);
void px_regex_close(px_regex *pattern);
/* Undecided: the match went beyond PCRE2's limits of steps and memory. */
typedef enum px_match { PX_MATCH_NONE, PX_MATCH_FOUND, PX_MATCH_UNDECIDED } px_match;
/* *begin and *length: the first group where the expression has one that took part, else the whole match. */
px_match px_regex_find(px_regex *pattern, const char *text, bool last, size_t *begin, size_t *length);

/* 1 where the answer in the completion equals the field of the record, NaN where the match is undecided; `pattern` may be NULL. */
px_status px_exact_score(const px_reward_spec *spec, px_regex *pattern, const px_reward_sample *sample, double *score);

px_status px_exact_check(const px_reward_spec *spec, const char *record); /* PX_DATA: it has nothing to compare with */

/* A program that is asked through its standard input and answers on its standard output. */
typedef struct px_exec px_exec;
px_status px_exec_open(px_exec **exec, const px_reward_spec *spec);
void px_exec_close(px_exec *exec);
px_status px_exec_score(px_exec *exec, const px_reward_sample *samples, int count, double *scores, px_buf *events);

#endif
