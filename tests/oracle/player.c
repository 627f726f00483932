// SPDX-License-Identifier: Apache-2.0
/* player.c - plays scripts on a real binder driver, as fast as an emulated machine can.
 *
 * A few processes with a few threads each wait in shared memory for what they are to do.  They are
 * SCHED_FIFO; this program, their controller, is SCHED_IDLE, and the machine has one processor.  So
 * whenever the controller runs, every thread either has done what it was told or sleeps in the
 * driver, and the kernel's worker, which releases closed files, has nothing left to do either:
 * "asleep" is a fact, at the price of one futex call a step.
 *
 * Heaps and receive areas have fixed addresses and processes fixed ids, so that a script can be
 * written down, and its results compared, byte by byte.
 *
 * Standard input: scripts, each a u32 size and so many bytes of operations (see program.py, which
 * writes them and reads the results).  Standard output: for each, a u32 size and the results.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <linux/sched.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

/* The same as in program.py. */
enum { PROCESSES = 3, THREADS = 3, FILES = 6, ARGUMENT_MAX = 64, STREAM_MAX = 2048 };
enum { HEAP_SIZE = 64 << 10, PATTERN = 0xEE, FIRST_PID = 20001 };
enum { OPEN = 1, CLOSE, UNMAP, KILL, IOCTL, POLL, SIGNAL, PEEK, FILL, RENICE, TIDY };
enum { NO_POINTER = 1, READS = 2 };
#define HEAP(process) (((uint64_t)(process) + 1) << 32)
#define MAPPING(file) (((uint64_t)(file) + 16) << 32)
#define SPARE_ADDRESS ((void *)0x10)

struct write_read {
    uint64_t write_size, write_consumed, write_buffer, read_size, read_consumed, read_buffer;
};

/* What a thread is told, and what came of it. */
struct slot {
    _Atomic uint32_t told, done;
    pid_t tid;
    int operation, fd, flags, result, nice;
    uint32_t request, size;
    uint64_t address;
    uint8_t argument[ARGUMENT_MAX];
};

struct process {
    pid_t pid;
    _Atomic uint32_t ready;
    struct slot threads[THREADS + 1]; /* the last one opens, maps and closes */
};

struct file {
    int fd, owner, mapped;
    uint64_t size;
};

static struct process *processes; /* shared with all of them */
static struct file files[FILES];
static int statistics;

static void die(const char *what)
{
    fprintf(stderr, "player: %s: %s\n", what, strerror(errno));
    exit(1);
}

/* The processes. */

static void carry_out(struct slot *slot)
{
    struct pollfd poller = {.fd = slot->fd, .events = POLLIN};
    void *address = (void *)slot->address;
    int result = 0;

    errno = 0;
    switch (slot->operation) {
    case OPEN:
        slot->fd = open((const char *)slot->argument, O_RDWR | O_CLOEXEC | slot->flags);
        result = slot->fd < 0 ? -1 : 0;
        if (!result && slot->size &&
            mmap(address, slot->size, PROT_READ, MAP_PRIVATE | MAP_NORESERVE | MAP_FIXED_NOREPLACE,
                 slot->fd, 0) != address)
            result = -1;
        break;
    case CLOSE:
        result = close(slot->fd);
        break;
    case UNMAP:
        result = munmap(address, slot->size);
        break;
    case TIDY: /* what was delivered, too */
        result = close_range(STDERR_FILENO + 1, ~0U, 0);
        break;
    case IOCTL:
        result = ioctl(slot->fd, slot->request,
                       slot->flags & NO_POINTER ? SPARE_ADDRESS : slot->argument);
        break;
    case POLL:
        result = poll(&poller, 1, 0);
        slot->size = result > 0 ? (uint32_t)poller.revents : 0;
        break;
    }
    slot->result = result < 0 ? errno : 0;
    errno = 0;
    slot->nice = getpriority(PRIO_PROCESS, 0);
}

static void *serve(void *argument)
{
    struct slot *slot = argument;

    slot->tid = (pid_t)syscall(SYS_gettid);
    for (;;) {
        while (!atomic_load(&slot->told))
            syscall(SYS_futex, &slot->told, FUTEX_WAIT, 0, NULL, NULL, 0);
        carry_out(slot);
        atomic_store(&slot->told, 0);
        atomic_store(&slot->done, 1);
    }
    return NULL;
}

static void be_process(int number)
{
    struct sched_param priority = {.sched_priority = 1};
    struct process *self = &processes[number];
    pthread_t thread;

    prctl(PR_SET_PDEATHSIG, SIGKILL);
    for (int other = 0; other < PROCESSES; other++)
        if (other != number)
            munmap((void *)HEAP(other), HEAP_SIZE);
    close(statistics); /* so that the next descriptor is 3 */
    if (sched_setscheduler(0, SCHED_FIFO, &priority))
        _exit(1);
    for (int i = 0; i < THREADS; i++)
        if (pthread_create(&thread, NULL, serve, &self->threads[i]))
            _exit(1);
    atomic_store(&self->ready, 1);
    serve(&self->threads[THREADS]);
}

static void start_process(int number)
{
    pid_t pid = FIRST_PID + number;
    struct clone_args arguments = {
        .exit_signal = SIGCHLD, .set_tid = (uint64_t)&pid, .set_tid_size = 1};
    struct process *process = &processes[number];
    long child;

    memset(process, 0, sizeof *process);
    child = syscall(SYS_clone3, &arguments, sizeof arguments);
    if (child < 0)
        die("clone3");
    if (!child) {
        be_process(number);
        _exit(1);
    }
    process->pid = pid;
    while (!atomic_load(&process->ready)) {
        if (waitpid(pid, NULL, WNOHANG))
            die("a process did not start");
        sched_yield();
    }
}

/* The controller. */

/* Return how many files the driver has, of all processes; it releases them some time later. */
static int open_files(void)
{
    char text[1 << 14];
    ssize_t size;
    const char *found;

    if (lseek(statistics, 0, SEEK_SET))
        die("lseek");
    size = read(statistics, text, sizeof text - 1);
    if (size < 0)
        die("read");
    text[size] = 0;
    found = strstr(text, "\nproc: active ");
    return !found ? 0 : atoi(found + strlen("\nproc: active "));
}

/* Return when the kernel's worker has seen to every close before this.  A close that ends nothing
 * only makes threads return, which no count shows; but the worker sees to all it finds in one go, so
 * files of our own tell when it was there, one for the round that it may be in the middle of. */
static void settle(void)
{
    int expected = 0;

    for (int i = 0; i < FILES; i++)
        expected += files[i].fd >= 0 || files[i].mapped;
    for (int round = 0; round < 2; round++) {
        int fd = open("/dev/binder8", O_RDWR | O_CLOEXEC);

        if (fd < 0 || close(fd))
            die("/dev/binder8");
        while (open_files() != expected)
            sched_yield();
    }
}

/* Let a thread do what is in its slot; returns when everything sleeps. */
static void tell(struct slot *slot, int operation)
{
    slot->operation = operation;
    atomic_store(&slot->told, 1);
    syscall(SYS_futex, &slot->told, FUTEX_WAKE, 1, NULL, NULL, 0);
}

static void tell_and_wait(struct slot *slot, int operation)
{
    tell(slot, operation);
    while (!atomic_exchange(&slot->done, 0))
        sched_yield();
}

static int tell_helper(struct file *file, int operation)
{
    struct slot *helper = &processes[file->owner].threads[THREADS];

    helper->fd = file->fd;
    helper->size = (uint32_t)file->size;
    helper->address = MAPPING(file - files);
    tell_and_wait(helper, operation);
    if (operation == OPEN)
        file->fd = helper->result ? -1 : helper->fd;
    if (operation == CLOSE)
        file->fd = -1;
    if (operation == OPEN)
        file->mapped = !helper->result && file->size;
    if (operation == UNMAP)
        file->mapped = 0;
    return helper->result;
}

static void end_process(int number)
{
    kill(processes[number].pid, SIGKILL);
    if (waitpid(processes[number].pid, NULL, 0) < 0)
        die("waitpid");
    processes[number].pid = 0;
    for (int i = 0; i < FILES; i++)
        if (files[i].owner == number)
            files[i] = (struct file){.fd = -1, .owner = -1};
    settle();
}

static void send_signal(int thread)
{
    struct process *process = &processes[thread / THREADS];

    syscall(SYS_tgkill, process->pid, process->threads[thread % THREADS].tid, SIGUSR1);
}

static struct slot *slot_of(int thread)
{
    return &processes[thread / THREADS].threads[thread % THREADS];
}

/* Scripts and results. */

static const uint8_t *script;
static uint8_t *results;
static size_t results_size, results_room;

static uint64_t take(int size)
{
    uint64_t value = 0;

    memcpy(&value, script, (size_t)size);
    script += size;
    return value;
}

static void give_bytes(const void *bytes, size_t size)
{
    while (results_size + size > results_room) {
        results_room = results_room ? results_room * 2 : 1 << 16;
        results = realloc(results, results_room);
        if (!results)
            die("realloc");
    }
    memcpy(results + results_size, bytes, size);
    results_size += size;
}

static void give(uint64_t value, int size)
{
    give_bytes(&value, (size_t)size);
}

static int in_heap(int process, uint64_t address, uint64_t size)
{
    uint64_t heap = HEAP(process);

    return address >= heap && size <= HEAP_SIZE && address - heap <= HEAP_SIZE - size;
}

/* Tell of each thread that has come back. */
static void report(void)
{
    for (int thread = 0; thread < PROCESSES * THREADS; thread++) {
        struct slot *slot = slot_of(thread);
        struct write_read *argument = (struct write_read *)slot->argument;
        uint64_t size = 0;

        if (!atomic_exchange(&slot->done, 0))
            continue;
        give((uint64_t)thread, 1);
        give((uint64_t)slot->result, 2);
        give((uint64_t)(slot->nice + 20), 1);
        if (slot->operation == POLL) {
            give(4, 2);
            give(slot->size, 4);
            give(0, 2);
            continue;
        }
        give(slot->size, 2);
        give_bytes(slot->argument, slot->size);
        if (slot->flags & READS && argument->read_consumed <= STREAM_MAX &&
            in_heap(thread / THREADS, argument->read_buffer, argument->read_consumed))
            size = argument->read_consumed;
        give(size, 2);
        give_bytes((void *)argument->read_buffer, size);
    }
    give(0xFF, 1);
}

static int play_open(void)
{
    int owner = (int)take(1), file = (int)take(1), device = (int)take(1), nonblocking = (int)take(1);
    struct slot *helper = &processes[owner].threads[THREADS];

    snprintf((char *)helper->argument, sizeof helper->argument, "/dev/binder%d", device);
    helper->flags = nonblocking ? O_NONBLOCK : 0;
    files[file] = (struct file){.fd = -1, .owner = owner, .size = take(4)};
    return tell_helper(&files[file], OPEN);
}

static void play_call(int operation)
{
    struct slot *slot = slot_of((int)take(1));

    if (atomic_load(&slot->told))
        die("a script uses a thread that sleeps");
    slot->fd = files[take(1)].fd;
    slot->size = 0;
    if (operation == IOCTL) {
        slot->flags = (int)take(1);
        slot->request = (uint32_t)take(4);
        slot->size = (uint32_t)take(1);
        memcpy(slot->argument, script, slot->size);
        script += slot->size;
    }
    tell(slot, operation);
    while (!(operation == IOCTL && slot->flags & READS) && atomic_load(&slot->told))
        sched_yield(); /* only a read sleeps for long; BINDER_THREAD_EXIT may, for a moment */
}

static void play_renice(void)
{
    struct slot *slot = slot_of((int)take(1));

    slot->nice = (int)take(1) - 20;
    setpriority(PRIO_PROCESS, (id_t)slot->tid, slot->nice);
}

static void play_fill(void)
{
    uint64_t address = take(8), size = take(2);

    memcpy((void *)address, script, size);
    script += size;
}

static void play_peek(void)
{
    int owner = (int)take(1);
    uint8_t bytes[1 << 16];
    struct iovec here = {.iov_base = bytes}, there;
    ssize_t size;

    there.iov_base = (void *)take(8);
    here.iov_len = there.iov_len = take(2);
    size = process_vm_readv(processes[owner].pid, &here, 1, &there, 1, 0);
    size = size < 0 ? 0 : size;
    give((uint64_t)size, 2);
    give_bytes(bytes, (size_t)size);
}

/* A thread that a wrong prediction left asleep is no reason to fail: the rest of the script has no
 * meaning then, and is skipped. */
static int is_misled(const uint8_t *step)
{
    return (step[0] == IOCTL || step[0] == POLL) && atomic_load(&slot_of(step[1])->told);
}

static void play(const uint8_t *end)
{
    while (script < end && !is_misled(script)) {
        int operation = (int)take(1);

        switch (operation) {
        case OPEN:
            give((uint64_t)play_open(), 2);
            break;
        case CLOSE:
        case UNMAP:
            tell_helper(&files[take(1)], operation);
            settle();
            report();
            break;
        case KILL:
            end_process((int)take(1));
            report();
            break;
        case IOCTL:
        case POLL:
            play_call(operation);
            report();
            break;
        case SIGNAL:
            send_signal((int)take(1));
            report();
            break;
        case RENICE:
            play_renice();
            report();
            break;
        case PEEK:
            play_peek();
            break;
        case FILL:
            play_fill();
            break;
        default:
            die("no such operation");
        }
    }
}

/* A thread does not come back, whatever is done to it: show where it is. */
static void die_of(struct slot *slot, int thread)
{
    char path[64], text[2048] = "";
    FILE *file;

    snprintf(path, sizeof path, "/proc/%d/stack", slot->tid);
    file = fopen(path, "r");
    if (file && !fread(text, 1, sizeof text - 1, file))
        text[0] = 0;
    fprintf(stderr, "player: thread %d hangs in operation %d:\n%s", thread, slot->operation, text);
    exit(1);
}

/* Make everything as it was before the script. */
static void clean(void)
{
    for (int thread = 0; thread < PROCESSES * THREADS; thread++)
        if (processes[thread / THREADS].pid && atomic_load(&slot_of(thread)->told))
            send_signal(thread);
    for (int i = 0; i < FILES; i++) {
        if (files[i].owner < 0)
            continue;
        if (files[i].mapped)
            tell_helper(&files[i], UNMAP);
        if (files[i].fd >= 0)
            tell_helper(&files[i], CLOSE);
        files[i] = (struct file){.fd = -1, .owner = -1};
    }
    for (int i = 0; i < PROCESSES; i++) {
        if (!processes[i].pid)
            start_process(i);
        tell_and_wait(&processes[i].threads[THREADS], TIDY);
        memset((void *)HEAP(i), 0, HEAP_SIZE);
        for (int thread = 0; thread < THREADS; thread++) {
            struct slot *slot = &processes[i].threads[thread];

            if (atomic_load(&slot->told))
                die_of(slot, i * THREADS + thread);
            atomic_store(&slot->done, 0);
            if (slot->nice)
                setpriority(PRIO_PROCESS, (id_t)slot->tid, 0);
            slot->nice = 0;
        }
    }
    settle();
}

static void do_nothing(int number)
{
    (void)number;
}

static void *map_shared(void *address, size_t size)
{
    void *found = mmap(address, size, PROT_READ | PROT_WRITE,
                       MAP_SHARED | MAP_ANONYMOUS | (address ? MAP_FIXED_NOREPLACE : 0), -1, 0);

    if (found == MAP_FAILED)
        die("mmap");
    return found;
}

static void set_up(void)
{
    struct sched_param lowest = {.sched_priority = 0};
    struct sigaction action = {.sa_handler = do_nothing};

    sigaction(SIGUSR1, &action, NULL);
    if (sched_setscheduler(0, SCHED_IDLE, &lowest))
        die("sched_setscheduler");
    statistics = open("/sys/kernel/debug/binder/stats", O_RDONLY | O_CLOEXEC);
    if (statistics < 0)
        die("the driver's statistics");
    processes = map_shared(NULL, sizeof *processes * PROCESSES);
    for (int i = 0; i < PROCESSES; i++)
        map_shared((void *)HEAP(i), HEAP_SIZE);
    for (int i = 0; i < FILES; i++)
        files[i] = (struct file){.fd = -1, .owner = -1};
    for (int i = 0; i < PROCESSES; i++)
        start_process(i);
}

static int read_whole(void *buffer, size_t size)
{
    return size == 0 || fread(buffer, size, 1, stdin) == 1;
}

int main(void)
{
    uint32_t size;

    set_up();
    clean();
    while (read_whole(&size, sizeof size)) {
        uint8_t *bytes = malloc(size + 8); /* take() may look a little further */

        if (!bytes || !read_whole(bytes, size))
            die("a script is cut short");
        results_size = 0;
        script = bytes;
        play(bytes + size);
        clean();
        size = (uint32_t)results_size;
        if (fwrite(&size, sizeof size, 1, stdout) != 1 ||
            (size && fwrite(results, size, 1, stdout) != 1) || fflush(stdout))
            die("write");
        free(bytes);
    }
    for (int i = 0; i < PROCESSES; i++)
        kill(processes[i].pid, SIGKILL);
    return 0;
}
