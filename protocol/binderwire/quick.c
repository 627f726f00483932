// SPDX-License-Identifier: Apache-2.0
// quick.c - struct.Struct.pack and unpack_from for what records are made of: integers and bytes.
//
// The module struct is made for everything that a format can have, and each number takes it a few
// calls. This knows the integers of one to eight bytes in native order, and bytes. Whatever is not
// as it should be (a number that is no int or does not fit, a buffer that is too short or of
// another kind) is left to the module, which then says what is wrong.

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <limits.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#if ULONG_MAX >= UINT64_MAX // the shorter way
#define AS_UNSIGNED PyLong_AsUnsignedLong
#define AS_SIGNED PyLong_AsLong
#define FROM_UNSIGNED PyLong_FromUnsignedLong
#define FROM_SIGNED PyLong_FromLong
#else
#define AS_UNSIGNED PyLong_AsUnsignedLongLong
#define AS_SIGNED PyLong_AsLongLong
#define FROM_UNSIGNED PyLong_FromUnsignedLongLong
#define FROM_SIGNED PyLong_FromLongLong
#endif

struct field {
	uint32_t offset;
	uint32_t size; // bytes
	char kind;     // u and i: integers without and with a sign; s: bytes
};

struct codec {
	PyObject_HEAD
	vectorcallfunc call;
	PyObject *slow; // the module's function
	Py_ssize_t size;
	Py_ssize_t count;
	struct field *fields;
};

static bool take_unsigned(PyObject *value, uint32_t size, char *place)
{
	uint64_t number = AS_UNSIGNED(value);

	if (number == UINT64_MAX && PyErr_Occurred()) {
		PyErr_Clear();
		return false;
	}
	if (size < 8 && number >> 8 * size)
		return false;
	switch (size) {
	case 1: memcpy(place, &(uint8_t){ (uint8_t)number }, 1); break;
	case 2: memcpy(place, &(uint16_t){ (uint16_t)number }, 2); break;
	case 4: memcpy(place, &(uint32_t){ (uint32_t)number }, 4); break;
	default: memcpy(place, &number, 8);
	}
	return true;
}

static bool take_signed(PyObject *value, uint32_t size, char *place)
{
	int64_t number = AS_SIGNED(value);
	int64_t most = size < 8 ? (INT64_C(1) << (8 * size - 1)) - 1 : INT64_MAX;

	if (number == -1 && PyErr_Occurred()) {
		PyErr_Clear();
		return false;
	}
	if (number > most || number < -most - 1)
		return false;
	switch (size) {
	case 1: memcpy(place, &(int8_t){ (int8_t)number }, 1); break;
	case 2: memcpy(place, &(int16_t){ (int16_t)number }, 2); break;
	case 4: memcpy(place, &(int32_t){ (int32_t)number }, 4); break;
	default: memcpy(place, &number, 8);
	}
	return true;
}

static bool take(PyObject *value, const struct field *field, char *place)
{
	if (field->kind == 's') {
		if (!PyBytes_CheckExact(value) || PyBytes_GET_SIZE(value) != field->size)
			return false;
		memcpy(place, PyBytes_AS_STRING(value), field->size);
		return true;
	}
	if (!PyLong_CheckExact(value))
		return false;
	return field->kind == 'u' ? take_unsigned(value, field->size, place) :
				    take_signed(value, field->size, place);
}

static PyObject *pack(PyObject *self, PyObject *const *values, size_t flags, PyObject *names)
{
	struct codec *codec = (struct codec *)self;
	PyObject *octets;

	if (names || PyVectorcall_NARGS(flags) != codec->count)
		return PyObject_Vectorcall(codec->slow, values, flags, names);
	octets = PyBytes_FromStringAndSize(NULL, codec->size);
	if (!octets)
		return NULL;
	memset(PyBytes_AS_STRING(octets), 0, (size_t)codec->size);
	for (Py_ssize_t i = 0; i < codec->count; i++) {
		const struct field *field = &codec->fields[i];

		if (!take(values[i], field, PyBytes_AS_STRING(octets) + field->offset)) {
			Py_DECREF(octets);
			return PyObject_Vectorcall(codec->slow, values, flags, names);
		}
	}
	return octets;
}

static PyObject *change(PyObject *self, PyObject *const *values, size_t flags, PyObject *names)
{
	struct codec *codec = (struct codec *)self;
	PyObject *octets;

	if (names || PyVectorcall_NARGS(flags) != codec->count + 1 ||
	    !PyBytes_CheckExact(values[0]) || PyBytes_GET_SIZE(values[0]) != codec->size)
		return PyObject_Vectorcall(codec->slow, values, flags, names);
	octets = PyBytes_FromStringAndSize(PyBytes_AS_STRING(values[0]), codec->size);
	if (!octets)
		return NULL;
	for (Py_ssize_t i = 0; i < codec->count; i++) {
		const struct field *field = &codec->fields[i];

		if (!take(values[i + 1], field, PyBytes_AS_STRING(octets) + field->offset)) {
			Py_DECREF(octets);
			return PyObject_Vectorcall(codec->slow, values, flags, names);
		}
	}
	return octets;
}

static PyObject *get_unsigned(const char *place, uint32_t size)
{
	uint16_t two;
	uint32_t four;
	uint64_t eight;

	switch (size) {
	case 1: return PyLong_FromLong((uint8_t)*place);
	case 2: memcpy(&two, place, 2); return PyLong_FromLong(two);
	case 4: memcpy(&four, place, 4); return FROM_UNSIGNED(four);
	default: memcpy(&eight, place, 8); return FROM_UNSIGNED(eight);
	}
}

static PyObject *get_signed(const char *place, uint32_t size)
{
	int16_t two;
	int32_t four;
	int64_t eight;

	switch (size) {
	case 1: return PyLong_FromLong((int8_t)*place);
	case 2: memcpy(&two, place, 2); return PyLong_FromLong(two);
	case 4: memcpy(&four, place, 4); return PyLong_FromLong(four);
	default: memcpy(&eight, place, 8); return FROM_SIGNED(eight);
	}
}

static PyObject *get(const char *place, const struct field *field)
{
	switch (field->kind) {
	case 's': return PyBytes_FromStringAndSize(place, field->size);
	case 'u': return get_unsigned(place, field->size);
	default: return get_signed(place, field->size);
	}
}

// Where the record starts in what unpack_from was given, NULL if that is for the module to judge.
static const char *find(const struct codec *codec, PyObject *const *values, Py_ssize_t count)
{
	const char *start;
	Py_ssize_t size, offset = 0;

	if (count < 1 || count > 2)
		return NULL;
	if (PyByteArray_CheckExact(values[0])) {
		start = PyByteArray_AS_STRING(values[0]);
		size = PyByteArray_GET_SIZE(values[0]);
	} else if (PyBytes_CheckExact(values[0])) {
		start = PyBytes_AS_STRING(values[0]);
		size = PyBytes_GET_SIZE(values[0]);
	} else {
		return NULL;
	}
	if (count == 2) {
		if (!PyLong_CheckExact(values[1]))
			return NULL;
		offset = PyLong_AsSsize_t(values[1]);
		if (offset == -1 && PyErr_Occurred())
			PyErr_Clear();
	}
	if (offset < 0 || size < codec->size || offset > size - codec->size)
		return NULL;
	return start + offset;
}

static PyObject *unpack_from(PyObject *self, PyObject *const *values, size_t flags, PyObject *names)
{
	struct codec *codec = (struct codec *)self;
	const char *start = names ? NULL : find(codec, values, PyVectorcall_NARGS(flags));
	PyObject *found;

	if (!start)
		return PyObject_Vectorcall(codec->slow, values, flags, names);
	found = PyTuple_New(codec->count);
	if (!found)
		return NULL;
	for (Py_ssize_t i = 0; i < codec->count; i++) {
		const struct field *field = &codec->fields[i];
		PyObject *value = get(start + field->offset, field);

		if (!value) {
			Py_DECREF(found);
			return NULL;
		}
		PyTuple_SET_ITEM(found, i, value);
	}
	return found;
}

// The size of an integer by its letter, 0 if there is none.
static uint32_t width(char letter)
{
	switch (letter) {
	case 'b': case 'B': return 1;
	case 'h': case 'H': return 2;
	case 'i': case 'I': case 'l': case 'L': return 4;
	case 'q': case 'Q': return 8;
	default: return 0;
	}
}

// Reads a format of the module, without alignment; NULL with an error for any other.
static struct field *read_format(const char *format, Py_ssize_t *count, Py_ssize_t *size)
{
	struct field *fields = PyMem_Calloc(strlen(format) + 1, sizeof *fields);
	uint32_t offset = 0;

	if (!fields)
		return (struct field *)PyErr_NoMemory();
	*count = 0;
	if (*format++ != '=')
		goto unknown;
	while (*format) {
		bool is_counted = *format >= '0' && *format <= '9';
		uint32_t number = 0, wide;

		while (*format >= '0' && *format <= '9' && number < UINT16_MAX)
			number = 10 * number + (uint32_t)(*format++ - '0');
		if (!is_counted)
			number = 1;
		wide = width(*format);
		if (*format == 's')
			fields[(*count)++] = (struct field){ offset, number, 's' };
		else if (wide && !is_counted)
			fields[(*count)++] = (struct field){ offset, wide, *format < 'a' ? 'u' : 'i' };
		else if (*format != 'x')
			goto unknown;
		offset += wide ? wide : number;
		format++;
	}
	*size = offset;
	return fields;
unknown:
	PyMem_Free(fields);
	PyErr_SetString(PyExc_ValueError, "no format of records");
	return NULL;
}

static void delete(PyObject *self)
{
	struct codec *codec = (struct codec *)self;

	Py_XDECREF(codec->slow);
	PyMem_Free(codec->fields);
	PyObject_Free(self);
}

static PyTypeObject codec_type = {
	PyVarObject_HEAD_INIT(NULL, 0)
	.tp_name = "binderwire.quick.Codec",
	.tp_basicsize = sizeof(struct codec),
	.tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_VECTORCALL,
	.tp_vectorcall_offset = offsetof(struct codec, call),
	.tp_call = PyVectorcall_Call,
	.tp_dealloc = delete,
};

// Takes over the reference to slow, which may be NULL with an error.
static PyObject *make(PyObject *layout, PyObject *slow, vectorcallfunc call)
{
	struct codec *codec = slow ? PyObject_New(struct codec, &codec_type) : NULL;
	PyObject *format;
	const char *text;

	if (!codec) {
		Py_XDECREF(slow);
		return NULL;
	}
	codec->call = call;
	codec->fields = NULL;
	codec->slow = slow;
	format = PyObject_GetAttrString(layout, "format");
	text = format ? PyUnicode_AsUTF8(format) : NULL;
	if (text)
		codec->fields = read_format(text, &codec->count, &codec->size);
	Py_XDECREF(format);
	if (codec->fields)
		return (PyObject *)codec;
	Py_DECREF(codec);
	return NULL;
}

static PyObject *packer(PyObject *module, PyObject *layout)
{
	(void)module;
	return make(layout, PyObject_GetAttrString(layout, "pack"), pack);
}

static PyObject *unpacker(PyObject *module, PyObject *layout)
{
	(void)module;
	return make(layout, PyObject_GetAttrString(layout, "unpack_from"), unpack_from);
}

static PyObject *changer(PyObject *module, PyObject *arguments)
{
	PyObject *layout, *slow;

	(void)module;
	if (!PyArg_ParseTuple(arguments, "OO:changer", &layout, &slow))
		return NULL;
	Py_INCREF(slow);
	return make(layout, slow, change);
}

static PyMethodDef functions[] = {
	{ "changer", changer, METH_VARARGS, NULL },
	{ "packer", packer, METH_O, NULL },
	{ "unpacker", unpacker, METH_O, NULL },
	{ NULL, NULL, 0, NULL },
};

static struct PyModuleDef definition = {
	PyModuleDef_HEAD_INIT,
	.m_name = "binderwire.quick",
	.m_size = -1,
	.m_methods = functions,
};

PyMODINIT_FUNC PyInit_quick(void)
{
	return PyType_Ready(&codec_type) < 0 ? NULL : PyModule_Create(&definition);
}
