// SPDX-License-Identifier: Apache-2.0
// used.h - an open file as one thread has used it, with the lane that it has for it.

#ifndef USED_H
#define USED_H

#include "preload.h"

#define BINDERD_LANE_IOCTL next_ioctl
#define BINDERD_LANE_REACHES memory_is_there
#include "binderd_lane.h"

struct used {
	int fd; // by which it did so last
	struct file_id id;
	unsigned requests; // how many BINDER_WRITE_READs there were, as long as there is no lane
	struct binderd_thread_lane lane;
};

#endif
