/* Messages with two properties that a rank which may hang asks for: no call waits for the other side, and a message that is
 * under way to it keeps its buffer for as long as it takes. One receive is always posted for each peer. */
#include "phalanx/dist.h"
#include "world.h"

#include <limits.h>
#include <string.h>

enum { TAG = 119 }; /* sums take 71 to 86, reports 120 */

typedef struct peer {
    int rank;
    char *in;
    char *out;             /* [outbox][largest] */
    MPI_Request *sent;     /* [outbox] */
} peer;

struct px_post {
    int count, outbox;
    size_t largest;
    peer *peers;
    MPI_Request *posted;   /* [count] */
    int taken;             /* peer whose message the caller may still read; -1: none */
};

size_t px_post_bytes(int count, size_t largest, int outbox)
{
    return (size_t)count * (largest * (size_t)(outbox + 1) + sizeof(peer) + sizeof(MPI_Request) * (size_t)(outbox + 1));
}

/* From now on nothing is expected of that peer. */
static void give_up(px_post *post, int p)
{
    px_failures_note(post->peers[p].rank);
    post->posted[p] = MPI_REQUEST_NULL;
}

static void post_receive(px_post *post, int p)
{
    if (MPI_Irecv(post->peers[p].in, (int)post->largest, MPI_BYTE, post->peers[p].rank, TAG, MPI_COMM_WORLD,
                  &post->posted[p]) != MPI_SUCCESS) {
        give_up(post, p);
    }
}

static px_status add_peer(px_post *post, int p, int rank)
{
    peer *to = &post->peers[p];
    to->rank = rank;
    to->in = px_alloc(post->largest, "a message box");
    to->out = px_alloc_array((size_t)post->outbox, post->largest, "a message box");
    to->sent = px_alloc_array((size_t)post->outbox, sizeof *to->sent, "a message box");
    if (to->in == NULL || to->out == NULL || to->sent == NULL) {
        px_free(to->in);
        px_free(to->out);
        px_free(to->sent);
        return px_error_code();
    }
    for (int i = 0; i < post->outbox; i++) {
        to->sent[i] = MPI_REQUEST_NULL;
    }
    post_receive(post, p);
    return PX_OK;
}

px_status px_post_open(px_post **out, const int *ranks, int count, size_t largest, int outbox)
{
    PX_CHECK(largest <= INT_MAX);
    px_post *post = px_alloc(sizeof *post, "message boxes");
    if (post == NULL) {
        return px_error_code();
    }
    *out = post;
    *post = (px_post){.outbox = outbox, .largest = largest, .taken = -1};
    post->peers = px_alloc_array((size_t)count, sizeof *post->peers, "message boxes");
    post->posted = px_alloc_array((size_t)count, sizeof *post->posted, "message boxes");
    if (post->peers == NULL || post->posted == NULL) {
        return px_error_code();
    }
    for (int p = 0; p < count; p++) {
        post->posted[p] = MPI_REQUEST_NULL;
        PX_TRY(add_peer(post, p, ranks[p]));
        post->count = p + 1;
    }
    return PX_OK;
}

static int free_box(px_post *post, int p)
{
    for (int i = 0; i < post->outbox; i++) {
        if (px_request_over(&post->peers[p].sent[i], post->peers[p].rank)) {
            return i;
        }
    }
    return -1;
}

bool px_post_send(px_post *post, int p, const void *head, size_t head_bytes, const void *body, size_t body_bytes)
{
    int box = free_box(post, p);
    if (box < 0) {
        return false;
    }
    PX_CHECK(head_bytes + body_bytes <= post->largest);
    peer *to = &post->peers[p];
    char *bytes = to->out + (size_t)box * post->largest;
    memcpy(bytes, head, head_bytes);
    if (body_bytes > 0) {
        memcpy(bytes + head_bytes, body, body_bytes);
    }
    if (MPI_Isend(bytes, (int)(head_bytes + body_bytes), MPI_BYTE, to->rank, TAG, MPI_COMM_WORLD, &to->sent[box]) !=
        MPI_SUCCESS) {
        px_failures_note(to->rank);
        to->sent[box] = MPI_REQUEST_NULL;
    }
    return true;
}

const void *px_post_take(px_post *post, int *p, size_t *bytes)
{
    int index = MPI_UNDEFINED, done = 0, length = 0;
    MPI_Status status;
    if (post->taken >= 0) {
        post_receive(post, post->taken);
        post->taken = -1;
    }
    while (MPI_Testany(post->count, post->posted, &index, &done, &status) != MPI_SUCCESS) {
        px_failures_look(); /* it may have been several: MPI takes all that failed back and names one */
        if (index == MPI_UNDEFINED) {
            return NULL;
        }
        give_up(post, index);
        index = MPI_UNDEFINED;
    }
    if (!done || index == MPI_UNDEFINED) {
        return NULL;
    }
    MPI_Get_count(&status, MPI_BYTE, &length);
    post->taken = index;
    *p = index;
    *bytes = (size_t)length;
    return post->peers[index].in;
}

/* A receive that no message has met can be taken back; one whose sender stopped half-way cannot. */
static bool take_back(MPI_Request *request)
{
    int done = 0;
    MPI_Cancel(request);
    for (int tries = 0; !done && tries < 100; tries++) {
        MPI_Test(request, &done, MPI_STATUS_IGNORE);
    }
    return done;
}

void px_post_close(px_post *post)
{
    if (post == NULL) {
        return;
    }
    for (int p = 0; p < post->count; p++) {
        peer *to = &post->peers[p];
        bool idle = true;
        for (int i = 0; i < post->outbox; i++) {
            idle = px_request_over(&to->sent[i], to->rank) && idle;
        }
        if (p == post->taken || post->posted[p] == MPI_REQUEST_NULL || take_back(&post->posted[p])) {
            px_free(to->in);
        }
        if (idle) {
            px_free(to->out);
        }
        px_free(to->sent);
    }
    px_free(post->posted);
    px_free(post->peers);
    px_free(post);
}
