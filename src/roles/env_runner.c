/* A rank that only samples: takes requests and weights from the driver, answers with batches, and is in no collective.
 *
 * Requests that ask for the same (iteration or evaluation, weights) run in one stream of the generator: new ones join while
 * it decodes, and each is answered when its own samples are done, so that a long completion holds up nobody. */
#include "split.h"

#include <signal.h>
#include <stdio.h>
#include <string.h>

typedef struct errand { /* a request that is here */
    bool used;
    px_envelope head;
    int64_t *rows;   /* [most prompts] */
    int sample, left; /* its first completion in the stream, -1: not in it yet; samples still to come */
} errand;

typedef struct runner {
    px_session *session;
    px_wire wire;
    px_post *post;
    px_sampler sampler;
    px_model policy;      /* weights borrowed from the node's memory */
    errand pending[PX_MAX_IN_FLIGHT];
    px_envelope stream;   /* what the requests of the stream that runs ask for; of its own: their places are used again */
    uint64_t hash;        /* of policy.weights, as this rank has read them */
    int64_t seq_no;       /* of policy; -1: none */
    int32_t *owner;       /* [sampler samples] request of a completion */
    px_buf batch;
    double told;          /* px_now() of the last message to the driver */
    char *into;           /* weights that arrive piece by piece; NULL: none do */
    int64_t into_seq_no;
    double into_began;    /* px_wall_time() */
    bool ended, failed;
    int32_t regroup_count;
    int *regroup;         /* ranks that go on; [ranks of the job] */
    bool regroup_dead;    /* all others are dead */
} runner;

static px_envelope head_of(const runner *r, px_wire_kind kind)
{
    return (px_envelope){.kind = (int32_t)kind, .stage = r->wire.stage, .seq_no = r->seq_no, .hash = r->hash};
}

static bool tell(runner *r, const px_envelope *head, const void *body, size_t bytes)
{
    bool sent = px_post_send(r->post, 0, head, sizeof *head, body, bytes);
    if (sent) {
        r->told = px_now();
    }
    return sent;
}

/* Waits until there is a box for it. */
static void tell_surely(runner *r, const px_envelope *head, const void *body, size_t bytes)
{
    double waited = 0.0;
    for (long poll = 0; !tell(r, head, body, bytes); poll++) {
        px_wait_nap(poll, &waited);
    }
}

/* Whoever says nothing for long is taken for hung, also where there is nothing to do. */
static void stay_heard(runner *r)
{
    if (px_now() - r->told > r->wire.heartbeat) {
        px_envelope head = head_of(r, PX_ALIVE);
        tell(r, &head, NULL, 0);
    }
}

static void report_failure(runner *r, px_status status)
{
    px_envelope head = head_of(r, PX_FAILED);
    const char *text = px_error_text();
    head.first = (int32_t)status;
    tell_surely(r, &head, text, strlen(text) < PX_TEXT_BYTES - 1 ? strlen(text) : PX_TEXT_BYTES - 1);
    r->failed = true;
}

/* ---- messages in ------------------------------------------------------------------------------------------------------------ */

/* A request that has no place goes back: a runner that was left out and answers again may still have all its old ones. */
static void take_request(runner *r, const px_envelope *head, const void *rows, size_t bytes)
{
    int most = head->evaluation ? r->wire.evaluation_prompts : r->wire.prompts;
    px_envelope back = *head;
    for (int i = 0; i < PX_MAX_IN_FLIGHT; i++) {
        errand *p = &r->pending[i];
        if (!p->used && head->count >= 1 && head->count <= most && bytes == sizeof *p->rows * (size_t)head->count) {
            p->used = true;
            p->head = *head;
            p->sample = -1;
            memcpy(p->rows, rows, bytes);
            return;
        }
    }
    back.kind = PX_DROPPED;
    tell_surely(r, &back, NULL, 0);
}

/* Pieces may be old when they are read, behind a rank that stood still: another has its place then. */
static void take_piece(runner *r, const px_envelope *head, const void *bytes, size_t length)
{
    px_weights *weights = &r->session->weights;
    size_t at = (size_t)head->first * PX_PIECE;
    if (head->first == 0) {
        r->into = px_weights_begin(weights, head->seq_no);
        r->into_seq_no = head->seq_no;
        r->into_began = px_wall_time();
    }
    if (r->into == NULL || head->seq_no != r->into_seq_no || at > weights->block || length > weights->block - at ||
        !px_weights_writing(weights, head->seq_no)) {
        return;
    }
    memcpy(r->into + at, bytes, length);
    if (head->first == head->count - 1) {
        px_weights_seal(weights, head->seq_no);
        px_timeline_span(PX_ROW_WEIGHTS, "receive", r->into_began);
        r->into = NULL;
    }
}

/* Returns whether there was any. */
static bool take_messages(runner *r)
{
    const px_envelope *head;
    size_t bytes;
    int from;
    bool any = false;
    for (; (head = px_post_take(r->post, &from, &bytes)) != NULL; any = true) {
        if (bytes < sizeof *head || head->stage != r->wire.stage) {
            continue;
        }
        if (head->kind == PX_REQUEST && !r->failed) {
            take_request(r, head, head + 1, bytes - sizeof *head);
        } else if (head->kind == PX_WEIGHTS) {
            take_piece(r, head, head + 1, bytes - sizeof *head);
        } else if (head->kind == PX_END) {
            r->ended = true;
        } else if (head->kind == PX_GROUP && bytes == sizeof *head + sizeof(int) * (size_t)head->count) {
            memcpy(r->regroup, head + 1, bytes - sizeof *head);
            r->regroup_count = head->count;
            r->regroup_dead = head->first != 0;
        }
    }
    return any;
}

/* ---- a stream ----------------------------------------------------------------------------------------------------------------- */

static bool drop(runner *r, errand *p)
{
    px_envelope head = p->head;
    head.kind = PX_DROPPED;
    p->used = !tell(r, &head, NULL, 0);
    return !p->used;
}

/* Whether the stream's weights are those that it began with, in this buffer. */
static bool weights_held(runner *r)
{
    px_weights *weights = &r->session->weights;
    if (px_weights_contested(weights) && px_hash(r->policy.weights, weights->block, 0) != r->hash) {
        px_weights_withdraw(weights, r->seq_no);
        r->seq_no = -1;
        return false;
    }
    return px_weights_find(weights, r->seq_no) == r->policy.weights;
}

/* The batch of a request whose samples are all there; false: the boxes are full, try again later. */
static bool answer(runner *r, errand *p)
{
    int samples = p->head.count * p->head.each;
    const px_completion *c = r->sampler.completions + p->sample;
    px_envelope head = p->head;
    if (!weights_held(r)) {
        return drop(r, p);
    }
    head.kind = PX_BATCH;
    head.hash = px_fault("env_runner.hash") ? ~r->hash : r->hash;
    px_buf_clear(&r->batch);
    for (int i = 0; i < samples; i++) {
        px_buf_add(&r->batch, &(px_sampled){c[i].length, c[i].finish}, sizeof(px_sampled));
    }
    for (int i = 0; i < samples; i++) {
        px_buf_add(&r->batch, c[i].ids, sizeof *c[i].ids * (size_t)c[i].length);
    }
    for (int i = 0; i < samples; i++) {
        px_buf_add(&r->batch, c[i].logprobs, sizeof *c[i].logprobs * (size_t)c[i].length);
    }
    p->used = !tell(r, &head, r->batch.data, r->batch.length);
    return !p->used;
}

static bool same_stream(const px_envelope *a, const px_envelope *b)
{
    return a->evaluation == b->evaluation && a->iteration == b->iteration && a->seq_no == b->seq_no;
}

/* Requests of the stream whose samples fit join it. */
static void join(runner *r)
{
    const px_envelope *key = &r->stream;
    const px_dataset *data = key->evaluation ? r->session->validation : r->session->train;
    for (int i = 0; i < PX_MAX_IN_FLIGHT; i++) {
        errand *p = &r->pending[i];
        int samples = p->head.count * p->head.each;
        if (!p->used || p->sample >= 0 || !same_stream(&p->head, key) ||
            r->sampler.used + samples > r->sampler.plan.samples) {
            continue;
        }
        p->sample = r->sampler.used;
        p->left = samples;
        for (int k = 0; k < samples; k++) {
            r->owner[p->sample + k] = i;
        }
        for (int k = 0; k < p->head.count; k++) {
            px_row row;
            px_dataset_row(data, p->rows[k], &row);
            px_sampler_add(&r->sampler, &row, (uint32_t)(p->head.first + k), p->head.each);
        }
    }
}

static void answer_finished(runner *r)
{
    for (int i = 0; i < PX_MAX_IN_FLIGHT; i++) {
        errand *p = &r->pending[i];
        if (p->used && p->sample >= 0 && p->left == 0 && !answer(r, p)) {
            return;
        }
    }
}

static int on_step(void *arg)
{
    runner *r = arg;
    take_messages(r);
    if (r->ended) {
        return -1;
    }
    answer_finished(r);
    stay_heard(r);
    join(r);
    return r->sampler.count;
}

static void on_done(void *arg, int completion)
{
    runner *r = arg;
    r->pending[r->owner[completion]].left--;
    if (px_fault("env_runner.hang")) {
        raise(SIGSTOP);
    }
    if (px_fault("env_runner.die")) {
        raise(SIGKILL);
    }
}

/* The weights a request asks for, once a version; false: they are not here and will not come, or are not as published. */
static bool find_weights(runner *r, const px_envelope *key)
{
    const void *weights;
    double waited = 0.0;
    for (long poll = 0; (weights = px_weights_find(&r->session->weights, key->seq_no)) == NULL; poll++) {
        take_messages(r);
        stay_heard(r);
        if (r->ended || px_weights_over(&r->session->weights, key->seq_no) || waited > r->wire.timeout) {
            return false;
        }
        px_wait_nap(poll, &waited);
    }
    if (r->seq_no != key->seq_no) {
        r->policy.weights = (px_real *)(uintptr_t)weights;
        r->policy.version++;
        r->seq_no = key->seq_no;
        r->hash = px_hash(weights, r->session->weights.block, 0);
    }
    if (r->hash != key->hash) {
        px_weights_withdraw(&r->session->weights, key->seq_no);
        r->seq_no = -1; /* read again when they are there again */
        return false;
    }
    return true;
}

static px_status run_stream(runner *r, errand *first)
{
    px_session *session = r->session;
    px_envelope key = first->head;
    if (!find_weights(r, &key)) {
        drop(r, first);
        return PX_OK;
    }
    px_phase_set(key.evaluation ? "evaluate" : "generate", key.iteration);
    px_sampling sampling = px_ppo_sampling(&session->ppo, session->trainer.seed, session->trainer.stage, key.iteration,
                                           key.evaluation != 0, session->parts.evaluation_temperature);
    px_sampler_clear(&r->sampler);
    r->stream = key;
    join(r);
    px_status status = px_sampler_run(&r->sampler, &r->policy, &sampling, on_step, on_done, r);
    if (status != PX_OK) {
        return r->ended ? PX_OK : status;
    }
    double waited = 0.0;
    for (long poll = 0; !r->ended; poll++) {
        bool left = false;
        answer_finished(r);
        for (int i = 0; i < PX_MAX_IN_FLIGHT; i++) {
            left = left || (r->pending[i].used && r->pending[i].sample >= 0);
        }
        if (!left) {
            break;
        }
        take_messages(r);
        stay_heard(r);
        px_wait_nap(poll, &waited);
    }
    px_phase_set("wait", key.iteration);
    return PX_OK;
}

/* ---- beginning and end ---------------------------------------------------------------------------------------------------------- */

static errand *oldest(runner *r)
{
    errand *best = NULL;
    for (int i = 0; i < PX_MAX_IN_FLIGHT; i++) {
        if (r->pending[i].used && (best == NULL || r->pending[i].head.id < best->head.id)) {
            best = &r->pending[i];
        }
    }
    return best;
}

static px_status prepare(runner *r)
{
    px_session *session = r->session;
    PX_TRY(px_session_prepare(session, ""));
    px_sampler_plan plan = px_session_sampler(session);
    r->owner = px_alloc_array((size_t)plan.samples, sizeof *r->owner, "an env runner");
    if (r->owner == NULL) {
        return px_error_code();
    }
    int most = r->wire.prompts > r->wire.evaluation_prompts ? r->wire.prompts : r->wire.evaluation_prompts;
    for (int i = 0; i < PX_MAX_IN_FLIGHT; i++) {
        r->pending[i].rows = px_alloc_array((size_t)most, sizeof(int64_t), "an env runner");
        if (r->pending[i].rows == NULL) {
            return px_error_code();
        }
    }
    PX_TRY(px_buf_reserve(&r->batch, r->wire.largest));
    r->policy = session->parts.policy;
    r->policy.borrowed = true;
    px_alloc_eager(true);
    px_status status = px_sampler_create(&r->sampler, &plan, &session->ppo, &session->parts.policy.config, session->tokenizer);
    px_alloc_eager(false);
    return status;
}

size_t px_env_runner_bytes(const px_session *session)
{
    px_wire wire;
    px_wire_derive(&wire, session);
    size_t most = (size_t)(wire.prompts > wire.evaluation_prompts ? wire.prompts : wire.evaluation_prompts);
    return sizeof(runner) + px_post_bytes(1, wire.largest, wire.in_flight + 2) + wire.largest +
           most * sizeof(int64_t) * PX_MAX_IN_FLIGHT + (size_t)px_session_sampler(session).samples * sizeof(int32_t);
}

static void serve(runner *r)
{
    double waited = 0.0;
    px_phase_set("wait", 0);
    for (long poll = 0; !r->ended; poll++) {
        if (take_messages(r)) {
            waited = 0.0; /* without work for as long as the driver is heard */
        }
        stay_heard(r);
        errand *next = r->failed ? NULL : oldest(r);
        if (next == NULL) {
            if (px_stop_level() > 0 && !r->failed) {
                report_failure(r, PX_STOPPED);
            }
            px_wait_nap(poll, &waited);
            continue;
        }
        px_status status = run_stream(r, next);
        if (status != PX_OK) {
            report_failure(r, status);
        }
        poll = 0;
        waited = 0.0;
    }
}

/* Says farewell and hears who goes on. */
static px_status leave(runner *r)
{
    px_envelope head = head_of(r, PX_BYE);
    double waited = 0.0;
    bool told = false;
    px_phase_set("farewell", 0);
    for (long poll = 0; r->regroup_count == 0; poll++) {
        told = told || tell(r, &head, NULL, 0);
        take_messages(r);
        px_wait_nap(poll, &waited);
    }
    return px_regroup(r->regroup, r->regroup_count, r->regroup_dead);
}

px_status px_env_runner(px_session *session)
{
    runner *r = px_alloc(sizeof *r, "an env runner");
    PX_CHECK(r != NULL);
    r->session = session;
    r->seq_no = -1;
    px_wire_derive(&r->wire, session);
    r->regroup = px_alloc_array((size_t)px_world_size(), sizeof *r->regroup, "an env runner");
    px_status status = r->regroup != NULL ? px_post_open(&r->post, (int[]){0}, 1, r->wire.largest, r->wire.in_flight + 2)
                                          : px_error_code();
    PX_CHECK(status == PX_OK);
    status = prepare(r);
    if (status == PX_OK) {
        px_envelope head = head_of(r, PX_READY);
        tell(r, &head, NULL, 0);
    } else {
        report_failure(r, status);
    }
    serve(r);
    status = leave(r);
    px_post_close(r->post);
    px_sampler_free(&r->sampler);
    px_buf_free(&r->batch);
    for (int i = 0; i < PX_MAX_IN_FLIGHT; i++) {
        px_free(r->pending[i].rows);
    }
    px_free(r->owner);
    px_free(r->regroup);
    px_free(r);
    return status;
}
