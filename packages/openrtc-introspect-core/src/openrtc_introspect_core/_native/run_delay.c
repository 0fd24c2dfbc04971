/* For how long the host has not run the thread of a loop that is held, told without the GIL.

   The kernel counts a wait for a processor once the thread runs again, and this is asked while it does not run. So what is
   known is subtracted: the time in which it ran, and that in which it slept. While it sleeps, all of its waits are counted,
   so that time is known at each look that finds it asleep. */

#include "stall_thread.h"
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define MAJORITY 0.5 /* as in stall_samples.py */
#define AHEAD_S 0.1  /* seconds by which the last look before may be older than what holds the loop */
#define READY 'R'    /* in the file `stat` of a thread: it runs, or would if it had a processor */

/* Read a file about a thread of this process. It is opened each time, so that there is none for a host to close. */
static int read_of(unsigned long thread, const char *name, char *text, size_t size)
{
    char path[64];
    snprintf(path, sizeof path, "/proc/self/task/%lu/%s", thread, name);
    int file = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t length = file < 0 ? -1 : read(file, text, size - 1);
    if (file >= 0)
        close(file);
    text[length > 0 ? length : 0] = '\0';
    return length > 0 ? 0 : -1;
}

/* Read what a thread has used so far. Return 0, or -1 if it cannot be read. */
static int read_usage(unsigned long thread, double now, ThreadUsage *usage)
{
    char text[128], *second, *end;
    if (thread == 0 || read_of(thread, "schedstat", text, sizeof text) < 0)
        return -1;
    usage->at = now;
    usage->ran_s = 1e-9 * (double)strtoull(text, &second, 10);
    usage->delay_s = 1e-9 * (double)strtoull(second, &end, 10);
    return end != second ? 0 : -1;
}

static int is_ready(unsigned long thread)
{
    char text[128];
    const char *name_end = read_of(thread, "stat", text, sizeof text) < 0 ? NULL : strrchr(text, ')');
    return name_end != NULL && name_end[1] == ' ' && name_end[2] == READY;
}

double run_delay_until(RunDelay *delay, unsigned long thread, double since, double now, double limit)
{
    ThreadUsage usage;
    if (read_usage(thread, now, &usage) < 0)
        return NAN;
    if (delay->since != since) {
        delay->since = since;
        delay->before = since - delay->latest.at <= AHEAD_S ? delay->latest : usage;
        delay->slept_s = 0.0;
    }
    delay->latest = usage;
    const ThreadUsage *before = &delay->before;
    double held = now - since, from = fmax(since, before->at);
    if (isnan(held) || now <= from)
        return NAN;
    double ran_s = usage.ran_s - before->ran_s, ahead = from - before->at;
    if (!is_ready(thread))
        delay->slept_s = fmax(0.0, now - from - ran_s - (usage.delay_s - before->delay_s));
    /* Of what it ran, this has the same fraction as of the time, or more, as in classification.py. */
    ran_s = fmax(ran_s - ahead, ran_s * (now - from) / (now - from + ahead));
    double rest = ran_s + delay->slept_s, waited = now - from - rest;
    return rest <= limit && waited >= MAJORITY * held ? waited : NAN;
}
