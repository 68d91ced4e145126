/* The policy's weights, once a node. A version is written by one rank and read by the others of the node while they sample;
 * its number is taken away before a byte of it changes, so that a reader who still finds it afterwards has read one version.
 * A writer that stands still is replaced; what it does when it wakes is stopped by its claim, which it has lost, up to the
 * piece that it was copying: that readers find by the hash. */
#include "split.h"

#include <stdatomic.h>

enum { MAX_BUFFERS = 2, HEADER = 4096 };

typedef struct header {
    _Atomic int64_t seq_no[MAX_BUFFERS]; /* version + 1; 0: none */
    _Atomic int64_t claim[MAX_BUFFERS];  /* who writes what: (version + 1) * RANKS + rank of the job; 0: none yet */
    _Atomic int contested;
} header;
enum { RANKS = 1 << 24 };

static size_t rounded(size_t block)
{
    return (block + HEADER - 1) / HEADER * HEADER;
}

size_t px_weights_bytes(size_t block, int buffers)
{
    return HEADER + rounded(block) * (size_t)buffers;
}

px_status px_weights_open(px_weights *weights, size_t block, int buffers)
{
    PX_CHECK(buffers <= MAX_BUFFERS && sizeof(header) <= HEADER);
    *weights = (px_weights){.block = block, .buffers = buffers};
    return px_shared_open(&weights->shared, px_weights_bytes(block, buffers));
}

void px_weights_close(px_weights *weights)
{
    px_shared_close(&weights->shared);
}

static char *buffer(const px_weights *weights, int64_t seq_no)
{
    return (char *)weights->shared.data + HEADER + rounded(weights->block) * (size_t)(seq_no % weights->buffers);
}

static int64_t claim_of(int64_t seq_no) { return (seq_no + 1) * RANKS + px_world_rank(); }

char *px_weights_begin(px_weights *weights, int64_t seq_no)
{
    header *h = weights->shared.data;
    int b = (int)(seq_no % weights->buffers);
    int64_t other = atomic_load(&h->claim[b]), sealed;
    do {
        sealed = atomic_load(&h->seq_no[b]);
        if (other / RANKS > seq_no + 1 || sealed >= seq_no + 1) {
            return NULL;
        }
    } while (!atomic_compare_exchange_weak(&h->claim[b], &other, claim_of(seq_no)));
    if (other / RANKS != sealed && other % RANKS != px_world_rank()) {
        atomic_store(&h->contested, 1);
    }
    atomic_store(&h->seq_no[b], 0);
    atomic_thread_fence(memory_order_seq_cst);
    return buffer(weights, seq_no);
}

bool px_weights_writing(const px_weights *weights, int64_t seq_no)
{
    const header *h = weights->shared.data;
    return atomic_load(&h->claim[seq_no % weights->buffers]) == claim_of(seq_no);
}

uint64_t px_weights_seal(px_weights *weights, int64_t seq_no)
{
    header *h = weights->shared.data;
    uint64_t hash = px_hash(buffer(weights, seq_no), weights->block, 0);
    if (px_weights_writing(weights, seq_no)) {
        atomic_store(&h->seq_no[seq_no % weights->buffers], seq_no + 1);
    }
    return hash;
}

bool px_weights_contested(const px_weights *weights)
{
    const header *h = weights->shared.data;
    return atomic_load(&h->contested) != 0;
}

void px_weights_withdraw(px_weights *weights, int64_t seq_no)
{
    header *h = weights->shared.data;
    int64_t sealed = seq_no + 1;
    atomic_compare_exchange_strong(&h->seq_no[seq_no % weights->buffers], &sealed, 0);
}

bool px_weights_over(const px_weights *weights, int64_t seq_no)
{
    const header *h = weights->shared.data;
    bool newer = false;
    for (int i = 0; i < weights->buffers; i++) {
        newer = newer || atomic_load(&h->seq_no[i]) > seq_no + 1;
    }
    return newer && px_weights_find(weights, seq_no) == NULL;
}

const void *px_weights_find(const px_weights *weights, int64_t seq_no)
{
    const header *h = weights->shared.data;
    atomic_thread_fence(memory_order_seq_cst);
    return atomic_load(&h->seq_no[seq_no % weights->buffers]) == seq_no + 1 ? buffer(weights, seq_no) : NULL;
}
