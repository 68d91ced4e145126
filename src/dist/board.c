/* A board in memory that the ranks of a node share: each writes what it does, so that whoever finds one dead or late can
 * say what it was doing. A text that is read while it is written may be mixed: it is for people. */
#include "board.h"
#include "phalanx/dist.h"
#include "world.h"

#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

typedef enum row_state { ROW_NONE, ROW_ALIVE, ROW_DEAD, ROW_LEFT } row_state;

typedef struct row {
    atomic_int state;
    atomic_bool ended;    /* of the first row: a rank of the node has begun to end the job, and has said why */
    atomic_bool stopping; /* a stop was asked for here; `stop` says how */
    px_report is;
    char stop[48];
    double since; /* px_now() when the phase began: one clock for a node */
    uint64_t place; /* of its pid: ranks in containers of their own do not see each other's processes */
} row;

static struct {
    px_shared shared;
    row *rows; /* [local size]; NULL: alone */
    row *mine;
    int count;
    int core; /* ranks of the job that the others need come first */
    atomic_bool core_died;
} board;

px_status px_board_open(void)
{
    int count = px_dist_local_size();
    PX_TRY(px_shared_open(&board.shared, sizeof(row) * (size_t)count));
    board.rows = board.shared.data;
    board.count = count;
    board.mine = &board.rows[px_dist_local_rank()];
    board.mine->is.rank = px_world_rank();
    const px_process self = px_process_self();
    board.mine->place = px_hash(self.place, strlen(self.place), 0);
    board.mine->is.pid = (int)self.pid;
    snprintf(board.mine->is.host, sizeof board.mine->is.host, "%s", px_dist_host());
    px_role_set("learner", px_world_size());
    px_phase_set("start", 0);
    atomic_store(&board.mine->state, ROW_ALIVE);
    return PX_OK;
}

void px_board_leave(void)
{
    if (board.mine != NULL) {
        atomic_store(&board.mine->state, ROW_LEFT);
    }
}

bool px_board_end(void)
{
    px_board_leave();
    return board.rows == NULL || !atomic_exchange(&board.rows[0].ended, true);
}

void px_role_set(const char *role, int core)
{
    px_log_role(role);
    board.core = core;
    if (board.mine != NULL) {
        snprintf(board.mine->is.role, sizeof board.mine->is.role, "%s", role);
        board.mine->is.expendable = px_world_rank() >= core;
    }
}

void px_phase_set(const char *phase, int64_t iteration)
{
    px_usage_turn(phase);
    px_timeline_turn(phase, iteration);
    if (board.mine != NULL) {
        snprintf(board.mine->is.phase, sizeof board.mine->is.phase, "%s", phase);
        board.mine->is.iteration = iteration;
        board.mine->since = px_now();
        px_reports_send(&board.mine->is);
        px_reports_take();
    }
}

void px_event_note(const char *text)
{
    if (board.mine != NULL) {
        snprintf(board.mine->is.event, sizeof board.mine->is.event, "%s", text);
    }
}

void px_report_describe(const px_report *report, double age, px_buf *text)
{
    px_buf_printf(text, "rank %d (%s, pid %d on %s) in phase '%s' of iteration %lld for %.1f s%s%s", report->rank, report->role,
                  report->pid, report->host, report->phase, (long long)report->iteration, age,
                  report->event[0] != '\0' ? "; last event: " : "", report->event);
}

static void describe(const row *r, px_buf *text)
{
    px_report_describe(&r->is, px_now() - r->since, text);
}

static const row *find(int rank)
{
    for (int i = 0; i < board.count; i++) {
        if (board.rows[i].is.rank == rank) {
            return &board.rows[i];
        }
    }
    return NULL;
}

void px_board_describe(px_buf *text)
{
    static const char *const states[] = {"has not started", "", "died: ", "left: "};
    for (int i = 0; i < board.count; i++) {
        px_buf_printf(text, "  %s", states[atomic_load(&board.rows[i].state)]);
        describe(&board.rows[i], text);
        px_buf_text(text, "\n");
    }
    for (int rank = 0; rank < px_world_size(); rank++) { /* of other nodes, as far as they have said */
        size_t length = text->length;
        const char *begin = px_failures_died(rank) ? "  died, last heard: " : "  last heard: ";
        if (find(rank) == NULL && px_buf_text(text, begin) == PX_OK && px_reports_describe(rank, text)) {
            px_buf_text(text, "\n");
        } else if (length < text->length) {
            text->length = length;
            text->data[length] = '\0';
        }
    }
}

void px_rank_describe(int rank, px_buf *text)
{
    const row *r = find(rank);
    if (r != NULL) {
        describe(r, text);
    } else if (!px_reports_describe(rank, text)) {
        px_buf_printf(text, "rank %d", rank);
    }
}

void px_board_give_up(void)
{
    if (board.mine != NULL && !board.mine->is.gave_up) {
        board.mine->is.gave_up = true;
        px_reports_send(&board.mine->is);
    }
}

/* A stop that one rank of the node was asked for is one for all of them, also where the next collective is far away. */
static void share_stop(void)
{
    static char heard[80]; /* outlives the request */
    if (px_stop_level() > 0 && !atomic_load(&board.mine->stopping)) {
        const char *reason = px_stop_reason();
        snprintf(board.mine->stop, sizeof board.mine->stop, "%s", reason != NULL ? reason : "a stop");
        atomic_store(&board.mine->stopping, true);
    }
    for (int i = 0; i < board.count && px_stop_level() == 0; i++) {
        const row *r = &board.rows[i];
        if (atomic_load(&r->stopping)) {
            snprintf(heard, sizeof heard, "%s on rank %d", r->stop, r->is.rank);
            px_stop_request(heard);
        }
    }
}

void px_neighbours_check(void)
{
    if (board.mine != NULL) {
        share_stop();
    }
    for (int i = 0; i < board.count; i++) {
        row *r = &board.rows[i];
        int alive = ROW_ALIVE;
        if (r == board.mine || atomic_load(&r->state) == ROW_LEFT) {
            continue;
        }
        if (atomic_load(&r->state) == ROW_ALIVE && r->place == board.mine->place && !px_process_lives(r->is.pid, -1) &&
            atomic_compare_exchange_strong(&r->state, &alive, ROW_DEAD)) { /* one rank of the node tells it */
            px_buf text = {0};
            describe(r, &text);
            px_log_rank(PX_ERROR, "post-mortem: a rank died: %s; %s", text.data != NULL ? text.data : "",
                        r->is.expendable ? "it only sampled, the others go on" :
                        "the job ends, the same command continues from the last checkpoint");
            px_buf_free(&text);
        }
        if (atomic_load(&r->state) == ROW_DEAD && !r->is.expendable) {
            atomic_store(&board.core_died, true);
        }
    }
}

bool px_rank_died(int rank)
{
    const row *r = find(rank);
    return (r != NULL && atomic_load(&r->state) == ROW_DEAD) || px_failures_died(rank);
}

int px_core_size(void)
{
    return board.core;
}

bool px_board_core_died(void)
{
    return atomic_load(&board.core_died);
}
