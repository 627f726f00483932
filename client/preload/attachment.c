// SPDX-License-Identifier: Apache-2.0
// attachment.c - which open files are binderd's, and the socket of each (docs/EXTENSION.md).
//
// An entry is made when a file is first used, and checked after that: the program may close
// anything at any time, our socket included. A socket is ours if it still has the inode that it
// had, and in use if the daemon still has the other end, which it lets go of when the file is
// closed.
//
// The checks take three system calls. A thread makes them again when the program has closed
// something since (closing.c), and at each tick of the kernel's clock, for what it closes unseen.

#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/kcmp.h>
#include <poll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "preload.h"

// Our sockets stay away from the low numbers, which programs expect to get; but a number near a
// limit of a million would make the kernel's table that large.
enum { TOP = 1024, TOP_PART = 16 };

static struct attachment table[FILES_MAX];
static _Atomic unsigned table_count; // entries behind these have never been used
static struct delivery deliveries[FILES_MAX];
static _Atomic unsigned changes; // how often numbers may have changed their meaning

// What a thread has checked last, and when.
struct check {
	bool is_done;
	int fd;
	unsigned changes;
	struct timespec tick;
	struct used *used; // NULL: no file of binderd's, or one too many
};

static __thread struct check last __attribute__((tls_model("initial-exec")));
static __thread unsigned checks __attribute__((tls_model("initial-exec")));

bool ask(int fd, struct binderd_info *info)
{
	thread_settle();
	return next_ioctl(fd, BINDERD_GET_INFO, info) == 0;
}

static bool has_number(const struct attachment *attachment, int fd)
{
	for (int i = 0; i < NUMBERS_MAX; i++)
		if (attachment->numbers[i] == fd)
			return true;
	return false;
}

static bool has_id(const struct attachment *attachment, const struct file_id *id)
{
	return attachment->kind != NOBODY && attachment->inode == id->inode &&
	       attachment->major == id->major && attachment->minor == id->minor;
}

static struct attachment *table_end(void)
{
	return table + table_count;
}

static struct attachment *find(int fd, const struct file_id *id)
{
	for (struct attachment *each = table; each < table_end(); each++)
		if (has_id(each, id) &&
		    (!id->is_shared || each->kind == FOREIGN || has_number(each, fd)))
			return each;
	return NULL;
}

static bool holds_socket(const struct attachment *attachment)
{
	int socket = attachment->socket;

	return socket >= 0 && socket_inode(socket) == attachment->socket_inode;
}

static bool is_alive(const struct attachment *attachment)
{
	char octet;

	return holds_socket(attachment) &&
	       (syscall(SYS_recvfrom, attachment->socket, &octet, sizeof octet,
			MSG_PEEK | MSG_DONTWAIT, NULL, NULL) > 0 ||
		errno == EAGAIN);
}

static bool is_shared(const struct attachment *attachment)
{
	for (int i = 0; i < NUMBERS_MAX; i++)
		if (attachment->numbers[i] >= 0)
			return attachment->kind == ATTACHED || attachment->kind == PLAIN;
	return false;
}

// Whether this is a character device of binderd's; of those that were used here.
bool is_device(int fd)
{
	struct file_id id;

	for (struct attachment *each = table; each < table_end(); each++)
		if (is_shared(each))
			if (identify(fd, &id) && id.is_shared && has_id(each, &id))
				return true;
	return false;
}

bool is_our_socket(int fd)
{
	for (struct attachment *each = table; each < table_end(); each++)
		if (each->kind == ATTACHED && each->socket == fd && holds_socket(each))
			return true;
	return false;
}

// Finds the lowest number of a socket of ours in a range; false if there is none.
bool our_first_socket(unsigned first, unsigned to, unsigned *number)
{
	bool found = false;

	for (struct attachment *each = table; each < table_end(); each++) {
		int socket = each->kind == ATTACHED ? each->socket : -1;

		if (socket < 0 || (unsigned)socket < first || (unsigned)socket > to ||
		    (found && (unsigned)socket > *number) || !holds_socket(each))
			continue;
		found = true;
		*number = (unsigned)socket;
	}
	return found;
}

// From here on the lock is held.

static void drop_socket(struct attachment *attachment)
{
	if (holds_socket(attachment)) {
		close_raw(attachment->socket);
		close_delivery(attachment->delivery);
	} else { // the program that closed it has closed those as well
		forget_delivery(attachment->delivery);
	}
	attachment->socket = -1;
}

static void remember_number(struct attachment *attachment, int fd)
{
	for (int i = 0; i < NUMBERS_MAX; i++)
		if (attachment->numbers[i] < 0) {
			attachment->numbers[i] = fd;
			return;
		}
	attachment->numbers[fd % NUMBERS_MAX] = fd;
}

static void forget_numbers(struct attachment *attachment)
{
	for (int i = 0; i < NUMBERS_MAX; i++)
		attachment->numbers[i] = -1;
}

// Looks for the open file of a device under its other numbers.
static struct attachment *find_duplicate(int fd, const struct file_id *id)
{
	pid_t pid = getpid();

	for (struct attachment *each = table; each < table_end(); each++)
		for (int i = 0; has_id(each, id) && i < NUMBERS_MAX; i++)
			if (each->numbers[i] >= 0 &&
			    syscall(SYS_kcmp, pid, pid, KCMP_FILE, each->numbers[i], fd) == 0) {
				remember_number(each, fd);
				return each;
			}
	return NULL;
}

// Whether the file that an entry was for is gone for certain.
static bool is_over(const struct attachment *attachment)
{
	struct pollfd poll = { .fd = attachment->socket };
	struct timespec now = { 0 };

	if (attachment->kind != ATTACHED || attachment->socket < 0)
		return false;
	if (!holds_socket(attachment))
		return true;
	return syscall(SYS_ppoll, &poll, 1, &now, NULL, 0) == 1 && poll.revents & POLLHUP;
}

// Returns an entry that is free, or was one of those that cost nothing to make again.
static struct attachment *free_entry(void)
{
	static unsigned victim;
	struct attachment *found = NULL;

	for (struct attachment *each = table; each < table_end(); each++) {
		if (is_over(each)) {
			drop_socket(each);
			each->kind = NOBODY;
		}
		if (found == NULL && each->kind == NOBODY)
			found = each;
	}
	if (found == NULL && table_count < FILES_MAX) {
		table_end()->delivery = &deliveries[table_count];
		return &table[table_count++];
	}
	for (int i = 0; found == NULL && i < FILES_MAX; i++) {
		struct attachment *each = &table[victim++ % FILES_MAX];

		if (each->kind != ATTACHED || each->socket < 0)
			found = each;
	}
	return found;
}

static struct attachment *add(int fd, const struct file_id *id)
{
	struct binderd_info info;
	int kind = ask(fd, &info) ? ATTACHED : FOREIGN;
	struct attachment *entry;

	// Other errors, of a daemon that is gone for example, say nothing for good.
	if (kind == FOREIGN && errno != EINVAL && errno != ENOTTY)
		return NULL;
	entry = free_entry();
	if (entry == NULL)
		return NULL;
	entry->kind = NOBODY;
	entry->major = id->major;
	entry->minor = id->minor;
	entry->inode = id->inode;
	entry->socket = -1;
	forget_numbers(entry);
	if (id->is_shared && kind != FOREIGN)
		remember_number(entry, fd);
	entry->kind = kind;
	return entry;
}

static struct attachment *find_or_add(int fd, const struct file_id *id)
{
	struct attachment *found = find(fd, id);

	if (found == NULL && id->is_shared)
		found = find_duplicate(fd, id);
	return found != NULL ? found : add(fd, id);
}

static int move_up(int fd)
{
	struct rlimit limit;
	int top = TOP;

	if (getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur < TOP)
		top = (int)limit.rlim_cur;
	for (int from = top - top / TOP_PART; from > fd; from /= 2) {
		int moved = fcntl(fd, F_DUPFD_CLOEXEC, from);

		if (moved >= 0) {
			close_raw(fd);
			return moved;
		}
	}
	return fd;
}

// Returns our end of a pair whose other end the daemon has taken, or -errno.
static int attach(int fd, uint32_t flags)
{
	int ends[2], error = 0;

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) < 0)
		return -errno;
	thread_settle();
	struct binderd_attach attach = { .socket = ends[1], .flags = flags };
	if (next_ioctl(fd, BINDERD_ATTACH, &attach) < 0)
		error = errno;
	close_raw(ends[1]);
	if (error == 0)
		return move_up(ends[0]);
	close_raw(ends[0]);
	return -error;
}

// Takes what is still in the socket of an entry, before it is replaced: later it would not count.
static void empty_socket(struct attachment *entry, int fd)
{
	if (holds_socket(entry))
		take_all(entry, fd);
}

// Puts a new socket into an entry.
static void adopt(struct attachment *entry, int fd, int socket)
{
	empty_socket(entry, fd);
	drop_socket(entry);
	entry->socket_inode = socket_inode(socket);
	entry->socket = socket;
}

static void attach_files(struct attachment *entry, int fd, const struct file_id *id)
{
	int socket;

	empty_socket(entry, fd);
	socket = attach(fd, BINDERD_ATTACH_FILES);
	if (socket >= 0) {
		adopt(entry, fd, socket);
		// The other numbers may be those of a file that is closed by now.
		forget_numbers(entry);
		if (id->is_shared)
			remember_number(entry, fd);
	} else if (socket == -EINVAL || socket == -ENOSPC) {
		drop_socket(entry);
		entry->kind = PLAIN;
	}
}

// From here on the functions that take the lock.

// Returns the entry of an open file, with a socket if it is binderd's; NULL if there is none.
static struct attachment *attachment_of(int fd, const struct file_id *id)
{
	struct attachment *found = find(fd, id);
	guard saved;

	if (found != NULL && (found->kind != ATTACHED || is_alive(found)))
		return found;
	saved = guard_enter();
	found = find_or_add(fd, id);
	if (found != NULL && found->kind == ATTACHED && !is_alive(found))
		attach_files(found, fd, id);
	guard_leave(saved);
	return found;
}

static bool is_checked(const struct check *now)
{
	return last.is_done && last.fd == now->fd && last.changes == now->changes &&
	       last.tick.tv_nsec == now->tick.tv_nsec && last.tick.tv_sec == now->tick.tv_sec;
}

// A signal handler may do the same meanwhile; then neither counts.
static void remember_check(const struct check *now)
{
	unsigned before = ++checks;

	atomic_signal_fence(memory_order_seq_cst);
	last = *now;
	atomic_signal_fence(memory_order_seq_cst);
	if (checks != before)
		last.is_done = false;
}

// Sees to it that descriptors can arrive through a file, if it is binderd's. Returns what the
// thread has of the file, NULL if it is not binderd's, or nothing is known.
struct used *attach_if_needed(int fd)
{
	struct check now = { .is_done = true, .fd = fd, .changes = changes };
	struct attachment *found;
	struct file_id id;

	clock_gettime(CLOCK_MONOTONIC_COARSE, &now.tick);
	if (is_checked(&now))
		return last.used;
	if (!identify(fd, &id))
		return NULL;
	found = attachment_of(fd, &id);
	if (found == NULL) // perhaps next time
		return NULL;
	if (found->kind != FOREIGN)
		now.used = thread_used(fd, &id);
	if (found->kind != ATTACHED || found->socket >= 0)
		remember_check(&now);
	return now.used;
}

// Says that descriptors were closed or replaced, or are another process'; also that the thread has
// said BINDER_THREAD_EXIT.
void numbers_change(void)
{
	if (table_count > 0)
		changes++;
}

// Returns a descriptor of the receive area, or -errno.
int attach_for_area(int fd)
{
	struct file_id id;
	guard saved;

	if (!identify(fd, &id))
		return -errno;
	saved = guard_enter();
	struct attachment *entry = find_or_add(fd, &id);
	bool with_files = entry != NULL && entry->kind == ATTACHED;
	if (with_files)
		empty_socket(entry, fd);
	// Both at once, because a socket replaces the one before it.
	int socket = attach(fd, BINDERD_ATTACH_AREA | (with_files ? BINDERD_ATTACH_FILES : 0));
	int memory = socket;

	if (socket >= 0) {
		memory = take_area(socket);
		if (with_files)
			adopt(entry, fd, socket);
		else
			close_raw(socket);
	}
	guard_leave(saved);
	return memory;
}

void attached_by_program(int fd)
{
	struct attachment *entry;
	struct file_id id;
	guard saved;

	if (!identify(fd, &id))
		return;
	saved = guard_enter();
	entry = find_or_add(fd, &id);
	if (entry != NULL && entry->kind != FOREIGN) {
		drop_socket(entry);
		entry->kind = PLAIN;
	}
	numbers_change();
	guard_leave(saved);
}

// Takes what waits in the socket of a file; false if the file has none of ours.
bool take_messages(int fd)
{
	struct attachment *entry;
	struct file_id id;
	bool is_ours;
	guard saved;

	if (!identify(fd, &id))
		return false;
	saved = guard_enter();
	entry = find(fd, &id);
	is_ours = entry != NULL && entry->kind == ATTACHED;
	if (is_ours && holds_socket(entry))
		take_all(entry, fd);
	last.is_done = false; // the socket may be gone
	guard_leave(saved);
	return is_ours;
}

// The program is about to put something of its own where a socket of ours may be.
void make_way(int number)
{
	guard saved;

	if (!is_our_socket(number))
		return;
	saved = guard_enter();
	for (struct attachment *each = table; each < table_end(); each++)
		if (each->kind == ATTACHED && each->socket == number && holds_socket(each)) {
			int moved = fcntl(number, F_DUPFD_CLOEXEC, number + 1);

			if (moved < 0)
				moved = fcntl(number, F_DUPFD_CLOEXEC, 0);
			each->socket = moved;
		}
	guard_leave(saved);
}

// For a child, which has a copy of everything and needs a socket of its own. The lock is held.
void attachments_forget(void)
{
	for (struct attachment *each = table; each < table_end(); each++) {
		if (each->kind == ATTACHED)
			drop_socket(each);
		each->kind = NOBODY;
	}
	numbers_change();
}
