/* One datagram to a Unix socket; a name that starts with '@' is an abstract one.
 *
 * Threads: any. Failure: said in the log, nothing else. */
#include "base/notify.h"

#include <errno.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/log.h"

void notify_manager(const char *state)
{
    const char *name = getenv("NOTIFY_SOCKET");
    struct sockaddr_un to = {.sun_family = AF_UNIX};
    size_t n = name ? strlen(name) : 0;
    if (n == 0)
        return;
    if (n >= sizeof to.sun_path) {
        log_warn("NOTIFY_SOCKET is longer than a socket's name can be");
        return;
    }
    memcpy(to.sun_path, name, n);
    if (*name == '@')
        to.sun_path[0] = 0;
    int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    socklen_t len = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + n);
    if (fd < 0 || sendto(fd, state, strlen(state), MSG_NOSIGNAL, (struct sockaddr *)&to, len) < 0)
        log_warn("the service manager can't be told %s: %s", state, strerror(errno));
    if (fd >= 0)
        close(fd);
}
