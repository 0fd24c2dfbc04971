/* The loops that the stall sampler watches, and the files that it writes for them.

   The lock guards their list, and the marks of their samplers. Who holds it asks for no other lock. The thread releases it
   while it reads stacks and writes: a file system may take its time. */

#include "stall_thread.h"
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static void close_files(Watched *watched)
{
    close_own(&watched->box.file);
    close_own(&watched->log);
}

void unlock_to_use(Watched *watched)
{
    watched->in_use = 1;
    pthread_mutex_unlock(&stalls.lock);
}

void lock_again(Watched *watched)
{
    pthread_mutex_lock(&stalls.lock);
    watched->in_use = 0;
    if (watched->sampler == NULL)
        close_files(watched);
}

static void free_watched(Watched *watched)
{
    close_files(watched);
    free(watched->kept);
    free(watched->folders);
    free(watched);
}

void sweep(void)
{
    Watched **place = &stalls.first;
    while (*place != NULL) {
        Watched *watched = *place;
        if (watched->sampler != NULL || watched->lent) {
            place = &watched->next;
            continue;
        }
        *place = watched->next;
        free_watched(watched);
    }
}

/* --- for Python, with the GIL ---------------------------------------------------------------------------------------- */

void stop_watching(Sampler *sampler)
{
    follow_fork();
    Watched *watched = sampler->watched;
    if (watched == NULL)
        return;
    pthread_mutex_lock(&stalls.lock);
    watched->sampler = NULL;
    sampler->watched = NULL;
    if (!watched->in_use)
        close_files(watched); /* at once: the lock on the black box goes with its last descriptor */
    if (stalls.started)
        pthread_cond_signal(&stalls.changed);
    else
        sweep();
    pthread_mutex_unlock(&stalls.lock);
}

PyObject *watch_without_gil(Sampler *sampler, PyObject *args)
{
    double limit;
    PyObject *given;
    char *folders;
    Py_ssize_t size, slot;
    int log, box;
    long long offset;
    /* No format with a #: compiled with the headers of Python 3.13, it raises SystemError on 3.11 and 3.12. */
    if (!PyArg_ParseTuple(args, "dSiiLn", &limit, &given, &log, &box, &offset, &slot)
        || PyBytes_AsStringAndSize(given, &folders, &size) < 0)
        return NULL;
    stop_watching(sampler);
    Watched *watched = calloc(1, sizeof *watched);
    KeptStacks *kept = calloc(1, sizeof *kept);
    char *own_folders = calloc(1, (size_t)size + 2);
    if (watched == NULL || kept == NULL || own_folders == NULL || sampler->ledger == NULL || sampler->iterations == NULL) {
        free(watched);
        free(kept);
        free(own_folders);
        return PyErr_NoMemory();
    }
    memcpy(own_folders, folders, (size_t)size);
    *watched = (Watched){
        .sampler = sampler,
        .interpreter = (uintptr_t)PyInterpreterState_Get(),
        .account_type = (uintptr_t)TYPE(sampler->parked),
        .limit = limit,
        .folders = own_folders,
        .log = duplicate_of(log),
        .box = {.file = duplicate_of(box), .offset = (off_t)offset, .slot = (size_t)slot},
        .recorded_at = -INFINITY,
        .wait = INFINITY,
        .kept_in = INFINITY,
        .kept = kept,
    };
    watched->gil = find_gil(watched->interpreter, (uintptr_t)PyThreadState_Get());
    pthread_mutex_lock(&stalls.lock);
    stalls.gil = watched->gil;
    watched->next = stalls.first;
    stalls.first = watched;
    sampler->watched = watched;
    int failed = start_stall_thread() < 0;
    pthread_mutex_unlock(&stalls.lock);
    if (!failed)
        Py_RETURN_NONE;
    stop_watching(sampler);
    PyErr_SetString(PyExc_RuntimeError, "can't start new thread");
    return NULL;
}

PyObject *take_mark(Sampler *sampler, PyObject *args)
{
    follow_fork();
    double since, now;
    if (!PyArg_ParseTuple(args, "dd", &since, &now))
        return NULL;
    pthread_mutex_lock(&stalls.lock);
    int marks = next_mark(sampler, since, now);
    pthread_mutex_unlock(&stalls.lock);
    return PyBool_FromLong(marks);
}

PyObject *samples_without_gil(PyObject *module, PyObject *args)
{
    PyObject *object;
    double since, until;
    follow_fork();
    if (!PyArg_ParseTuple(args, "O!dd", sampler_type, &object, &since, &until))
        return NULL;
    Watched *watched = ((Sampler *)object)->watched;
    if (watched == NULL)
        return PyList_New(0);
    pthread_mutex_lock(&stalls.lock);
    int lent = watched->lent;
    watched->lent = 1; /* making lists may run other code, and the lock is not for that */
    pthread_mutex_unlock(&stalls.lock);
    /* Nothing but the last stack kept the GIL until the watchdog got it. */
    double ended = watched->kept_in == stalls.wants_gil_since ? monotonic_s()
        : watched->kept_in == stalls.last_wait ? stalls.last_wait_ended : 0.0;
    PyObject *stacks = lent ? PyList_New(0) : kept_within(watched->kept, since, until, ended);
    pthread_mutex_lock(&stalls.lock);
    watched->lent = lent;
    pthread_mutex_unlock(&stalls.lock);
    return stacks;
}

/* --- forks ------------------------------------------------------------------------------------------------------------- */

static pid_t process; /* whose loops these are */

static void before_fork(void)
{
    follow_fork();
    pthread_mutex_lock(&stalls.lock);
}

static void after_fork(void)
{
    pthread_mutex_unlock(&stalls.lock);
}

/* The child has no such thread, and nothing to say of its parent's loops. Its lock may be anyone's: nobody is there to
   release it. */
void follow_fork(void)
{
    if (process == getpid())
        return;
    process = getpid();
    while (stalls.first != NULL) {
        Watched *watched = stalls.first;
        stalls.first = watched->next;
        if (watched->sampler != NULL)
            watched->sampler->watched = NULL;
        free_watched(watched);
    }
    stalls.started = 0;
    stalls.rests = 1;
    stalls.wants_gil_since = stalls.tick_due = INFINITY;
    make_condition();
    pthread_mutex_init(&stalls.lock, NULL);
}

/* uvloop runs Python's own handlers in one of its: if that is the older one, they come before `follow_fork`. */
void prepare_for_forks(void)
{
    process = getpid();
    pthread_atfork(before_fork, after_fork, follow_fork);
}
