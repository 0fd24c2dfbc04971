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

#define READY 'R' /* in the file `stat` of a thread: it runs, or would if it had a processor */

/* Read a file about a thread of this process. Opened each time: nothing here is read but while something is held. */
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

/* Read a thread's processor time and its run delay so far. Return 0, or -1 if they cannot be read. */
static int usage_of(unsigned long thread, double *ran_s, double *delay_s)
{
    char text[128], *second, *end;
    if (thread == 0 || read_of(thread, "schedstat", text, sizeof text) < 0)
        return -1;
    *ran_s = 1e-9 * (double)strtoull(text, &second, 10);
    *delay_s = 1e-9 * (double)strtoull(second, &end, 10);
    return end != second ? 0 : -1;
}

static int is_ready(unsigned long thread)
{
    char text[128];
    const char *name_end = read_of(thread, "stat", text, sizeof text) < 0 ? NULL : strrchr(text, ')');
    return name_end != NULL && name_end[1] == ' ' && name_end[2] == READY;
}

void begin_run_delay(RunDelay *delay, const Sampler *sampler, double since)
{
    if (delay->since == since)
        return;
    *delay = (RunDelay){.since = since, .ran_before_s = sampler->cpu_s, .delay_before_s = sampler->run_delay_s};
    delay->from = fmax(since, sampler->when); /* of the last tick, which has read both */
}

double run_delay_until(RunDelay *delay, unsigned long thread, double now, double limit)
{
    double ran_s, delay_s;
    if (isnan(delay->ran_before_s + delay->delay_before_s) || usage_of(thread, &ran_s, &delay_s) < 0)
        return NAN;
    ran_s = fmax(0.0, ran_s - delay->ran_before_s);
    delay_s = fmax(0.0, delay_s - delay->delay_before_s);
    if (!is_ready(thread))
        delay->slept_s = fmax(0.0, now - delay->from - ran_s - delay_s);
    double rest = ran_s + delay->slept_s, waited = now - delay->from - rest;
    return rest <= limit && waited >= MAJORITY * (now - delay->since) ? waited : NAN;
}
