/* Tells a service manager how the daemon is: the protocol of sd_notify(3). */
#ifndef LOADSTONE_BASE_NOTIFY_H
#define LOADSTONE_BASE_NOTIFY_H

/* Sends a state ("READY=1", "STOPPING=1") to the socket that NOTIFY_SOCKET names; nothing when it
 * names none. What can't be told is a warning in the log. */
void notify_manager(const char *state);

#endif
