/* notify.h - what a service manager wants to be told (sd_notify(3), without libsystemd). Nothing happens where there is none. */
#ifndef HARK_NOTIFY_H
#define HARK_NOTIFY_H

#include "../core/hark.h"

/* Reads NOTIFY_SOCKET, WATCHDOG_USEC and WATCHDOG_PID, at start. -1: they make no sense. */
int notify_setup(struct errbuf *);

/* The process that systemd knows says these: the supervisor, or the only one. status may be NULL: as it was. */
void notify_ready(const char *status);
void notify_reloading(void); /* then notify_ready */
void notify_stopping(const char *status);

double notify_watchdog_seconds(void); /* how often to call the next one; 0: never */
void notify_watchdog(void);

#endif
