/* Text that appears while it is generated. */
#ifndef PHALANX_CLI_STREAM_H
#define PHALANX_CLI_STREAM_H

#include "cli.h"

typedef struct px_stream {
    px_tokenizer *tokenizer;
    px_stops *stops;
    const px_request *requests; /* of the run, all with as many samples */
    size_t printed; /* bytes */
    bool silent;    /* looks for stop strings only */
    px_buf text;    /* decoded so far */
} px_stream;
/* A px_on_token for one completion; arg is the px_stream. Characters that are not complete yet, and what may be the
 * beginning of a stop string, wait for the next token. */
bool px_stream_token(void *arg, int completion, const px_completion *so_far);
/* The final text of a completion of the run, without the stop string; prints what was held back. */
px_status px_stream_end(px_stream *stream, int completion, const px_completion *whole);
void px_stream_free(px_stream *stream);

#endif
