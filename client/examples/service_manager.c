// SPDX-License-Identifier: Apache-2.0
// service_manager.c - a service manager as those of the first Android were: it opens the device,
// maps 128 KiB, becomes the context manager with ioctl(…, 0), and loops.
//
//   cc -O2 -Wall -o build/service_manager client/examples/service_manager.c
//   build/service_manager /dev/binder
//
// It was written for the driver and knows of nothing else; where the argument 0 or the mmap does
// not work: binderctl run -- build/service_manager DEVICE. Services are found by name:
//
//   code ADD: a flat_binder_object, then the name    reply: nothing
//   code GET: the name                               reply: a flat_binder_object, or nothing
//
// A service whose process dies is forgotten.

#include <fcntl.h>
#include <linux/android/binder.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>

enum { GET = 1, ADD = 3, MAP_SIZE = 128 * 1024, SERVICES_MAX = 64, NAME_MAX_SIZE = 100 };

struct service {
	uint32_t handle; // 0: free
	size_t name_size;
	char name[NAME_MAX_SIZE];
};

static struct service services[SERVICES_MAX];
static int fd;

// Writes one command and what belongs to it.
static void write_command(uint32_t word, const void *payload)
{
	unsigned char out[4 + sizeof(struct binder_transaction_data)];
	struct binder_write_read bwr = { .write_size = sizeof word + _IOC_SIZE(word),
					 .write_buffer = (binder_uintptr_t)out };

	memcpy(out, &word, sizeof word);
	memcpy(out + sizeof word, payload, _IOC_SIZE(word));
	if (ioctl(fd, BINDER_WRITE_READ, &bwr) < 0)
		perror("BINDER_WRITE_READ");
}

static struct service *find(const char *name, size_t size)
{
	for (struct service *each = services; each < services + SERVICES_MAX; each++)
		if (each->handle && each->name_size == size && !memcmp(each->name, name, size))
			return each;
	return NULL;
}

// The handle stays ours, also if its process dies: until BC_RELEASE.
static void forget(struct service *service)
{
	write_command(BC_RELEASE, &service->handle);
	service->handle = 0;
}

static void watch(uint32_t word, struct service *service)
{
	struct binder_handle_cookie both = { .handle = service->handle,
					     .cookie = (binder_uintptr_t)service };

	write_command(word, &both);
}

static void add(uint32_t handle, const char *name, size_t size)
{
	struct service *service = find(name, size);

	if (service) {
		watch(BC_CLEAR_DEATH_NOTIFICATION, service);
		forget(service);
	}
	for (service = services; service < services + SERVICES_MAX && service->handle; service++)
		;
	if (service == services + SERVICES_MAX || size > NAME_MAX_SIZE)
		return;
	write_command(BC_ACQUIRE, &handle);
	service->handle = handle;
	watch(BC_REQUEST_DEATH_NOTIFICATION, service);
	service->name_size = size;
	memcpy(service->name, name, size);
}

static void serve(const struct binder_transaction_data *call)
{
	const char *data = (const char *)(uintptr_t)call->data.ptr.buffer;
	struct flat_binder_object object = { .hdr.type = BINDER_TYPE_HANDLE };
	struct binder_transaction_data reply = { 0 };
	binder_size_t offset = 0;
	const struct service *found;

	if (call->code == ADD && call->offsets_size && call->data_size >= sizeof object) {
		memcpy(&object, data, sizeof object);
		add(object.handle, data + sizeof object, call->data_size - sizeof object);
	} else if (call->code == GET && (found = find(data, call->data_size))) {
		object.handle = found->handle;
		reply.data_size = sizeof object;
		reply.data.ptr.buffer = (binder_uintptr_t)&object;
		reply.offsets_size = sizeof offset;
		reply.data.ptr.offsets = (binder_uintptr_t)&offset;
	}
	write_command(BC_FREE_BUFFER, &call->data.ptr.buffer);
	if (!(call->flags & TF_ONE_WAY))
		write_command(BC_REPLY, &reply);
}

static void handle(uint32_t word, const unsigned char *payload)
{
	struct binder_transaction_data call;
	binder_uintptr_t cookie;

	if (word == BR_TRANSACTION) {
		memcpy(&call, payload, sizeof call);
		serve(&call);
	} else if (word == BR_DEAD_BINDER) {
		memcpy(&cookie, payload, sizeof cookie);
		forget((struct service *)(uintptr_t)cookie);
		write_command(BC_DEAD_BINDER_DONE, &cookie);
	} // BR_NOOP, BR_TRANSACTION_COMPLETE and the like are of no interest
}

int main(int argc, char **argv)
{
	unsigned char in[512];
	uint32_t word;

	if (argc > 2 || (argc == 2 && argv[1][0] == '-'))
		return fputs("usage: service_manager [DEVICE]\n", stderr), 2;
	fd = open(argc > 1 ? argv[1] : "/dev/binder", O_RDWR);
	if (fd < 0 || mmap(NULL, MAP_SIZE, PROT_READ, MAP_PRIVATE, fd, 0) == MAP_FAILED)
		return perror("cannot open or map the device"), 1;
	if (ioctl(fd, BINDER_SET_CONTEXT_MGR, 0))
		return perror("cannot become the context manager"), 1;
	write_command(BC_ENTER_LOOPER, "");
	puts("ready");
	fflush(stdout);
	for (;;) {
		struct binder_write_read bwr = { .read_size = sizeof in,
						 .read_buffer = (binder_uintptr_t)in };

		if (ioctl(fd, BINDER_WRITE_READ, &bwr) < 0)
			return perror("BINDER_WRITE_READ"), 1;
		for (size_t at = 0; at < bwr.read_consumed; at += _IOC_SIZE(word)) {
			memcpy(&word, in + at, sizeof word);
			at += sizeof word;
			handle(word, in + at);
		}
	}
}
