/*
 * The installed command: an interpreter that starts only as far as the runtime needs.
 *
 * Python is initialised in two phases (PEP 587). The first, the core, gives the types, the builtins, the builtin
 * modules and the importer of frozen modules: no encodings, no io, no file system search. The package is frozen into
 * this executable, so that is all a container command needs. Whoever needs the standard library calls
 * _ociruntime_launcher.initialize_main(), the second phase; ociruntime/fullpython.py does.
 *
 * Nothing of the caller's world steers the interpreter: no PYTHON* variable, no current directory, no locale, no user
 * site. Every path is fixed when the launcher is linked (launcher_paths.h, written by embed.py).
 */

#define _GNU_SOURCE
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "launcher_paths.h"

#define MAIN_MODULE "ociruntime.cli.main"
#define BOOT_MODULE "ociruntime.boot"
#define EXIT_BROKEN 1

/* frozen_table.c, written by freeze.py */
extern const struct _frozen ociruntime_frozen[];

static int main_initialized;
static int *inherited_fds;
static Py_ssize_t n_inherited = -1;

static void die(const char *text)
{
    (void)!write(2, "ociruntime: ", 12);
    (void)!write(2, text, strlen(text));
    (void)!write(2, "\n", 1);
    _exit(EXIT_BROKEN);
}

/* Closed standard descriptors become /dev/null before anything else is opened: a later open() must not land on 0-2. */
static void fill_standard_fds(void)
{
    struct stat st;

    for (int fd = 0; fd <= 2; fd++) {
        if (fcntl(fd, F_GETFD) >= 0)
            continue;
        int opened = open("/dev/null", O_RDWR | O_NOFOLLOW);
        if (opened != fd || fstat(fd, &st) < 0 || !S_ISCHR(st.st_mode) || st.st_rdev != makedev(1, 3))
            _exit(EXIT_BROKEN);
    }
}

/* Are the caller's own descriptors part of the command? Only then are they worth listing. */
static int fds_wanted(char **argv)
{
    if (getenv("LISTEN_FDS") != NULL)
        return 1;
    for (; *argv != NULL; argv++)
        if (strstr(*argv, "preserve-fds") != NULL)
            return 1;
    return 0;
}

/* What is open now is the caller's: later nobody can tell it from our own. */
static void list_inherited_fds(void)
{
    DIR *directory = opendir("/proc/self/fd");
    Py_ssize_t room = 0;

    n_inherited = 0;
    if (directory == NULL)
        return;
    for (struct dirent *entry; (entry = readdir(directory)) != NULL;) {
        char *end;
        long fd = strtol(entry->d_name, &end, 10);
        if (end == entry->d_name || *end != '\0' || fd < 3 || fd == dirfd(directory))
            continue;
        if (n_inherited == room) {
            room = room * 2 + 16;
            inherited_fds = realloc(inherited_fds, (size_t)room * sizeof(*inherited_fds));
            if (inherited_fds == NULL)
                die("out of memory");
        }
        inherited_fds[n_inherited++] = (int)fd;
    }
    closedir(directory);
}

#ifdef LAZY_DEEPFREEZE
/*
 * CPython 3.11 interns the names of every standard module compiled into it at each start: a fifth of the instructions
 * of the core, and a private copy of each page touched. The core runs only the import machinery's code; the rest
 * follows in the second phase. Names that are equal but not interned compare by hash and content, so nothing breaks
 * in between.
 */
int _PyStaticCode_InternStrings(PyCodeObject *code);
PyObject *_Py_get_importlib__bootstrap_toplevel(void);
int __real__Py_Deepfreeze_Init(void);
int __wrap__Py_Deepfreeze_Init(void);

int __wrap__Py_Deepfreeze_Init(void)
{
    return _PyStaticCode_InternStrings((PyCodeObject *)_Py_get_importlib__bootstrap_toplevel());
}
#endif

#ifdef OWN_CRC32
/* binascii wants zlib's crc32 and nothing else does: not worth a shared library at every start. */
__attribute__((visibility("hidden"))) unsigned long crc32(unsigned long crc, const unsigned char *data, unsigned size);

unsigned long crc32(unsigned long crc, const unsigned char *data, unsigned size)
{
    crc = ~crc & 0xffffffff;
    while (size-- > 0) {
        crc ^= *data++;
        for (int bit = 0; bit < 8; bit++)
            crc = crc & 1 ? crc >> 1 ^ 0xedb88320 : crc >> 1;
    }
    return ~crc & 0xffffffff;
}
#endif

static int complete(void)
{
    if (main_initialized)
        return 0;
    main_initialized = 1;
#ifdef LAZY_DEEPFREEZE
    if (__real__Py_Deepfreeze_Init() < 0)
        return -1;
#endif
    PyStatus status = _Py_InitializeMain();
    if (PyStatus_Exception(status)) {
        PyErr_Format(PyExc_RuntimeError, "the interpreter cannot be completed: %s",
                     status.err_msg != NULL ? status.err_msg : "unknown");
        return -1;
    }
    return 0;
}

static PyObject *launcher_initialize_main(PyObject *module, PyObject *unused)
{
    (void)module;
    (void)unused;
    if (complete() < 0)
        return NULL;
    Py_RETURN_NONE;
}

static int add_extensions(PyObject *module)
{
    PyObject *table = PyDict_New();

    if (table == NULL)
        return -1;
    for (const struct extension_path *row = extension_paths; row->name != NULL; row++) {
        PyObject *path = PyUnicode_DecodeUTF8(row->path, (Py_ssize_t)strlen(row->path), "surrogateescape");
        if (path == NULL || PyDict_SetItemString(table, row->name, path) < 0) {
            Py_XDECREF(path);
            Py_DECREF(table);
            return -1;
        }
        Py_DECREF(path);
    }
    return PyModule_AddObject(module, "extensions", table);
}

/* None: they were not listed. */
static int add_inherited_fds(PyObject *module)
{
    PyObject *fds = Py_None;

    if (n_inherited < 0) {
        Py_INCREF(fds);
        return PyModule_AddObject(module, "inherited_fds", fds);
    }
    fds = PyTuple_New(n_inherited);
    if (fds == NULL)
        return -1;
    for (Py_ssize_t i = 0; i < n_inherited; i++) {
        PyObject *fd = PyLong_FromLong(inherited_fds[i]);
        if (fd == NULL) {
            Py_DECREF(fds);
            return -1;
        }
        PyTuple_SET_ITEM(fds, i, fd);
    }
    return PyModule_AddObject(module, "inherited_fds", fds);
}

static PyMethodDef launcher_methods[] = {
    {"initialize_main", launcher_initialize_main, METH_NOARGS,
     "Complete the interpreter: standard library, site packages, codecs, standard streams. Repeating it is free."},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef launcher_module = {
    PyModuleDef_HEAD_INIT, .m_name = "_ociruntime_launcher", .m_size = -1, .m_methods = launcher_methods,
};

static PyObject *make_launcher_module(void)
{
    PyObject *module = PyModule_Create(&launcher_module);

    if (module == NULL)
        return NULL;
    if (PyModule_AddStringConstant(module, "library", LIBRARY_PATH) < 0 || add_extensions(module) < 0 ||
        add_inherited_fds(module) < 0) {
        Py_DECREF(module);
        return NULL;
    }
    return module;
}

static void check(PyStatus status)
{
    if (PyStatus_Exception(status))
        die(status.err_msg != NULL ? status.err_msg : "the interpreter does not start");
}

static void initialize_core(void)
{
    PyPreConfig before;
    PyConfig config;

    PyPreConfig_InitIsolatedConfig(&before);
    before.utf8_mode = 1;
    check(Py_PreInitialize(&before));

    PyImport_FrozenModules = ociruntime_frozen;
    if (PyImport_AppendInittab("_ociruntime_launcher", make_launcher_module) < 0)
        die("out of memory");

    PyConfig_InitIsolatedConfig(&config);
    config._init_main = 0;
    config.site_import = 0;
    config.write_bytecode = 0;
    config.install_signal_handlers = 0;
    config.optimization_level = 2;
    /* all that getpath would search for */
    config.module_search_paths_set = 1;
    for (const wchar_t *const *path = search_paths; *path != NULL; path++)
        check(PyWideStringList_Append(&config.module_search_paths, *path));
    check(PyConfig_SetString(&config, &config.program_name, PROGRAM_NAME));
    check(PyConfig_SetString(&config, &config.executable, PROGRAM_NAME));
    check(PyConfig_SetString(&config, &config.base_executable, PROGRAM_NAME));
    check(PyConfig_SetString(&config, &config.prefix, PYTHON_PREFIX));
    check(PyConfig_SetString(&config, &config.exec_prefix, PYTHON_PREFIX));
    check(PyConfig_SetString(&config, &config.base_prefix, PYTHON_PREFIX));
    check(PyConfig_SetString(&config, &config.base_exec_prefix, PYTHON_PREFIX));
    check(Py_InitializeFromConfig(&config));
    PyConfig_Clear(&config);
    /* A command lives for milliseconds and makes few cycles. */
    PyGC_Disable();
}

static PyObject *argument_list(int argc, char **argv)
{
    PyObject *list = PyList_New(0);

    for (int i = 1; list != NULL && i < argc; i++) {
        PyObject *text = PyUnicode_DecodeUTF8(argv[i], (Py_ssize_t)strlen(argv[i]), "surrogateescape");
        if (text == NULL || PyList_Append(list, text) < 0)
            Py_CLEAR(list);
        Py_XDECREF(text);
    }
    return list;
}

static int run(int argc, char **argv)
{
    PyObject *boot = PyImport_ImportModule(BOOT_MODULE);
    PyObject *module = boot != NULL ? PyImport_ImportModule(MAIN_MODULE) : NULL;
    PyObject *arguments = module != NULL ? argument_list(argc, argv) : NULL;
    PyObject *result = arguments != NULL ? PyObject_CallMethod(module, "main", "O", arguments) : NULL;

    return result != NULL ? (int)PyLong_AsLong(result) : -1;
}

/* An exception that main() did not turn into a message. The traceback needs sys.stderr, thus the second phase. */
static void print_exception(void)
{
    PyObject *type, *value, *traceback;

    PyErr_Fetch(&type, &value, &traceback);
    if (complete() < 0)
        PyErr_Clear();
    PyErr_Restore(type, value, traceback);
    PyErr_Print();
}

static void flush(const char *name)
{
    PyObject *stream = PySys_GetObject(name);
    PyObject *result = stream != NULL && stream != Py_None ? PyObject_CallMethod(stream, "flush", NULL) : NULL;

    Py_XDECREF(result);
    PyErr_Clear();
}

int main(int argc, char **argv)
{
    fill_standard_fds();
    if (getauxval(AT_SECURE) != 0)
        die("refusing to run with raised privileges (set-user-ID, set-group-ID or file capabilities)");
    if (fds_wanted(argv))
        list_inherited_fds();
    signal(SIGPIPE, SIG_IGN);

    initialize_core();
    int code = run(argc, argv);
    if (PyErr_Occurred() != NULL) {
        print_exception();
        code = EXIT_BROKEN;
    }
    if (main_initialized) {
        flush("stdout");
        flush("stderr");
    }
    /* The kernel is quicker at taking the interpreter down than the interpreter. */
    _exit(code & 0xff);
}
