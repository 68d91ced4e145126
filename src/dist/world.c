/* The ranks of the job: who they are, which of them take part in collectives, and how the job ends. */
#include "phalanx/dist.h"
#include "board.h"
#include "world.h"

#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static struct {
    bool launched;
    int rank, size, local_rank, local_size;
    int *nodes;      /* [size] number of each rank's node */
    MPI_Comm node;   /* the ranks of this node */
    MPI_Comm group;  /* MPI_COMM_WORLD, or a communicator of our own */
    int group_rank, group_size;
    struct {
        bool made, alone; /* alone: comm, rank and size are the group's, and the group's fields this team's */
        MPI_Comm comm;
        int rank, size;
    } team;
    bool lost;       /* a rank was left behind that MPI counts on: the job cannot end by itself */
    bool fewer;      /* ranks have died: the group is all that are left */
    char host[128];
} world = {.size = 1, .local_size = 1, .group_size = 1};

/* What launchers leave in the environment of each rank: Open MPI's mpirun, PMIx and PMI under srun, MPICH's hydra. */
static bool launcher_seen(void)
{
    static const char *const names[] = {"OMPI_COMM_WORLD_SIZE", "PMIX_RANK", "PMI_RANK", "PMI_SIZE", "MPI_LOCALRANKID"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        if (getenv(names[i]) != NULL) {
            return true;
        }
    }
    return false;
}

/* The same launchers, and srun without PMI. In a batch script, which is no task of a step, Slurm's is 0. */
int px_launch_rank(void)
{
    static const char *const names[] = {"OMPI_COMM_WORLD_RANK", "PMIX_RANK", "PMI_RANK", "SLURM_PROCID"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        const char *text = getenv(names[i]);
        if (text != NULL) {
            return atoi(text);
        }
    }
    return 0;
}

static volatile sig_atomic_t abort_code;

static void end_process(int number)
{
    (void)number;
    _exit(abort_code);
}

static void (*last_words)(int exit_code, const char *reason);

void px_last_words_set(void (*say)(int exit_code, const char *reason))
{
    last_words = say;
}

/* Neither a file system nor MPI may keep this process any more. */
static void begin_end(int exit_code, const char *reason)
{
    enum { PATIENCE = 10 };
    sigset_t alarms;
    void (*say)(int, const char *) = last_words;
    last_words = NULL;
    abort_code = exit_code;
    signal(SIGALRM, end_process);
    sigemptyset(&alarms);
    sigaddset(&alarms, SIGALRM);
    pthread_sigmask(SIG_UNBLOCK, &alarms, NULL);
    alarm(PATIENCE);
    if (say != NULL) {
        say(exit_code, reason);
    }
}

_Noreturn void px_job_leave(int exit_code, const char *reason)
{
    begin_end(exit_code, reason);
    _exit(exit_code);
}

/* MPI_Abort itself may hang where a node is lost. */
_Noreturn void px_job_abort(int exit_code, const char *reason)
{
    begin_end(exit_code, reason);
    while (px_fault("mpi.abort")) {
        pause();
    }
    MPI_Abort(MPI_COMM_WORLD, exit_code);
    _exit(exit_code);
}

static void abort_job(int exit_code)
{
    px_job_abort(exit_code, "an internal error: log.txt or the job's output says which");
}

/* PHALANX_RANKS_PER_NODE makes several nodes of one, so that what travels between nodes can be tested on one. */
static void find_node(void)
{
    MPI_Comm_split_type(MPI_COMM_WORLD, MPI_COMM_TYPE_SHARED, world.rank, MPI_INFO_NULL, &world.node);
    MPI_Comm_rank(world.node, &world.local_rank);
    const char *text = getenv("PHALANX_RANKS_PER_NODE");
    int each = text != NULL ? atoi(text) : 0;
    if (each > 0) {
        MPI_Comm whole = world.node;
        MPI_Comm_split(whole, world.local_rank / each, world.rank, &world.node);
        MPI_Comm_free(&whole);
        MPI_Comm_rank(world.node, &world.local_rank);
    }
    MPI_Comm_size(world.node, &world.local_size);
    MPI_Comm_set_errhandler(world.node, MPI_ERRORS_RETURN);
}

/* A node's number is the place of its first rank among the first ranks of all nodes. Collective. */
static px_status number_nodes(void)
{
    int leader = world.rank, count = 0;
    world.nodes = calloc((size_t)world.size, sizeof *world.nodes); /* errors can be agreed on only from here on */
    PX_CHECK(world.nodes != NULL);
    MPI_Bcast(&leader, 1, MPI_INT, 0, world.node);
    MPI_Allgather(&leader, 1, MPI_INT, world.nodes, 1, MPI_INT, MPI_COMM_WORLD);
    for (int r = 0; r < world.size; r++) {
        world.nodes[r] = world.nodes[r] == r ? count++ : world.nodes[world.nodes[r]];
    }
    return PX_OK;
}

/* Every call waits for all ranks of the job. */
static px_status start_mpi(int *argc, char ***argv)
{
    int provided;
    if (MPI_Init_thread(argc, argv, MPI_THREAD_FUNNELED, &provided) != MPI_SUCCESS) {
        return px_fail(PX_IO, "MPI does not start");
    }
    MPI_Comm_set_errhandler(MPI_COMM_WORLD, MPI_ERRORS_RETURN);
    MPI_Comm_rank(MPI_COMM_WORLD, &world.rank);
    MPI_Comm_size(MPI_COMM_WORLD, &world.size);
    find_node();
    world.launched = true;
    px_group_all();
    px_log_identity(world.rank, world.size);
    px_bug_hook_set(abort_job);
    px_failures_open();
    return number_nodes();
}

px_status px_dist_start(int *argc, char ***argv)
{
    gethostname(world.host, sizeof world.host - 1);
    if (!launcher_seen()) {
        return PX_OK;
    }
    px_watchdog_begin("starting", px_deadline());
    px_status status = start_mpi(argc, argv);
    px_watchdog_end();
    PX_TRY(status);
    PX_TRY(px_agree(px_board_open()));
    return px_agree(px_reports_open());
}

void px_dist_assume(int *nodes, int size, int group_size)
{
    PX_CHECK(!world.launched);
    world.nodes = nodes;
    world.size = size;
    world.group_size = group_size;
    world.local_size = 1;
    while (world.local_size < size && nodes[world.local_size] == nodes[0]) {
        world.local_size++;
    }
}

/* A command may end before it starts MPI: in all its processes for the same reason, where a launcher was seen. */
static bool speaks_for_all(void)
{
    return world.launched || !launcher_seen() ? world.rank == 0 : px_launch_rank() == 0;
}

int px_dist_finish(px_status status)
{
    if (world.launched && world.group_size < world.size && !world.lost && !world.fewer) {
        px_group_all();
    }
    status = px_agree(status);
    if (status != PX_OK && speaks_for_all() && px_error_text()[0] != '\0') {
        px_progress(NULL);
        fprintf(stderr, "phalanx: %s\n", px_error_text());
    }
    if (world.launched) {
        fflush(NULL);
        if (!world.lost) {
            px_reports_close();
        }
        px_barrier();
        px_board_leave();
        if (world.lost && world.rank == 0) { /* MPI_Finalize would wait for a rank that does not answer */
            px_job_abort((int)status, "");
        }
        if (world.lost) { /* the launcher is about to end this process */
            sleep(10);
            _exit((int)status);
        }
        if (world.fewer) { /* MPI_Finalize of Open MPI 5.0.7 often hangs; who leaves early looks dead to one still in the barrier */
            usleep(200000);
            _exit((int)status);
        }
        px_watchdog_begin("ending", px_deadline());
        MPI_Finalize();
        px_watchdog_end();
        world.launched = false;
    }
    return (int)status;
}

/* ---- groups --------------------------------------------------------------------------------------------------------------- */

void px_team(bool alone)
{
    if (!world.team.made || world.team.alone == alone) {
        return;
    }
    MPI_Comm comm = world.group;
    int rank = world.group_rank, size = world.group_size;
    world.group = world.team.comm;
    world.group_rank = world.team.rank;
    world.group_size = world.team.size;
    world.team.comm = comm;
    world.team.rank = rank;
    world.team.size = size;
    world.team.alone = alone;
}

px_status px_team_make(int first)
{
    if (first <= 0 || first >= world.group_size) {
        return PX_OK;
    }
    px_watchdog_begin("making two teams", px_deadline());
    int code = MPI_Comm_split(world.group, world.group_rank < first ? 0 : 1, world.group_rank, &world.team.comm);
    px_watchdog_end();
    if (code != MPI_SUCCESS) {
        return px_fail(PX_IO, "MPI cannot make two teams of %d ranks", world.group_size);
    }
    MPI_Comm_set_errhandler(world.team.comm, MPI_ERRORS_RETURN);
    MPI_Comm_rank(world.team.comm, &world.team.rank);
    MPI_Comm_size(world.team.comm, &world.team.size);
    world.team.made = true;
    world.team.alone = false;
    return PX_OK;
}

static void drop_team(void)
{
    px_team(false);
    if (world.team.made && !world.lost) {
        MPI_Comm_free(&world.team.comm);
    }
    world.team.made = false;
}

static void drop_group(void)
{
    drop_team();
    if (world.group != MPI_COMM_WORLD && world.group != MPI_COMM_NULL && !world.lost) {
        MPI_Comm_free(&world.group);
    }
    world.group = MPI_COMM_NULL;
}

void px_group_all(void)
{
    if (!world.launched) {
        return;
    }
    drop_group();
    world.group = MPI_COMM_WORLD;
    world.group_rank = world.rank;
    world.group_size = world.size;
}

void px_group_leave(void)
{
    drop_group();
    world.group_rank = -1;
    world.group_size = 1;
}

static int create_group(const int *ranks, int count, int tag)
{
    MPI_Group all, some;
    MPI_Comm_group(MPI_COMM_WORLD, &all);
    MPI_Group_incl(all, count, ranks, &some);
    int code = MPI_Comm_create_group(MPI_COMM_WORLD, some, tag, &world.group);
    MPI_Group_free(&some);
    MPI_Group_free(&all);
    return code;
}

/* MPI makes no group within a communicator that has dead ranks, but one of all others. */
px_status px_group_enter(const int *ranks, int count, int tag)
{
    int size = 0;
    drop_group();
    px_watchdog_begin("making a group of ranks", px_deadline());
    int code = world.fewer && !world.lost ? px_failures_shrink(&world.group) : create_group(ranks, count, tag);
    px_watchdog_end();
    if (code == MPI_SUCCESS && world.group != MPI_COMM_NULL) {
        MPI_Comm_set_errhandler(world.group, MPI_ERRORS_RETURN);
        MPI_Comm_rank(world.group, &world.group_rank);
        MPI_Comm_size(world.group, &size);
    }
    if (size != count) {
        px_group_leave();
        return px_fail(PX_IO, "MPI cannot make a communicator of %d ranks", count);
    }
    world.group_size = count;
    return PX_OK;
}

void px_ranks_left(bool dead)
{
    world.fewer = true;
    world.lost = world.lost || !dead || !px_dist_survives();
}

MPI_Comm px_group_comm(void)
{
    return world.group;
}

/* ---- who is where --------------------------------------------------------------------------------------------------------- */

bool px_dist_launched(void)
{
    return world.launched;
}

int px_dist_rank(void)
{
    return world.group_rank;
}

int px_dist_size(void)
{
    return world.group_size;
}

int px_world_rank(void)
{
    return world.rank;
}

int px_world_size(void)
{
    return world.size;
}

int px_world_node(int rank)
{
    return world.nodes != NULL ? world.nodes[rank] : rank / world.local_size;
}

int px_dist_local_rank(void)
{
    return world.local_rank;
}

int px_dist_local_size(void)
{
    return world.local_size;
}

const char *px_dist_host(void)
{
    return world.host;
}

const char *px_dist_version(void)
{
    static char text[MPI_MAX_LIBRARY_VERSION_STRING];
    int length;
    MPI_Get_library_version(text, &length);
    text[strcspn(text, "\n,")] = '\0';
    return text;
}

void px_share(int64_t total, int rank, int size, int64_t *first, int64_t *count)
{
    int64_t each = total / size, rest = total % size;
    *first = each * rank + (rank < rest ? rank : rest);
    *count = each + (rank < rest ? 1 : 0);
}
