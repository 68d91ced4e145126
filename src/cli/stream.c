#include "stream.h"

#include <stdio.h>
#include <string.h>

static size_t longest_stop(const px_words *words)
{
    size_t most = 0;
    for (int i = 0; i < words->count; i++) {
        size_t length = strlen(words->word[i]);
        most = length > most ? length : most;
    }
    return most;
}

static void print_until(px_stream *stream, size_t end)
{
    if (!stream->silent && end > stream->printed) {
        fwrite(stream->text.data + stream->printed, 1, end - stream->printed, stdout);
        fflush(stdout);
        stream->printed = end;
    }
}

static const px_request *request_of(const px_stream *stream, int completion)
{
    return &stream->requests[completion / stream->requests[0].samples];
}

static px_status decode(px_stream *stream, const px_request *request, const px_completion *so_far)
{
    px_buf_clear(&stream->text);
    return px_tokenizer_decode_after(stream->tokenizer, request->prompt, request->prompt_length, so_far->ids,
                                     so_far->length, true, &stream->text);
}

bool px_stream_token(void *arg, int completion, const px_completion *so_far)
{
    px_stream *stream = arg;
    const px_request *request = request_of(stream, completion);
    if (stream->tokenizer == NULL) {
        return false;
    }
    if (px_stops_find(stream->stops, request, so_far) != SIZE_MAX) {
        return true;
    }
    if (stream->silent || decode(stream, request, so_far) != PX_OK) {
        return false;
    }
    size_t end = stream->text.length, held = longest_stop(stream->stops->words);
    while (end >= 3 && memcmp(stream->text.data + end - 3, "\xEF\xBF\xBD", 3) == 0) { /* U+FFFD: half a character */
        end -= 3;
    }
    end = held > 0 ? (end > held - 1 ? end - (held - 1) : 0) : end;
    while (end > 0 && end < stream->text.length && ((unsigned char)stream->text.data[end] & 0xC0) == 0x80) {
        end--;
    }
    print_until(stream, end);
    return false;
}

px_status px_stream_end(px_stream *stream, int completion, const px_completion *whole)
{
    const px_request *request = request_of(stream, completion);
    PX_TRY(decode(stream, request, whole));
    size_t cut = px_stops_find(stream->stops, request, whole);
    if (cut < stream->text.length) {
        stream->text.length = cut;
        stream->text.data[cut] = '\0';
    }
    print_until(stream, stream->text.length);
    return PX_OK;
}

void px_stream_free(px_stream *stream)
{
    px_buf_free(&stream->text);
    px_buf_free(&stream->stops->text);
}
