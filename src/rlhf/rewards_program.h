/* A program of a reward as a process: three pipes, none of which blocks us. */
#ifndef PHALANX_RLHF_REWARDS_PROGRAM_H
#define PHALANX_RLHF_REWARDS_PROGRAM_H

#include "phalanx/base.h"

#include <sys/types.h>

typedef struct px_program {
    const char *const *command; /* borrowed */
    const char *dir;
    char path[PX_PATH_MAX];
    pid_t pid;                  /* leader of its own process group; 0: ended and waited for */
    int wait_status;            /* once pid is 0 */
    int to, from, says;         /* our ends of its standard input, output and error; -1: closed */
    char said[256];             /* the end of what it wrote to its standard error */
    size_t said_length;
} px_program;

/* Looks where the program is; nothing runs yet. */
px_status px_program_find(px_program *program, const char *const *command, const char *dir);
px_status px_program_start(px_program *program);
/* Passes on what it wrote to its standard error, and keeps the end of it. */
void px_program_listen(px_program *program);
/* Waits up to `seconds` for its end. */
bool px_program_ended(px_program *program, double seconds);
/* Closes its input, waits up to `seconds`, then kills it and what it started. It may be started again. */
void px_program_end(px_program *program, double seconds);
/* Text of others for a message: one line of valid UTF-8, cut where it does not fit. */
void px_program_quote(char *out, size_t size, const char *text, size_t length);

#endif
