#include "cli.h"
#include "phalanx/config.h"
#include "phalanx/store.h"

#include <errno.h>
#include <jansson.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static const px_usage usage = {
    .synopsis = "supervise [--restarts N] [--run-dir DIR [--start-timeout S]] [--on-stop exit|requeue|succeed] [--json] -- COMMAND [ARGS]",
    .what = "Runs COMMAND (mpirun ... phalanx train ..., srun ...) again until it is done: a rank or node that died costs\n"
            "the iteration in flight. It gives up after N restarts, and at once where another try cannot help (usage,\n"
            "data, configuration, divergence). --fresh of 'train' counts at the first start alone. TERM, INT and USR1\n"
            "are passed on as USR1, which makes a run save its state and end with exit code 75; the second one as\n"
            "TERM. A stopped run (75) ends the supervisor with 75 (exit), puts the Slurm job back into the queue\n"
            "(requeue), or counts as success, so that the next job of a chain goes on (succeed). One that a file STOP\n"
            "stopped is not continued: under the last two Slurm is told to cancel its job. A job that came back from\n"
            "the queue and stops before it has finished an iteration is not put there again. The state of the run is\n"
            "part of the report of every restart, and a command that hangs is told to end: one that has not begun its\n"
            "run after --start-timeout seconds, or outlives it. The run's directory is that of 'train CONFIG ...' in\n"
            "COMMAND; --run-dir names it where COMMAND does not.",
    .examples = "  phalanx supervise -- mpirun -n 4 phalanx train my-ppo.yaml\n"
                "  phalanx supervise --run-dir runs/my-ppo --on-stop requeue -- srun -K --mpi=pmix phalanx train my-ppo.yaml",
    .exits = "0 done, 64 usage, 75 stopped and resumable, else the command's last",
};

typedef struct supervision {
    const char *run_dir, *on_stop;
    int64_t restarts, start_timeout, starts;
    char **argv;
    bool requeued;   /* the job comes back from the queue */
    char place[128]; /* how far the run was at the start; "": no status.json */
    int asked;       /* stop signals so far */
    double ran;      /* seconds that this process has run: suspended with its job, it has not waited */
    double ordered;  /* ran, when the second signal came; 0: none has */
    px_lock_watch lock; /* of run_dir: clocks of other hosts may be off */
} supervision;

/* ---- the command ------------------------------------------------------------------------------------------------- */

static void signal_set(sigset_t *set)
{
    static const int all[] = {SIGTERM, SIGINT, SIGUSR1, SIGCHLD};
    sigemptyset(set);
    for (int i = 0; i < PX_COUNT(all); i++) {
        sigaddset(set, all[i]);
    }
}

/* In a process group of its own: a Ctrl-C comes to us alone, and is passed on. */
static pid_t start(char **argv)
{
    pid_t pid = fork();
    if (pid != 0) {
        return pid;
    }
    sigset_t none;
    sigemptyset(&none);
    setpgid(0, 0);
    prctl(PR_SET_PDEATHSIG, SIGTERM);
    static const int ours[] = {SIGTERM, SIGINT, SIGUSR1, SIGPIPE, SIGXFSZ};
    for (int i = 0; i < PX_COUNT(ours); i++) {
        signal(ours[i], SIG_DFL);
    }
    sigprocmask(SIG_SETMASK, &none, NULL);
    execvp(argv[0], argv);
    fprintf(stderr, "phalanx: supervise: %s cannot be started: %s\n", argv[0], strerror(errno));
    _exit(PX_USAGE);
}

/* A run that gave its directory back is over, and one that never took it has not begun. Where its command stays all the same (a
 * rank was stopped while it left, or died so early that the launcher lost count), it is told to end: TERM, and later KILL. */
static void end_hanging(supervision *s, pid_t pid, double started, double *held, double *told)
{
    enum { PATIENCE = 15, LONGEST = 60 };
    char holder[256];
    double now = s->ran;
    if (s->ordered > 0.0 && now - s->ordered > LONGEST) {
        kill(-pid, SIGKILL);
    }
    if (s->run_dir == NULL) {
        return;
    }
    bool over = *held > 0.0 && now - *held > PATIENCE;
    bool never = *held == 0.0 && s->start_timeout > 0 && now - started > (double)s->start_timeout;
    if (px_lock_is_alive(&s->lock, s->run_dir, now, holder, sizeof holder)) {
        *held = now;
    } else if (*told == 0.0 && (over || never)) {
        fprintf(stderr, "phalanx: supervise: the run %s %.0f s, its command is told to end\n",
                over ? "is over since" : "has not begun after", over ? now - *held : now - started);
        kill(pid, SIGTERM);
        *told = now;
    } else if (*told > 0.0 && now - *told > PATIENCE) {
        kill(-pid, SIGKILL);
    }
}

/* "... phalanx train CONFIG [--run-dir DIR] [--set KEY=VALUE] ..." says where its run is. NULL: the command says nothing. */
static const char *find_run_dir(int argc, char **argv)
{
    static char dir[PX_PATH_MAX];
    const char *named = NULL, *stage = NULL, *from = NULL;
    bool fresh = false, json = false, helped = false, known = false;
    px_words words = {.count = 0}, sets = {.count = 0};
    px_config *config = NULL;
    const px_option options[] = {
        {"set", PX_OPTION_LIST, &sets, "KEY=VALUE", "", 0, 0},     {"run-dir", PX_OPTION_TEXT, &named, "DIR", "", 0, 0},
        {"stage", PX_OPTION_TEXT, &stage, "NAME", "", 0, 0},       {"from", PX_OPTION_TEXT, &from, "CHECKPOINT", "", 0, 0},
        {"fresh", PX_OPTION_FLAG, &fresh, NULL, "", 0, 0},         {"json", PX_OPTION_FLAG, &json, NULL, "", 0, 0},
    };
    int at = 0;
    while (at < argc && strcmp(argv[at], "train") != 0) {
        at++;
    }
    if (at < argc && px_options_parse(&usage, options, PX_COUNT(options), argc - at, argv + at, &words, &helped) == PX_OK &&
        !helped && words.count == 1) {
        px_config_source source = {words.word[0], sets.word, sets.count};
        known = named != NULL || (px_config_load(&config, &source) == PX_OK &&
                                  px_stage_path(px_config_stage(config, 0), "run.dir", dir, sizeof dir) == PX_OK);
        px_config_destroy(config);
    }
    px_error_clear();
    return named != NULL ? named : known ? dir : NULL;
}

/* Waits for the command, passing signals on. Its exit code, 128 + signal where one ended it. */
static int attend(supervision *s, pid_t pid)
{
    sigset_t set;
    int status;
    double started = s->ran, held = 0.0, told = 0.0, before = px_now();
    signal_set(&set);
    for (;;) {
        double now = px_now();
        s->ran += now - before < 2.0 ? now - before : 2.0;
        before = now;
        pid_t ended = waitpid(pid, &status, WNOHANG);
        if (ended == pid) {
            return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
        }
        end_hanging(s, pid, started, &held, &told);
        int number = sigtimedwait(&set, NULL, &(struct timespec){.tv_sec = 1});
        if (number == SIGTERM || number == SIGINT || number == SIGUSR1) {
            s->asked++;
            s->ordered = s->asked == 2 ? s->ran : s->ordered;
            kill(pid, s->asked == 1 ? SIGUSR1 : SIGTERM);
            fprintf(stderr, "phalanx: supervise: signal %d, %s\n", number,
                    s->asked == 1 ? "the run is asked to save its state and to stop" : "the run is told to end");
        }
    }
}

/* ---- between two starts ------------------------------------------------------------------------------------------ */

static json_t *read_status(const char *dir)
{
    char path[PX_PATH_MAX];
    json_t *json = NULL;
    if (dir == NULL || px_path_join(path, sizeof path, dir, "status.json") != PX_OK || !px_file_exists(path) ||
        px_json_read(path, &json) != PX_OK) {
        px_error_clear();
    }
    return json;
}

/* How far the run is by its status.json: "iteration 12 of stage ppo"; "": there is none. */
static void describe_place(const json_t *json, char out[128])
{
    const char *stage = json_string_value(json_object_get(json, "stage"));
    bool named = stage != NULL && stage[0] != '\0';
    snprintf(out, 128, json == NULL ? "" : "iteration %lld%s%.64s", (long long)json_integer_value(json_object_get(json, "iteration")),
             named ? " of stage " : "", named ? stage : "");
}

static void find_place(const char *dir, char out[128])
{
    json_t *json = read_status(dir);
    describe_place(json, out);
    json_decref(json);
}

/* "; the run is at iteration 12 of stage ppo, state failed: ..." */
static void describe_run(const char *dir, char out[512])
{
    char place[128];
    json_t *json = read_status(dir);
    const char *state = json_string_value(json_object_get(json, "state"));
    const char *reason = json_string_value(json_object_get(json, "reason"));
    describe_place(json, place);
    out[0] = '\0';
    if (json != NULL) {
        snprintf(out, 512, "; the run is at %s, state %.32s%s%.200s", place, state != NULL ? state : "unknown",
                 reason != NULL && reason[0] != '\0' ? ": " : "", reason != NULL ? reason : "");
    }
    json_decref(json);
}

/* A rank that outlived its launcher, or its last heartbeat from another node, holds the run directory for a while. */
static void wait_for_directory(supervision *s)
{
    enum { LONGEST = 60 };
    char holder[256];
    sigset_t set;
    signal_set(&set);
    for (int turn = 0; turn < LONGEST && s->run_dir != NULL &&
                       px_lock_is_alive(&s->lock, s->run_dir, s->ran, holder, sizeof holder); turn++) {
        if (turn == 0) {
            fprintf(stderr, "phalanx: supervise: waiting for %s, which still holds %s\n", holder, s->run_dir);
        }
        nanosleep(&(struct timespec){.tv_sec = 1}, NULL);
        s->ran += 1.0;
    }
}

static bool is_hopeless(int code)
{
    return code == PX_USAGE || code == PX_DATA || code == PX_CONFIG || code == PX_DIVERGED;
}

/* A run that its user stopped by a file STOP stays stopped. */
static bool was_told_to_stay(const supervision *s)
{
    json_t *json = read_status(s->run_dir);
    const char *reason = json_string_value(json_object_get(json, "reason"));
    bool told = s->asked == 0 && reason != NULL && strstr(reason, "STOP") != NULL;
    json_decref(json);
    return told;
}

/* A job that comes back from the queue and is asked to stop before an iteration is done would do so for ever. */
static bool is_in_vain(const supervision *s, char place[128])
{
    find_place(s->run_dir, place);
    return s->requeued && s->run_dir != NULL && strcmp(place, s->place) == 0;
}

static px_status stopped(const supervision *s)
{
    char place[128];
    if (strcmp(s->on_stop, "exit") == 0) {
        if (getenv("SLURM_JOB_ID") != NULL) {
            fprintf(stderr, "phalanx: supervise: the run is saved but not done, and nothing continues it: exit code 75, which Slurm "
                            "calls a failure; submit it again to go on\n");
        }
        return PX_STOPPED;
    }
    if (was_told_to_stay(s)) {
        return px_job_cancel();
    }
    if (strcmp(s->on_stop, "requeue") == 0 && is_in_vain(s, place)) {
        return px_fail(PX_STOPPED, "no iteration was done since the job came back from the queue (%s): it does not go there again; "
                                   "submit it with a longer time limit, or with smaller iterations", place[0] ? place : "none yet");
    }
    return strcmp(s->on_stop, "requeue") == 0 ? px_job_requeue() : PX_OK;
}

/* `train --fresh` sets an earlier run aside. This run's own state is none, neither at a later start nor when the job comes back
 * from the queue. */
static void drop_fresh(char **argv)
{
    char **to = argv;
    bool train = false;
    for (; *argv != NULL; argv++) {
        train = train || strcmp(*argv, "train") == 0;
        if (!train || strcmp(*argv, "--fresh") != 0) {
            *to++ = *argv;
        }
    }
    *to = NULL;
}

static px_status supervise(supervision *s)
{
    char state[512];
    for (;;) {
        int64_t number = ++s->starts;
        if (number > 1 || s->requeued) {
            drop_fresh(s->argv);
        }
        double started = px_now();
        pid_t pid = start(s->argv);
        if (pid < 0) {
            return px_fail(PX_IO, "supervise: %s cannot be started: %s", s->argv[0], strerror(errno));
        }
        int code = attend(s, pid);
        kill(-pid, SIGKILL); /* what the command left behind in its group */
        if (code == 0) {
            return PX_OK;
        }
        if (code == PX_STOPPED || (s->asked > 0 && !is_hopeless(code))) {
            return stopped(s);
        }
        describe_run(s->run_dir, state);
        bool last = number > s->restarts || is_hopeless(code);
        fprintf(stderr, "phalanx: supervise: start %lld of at most %lld ended after %.1f s with exit code %d%s%s%s; %s\n",
                (long long)number, (long long)s->restarts + 1, px_now() - started, code,
                code > 128 && code < 160 ? ", a rank was killed by signal " : "",
                code > 128 && code < 160 ? strsignal(code - 128) : "", state, last ? "giving up" : "starting again");
        if (last) {
            return (px_status)code;
        }
        wait_for_directory(s);
        nanosleep(&(struct timespec){.tv_sec = 1}, NULL);
    }
}

px_status px_command_supervise(int argc, char **argv)
{
    supervision s = {.on_stop = "exit", .restarts = 10, .start_timeout = 300};
    px_words words = {.count = 0};
    bool json = false, helped;
    const px_option options[] = {
        {"restarts", PX_OPTION_INT, &s.restarts, "N", "starts after the first", 0, 1000000},
        {"run-dir", PX_OPTION_TEXT, &s.run_dir, "DIR", "of the run, for the report and for commands that hang; else as COMMAND says", 0, 0},
        {"start-timeout", PX_OPTION_INT, &s.start_timeout, "S", "seconds a command may take until its run begins; 0: any", 0, 1000000},
        {"on-stop", PX_OPTION_TEXT, &s.on_stop, "WHAT", "when the run stops with 75: exit, requeue or succeed", 0, 0},
        {"json", PX_OPTION_FLAG, &json, NULL, "at the end a line {\"starts\",\"exit_code\",\"run_dir\"}", 0, 0},
    };
    int split = 1;
    while (split < argc && strcmp(argv[split], "--") != 0) {
        split++;
    }
    PX_TRY(px_options_parse(&usage, options, PX_COUNT(options), split, argv, &words, &helped));
    if (helped) {
        return PX_OK;
    }
    if (words.count > 0 || split + 1 >= argc) {
        return px_fail(PX_USAGE, "supervise: which command? It comes after two dashes: phalanx supervise -- mpirun -n 4 phalanx train "
                                 "CONFIG");
    }
    if (strcmp(s.on_stop, "exit") != 0 && strcmp(s.on_stop, "requeue") != 0 && strcmp(s.on_stop, "succeed") != 0) {
        return px_fail(PX_USAGE, "supervise: --on-stop is '%s'; valid is exit, requeue or succeed", s.on_stop);
    }
    s.argv = argv + split + 1;
    s.run_dir = s.run_dir != NULL ? s.run_dir : find_run_dir(argc - split - 1, s.argv);
    const char *restarts = getenv("SLURM_RESTART_COUNT");
    s.requeued = restarts != NULL && atoi(restarts) > 0;
    find_place(s.run_dir, s.place);
    sigset_t set;
    signal_set(&set);
    sigprocmask(SIG_BLOCK, &set, NULL);
    px_status status = supervise(&s);
    if (json) {
        json_t *line = json_pack("{s:I, s:i, s:s?}", "starts", (json_int_t)s.starts, "exit_code", (int)status, "run_dir", s.run_dir);
        px_status printed = px_print_json(line);
        return status == PX_OK ? printed : status;
    }
    return status;
}
