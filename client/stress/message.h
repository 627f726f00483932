// SPDX-License-Identifier: Apache-2.0
// message.h - what travels in a call and in its reply, and how both ends know that it is whole.

#pragma once

#include <linux/android/binder.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum code { CODE_HELLO = 1, CODE_CALL, CODE_ONEWAY, CODE_NESTED, CODE_FILE, CODE_ASK, CODE_REPLY };

struct message {
	uint64_t magic;
	uint32_t code; // enum code: that of the transaction, or CODE_REPLY
	uint32_t client_thread; // its number among all threads of all clients
	uint32_t client, client_life;
	uint32_t server, server_life;
	uint64_t sequence; // of this thread's one-way calls to this server, or of its other calls
	uint64_t previous; // the last such number that the sender knows to have been accepted
	uint64_t size; // bytes of the payload
	uint64_t checksum; // of all the above, with 0 here, and of the payload
	struct flat_binder_object object; // the driver changes it
	unsigned char payload[];
};

enum { MESSAGE_SIZE = offsetof(struct message, payload) };
enum { OBJECT_OFFSET = offsetof(struct message, object) };

void message_prepare(uint64_t seed, size_t payload_max);
void message_seal(struct message *message, uint64_t sequence);
void message_answer(const struct message *question, struct message *answer);
bool message_is_whole(const struct message *message, size_t size);
