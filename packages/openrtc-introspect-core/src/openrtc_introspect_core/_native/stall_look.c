/* One look of the stall sampler at one loop: its stack, who keeps the GIL, and what is done with both.

   Whoever keeps the GIL while the watchdog has waited for it for more than two switch intervals runs no Python code, for
   Python code gives it up after one. So no thread's frames change, and the loop's stack can be read. To be sure, it is
   read twice, and the state of the GIL with it. */

#include "stall_thread.h"

#define MIN_HELD_S 0.004 /* seconds, as in stall_sampler.py */
#define TWICE_S 0.001    /* seconds between the two readings of a look */
#define RECORD_S 0.25    /* seconds between two records of a stall in the black box */
#define QUIET_RECORD_S 1.0 /* seconds between two records while nothing is held */
#define MAX_TRIES 4      /* looks at a stack that does not stand still, before a record is made without it */

/* Return since when the step or the iteration under way holds a loop, or NaN, and the account that does (0: none, or one
   that stands in). */
static double held_since(const Sampler *sampler, uintptr_t *holder)
{
    Ledger *ledger = sampler->ledger;
    PyObject *found = *(PyObject *volatile *)&ledger->holder;
    double since = step_since(ledger);
    *holder = IS_NONE(found) || found == sampler->parked || found == ledger->unsampled ? 0 : (uintptr_t)found;
    return *holder != 0 ? since : *(volatile double *)&sampler->iterations->busy_since;
}

Gil read_gil(uintptr_t at)
{
    Gil gil = {0};
    if (at == 0 || copy_memory(&gil.holder, at + (uintptr_t)layout.gil_holder, sizeof gil.holder) < 0
        || copy_memory(&gil.locked, at + (uintptr_t)layout.gil_locked, sizeof gil.locked) < 0
        || copy_memory(&gil.switches, at + (uintptr_t)layout.gil_switches, sizeof gil.switches) < 0)
        return (Gil){0};
    return gil;
}

/* Read a thread's stack twice, and who keeps the GIL meanwhile. Return 0, or -1 if the stack does not stand still.
   instead: whether the stack of another thread that keeps the GIL is wanted, rather than that of the one which waits. */
static int look_twice(const Watched *watched, uintptr_t thread, int instead, Stack *stack, int *keeper)
{
    Stack again;
    struct timespec between = {.tv_nsec = (long)(1e9 * TWICE_S)};
    Gil gil = read_gil(watched->gil);
    if (take_stack(thread, stack) < 0 || stack->count == 0)
        return -1;
    nanosleep(&between, NULL);
    if (take_stack(thread, &again) < 0 || !same_stack(stack, &again))
        return -1;
    Gil later = read_gil(watched->gil);
    if (gil.locked != later.locked || gil.switches != later.switches)
        return -1;
    *keeper = gil.locked != 1 ? KEEPER_UNKNOWN : later.holder == thread ? KEEPER_LOOP : KEEPER_OTHER;
    return instead && *keeper == KEEPER_OTHER ? take_stack(later.holder, stack) : 0;
}

int next_mark(Sampler *sampler, double since, double now)
{
    static const double FIRST_S[] = {1.0, 5.0, 30.0};
    /* What began before the last report is what was reported: the watchdog may count from another moment. */
    if (sampler->marked != since && !(since < sampler->reported_at)) {
        sampler->marked = since;
        sampler->marks = 0;
        sampler->next_mark_s = FIRST_S[0];
    }
    if (!(now - since >= sampler->next_mark_s))
        return 0;
    while (now - since >= sampler->next_mark_s) {
        double last = sampler->next_mark_s;
        sampler->next_mark_s = last < FIRST_S[1] ? FIRST_S[1] : last < FIRST_S[2] ? FIRST_S[2] : last < 60.0 ? 60.0 : last + 60.0;
    }
    sampler->reported_at = now;
    return ++sampler->marks;
}

void look(Watched *watched, double now, double wait, int kept)
{
    static Places places; /* of this thread alone, as the next */
    static Stall stall;
    Stack stack;
    Sampler *sampler = watched->sampler;
    int has_stack = 0, has_places = 0;
    double since = held_since(sampler, &stall.holder);
    /* The loop waits for events, and no thread could tell it of any: somebody else keeps the GIL. */
    int mute = kept && isnan(since) && now - wait > watched->limit;
    double began = mute ? wait : since, held = isnan(began) ? 0.0 : now - began;
    int is_block = held > watched->limit;
    int in_box = now - watched->recorded_at >= (is_block ? RECORD_S : QUIET_RECORD_S) || is_block < watched->recorded_held;

    stall.now = now;
    stall.since = began;
    stall.state = is_block ? "held" : "free";
    stall.keeper = KEEPER_UNKNOWN;
    stall.label[0] = '\0';
    stall.marks = 0;
    places.count = 0;
    unsigned long id = (unsigned long)sampler->thread_id, native_id = (unsigned long)sampler->native_id;
    int wants_stack = (kept && held >= MIN_HELD_S) || (is_block && in_box);
    unlock_to_use(watched);
    stall.run_delay_s = run_delay_until(&watched->run_delay, native_id, began, now, watched->limit);
    if (wants_stack) {
        uintptr_t thread = find_thread(watched->interpreter, id);
        has_stack = thread != 0 && look_twice(watched, thread, mute, &stack, &stall.keeper) == 0;
        if (!kept)
            stall.keeper = KEEPER_UNKNOWN; /* whoever has the GIL at this moment does not keep it */
        read_label(watched, &stall);
    }
    lock_again(watched);
    if (watched->sampler == NULL)
        return;
    if (wants_stack) {
        uintptr_t holder;
        double still = held_since(sampler, &holder);
        if (holder != stall.holder || (isnan(still) ? !mute : still != since))
            return; /* that is over */
        if (mute && (stall.keeper != KEEPER_OTHER || wait != stalls.wants_gil_since))
            return;
        has_places = has_stack && find_places(&stack, &places) == 0;
        if (has_places)
            cut_at_loop(watched->folders, &places); /* compiled code has no place */
    }
    if (in_box && is_block && !has_stack && watched->tries++ < MAX_TRIES)
        in_box = 0; /* the record before may have one: the next look is soon */
    else if (in_box)
        watched->tries = 0;
    if (!kept || wait != stalls.wants_gil_since) {
        stall.keeper = KEEPER_UNKNOWN; /* the watchdog has got the GIL meanwhile */
    } else if (has_places) {
        /* While threads of Python code pass the GIL around, no stack stands still, and the watchdog will get it, too. */
        stall.marks = is_block && watched->log.descriptor >= 0 ? next_mark(sampler, began, now) : 0;
        double span = sampler->iterations->busy_since;
        double from = watched->wait == wait ? watched->looked_at : fmax(began, wait);
        if (!mute && !watched->lent) {
            watched->kept_in = wait;
            keep_stack(watched->kept, isnan(span) ? since : span, &stack, &places, stall.keeper, from, now);
        }
    }
    watched->wait = wait;
    watched->looked_at = now;
    if (in_box) {
        watched->recorded_at = now;
        watched->recorded_held = is_block;
        watched->recorded_quiet = 0;
    }
    if (in_box || stall.marks != 0) {
        unlock_to_use(watched);
        report_stall(watched, &stall, &places, in_box);
        lock_again(watched);
    }
}
