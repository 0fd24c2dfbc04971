/* Copies of this process's own memory that cannot crash: the kernel copies, and says if there is nothing. */

#ifdef __linux__
#define _GNU_SOURCE
#include <sys/uio.h>
#include <unistd.h>
#elif defined(__APPLE__)
#include <mach/mach.h>
#endif
#include "stall.h"

int copy_memory(void *to, uintptr_t from, size_t size)
{
#ifdef __linux__
    struct iovec local = {.iov_base = to, .iov_len = size};
    struct iovec remote = {.iov_base = (void *)from, .iov_len = size};
    return process_vm_readv(getpid(), &local, 1, &remote, 1, 0) == (ssize_t)size ? 0 : -1;
#elif defined(__APPLE__)
    vm_size_t copied = 0;
    kern_return_t result = vm_read_overwrite(mach_task_self(), from, size, (vm_address_t)to, &copied);
    return result == KERN_SUCCESS && copied == size ? 0 : -1;
#else
    return -1;
#endif
}
