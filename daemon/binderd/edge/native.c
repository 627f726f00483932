// SPDX-License-Identifier: Apache-2.0
// native.c - the calls of the request path, each as short as it can be; plain.py tells what they do.
//
// None gives up the interpreter's lock: that costs more than the call. What is read and written
// here is there (memory/presence.py), and the channel never makes us wait.

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <errno.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/uio.h>
#include <unistd.h>

#define WOULD_BLOCK (-1)
#define ENDED 0
#define RESULT_MAX (1 << 24) // bytes; nobody asks for more in one go
#define AHEAD_MAX 4096 // bytes

// What the watchdog sees: see heartbeat.py. Until there is a place to show, nobody looks.
static int64_t unseen[2];
static volatile int64_t *beats = &unseen[0];
static volatile int64_t *subject = &unseen[1];
static Py_buffer cells; // keeps that place

static bool has(Py_ssize_t count, Py_ssize_t wanted)
{
	if (count != wanted)
		PyErr_Format(PyExc_TypeError, "%zd arguments instead of %zd", count, wanted);
	return count == wanted;
}

static bool number(PyObject *object, int64_t *value)
{
	*value = PyLong_AsLongLong(object);
	return *value != -1 || !PyErr_Occurred();
}

// Addresses and sizes of clients may be anything below 2^64.
static bool address(PyObject *object, uint64_t *value)
{
	*value = PyLong_AsUnsignedLongLong(object);
	return *value != UINT64_MAX || !PyErr_Occurred();
}

static bool descriptor(PyObject *object, int *value)
{
	int64_t wide;

	if (!number(object, &wide))
		return false;
	*value = (int)wide;
	return true;
}

static PyObject *show(PyObject *module, PyObject *place)
{
	Py_buffer view;
	int64_t *start;

	(void)module;
	if (PyObject_GetBuffer(place, &view, PyBUF_WRITABLE) < 0)
		return NULL;
	if (view.len < (Py_ssize_t)sizeof unseen || (uintptr_t)view.buf % sizeof(int64_t)) {
		PyBuffer_Release(&view);
		PyErr_SetString(PyExc_ValueError, "there is no room for two numbers");
		return NULL;
	}
	if (cells.obj)
		PyBuffer_Release(&cells);
	cells = view;
	start = view.buf;
	beats = &start[0];
	subject = &start[1];
	Py_RETURN_NONE;
}

static PyObject *beat(PyObject *module, PyObject *ignored)
{
	(void)module, (void)ignored;
	*subject = 0;
	++*beats;
	Py_RETURN_NONE;
}

static PyObject *enter(PyObject *module, PyObject *argument)
{
	int64_t value;

	(void)module;
	if (!number(argument, &value))
		return NULL;
	*subject = value;
	Py_RETURN_NONE;
}

// A request that was given up while it was copied has never been; a signal is Python's to handle.
static PyObject *read_frame(PyObject *module, PyObject *const *arguments, Py_ssize_t count)
{
	int fd;
	ssize_t size;

	(void)module;
	if (!has(count, 2) || !descriptor(arguments[0], &fd))
		return NULL;
	if (!PyByteArray_Check(arguments[1])) {
		PyErr_SetString(PyExc_TypeError, "frames are read into a bytearray");
		return NULL;
	}
	for (;;) {
		size = read(fd, PyByteArray_AS_STRING(arguments[1]), PyByteArray_GET_SIZE(arguments[1]));
		if (size >= 0)
			return PyLong_FromSsize_t(size);
		if (errno == EAGAIN)
			return PyLong_FromLong(WOULD_BLOCK);
		if (errno == ENODEV || errno == ECONNABORTED)
			return PyLong_FromLong(ENDED);
		if (errno == EINTR && PyErr_CheckSignals() < 0)
			return NULL;
		if (errno != EINTR && errno != ENOENT)
			return PyErr_SetFromErrno(PyExc_OSError);
	}
}

static PyObject *write_frame(PyObject *module, PyObject *const *arguments, Py_ssize_t count)
{
	int fd;

	(void)module;
	if (!has(count, 2) || !descriptor(arguments[0], &fd))
		return NULL;
	if (!PyBytes_Check(arguments[1])) {
		PyErr_SetString(PyExc_TypeError, "a frame is bytes");
		return NULL;
	}
	while (write(fd, PyBytes_AS_STRING(arguments[1]), PyBytes_GET_SIZE(arguments[1])) < 0) {
		if (errno == ENOENT || errno == ENODEV || errno == ENOTCONN || errno == ECONNABORTED)
			break;
		if (errno != EINTR)
			return PyErr_SetFromErrno(PyExc_OSError);
		if (PyErr_CheckSignals() < 0)
			return NULL;
	}
	Py_RETURN_NONE;
}

static PyObject *read_memory(PyObject *module, PyObject *const *arguments, Py_ssize_t count)
{
	int64_t tid;
	int fd;
	uint64_t start, size;
	PyObject *octets;

	(void)module;
	if (!has(count, 4) || !number(arguments[0], &tid) || !descriptor(arguments[1], &fd) ||
	    !address(arguments[2], &start) || !address(arguments[3], &size))
		return NULL;
	if (start > INT64_MAX || size > RESULT_MAX)
		return PyBytes_FromStringAndSize(NULL, 0);
	octets = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)size);
	if (!octets)
		return NULL;
	*subject = -tid;
	if (pread(fd, PyBytes_AS_STRING(octets), size, (off_t)start) == (ssize_t)size)
		return octets;
	Py_DECREF(octets);
	return PyBytes_FromStringAndSize(NULL, 0);
}

static PyObject *write_memory(PyObject *module, PyObject *const *arguments, Py_ssize_t count)
{
	int64_t tid;
	int fd;
	uint64_t start;
	const char *octets;
	Py_ssize_t size;

	(void)module;
	if (!has(count, 4) || !number(arguments[0], &tid) || !descriptor(arguments[1], &fd) ||
	    !address(arguments[2], &start))
		return NULL;
	if (PyByteArray_Check(arguments[3])) {
		octets = PyByteArray_AS_STRING(arguments[3]);
		size = PyByteArray_GET_SIZE(arguments[3]);
	} else if (PyBytes_Check(arguments[3])) {
		octets = PyBytes_AS_STRING(arguments[3]);
		size = PyBytes_GET_SIZE(arguments[3]);
	} else {
		PyErr_SetString(PyExc_TypeError, "what is stored is bytes or a bytearray");
		return NULL;
	}
	if (start > INT64_MAX)
		Py_RETURN_FALSE;
	*subject = -tid;
	return PyBool_FromLong(pwrite(fd, octets, (size_t)size, (off_t)start) == size);
}

static PyObject *copy_memory(PyObject *module, PyObject *const *arguments, Py_ssize_t count)
{
	int64_t tid;
	uint64_t start, size, target;
	struct iovec here, there;

	(void)module;
	if (!has(count, 4) || !number(arguments[0], &tid) || !address(arguments[1], &start) ||
	    !address(arguments[2], &size) || !address(arguments[3], &target))
		return NULL;
	here = (struct iovec){ .iov_base = (void *)(uintptr_t)target, .iov_len = size };
	there = (struct iovec){ .iov_base = (void *)(uintptr_t)start, .iov_len = size };
	*subject = -tid;
	return PyBool_FromLong(process_vm_readv((pid_t)tid, &here, 1, &there, 1, 0) ==
			       (ssize_t)size);
}

// What read_ahead has brought along, until it is taken or the next is brought.
static struct {
	int64_t tid;
	uint64_t start;
	uint64_t size; // bytes; 0: nothing
	char octets[AHEAD_MAX];
} ahead;

static PyObject *read_ahead(PyObject *module, PyObject *const *arguments, Py_ssize_t count)
{
	int64_t tid;
	uint64_t start, size, ahead_start, ahead_size;
	PyObject *octets;
	ssize_t found;

	(void)module;
	ahead.size = 0;
	if (!has(count, 5) || !number(arguments[0], &tid) || !address(arguments[1], &start) ||
	    !address(arguments[2], &size) || !address(arguments[3], &ahead_start) ||
	    !address(arguments[4], &ahead_size))
		return NULL;
	if (size > RESULT_MAX || ahead_size > AHEAD_MAX)
		return PyBytes_FromStringAndSize(NULL, 0);
	octets = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)size);
	if (!octets)
		return NULL;
	struct iovec here[] = { { PyBytes_AS_STRING(octets), size }, { ahead.octets, ahead_size } };
	struct iovec there[] = { { (void *)(uintptr_t)start, size },
				 { (void *)(uintptr_t)ahead_start, ahead_size } };
	*subject = -tid;
	found = process_vm_readv((pid_t)tid, here, 2, there, 2, 0);
	if (found == (ssize_t)(size + ahead_size)) {
		ahead.tid = tid;
		ahead.start = ahead_start;
		ahead.size = ahead_size;
	}
	if (found >= (ssize_t)size)
		return octets;
	Py_DECREF(octets);
	return PyBytes_FromStringAndSize(NULL, 0);
}

static PyObject *take_ahead(PyObject *module, PyObject *const *arguments, Py_ssize_t count)
{
	int64_t tid;
	uint64_t start, size, target;

	(void)module;
	if (!has(count, 4) || !number(arguments[0], &tid) || !address(arguments[1], &start) ||
	    !address(arguments[2], &size) || !address(arguments[3], &target))
		return NULL;
	if (!size || size > ahead.size || start != ahead.start || tid != ahead.tid)
		Py_RETURN_FALSE;
	memcpy((void *)(uintptr_t)target, ahead.octets, size);
	ahead.size = 0;
	Py_RETURN_TRUE;
}

// Which file: what a query says of it, and what store_over is told.
struct file_id {
	uint64_t inode;
	uint32_t major, minor;
};

// struct procmap_query of <linux/fs.h>, since Linux 6.11.
struct procmap_query {
	uint64_t size, query_flags, query_addr;
	uint64_t vma_start, vma_end, vma_flags, vma_page_size, vma_offset;
	struct file_id file;
	uint32_t vma_name_size, build_id_size;
	uint64_t vma_name_addr, build_id_addr;
};
#define PROCMAP_QUERY _IOWR('f', 17, struct procmap_query)
#define SHARED 0x08 // among the flags of an area

static bool shows_privately(int maps, const struct file_id *file, uint64_t start, uint64_t size)
{
	struct procmap_query query = { .size = sizeof query, .query_addr = start };

	return !ioctl(maps, PROCMAP_QUERY, &query) && !(query.vma_flags & SHARED) &&
	       !memcmp(&query.file, file, sizeof *file) && size <= query.vma_end - start;
}

static PyObject *store_over(PyObject *module, PyObject *const *arguments, Py_ssize_t count)
{
	int maps, memory;
	uint64_t start, size, source;
	struct file_id file;

	(void)module;
	if (!has(count, 6) || !descriptor(arguments[0], &maps) || !descriptor(arguments[1], &memory) ||
	    !address(arguments[3], &start) || !address(arguments[4], &size) ||
	    !address(arguments[5], &source))
		return NULL;
	if (!PyBytes_Check(arguments[2]) || PyBytes_GET_SIZE(arguments[2]) != sizeof file) {
		PyErr_SetString(PyExc_TypeError, "a file is its inode number and its device's");
		return NULL;
	}
	memcpy(&file, PyBytes_AS_STRING(arguments[2]), sizeof file);
	if (start > INT64_MAX || !shows_privately(maps, &file, start, size))
		Py_RETURN_FALSE;
	return PyBool_FromLong(pwrite(memory, (const void *)(uintptr_t)source, size, (off_t)start) ==
			       (ssize_t)size);
}

static PyObject *nice_of(PyObject *module, PyObject *argument)
{
	int64_t tid;
	int nice;

	(void)module;
	if (!number(argument, &tid))
		return NULL;
	errno = 0;
	nice = getpriority(PRIO_PROCESS, (id_t)tid);
	return PyLong_FromLong(errno ? 0 : nice);
}

#define FAST(name) { #name, (PyCFunction)(void (*)(void))name, METH_FASTCALL, NULL }

static PyMethodDef functions[] = {
	{ "show", show, METH_O, NULL },
	{ "beat", beat, METH_NOARGS, NULL },
	{ "enter", enter, METH_O, NULL },
	FAST(read_frame),
	FAST(write_frame),
	FAST(read_memory),
	FAST(write_memory),
	FAST(copy_memory),
	FAST(read_ahead),
	FAST(take_ahead),
	FAST(store_over),
	{ "nice_of", nice_of, METH_O, NULL },
	{ NULL, NULL, 0, NULL },
};

static struct PyModuleDef definition = {
	PyModuleDef_HEAD_INIT,
	.m_name = "binderd.edge.native",
	.m_size = -1, // the heartbeat is the process'
	.m_methods = functions,
};

PyMODINIT_FUNC PyInit_native(void)
{
	return PyModule_Create(&definition);
}
