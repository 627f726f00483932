// SPDX-License-Identifier: Apache-2.0
// message.c - filling messages with bytes that depend on their number, and checking them.

#include "message.h"

#include <stdlib.h>
#include <string.h>

#define MAGIC 0x7365727473646e62ull // "bndstres"
#define STEP 0x9e3779b97f4a7c15ull

static unsigned char *source; // 2 * source_size bytes that look random
static size_t source_size;

static uint64_t mixed(uint64_t value)
{
	value = (value ^ (value >> 30)) * 0xbf58476d1ce4e5b9ull;
	value = (value ^ (value >> 27)) * 0x94d049bb133111ebull;
	return value ^ (value >> 31);
}

void message_prepare(uint64_t seed, size_t payload_max)
{
	uint64_t word;

	source_size = payload_max + 4096;
	source = malloc(2 * source_size + sizeof word);
	if (!source)
		abort();
	for (size_t at = 0; at < 2 * source_size; at += sizeof word) {
		word = mixed(seed + at * STEP);
		memcpy(source + at, &word, sizeof word);
	}
}

// Four words at a time, each in a sum of its own: some gigabytes in a second.
static uint64_t sum(const unsigned char *data, size_t size, uint64_t start)
{
	uint64_t sums[4] = { start, start + STEP, start ^ STEP, ~start }, words[4] = { 0 };

	for (; size >= sizeof words; data += sizeof words, size -= sizeof words) {
		memcpy(words, data, sizeof words);
		for (int i = 0; i < 4; i++)
			sums[i] = (sums[i] ^ words[i]) * STEP + (sums[i] >> 29);
	}
	memset(words, 0, sizeof words);
	memcpy(words, data, size);
	for (int i = 0; i < 4; i++)
		sums[i] = mixed(sums[i] ^ words[i]) + STEP;
	return mixed(sums[0]) ^ mixed(sums[1] + 1) ^ mixed(sums[2] + 2) ^ mixed(sums[3] + 3);
}

static uint64_t checksum(const struct message *message)
{
	struct message head;

	memcpy(&head, message, MESSAGE_SIZE);
	head.checksum = 0;
	uint64_t start = sum((unsigned char *)&head, OBJECT_OFFSET, MAGIC);
	return sum(message->payload, message->size, start);
}

void message_seal(struct message *message, uint64_t sequence)
{
	uint64_t where = mixed(sequence * STEP + message->client_thread) % source_size;

	message->magic = MAGIC;
	message->sequence = sequence;
	memcpy(message->payload, source + where, message->size);
	message->checksum = checksum(message);
}

// The same payload, in memory of its own as with any service; the question was checked.
void message_answer(const struct message *question, struct message *answer)
{
	memcpy(answer, question, MESSAGE_SIZE + question->size);
	memset(&answer->object, 0, sizeof answer->object);
	answer->code = CODE_REPLY;
	answer->checksum = checksum(answer);
}

bool message_is_whole(const struct message *message, size_t size)
{
	return size >= MESSAGE_SIZE && message->magic == MAGIC &&
	       message->size == size - MESSAGE_SIZE && message->checksum == checksum(message);
}
