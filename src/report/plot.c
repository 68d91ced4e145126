#include "plot.h"

#include <errno.h>
#include <fcntl.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

extern char **environ;

/* In single quotes gnuplot takes everything as it is, but for the quote. */
static px_status add_quoted(px_buf *script, const char *text)
{
    PX_TRY(px_buf_text(script, "'"));
    for (; *text; text++) {
        char c = (unsigned char)*text < 0x20 ? ' ' : *text;
        if (c == '\'') PX_TRY(px_buf_add(script, &c, 1));
        PX_TRY(px_buf_add(script, &c, 1));
    }
    return px_buf_text(script, "'");
}

static px_status add_data(px_buf *script, const px_curves *curves, const char *name, int group, bool *spread, bool *any)
{
    px_point *points = NULL;
    int64_t count = 0;
    PX_TRY(px_curves_points(curves, name, group, &points, &count));
    px_status status = px_buf_printf(script, "$g%d << EOD\n", group);
    for (int64_t i = 0; status == PX_OK && i < count; i++) {
        *spread |= points[i].deviation > 0;
        status = px_buf_printf(script, "%.17g %.9g %.9g %.9g\n", points[i].iteration, points[i].mean,
                               points[i].mean - points[i].deviation, points[i].mean + points[i].deviation);
    }
    *any = count > 0;
    px_free(points);
    return status == PX_OK ? px_buf_text(script, "EOD\n") : status;
}

static px_status add_plot(px_buf *script, const px_curves *curves, const char *name, size_t number, const char *dir)
{
    int groups = (int)json_array_size(curves->groups), drawn = 0;
    px_buf curve = {0};
    px_status status =
        px_buf_printf(script, "set terminal svg size 460,280 noenhanced font 'sans,10' name 'p%zu'\n", number);
    if (status == PX_OK) status = px_buf_printf(script, "set output '%s/%zu.svg'\nset title ", dir, number);
    if (status == PX_OK) status = add_quoted(script, name);
    if (status == PX_OK) status = px_buf_text(script, "\n");
    for (int g = 0; status == PX_OK && g < groups; g++) {
        bool spread = false, any = false;
        status = add_data(script, curves, name, g, &spread, &any);
        if (status != PX_OK || !any) continue;
        if (spread) {
            status = px_buf_printf(
                &curve, "%s$g%d using 1:3:4 with filledcurves linecolor %d fillstyle transparent solid 0.2 notitle",
                drawn++ ? ", " : "plot ", g, g + 1);
        }
        if (status == PX_OK) {
            status =
                px_buf_printf(&curve, "%s$g%d using 1:2 with linespoints linecolor %d pointtype 7 pointsize 0.3 title ",
                              drawn++ ? ", " : "plot ", g, g + 1);
        }
        if (status == PX_OK) status = add_quoted(&curve, json_string_value(json_array_get(curves->groups, (size_t)g)));
    }
    if (status == PX_OK && drawn) status = px_buf_printf(script, "%s\n", curve.data);
    if (status == PX_OK) status = px_buf_text(script, "unset output\n");
    px_buf_free(&curve);
    return status;
}

/* False: not there, or it failed. */
static bool run_gnuplot(const char *script)
{
    posix_spawn_file_actions_t actions;
    char *const arguments[] = {(char *)(uintptr_t)"gnuplot", (char *)(uintptr_t)script, NULL};
    pid_t child = 0;
    int status = 0;
    posix_spawn_file_actions_init(&actions);
    for (int fd = 0; fd < 3; fd++)
        posix_spawn_file_actions_addopen(&actions, fd, "/dev/null", fd ? O_WRONLY : O_RDONLY, 0);
    int error = posix_spawnp(&child, "gnuplot", &actions, NULL, arguments, environ);
    posix_spawn_file_actions_destroy(&actions);
    if (error) return false;
    while (waitpid(child, &status, 0) < 0 && errno == EINTR) {
    }
    return WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

/* What stands before <svg (an XML header) has no place within a page. */
static px_status take_svg(const char *path, px_buf *svg)
{
    px_buf text = {0};
    if (!px_file_exists(path)) return PX_OK;
    px_status status = px_file_read(path, PX_TEXT_MOST, &text);
    const char *start = status == PX_OK && text.data ? strstr(text.data, "<svg") : NULL;
    if (start) status = px_buf_text(svg, start);
    px_buf_free(&text);
    return status;
}

static px_status draw(const px_curves *curves, const char *dir, px_buf *svgs, bool *drawn)
{
    char path[PX_PATH_MAX];
    size_t i, count = json_array_size(curves->names);
    px_buf script = {0};
    px_status status =
        px_buf_text(&script, "set grid linecolor rgb '#dddddd'\nset key outside bottom center horizontal noenhanced\n"
                             "set xlabel 'iteration'\n");
    for (i = 0; status == PX_OK && i < count; i++) {
        status = add_plot(&script, curves, json_string_value(json_array_get(curves->names, i)), i, dir);
    }
    if (status == PX_OK) status = px_path_join(path, sizeof path, dir, "plots.gp");
    if (status == PX_OK) status = px_file_write(path, script.data, script.length);
    px_buf_free(&script);
    if (status != PX_OK) return status;
    *drawn = run_gnuplot(path);
    for (i = 0; *drawn && i < count; i++) {
        char name[32];
        snprintf(name, sizeof name, "%zu.svg", i);
        PX_TRY(px_path_join(path, sizeof path, dir, name));
        PX_TRY(take_svg(path, &svgs[i]));
    }
    return PX_OK;
}

px_status px_plot_all(const px_curves *curves, px_buf *svgs, bool *drawn)
{
    const char *room = getenv("TMPDIR");
    char dir[PX_PATH_MAX];
    *drawn = false;
    PX_TRY(px_path_join(dir, sizeof dir, room && *room ? room : "/tmp", "phalanx-plot-XXXXXX"));
    if (!mkdtemp(dir)) return px_fail(PX_IO, "%s: cannot create: %s; TMPDIR names another directory", dir, strerror(errno));
    px_status status = draw(curves, dir, svgs, drawn);
    px_status removed = px_tree_remove(dir);
    return status == PX_OK ? removed : status;
}
