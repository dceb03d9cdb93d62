/* Runs `build-index` as a child process and watches it.
 *
 * The child's standard output is a pipe: lines "progress <0..1>", and before a failure
 * "error <sentence>", or of a file that is imported, "refused <sentence>" where it does not fit the
 * rows and "unreadable <sentence>" where it is none. Its end is the end of the child. The wait is
 * cut into short polls so that a build nobody wants any more is killed at once, and one that must
 * give way stands still; should the daemon die, the kernel kills the child (build_index.c asks for
 * that).
 *
 * Threads: each call is one child and belongs to its caller. Failure: the child's own sentence, or
 * how it ended. */
#include "index/build_child.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

enum { POLL_MS = 100 };

struct child {
    const struct child_watch *watch;
    pid_t pid;
    bool stopped;
    int out; /* its standard output */
    char line[1200];
    size_t line_len;
    char error[1024]; /* its "error ...", "refused ..." or "unreadable ..." line */
    enum err kind;    /* of that */
};

static char **child_environment(void)
{
    static char passive[] = "OMP_WAIT_POLICY=PASSIVE", one[] = "OPENBLAS_NUM_THREADS=1";
    size_t n = 0, kept = 0;
    while (environ[n])
        n++;
    char **env = calloc(n + 3, sizeof(*env));
    if (!env)
        return NULL;
    for (size_t i = 0; i < n; i++) {
        if (strncmp(environ[i], "OMP_WAIT_POLICY=", 16) != 0 &&
            strncmp(environ[i], "OPENBLAS_NUM_THREADS=", 21) != 0)
            env[kept++] = environ[i];
    }
    env[kept++] = passive;
    env[kept] = one;
    return env;
}

static int spawn_with(const char *self, char **argv, int dir, int out, pid_t *pid)
{
    posix_spawn_file_actions_t actions;
    posix_spawnattr_t attr;
    sigset_t none, all;
    char **env = child_environment();
    if (!env)
        return ENOMEM;
    sigemptyset(&none);
    sigfillset(&all);
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_adddup2(&actions, out, STDOUT_FILENO);
    posix_spawn_file_actions_addfchdir_np(&actions, dir);
    posix_spawnattr_init(&attr);
    posix_spawnattr_setflags(&attr, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
    posix_spawnattr_setsigmask(&attr, &none);
    posix_spawnattr_setsigdefault(&attr, &all);
    int failed = posix_spawn(pid, self, &actions, &attr, argv, env);
    posix_spawnattr_destroy(&attr);
    posix_spawn_file_actions_destroy(&actions);
    free(env);
    return failed;
}

static enum err start(const char *self, char **argv, int dir, struct child *ch, struct err_ctx *ctx)
{
    int fds[2];
    if (pipe2(fds, O_CLOEXEC) != 0)
        return err_system(ctx, errno, "cannot open a pipe to the index build");
    int failed = spawn_with(self, argv, dir, fds[1], &ch->pid);
    close(fds[1]);
    ch->out = fds[0];
    if (!failed)
        return ERR_OK;
    close(fds[0]);
    return err_system(ctx, failed, "cannot start %s build-index", self);
}

static void take_error(struct child *ch, enum err kind, const char *sentence)
{
    size_t n = strnlen(sentence, sizeof(ch->error) - 1);
    memcpy(ch->error, sentence, n);
    ch->error[n] = '\0';
    ch->kind = kind;
}

static void take_line(struct child *ch, const char *line)
{
    if (strncmp(line, "progress ", 9) == 0) {
        ch->watch->progress(ch->watch->arg, strtod(line + 9, NULL));
    } else if (strncmp(line, "error ", 6) == 0) {
        take_error(ch, ERR_INTERNAL, line + 6);
    } else if (strncmp(line, "refused ", 8) == 0) {
        take_error(ch, ERR_UNPROCESSABLE, line + 8);
    } else if (strncmp(line, "unreadable ", 11) == 0) {
        take_error(ch, ERR_INVALID, line + 11);
    }
}

/* Reads what the child has written; false at its end. */
static bool read_lines(struct child *ch)
{
    char data[1024];
    ssize_t n = read(ch->out, data, sizeof(data));
    if (n < 0)
        return errno == EINTR;
    for (ssize_t i = 0; i < n; i++) {
        if (data[i] != '\n') {
            if (ch->line_len < sizeof(ch->line) - 1)
                ch->line[ch->line_len++] = data[i];
            continue;
        }
        ch->line[ch->line_len] = '\0';
        ch->line_len = 0;
        take_line(ch, ch->line);
    }
    return n > 0;
}

static enum err result(const struct child *ch, int status, struct err_ctx *ctx)
{
    if (WIFEXITED(status) && WEXITSTATUS(status) == 0)
        return ERR_OK;
    if (ch->error[0])
        return err_set(ctx, ch->kind, "%s", ch->error);
    if (WIFSIGNALED(status))
        return err_set(ctx, ERR_INTERNAL,
                       "the index build was ended by signal %d (%s); rows stay searchable by "
                       "exact scan. If memory ran out, free some and restart",
                       WTERMSIG(status), strsignal(WTERMSIG(status)));
    return err_set(ctx, ERR_INTERNAL, "the index build ended with status %d and gave no reason",
                   WEXITSTATUS(status));
}

static void pause_or_continue(struct child *ch)
{
    bool stop = ch->watch->paused(ch->watch->arg);
    if (stop != ch->stopped)
        kill(ch->pid, stop ? SIGSTOP : SIGCONT);
    ch->stopped = stop;
}

enum err build_child_run(const char *self, char **argv, int dir, const struct child_watch *watch,
                         struct err_ctx *ctx)
{
    struct child ch = {.watch = watch};
    int status = 0;
    RETURN_NOT_OK(start(self, argv, dir, &ch, ctx));
    struct pollfd p = {.fd = ch.out, .events = POLLIN};
    for (bool open = true; open;) {
        if (watch->cancelled(watch->arg)) {
            kill(ch.pid, SIGKILL);
            break;
        }
        pause_or_continue(&ch);
        if (poll(&p, 1, POLL_MS) > 0)
            open = read_lines(&ch);
    }
    close(ch.out);
    while (waitpid(ch.pid, &status, 0) < 0 && errno == EINTR)
        ;
    return result(&ch, status, ctx);
}
