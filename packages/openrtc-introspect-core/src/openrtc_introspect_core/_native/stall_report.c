/* What the stall sampler writes of what it found: a record of the black box, a line of the stall log. */

#include "stall_thread.h"
#include <string.h>

#define CLOCKS_APART_S 1e-4
#define MAX_CLOCK_TRIES 4

static const char DESCHEDULED[] = " (descheduled: the host does not run it)";
static const char *CAUSES[] = {"", " (native)", " (gil-contention: another thread keeps the GIL)"};

void read_label(const Watched *watched, Stall *stall)
{
    Account account;
    uintptr_t length = 0;
    stall->label[0] = '\0';
    if (stall->holder == 0 || stall->keeper == KEEPER_OTHER || copy_memory(&account, stall->holder, sizeof account) < 0
        || (uintptr_t)TYPE(&account) != watched->account_type || account.label == NULL)
        return;
    uintptr_t bytes = (uintptr_t)account.label;
    if (copy_memory(&length, bytes + (uintptr_t)layout.bytes_length, sizeof length) < 0 || length >= MAX_LABEL
        || copy_memory(stall->label, bytes + (uintptr_t)layout.bytes_data, length) < 0)
        length = 0;
    stall->label[length] = '\0';
}

/* Return a clock reading as Unix time. On a busy machine the two clocks may be read far apart: the nearest try counts. */
static double wall_at(double clock_reading)
{
    double apart = INFINITY, wall = NAN;
    for (int tries = 0; tries < MAX_CLOCK_TRIES && apart > CLOCKS_APART_S; tries++) {
        struct timespec now;
        double before = monotonic_s();
        clock_gettime(CLOCK_REALTIME, &now);
        double took = monotonic_s() - before;
        if (took < apart) {
            apart = took;
            wall = (double)now.tv_sec + 1e-9 * (double)now.tv_nsec - (before + 0.5 * took - clock_reading);
        }
    }
    return wall;
}

static void put_place(Text *text, const char *folders, const Place *place)
{
    put_printable(text, shown_file(folders, place->file));
    put(text, ":%d in ", place->line);
    put_printable(text, place->function);
}

static void record(Watched *watched, const Stall *stall, const Places *places)
{
    static char buffer[16384];
    Text text = {.at = buffer, .size = sizeof buffer};
    put(&text, "{\"at\":%.4f,\"state\":\"%s\",\"keeper\":%d", wall_at(stall->now), stall->state, stall->keeper);
    if (strcmp(stall->state, "held") == 0) {
        put(&text, ",\"since\":%.4f", wall_at(stall->since));
        if (!isnan(stall->run_delay_s))
            put(&text, ",\"run_delay\":%.4f", stall->run_delay_s);
        if (stall->label[0] != '\0')
            put(&text, ",%s", stall->label + strlen(stall->label) + 1);
    }
    size_t before = text.used;
    put(&text, ",\"stack\":[");
    int some = 0;
    for (int each = places->count - 1; each >= 0; each--) { /* the innermost last */
        const Place *place = &places->places[each];
        if (is_own_place(watched->folders, place))
            continue;
        put(&text, "%s{\"file\":", some++ ? "," : "");
        put_json(&text, place->file);
        put(&text, ",\"line\":%d,\"function\":", place->line);
        put_json(&text, place->function);
        put(&text, "}");
    }
    put(&text, "]}");
    if (text.full) { /* without the stack, rather than not at all */
        text.full = 0;
        text.used = before;
        put(&text, "}");
    }
    write_record(&watched->box, &text);
}

static void log_line(const Watched *watched, const Stall *stall, const Places *places)
{
    static char buffer[16384];
    Text text = {.at = buffer, .size = sizeof buffer};
    double held = stall->now - stall->since;
    int descheduled = !isnan(stall->run_delay_s);
    if (!descheduled && stall->label[0] != '\0') {
        put(&text, "[blocked-now] session_id=");
        put_printable(&text, stall->label);
        put(&text, " has been holding the loop for %.0f s", held);
    } else {
        put(&text, "[blocked-now] no session has been holding the loop for %.0f s", held);
    }
    const Place *place = users_place(watched->folders, places);
    if (place != NULL) {
        put(&text, " at ");
        put_place(&text, watched->folders, place);
    }
    put(&text, "%s\n", descheduled ? DESCHEDULED : CAUSES[stall->keeper]);
    for (int each = stall->marks == 1 ? places->count - 1 : -1; each >= 0; each--) {
        size_t before = text.used;
        if (is_own_place(watched->folders, &places->places[each]))
            continue;
        put(&text, "    ");
        put_place(&text, watched->folders, &places->places[each]);
        put(&text, "\n");
        if (text.full) {
            text.used = before;
            break;
        }
    }
    write_without_waiting(watched->log.descriptor, &text);
}

void report_stall(Watched *watched, const Stall *stall, const Places *places, int in_box)
{
    if (in_box)
        record(watched, stall, places);
    if (stall->marks != 0 && is_own(&watched->log))
        log_line(watched, stall, places);
}
