/* The driver's side of a split stage: hands prompts out, takes batches in, leaves silent runners out and takes them back. */
#include "task.h"

#include <stdio.h>
#include <string.h>

typedef enum condition { ABSENT, HEALTHY, OUT, DEAD } condition; /* absent: has not been heard of yet */

typedef struct request { /* at a runner */
    bool used, evaluation;
    int64_t iteration;
    int id, first, count;
} request;

typedef struct worker {
    int rank, node;
    px_role role;
    condition health;
    double heard;      /* px_now() of its last message, or of the first request after it had nothing to do */
    double told;       /* px_now() of the last PX_ALIVE to it */
    int in_flight, strikes;
    request requests[PX_MAX_IN_FLIGHT];
} worker;

typedef struct node { /* where weights must be sent to */
    int64_t ready, sending; /* versions; -1: none */
    int piece, through;     /* next piece; worker that takes them */
    double began;           /* px_wall_time() of the first */
} node;

enum { VERSIONS = 64 };

struct px_collector {
    px_session *session;
    px_wire wire;
    px_post *post;
    worker *workers;
    int count, node_count, next_id;
    node *nodes;
    px_task *jobs;          /* [staleness + 1] of training, then one of evaluation */
    int job_count;
    struct {
        int64_t seq_no;
        uint64_t hash;
    } published[VERSIONS];
    int64_t seq_no;      /* newest version; -1: none */
    uint64_t hash;
    int64_t iteration;   /* of events */
    double polled, restored, synch;
    px_error failed;     /* what a runner reported */
};

/* ---- events --------------------------------------------------------------------------------------------------------------- */

static void tell(px_collector *c, const worker *w, const char *kind, const char *what)
{
    px_buf text = {0};
    px_rank_describe(w->rank, &text);
    px_trainer_event_of(&c->session->trainer, w->rank, c->iteration, kind, "%s %s (%s)", px_role_name(&c->session->placement, w->rank), what,
                     text.data != NULL ? text.data : "");
    px_buf_free(&text);
}

static px_task *find_job(px_collector *c, bool evaluation, int64_t iteration)
{
    for (int j = 0; j < c->job_count; j++) {
        px_task *job = &c->jobs[j];
        if (job->open && job->evaluation == evaluation && job->iteration == iteration) {
            return job;
        }
    }
    return NULL;
}

/* A request comes back without a batch: its prompts wait for somebody else. */
static void give_back(px_collector *c, worker *w, request *r)
{
    px_task *job = find_job(c, r->evaluation, r->iteration);
    for (int slot = r->first; job != NULL && slot < r->first + r->count; slot++) {
        if (job->owner[slot] == (int32_t)(w - c->workers)) {
            job->owner[slot] = PX_SLOT_WAITING;
        }
    }
    r->used = false;
    w->in_flight--;
}

static void leave_out(px_collector *c, worker *w, condition health, const char *kind, const char *what)
{
    w->health = health;
    tell(c, w, kind, what);
    for (int i = 0; i < PX_MAX_IN_FLIGHT; i++) {
        if (w->requests[i].used) {
            give_back(c, w, &w->requests[i]);
        }
    }
    node *n = &c->nodes[w->node];
    if (n->sending >= 0 && n->through == (int)(w - c->workers)) {
        n->sending = -1;
    }
}

/* ---- messages in ------------------------------------------------------------------------------------------------------------ */

static bool hash_known(const px_collector *c, int64_t seq_no, uint64_t hash)
{
    return seq_no >= 0 && c->published[seq_no % VERSIONS].seq_no == seq_no && c->published[seq_no % VERSIONS].hash == hash;
}

static request *find_request(worker *w, int id)
{
    for (int i = 0; i < PX_MAX_IN_FLIGHT; i++) {
        if (w->requests[i].used && w->requests[i].id == id) {
            return &w->requests[i];
        }
    }
    return NULL;
}

static void take_batch(px_collector *c, worker *w, const px_envelope *head, size_t bytes)
{
    enum { STRIKES = 3 };
    request *r = find_request(w, head->id);
    px_task *job = find_job(c, head->evaluation != 0, head->iteration);
    bool known = hash_known(c, head->seq_no, head->hash);
    bool stale = job != NULL && !job->evaluation && job->iteration - 1 - head->seq_no > c->wire.staleness;
    if (stale) { /* of a runner that was away: its prompts are sampled again */
        job = NULL;
    }
    if (known && px_task_fits(job, c->wire.room, head, bytes)) {
        px_task_take(job, w->rank, head);
        w->strikes = 0;
    } else if (!known || job != NULL) { /* a batch of an iteration that is over is late, not wrong */
        w->strikes++;
        tell(c, w, "batch_refused", known ? "sent a batch that does not fit its request" :
                                           "sampled with weights that were never published");
    }
    if (r != NULL) {
        give_back(c, w, r);
    }
    if (w->strikes >= STRIKES) {
        leave_out(c, w, DEAD, "env_runner_dropped", "was refused three times in a row");
    }
}

static void take_failure(px_collector *c, const worker *w, const px_envelope *head, size_t bytes)
{
    char text[PX_TEXT_BYTES];
    if (head->first == PX_STOPPED) {
        px_stop_request("a stop on another rank");
        return;
    }
    size_t length = bytes - sizeof *head < sizeof text ? bytes - sizeof *head : sizeof text - 1;
    memcpy(text, head + 1, length);
    text[length] = '\0';
    if (c->failed.code == PX_OK) { /* in the middle of what may have an error of its own */
        px_error other = px_error_keep();
        px_fail((px_status)head->first, "rank %d (%s): %s", w->rank, px_role_name(&c->session->placement, w->rank), text);
        c->failed = px_error_keep();
        px_error_restore(&other);
    }
}

static void take_message(px_collector *c, worker *w, const px_envelope *head, size_t bytes)
{
    if (bytes < sizeof *head || head->stage != c->wire.stage || w->health == DEAD) {
        return;
    }
    w->heard = px_now();
    if (w->health == OUT && head->kind != PX_BYE) {
        w->health = HEALTHY;
        c->restored += 1.0;
        tell(c, w, "env_runner_back", "answers again");
    }
    switch (head->kind) {
    case PX_READY:
        w->health = HEALTHY;
        break;
    case PX_BATCH:
        take_batch(c, w, head, bytes);
        break;
    case PX_DROPPED: {
        request *r = find_request(w, head->id);
        if (r != NULL) {
            give_back(c, w, r);
        }
        if (head->seq_no == c->seq_no && w->node != px_world_node(px_world_rank())) {
            c->nodes[w->node].ready = -1; /* they did not get there, or are spoilt */
        }
        break;
    }
    case PX_FAILED:
        take_failure(c, w, head, bytes);
        break;
    default:
        break;
    }
}

/* ---- messages out ----------------------------------------------------------------------------------------------------------- */

static px_envelope head_of(const px_collector *c, px_wire_kind kind)
{
    return (px_envelope){.kind = (int32_t)kind, .stage = c->wire.stage, .seq_no = c->seq_no, .hash = c->hash,
                     .iteration = c->iteration};
}

/* The newest version goes once to each other node, through a runner that answers, piece by piece as its boxes get free. */
static void send_weights(px_collector *c, node *n)
{
    px_weights *weights = &c->session->weights;
    int pieces = (int)((weights->block + PX_PIECE - 1) / PX_PIECE);
    if (n->sending != c->seq_no) {
        n->through = -1;
        for (int i = 0; i < c->count && n->through < 0; i++) {
            n->through = c->workers[i].health == HEALTHY && &c->nodes[c->workers[i].node] == n ? i : -1;
        }
        n->sending = n->through >= 0 ? c->seq_no : -1;
        n->piece = 0;
        n->began = px_wall_time();
    }
    const char *bytes = n->sending >= 0 ? px_weights_find(weights, n->sending) : NULL;
    for (; bytes != NULL && n->piece < pieces; n->piece++) {
        size_t at = (size_t)n->piece * PX_PIECE, left = weights->block - at;
        px_envelope head = head_of(c, PX_WEIGHTS);
        head.first = n->piece;
        head.count = pieces;
        if (!px_post_send(c->post, n->through, &head, sizeof head, bytes + at, left < PX_PIECE ? left : PX_PIECE)) {
            return;
        }
    }
    if (bytes != NULL) {
        px_timeline_span(PX_ROW_WEIGHTS, "send to another node", n->began);
        n->ready = n->sending;
        n->sending = -1;
    }
}

/* Ranks without work wait for as long as they hear of the driver. */
static void stay_heard(px_collector *c)
{
    const px_envelope head = head_of(c, PX_ALIVE);
    for (int i = 0; i < c->count; i++) {
        worker *w = &c->workers[i];
        if (w->health != DEAD && px_now() - w->told > c->wire.heartbeat &&
            px_post_send(c->post, i, &head, sizeof head, NULL, 0)) {
            w->told = px_now();
        }
    }
}

static bool may_take(const px_collector *c, const worker *w, const px_task *job, bool evaluators, bool spares)
{
    bool role = job->evaluation && evaluators ? w->role == PX_ROLE_EVALUATOR
                                              : w->role == PX_ROLE_ENV_RUNNER || (spares && w->role == PX_ROLE_SPARE);
    return role && w->health == HEALTHY && w->in_flight < c->wire.in_flight && c->nodes[w->node].ready == c->seq_no;
}

/* Who has least to do. Spares come in while an env runner is missing. */
static worker *choose_worker(px_collector *c, const px_task *job)
{
    worker *best = NULL;
    bool evaluators = false;
    int runners = 0;
    for (int i = 0; i < c->count; i++) {
        evaluators = evaluators || (c->workers[i].role == PX_ROLE_EVALUATOR && c->workers[i].health == HEALTHY);
        runners += c->workers[i].role == PX_ROLE_ENV_RUNNER && c->workers[i].health <= HEALTHY;
    }
    for (int i = 0; i < c->count; i++) {
        worker *w = &c->workers[i];
        if (may_take(c, w, job, evaluators, runners < c->session->placement.env_runners) &&
            (best == NULL || w->in_flight < best->in_flight)) {
            best = w;
        }
    }
    return best;
}

static bool hand_out(px_collector *c, px_task *job, worker *w, int first)
{
    int most = job->evaluation ? c->wire.evaluation_prompts : c->wire.prompts, count = 0, free = 0;
    while (count < most && first + count < job->prompts && job->owner[first + count] == PX_SLOT_WAITING) {
        count++;
    }
    while (w->requests[free].used) {
        free++;
    }
    px_envelope head = head_of(c, PX_REQUEST);
    head.iteration = job->iteration;
    head.evaluation = job->evaluation;
    head.id = c->next_id++;
    head.first = first;
    head.count = count;
    head.each = job->each;
    if (!px_post_send(c->post, (int)(w - c->workers), &head, sizeof head, job->rows + first, sizeof *job->rows * (size_t)count)) {
        return false;
    }
    if (w->in_flight++ == 0) {
        w->heard = px_now();
    }
    w->requests[free] = (request){true, job->evaluation, job->iteration, head.id, first, count};
    for (int slot = first; slot < first + count; slot++) {
        job->owner[slot] = (int32_t)(w - c->workers);
    }
    return true;
}

static void hand_out_all(px_collector *c, px_task *job)
{
    for (int slot = 0; job->open && slot < job->prompts; slot++) {
        worker *w = job->owner[slot] == PX_SLOT_WAITING ? choose_worker(c, job) : NULL;
        if (job->owner[slot] == PX_SLOT_WAITING && (w == NULL || !hand_out(c, job, w, slot))) {
            return;
        }
    }
}

/* ---- one look at everything, without waiting ------------------------------------------------------------------------------- */

static void check_silence(px_collector *c, double now)
{
    for (int i = 0; i < c->count; i++) {
        worker *w = &c->workers[i];
        const node *n = &c->nodes[w->node];
        bool owes = w->in_flight > 0 || w->health == ABSENT || (n->sending >= 0 && n->through == i);
        if (w->health == DEAD) {
            continue;
        }
        if (px_rank_died(w->rank)) {
            leave_out(c, w, DEAD, "env_runner_died", "has died: its prompts go to others");
        } else if (w->health != OUT && owes && now - w->heard > c->wire.timeout) {
            leave_out(c, w, OUT, "env_runner_left_out", "is silent: its prompts go to others");
        }
    }
}

static void poll_all(void *arg)
{
    px_collector *c = arg;
    const void *message;
    size_t bytes;
    int from;
    double now = px_now(), away = now - c->polled;
    for (int i = 0; i < c->count && away > 0.5; i++) { /* nobody was silent while nobody listened */
        c->workers[i].heard += away;
    }
    while ((message = px_post_take(c->post, &from, &bytes)) != NULL) {
        take_message(c, &c->workers[from], message, bytes);
    }
    check_silence(c, px_now());
    stay_heard(c);
    for (int n = 0; n < c->node_count && c->seq_no >= 0; n++) {
        if (c->nodes[n].ready != c->seq_no) {
            send_weights(c, &c->nodes[n]);
        }
    }
    hand_out_all(c, &c->jobs[c->job_count - 1]); /* an evaluation is waited for */
    for (int ahead = 0; ahead < c->job_count - 1; ahead++) {
        hand_out_all(c, &c->jobs[(c->iteration + ahead) % (c->job_count - 1)]);
    }
    c->polled = px_now();
}

static px_status check_health(const px_collector *c)
{
    int usable = 0, least = (int)px_stage_int(c->session->stage, "fault_tolerance.min_healthy_env_runners");
    for (int i = 0; i < c->count; i++) {
        usable += c->workers[i].health <= HEALTHY && c->workers[i].role != PX_ROLE_EVALUATOR;
    }
    least = least > 1 ? least : 1;
    return usable >= least ? PX_OK : px_fail(PX_UNHEALTHY, "%d of %d env runners answer, valid is %d or more "
                                             "(fault_tolerance.min_healthy_env_runners); the events of the run say which ones do "
                                             "not (phalanx inspect RUN events)", usable, c->session->placement.env_runners, least);
}

/* ---- a rollout ---------------------------------------------------------------------------------------------------------------- */

/* The same version is published once, whether it trains or evaluates. */
void px_collector_publish(void *self, const px_model *policy, int64_t seq_no)
{
    px_collector *c = self;
    if (seq_no == c->seq_no) {
        return;
    }
    double start = px_now(), began = px_wall_time();
    px_weights *weights = &c->session->weights;
    char *to = px_weights_begin(weights, seq_no);
    PX_CHECK(to != NULL); /* versions only grow, and nobody else writes on this node */
    memcpy(to, policy->weights, weights->block);
    c->hash = px_weights_seal(weights, seq_no);
    c->seq_no = seq_no;
    c->published[seq_no % VERSIONS].seq_no = seq_no;
    c->published[seq_no % VERSIONS].hash = c->hash;
    c->nodes[px_world_node(px_world_rank())].ready = seq_no;
    c->synch += px_now() - start;
    px_timeline_span(PX_ROW_WEIGHTS, "publish", began);
}

static px_status wait_for(px_collector *c, const px_task *job)
{
    double waited = 0.0;
    int left = job->left;
    for (long poll = 0; job->left > 0; poll++) {
        poll_all(c);
        if (c->failed.code != PX_OK) {
            return px_error_restore(&c->failed);
        }
        if (px_stop_level() > 0) {
            return px_fail(PX_STOPPED, "stopped while sampling");
        }
        PX_TRY(check_health(c));
        if (job->left != left) {
            left = job->left;
            poll = 0;
            waited = 0.0;
        }
        px_wait_nap(poll, &waited);
    }
    return PX_OK;
}

/* within: seconds of publishing in this call. An evaluation leaves the sum to the training batch that follows. */
static void report(px_collector *c, bool evaluation, double within, px_collect_report *out)
{
    *out = (px_collect_report){.restored = c->restored, .synch_s = c->synch, .within_s = within};
    c->synch = evaluation ? c->synch : 0.0;
    for (int i = 0; i < c->count; i++) {
        out->healthy += c->workers[i].health == HEALTHY && c->workers[i].role != PX_ROLE_EVALUATOR;
    }
}

static px_task *job_of(px_collector *c, int64_t iteration, bool evaluation)
{
    return &c->jobs[evaluation ? c->job_count - 1 : (int)(iteration % (c->job_count - 1))];
}

/* What the env runners sample while the core learns: the next iterations, as many as may be stale. */
static px_status open_ahead(px_collector *c, px_trainer *trainer, int64_t iteration)
{
    for (int64_t next = iteration + 1; next <= iteration + c->wire.staleness && next <= c->session->total; next++) {
        px_task *job = job_of(c, next, false);
        if (!job->open) {
            PX_TRY(px_ppo_rows(trainer, next, job->rows));
            px_task_open(job, next, c->session->ppo.prompts_per_iteration, c->wire.each);
        }
    }
    poll_all(c);
    return PX_OK;
}

px_status px_collector_run(void *self, px_trainer *trainer, px_rollout *rollout, int64_t iteration, bool evaluation,
                           int64_t seq_no, const px_completion **completions, px_collect_report *out)
{
    px_collector *c = self;
    px_task *job = job_of(c, iteration, evaluation);
    int each = evaluation ? c->wire.evaluation_each : c->wire.each, prompts = rollout->samples / each;
    double synch = c->synch;
    c->iteration = iteration;
    px_collector_publish(c, &trainer->learners[0].learner.model, seq_no);
    if (!job->open) {
        for (int slot = 0; slot < prompts; slot++) {
            job->rows[slot] = rollout->prompt[slot * each];
        }
        px_task_open(job, iteration, prompts, each);
    }
    double within = c->synch - synch;
    px_status status = wait_for(c, job);
    job->open = false;
    PX_TRY(status);
    memcpy(rollout->rank, job->rank, sizeof *job->rank * (size_t)rollout->samples);
    memcpy(rollout->weights_seq_no, job->seq_no, sizeof *job->seq_no * (size_t)rollout->samples);
    *completions = job->completions;
    report(c, evaluation, within, out);
    return evaluation ? PX_OK : open_ahead(c, trainer, iteration);
}

/* ---- beginning and end ------------------------------------------------------------------------------------------------------- */

px_status px_collector_create(px_collector **out, px_session *session)
{
    px_collector *c = px_alloc(sizeof *c, "the collector of samples");
    if (c == NULL) {
        return px_error_code();
    }
    *out = c;
    const px_placement *placement = &session->placement;
    c->session = session;
    c->count = placement->ranks - px_placement_core(placement);
    c->seq_no = -1;
    c->polled = px_now();
    px_wire_derive(&c->wire, session);
    for (int v = 0; v < VERSIONS; v++) {
        c->published[v].seq_no = -1;
    }
    int *ranks = px_alloc_array((size_t)c->count, sizeof *ranks, "the collector of samples");
    c->workers = px_alloc_array((size_t)c->count, sizeof *c->workers, "the collector of samples");
    c->nodes = px_alloc_array((size_t)placement->ranks, sizeof *c->nodes, "the collector of samples");
    c->job_count = c->wire.staleness + 2;
    c->jobs = px_alloc_array((size_t)c->job_count, sizeof *c->jobs, "the collector of samples");
    if (ranks == NULL || c->workers == NULL || c->nodes == NULL || c->jobs == NULL) {
        px_free(ranks);
        return px_error_code();
    }
    c->jobs[c->job_count - 1].evaluation = true;
    for (int i = 0; i < c->count; i++) {
        int rank = ranks[i] = px_placement_core(placement) + i;
        c->workers[i] = (worker){.rank = rank, .node = px_world_node(rank), .role = px_placement_role(placement, rank),
                                 .heard = c->polled};
        c->node_count = c->workers[i].node >= c->node_count ? c->workers[i].node + 1 : c->node_count;
    }
    for (int n = 0; n < placement->ranks; n++) {
        c->nodes[n] = (node){.ready = -1, .sending = -1, .through = -1};
    }
    px_status status = px_post_open(&c->post, ranks, c->count, c->wire.largest, c->wire.in_flight + 2);
    px_free(ranks);
    px_poll_set(poll_all, c);
    return status;
}

/* Prompts of one evaluation. */
static int held_out(const px_session *session)
{
    int64_t rows = session->validation != NULL ? px_dataset_count(session->validation) : 0;
    return rows < session->parts.evaluation_prompts ? (int)rows : session->parts.evaluation_prompts;
}

px_status px_collector_prepare(px_collector *c)
{
    int prompts = c->session->ppo.prompts_per_iteration;
    for (int j = 0; j < c->job_count - 1; j++) {
        PX_TRY(px_task_alloc(&c->jobs[j], prompts, c->wire.each, c->wire.room));
    }
    return px_task_alloc(&c->jobs[c->job_count - 1], held_out(c->session), c->wire.evaluation_each, c->wire.room);
}

size_t px_collector_boxes(const px_session *session)
{
    px_wire wire;
    px_wire_derive(&wire, session);
    return px_post_bytes(session->placement.ranks - px_placement_core(&session->placement), wire.largest, wire.in_flight + 2);
}

size_t px_collector_bytes(const px_session *session)
{
    px_wire wire;
    px_wire_derive(&wire, session);
    size_t bytes = 0;
    for (int j = 0; j < wire.staleness + 2; j++) {
        bool evaluation = j == wire.staleness + 1;
        bytes += px_task_bytes(evaluation ? held_out(session) : session->ppo.prompts_per_iteration,
                               evaluation ? wire.evaluation_each : wire.each, wire.room);
    }
    return bytes;
}

/* Everybody is told; those who were answering get some time for their farewell. */
void px_collector_end(px_collector *c, uint8_t *alive)
{
    px_poll_set(NULL, NULL);
    double grace = c->wire.timeout < 2.0 ? 2.0 : c->wire.timeout > 20.0 ? 20.0 : c->wire.timeout, waited = 0.0;
    bool *told = px_alloc_array((size_t)c->count, sizeof *told, "the end of a stage");
    const px_envelope end = head_of(c, PX_END);
    int waiting = told != NULL ? 1 : 0;
    memset(alive, 0, (size_t)c->session->placement.ranks);
    memset(alive, 1, (size_t)px_placement_core(&c->session->placement));
    for (long poll = 0; waiting > 0 && waited < grace; poll++) {
        const px_envelope *head;
        size_t bytes;
        int from;
        waiting = 0;
        for (int i = 0; i < c->count; i++) {
            told[i] = told[i] || px_post_send(c->post, i, &end, sizeof end, NULL, 0);
            bool gone = c->workers[i].health >= OUT || px_rank_died(c->workers[i].rank);
            waiting += !gone && !alive[c->workers[i].rank];
        }
        while ((head = px_post_take(c->post, &from, &bytes)) != NULL) {
            if (bytes >= sizeof *head && head->stage == c->wire.stage && head->kind == PX_BYE) {
                alive[c->workers[from].rank] = 1;
            }
        }
        px_wait_nap(poll, &waited);
    }
    px_free(told);
}

void px_collector_regroup(px_collector *c, const int *ranks, int count, bool dead)
{
    px_envelope head = head_of(c, PX_GROUP);
    head.count = count;
    head.first = dead;
    for (int i = 0; i < c->count; i++) {
        for (int k = 0; k < count; k++) {
            if (ranks[k] == c->workers[i].rank) {
                px_post_send(c->post, i, &head, sizeof head, ranks, sizeof *ranks * (size_t)count);
            }
        }
    }
}

void px_collector_destroy(px_collector *c)
{
    if (c == NULL) {
        return;
    }
    px_post_close(c->post);
    for (int j = 0; c->jobs != NULL && j < c->job_count; j++) {
        px_task_free(&c->jobs[j]);
    }
    px_free(c->jobs);
    px_free(c->workers);
    px_free(c->nodes);
    px_free(c);
}
