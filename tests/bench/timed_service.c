/*
 * A service that takes a given time to be ready and a given time to stop, and costs as little as a process can.
 *
 *     timed_service PORT READY_SECONDS STOP_SECONDS LEDGER     serve until SIGTERM or SIGINT
 *     timed_service --probe PORT                               exit 0 if somebody listens, for health checks
 *
 * It listens READY_SECONDS after its exec, says READY=1 to a systemd that asked for it (NOTIFY_SOCKET), and exits
 * STOP_SECONDS after the signal. The ledger gets a line for each of these four moments: "executed", "listening",
 * "stopping" or "exited", the unix time in seconds, and the pid.
 */

#define _GNU_SOURCE
#include <arpa/inet.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

static const char *ledger;
static volatile sig_atomic_t told_to_stop;

static void fail(const char *what)
{
    perror(what);
    exit(1);
}

static void note(const char *what)
{
    struct timespec now;
    char line[96];
    clock_gettime(CLOCK_REALTIME, &now);
    int length = snprintf(line, sizeof line, "%s %lld.%09ld %d\n", what, (long long)now.tv_sec, now.tv_nsec, getpid());
    int file = open(ledger, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
    if (file < 0 || write(file, line, length) != length)
        fail(ledger);
    close(file);
}

static struct sockaddr_in loopback(const char *port)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(atoi(port))};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    return address;
}

static int probe(const char *port)
{
    struct sockaddr_in address = loopback(port);
    int connection = socket(AF_INET, SOCK_STREAM, 0);
    return connect(connection, (struct sockaddr *)&address, sizeof address) == 0 ? 0 : 1;
}

static void tell_systemd(void)
{
    const char *path = getenv("NOTIFY_SOCKET");
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    if (path == NULL || strlen(path) >= sizeof address.sun_path)
        return;
    memcpy(address.sun_path, path, strlen(path));
    if (path[0] == '@') /* in the abstract namespace */
        address.sun_path[0] = 0;
    int sender = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    socklen_t length = offsetof(struct sockaddr_un, sun_path) + strlen(path);
    if (sendto(sender, "READY=1", 7, 0, (struct sockaddr *)&address, length) != 7)
        fail("NOTIFY_SOCKET");
    close(sender);
}

static int bound_socket(const char *port)
{
    struct sockaddr_in address = loopback(port);
    int on = 1, listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (bind(listener, (struct sockaddr *)&address, sizeof address) < 0)
        fail("bind");
    return listener;
}

static void stop(int signal_)
{
    (void)signal_;
    told_to_stop = 1;
}

/* The signals are blocked but in ppoll, so that none is lost between a look at `told_to_stop` and the wait for it. */
static sigset_t handle_signals(void)
{
    sigset_t blocked, waiting;
    struct sigaction action = {.sa_handler = stop};
    sigaction(SIGTERM, &action, NULL);
    sigaction(SIGINT, &action, NULL);
    sigemptyset(&blocked);
    sigaddset(&blocked, SIGTERM);
    sigaddset(&blocked, SIGINT);
    sigprocmask(SIG_BLOCK, &blocked, &waiting);
    return waiting;
}

/* Wait until `seconds` after `from`, or until told to stop. */
static void wait_until(const struct timespec *from, double seconds, const sigset_t *waiting)
{
    while (!told_to_stop) {
        struct timespec now;
        clock_gettime(CLOCK_MONOTONIC, &now);
        double left = seconds - (now.tv_sec - from->tv_sec) - (now.tv_nsec - from->tv_nsec) / 1e9;
        if (left <= 0)
            return;
        struct timespec pause = {(time_t)left, (long)((left - (time_t)left) * 1e9)};
        ppoll(NULL, 0, &pause, waiting);
    }
}

/* Accept and close connections until told to stop. */
static void serve(int listener, const sigset_t *waiting)
{
    while (!told_to_stop) {
        struct pollfd watched = {.fd = listener, .events = POLLIN};
        ppoll(&watched, 1, NULL, waiting);
        for (int connection; (connection = accept(listener, NULL, NULL)) >= 0;)
            close(connection);
    }
}

int main(int count, char **arguments)
{
    struct timespec executed;
    clock_gettime(CLOCK_MONOTONIC, &executed);
    if (count == 3 && strcmp(arguments[1], "--probe") == 0)
        return probe(arguments[2]);
    if (count != 5) {
        fprintf(stderr, "usage: %s PORT READY_SECONDS STOP_SECONDS LEDGER\n", arguments[0]);
        return 2;
    }
    ledger = arguments[4];
    note("executed");
    sigset_t waiting = handle_signals();
    int listener = bound_socket(arguments[1]);
    wait_until(&executed, atof(arguments[2]), &waiting);
    if (!told_to_stop) {
        if (listen(listener, 64) < 0)
            fail("listen");
        note("listening");
        tell_systemd();
        serve(listener, &waiting);
    }
    note("stopping");
    close(listener);
    struct timespec pause = {(time_t)atof(arguments[3]), 0};
    pause.tv_nsec = (long)((atof(arguments[3]) - (double)pause.tv_sec) * 1e9);
    while (nanosleep(&pause, &pause) < 0)
        continue;
    note("exited");
    return 0;
}
