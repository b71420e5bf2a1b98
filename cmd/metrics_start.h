/* metrics_start.h - what metrics.c wants of metrics_start.c. */
#ifndef HARK_METRICS_START_H
#define HARK_METRICS_START_H

#include "sink.h"

/* The numbers that it gets as arguments. */
enum { METRICS_MEMORY, METRICS_END, METRICS_TASK, METRICS_SINK, METRICS_LISTENERS = METRICS_SINK + SINK_NUMBERS };

/* Gives up what this process does not need: rights, identity, place, and the means to get them back. */
void metrics_confine(void);

#endif
