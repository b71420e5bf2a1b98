/* metrics_start.h - what metrics.c wants of metrics_start.c. */
#ifndef HARK_METRICS_START_H
#define HARK_METRICS_START_H

/* Gives up what this process does not need: rights, identity, place, and the means to get them back. */
void metrics_confine(void);

#endif
