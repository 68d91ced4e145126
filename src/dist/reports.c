/* What a rank does, told to a rank of another node whenever it changes, so that somebody can say what a rank did last
 * that does not answer any more: rank 0 hears all nodes but its own, the first rank of another node hears rank 0. */
#include "phalanx/dist.h"
#include "board.h"
#include "world.h"

#include <stdlib.h>

enum { TAG = 120 }; /* sums take 71 to 86, messages 119 */

typedef struct heard {
    px_report report;
    double when;   /* px_now(); 0: nothing yet */
    int64_t count; /* of messages */
} heard;

static struct {
    heard *heard;        /* [ranks of the job], on the two that listen; NULL: the others */
    int deputy;          /* who hears rank 0; -1: there is one node */
    px_report out;
    MPI_Request request;
    int64_t sent[2];     /* messages to rank 0 and to the deputy */
    bool open, gave_up;  /* gave_up: a rank will end the job unless we do, who know more */
} reports = {.deputy = -1};

px_status px_reports_open(void)
{
    int size = px_world_size(), rank = px_world_rank();
    reports.request = MPI_REQUEST_NULL;
    for (int r = size - 1; r > 0; r--) {
        reports.deputy = px_world_node(r) != px_world_node(0) ? r : reports.deputy;
    }
    if (rank == 0 || rank == reports.deputy) {
        reports.heard = calloc((size_t)size, sizeof *reports.heard); /* of the process, not of a run */
        if (reports.heard == NULL) {
            return px_fail(PX_CONFIG, "out of memory: what %d ranks report", size);
        }
    }
    reports.open = true;
    return PX_OK;
}

/* Never waits: while a report is under way, the next one is left out. */
static void send(const px_report *report, int to)
{
    if (!px_request_over(&reports.request, to)) {
        return;
    }
    reports.out = *report;
    if (MPI_Isend(&reports.out, (int)sizeof reports.out, MPI_BYTE, to, TAG, MPI_COMM_WORLD, &reports.request) == MPI_SUCCESS) {
        reports.sent[to != 0]++;
    } else {
        reports.request = MPI_REQUEST_NULL;
    }
}

void px_reports_send(const px_report *report)
{
    int to = report->rank == 0 ? reports.deputy : 0;
    if (reports.open && to >= 0 && (px_world_node(report->rank) != px_world_node(to) || report->gave_up)) {
        send(report, to);
    }
}

void px_reports_take(void)
{
    int found = 1;
    while (reports.heard != NULL && found) {
        MPI_Status status;
        px_report report;
        if (MPI_Iprobe(MPI_ANY_SOURCE, TAG, MPI_COMM_WORLD, &found, &status) != MPI_SUCCESS) {
            px_failures_look();
            return;
        }
        if (!found || MPI_Recv(&report, (int)sizeof report, MPI_BYTE, status.MPI_SOURCE, TAG, MPI_COMM_WORLD,
                               MPI_STATUS_IGNORE) != MPI_SUCCESS) {
            return;
        }
        heard *from = &reports.heard[status.MPI_SOURCE];
        *from = (heard){report, px_now(), from->count + 1};
        reports.gave_up |= report.gave_up;
    }
}

/* Of the ranks that live: those that have died do not say how many they sent. */
static int64_t taken(void)
{
    int64_t count = 0;
    for (int r = 0; r < px_world_size(); r++) {
        count += px_rank_died(r) ? 0 : reports.heard[r].count;
    }
    return count;
}

bool px_reports_gave_up(void)
{
    return reports.gave_up;
}

double px_reports_grace(void)
{
    int rank = px_world_rank();
    return rank == 0 ? 0.0 : rank == reports.deputy ? 2.0 : 4.0 + 0.25 * (rank < 16 ? rank : 16); /* one speaks, the job ends */
}

bool px_reports_describe(int rank, px_buf *text)
{
    const heard *h = reports.heard != NULL ? &reports.heard[rank] : NULL;
    if (h == NULL || h->when == 0.0) {
        return false;
    }
    px_report_describe(&h->report, px_now() - h->when, text);
    return true;
}

void px_reports_close(void)
{
    int64_t sent[2] = {reports.sent[0], reports.sent[1]};
    double waited = 0.0;
    if (!reports.open) {
        return;
    }
    reports.open = false;
    px_sum_i64(sent, 2);
    for (long poll = 0; reports.heard != NULL && taken() < sent[px_world_rank() != 0]; poll++) {
        px_reports_take();
        px_wait_nap(poll, &waited);
    }
    int to = px_world_rank() == 0 ? reports.deputy : 0;
    for (long poll = 0; to >= 0 && !px_request_over(&reports.request, to); poll++) {
        px_wait_nap(poll, &waited);
    }
    free(reports.heard);
    reports.heard = NULL;
}
