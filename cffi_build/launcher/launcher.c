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
#include <stdbool.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "launcher_paths.h"

#define MAIN_MODULE "ociruntime.cli.main"
#define PACKAGE "ociruntime"
#define EXIT_BROKEN 1

/* frozen_table.c, written by freeze.py */
extern const struct _frozen ociruntime_frozen[];

static int main_initialized;
static int *inherited_fds;
static Py_ssize_t n_inherited = -1;

/* what import needs, looked up once */
static struct {
    PyObject *imp; /* module _imp */
    PyObject *ModuleSpec;
    PyObject *find_and_load; /* importlib's own */
} import_tools;

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

static int is_frozen(const char *name)
{
    if (strncmp(name, PACKAGE, sizeof(PACKAGE) - 1) != 0)
        return 0;
    for (const struct _frozen *row = ociruntime_frozen; row->name != NULL; row++)
        if (strcmp(row->name, name) == 0)
            return 1;
    return 0;
}

static int is_builtin(const char *name)
{
    for (const struct _inittab *row = PyImport_Inittab; row->name != NULL; row++)
        if (strcmp(row->name, name) == 0)
            return 1;
    return 0;
}

static const char *extension_path(const char *name)
{
    for (const struct extension_path *row = extension_paths; row->name != NULL; row++)
        if (strcmp(row->name, name) == 0)
            return row->path;
    return NULL;
}

/* The module in sys.modules, new reference, or NULL without an exception. */
static PyObject *present(PyObject *name)
{
    PyObject *module = PyImport_GetModule(name);

    if (module == NULL)
        PyErr_Clear();
    return module;
}

static PyObject *load_frozen(PyObject *name)
{
    PyObject *module = present(name); /* importing the parent may have brought it */

    if (module == NULL && PyImport_ImportFrozenModuleObject(name) > 0)
        module = present(name);
    return module;
}

/* path: NULL for a builtin module, else the shared object. The steps of importlib's BuiltinImporter and
   ExtensionFileLoader. */
static PyObject *load_native(PyObject *name, const char *path)
{
    PyObject *module = present(name), *done = NULL;
    PyObject *spec, *modules = PyImport_GetModuleDict();

    if (module != NULL)
        return module;
    spec = PyObject_CallFunction(import_tools.ModuleSpec, "OO", name, Py_None);
    if (spec == NULL)
        return NULL;
    if (path != NULL) {
        PyObject *origin = PyUnicode_DecodeFSDefault(path);
        if (origin == NULL || PyObject_SetAttrString(spec, "origin", origin) < 0) {
            Py_XDECREF(origin);
            Py_DECREF(spec);
            return NULL;
        }
        Py_DECREF(origin);
    }
    module = PyObject_CallMethod(import_tools.imp, path != NULL ? "create_dynamic" : "create_builtin", "O", spec);
    if (module != NULL && PyObject_SetAttrString(module, "__spec__", spec) == 0 &&
        PyObject_SetItem(modules, name, module) == 0)
        done = PyObject_CallMethod(import_tools.imp, path != NULL ? "exec_dynamic" : "exec_builtin", "O", module);
    if (done == NULL) {
        PyObject *type, *value, *traceback;
        PyErr_Fetch(&type, &value, &traceback);
        if (PyObject_DelItem(modules, name) < 0)
            PyErr_Clear();
        PyErr_Restore(type, value, traceback);
        Py_CLEAR(module);
    }
    Py_XDECREF(done);
    Py_DECREF(spec);
    return module;
}

/*
 * Stands in for importlib._bootstrap._find_and_load, which import calls for a module that is not in sys.modules yet.
 * Three kinds of modules are loaded here, in C, without finders and locks (there is one thread): the package's own,
 * frozen; builtin ones; and the few extension modules whose paths were fixed when the launcher was linked, which no
 * finder of the core would know. Everything else goes the ordinary way.
 */
/*
 * The signal module takes what _PySignal_Init() has prepared, which belongs to the second phase of initialisation.
 * Without it the import would use null pointers.
 */
extern int _PySignal_Init(int install_handlers) __attribute__((weak));

static bool prepare_signals(void)
{
    static bool prepared;

    if (prepared)
        return true;
    prepared = true;
    if (_PySignal_Init != NULL)
        return _PySignal_Init(0) == 0;
    PyObject *done = launcher_initialize_main(NULL, NULL);
    Py_XDECREF(done);
    return done != NULL;
}

static PyObject *launcher_find_and_load(PyObject *module, PyObject *const *args, Py_ssize_t n_args)
{
    const char *name = n_args == 2 ? PyUnicode_AsUTF8(args[0]) : NULL;
    PyObject *loaded, *parent = NULL;

    (void)module;
    if (name == NULL) {
        PyErr_Clear();
        return PyObject_Vectorcall(import_tools.find_and_load, args, (size_t)n_args, NULL);
    }
    int frozen = is_frozen(name);
    const char *path = frozen ? NULL : extension_path(name);
    if (!frozen && path == NULL && !is_builtin(name))
        return PyObject_Vectorcall(import_tools.find_and_load, args, (size_t)n_args, NULL);

    const char *dot = strrchr(name, '.');
    if (dot != NULL) {
        PyObject *parent_name = PyUnicode_FromStringAndSize(name, dot - name);
        parent = parent_name != NULL ? present(parent_name) : NULL;
        /* returns the module itself, not the top of the dotted name */
        if (parent == NULL && parent_name != NULL)
            parent = PyImport_Import(parent_name);
        Py_XDECREF(parent_name);
        if (parent == NULL)
            return NULL;
    }
    if (strcmp(name, "_signal") == 0 && !prepare_signals())
        return NULL;
    loaded = frozen ? load_frozen(args[0]) : load_native(args[0], path);
    if (loaded != NULL && parent != NULL && PyObject_SetAttrString(parent, dot + 1, loaded) < 0)
        Py_CLEAR(loaded);
    Py_XDECREF(parent);
    return loaded;
}

static PyMethodDef find_and_load_method = { "_find_and_load", (PyCFunction)(void (*)(void))launcher_find_and_load,
                                            METH_FASTCALL, NULL };

static void install_import(void)
{
    PyObject *importlib = PyImport_ImportModule("_frozen_importlib");
    PyObject *ours = PyCFunction_New(&find_and_load_method, NULL);

    import_tools.imp = PyImport_ImportModule("_imp");
    if (importlib == NULL || ours == NULL || import_tools.imp == NULL)
        die("importlib is missing");
    import_tools.ModuleSpec = PyObject_GetAttrString(importlib, "ModuleSpec");
    import_tools.find_and_load = PyObject_GetAttrString(importlib, "_find_and_load");
    if (import_tools.ModuleSpec == NULL || import_tools.find_and_load == NULL ||
        PyObject_SetAttrString(importlib, "_find_and_load", ours) < 0)
        die("importlib is not built as expected");
    Py_DECREF(ours);
    Py_DECREF(importlib);
}

static PyMethodDef launcher_methods[] = {
    { "initialize_main", launcher_initialize_main, METH_NOARGS,
      "Complete the interpreter: standard library, site packages, codecs, standard streams. Repeating it is free." },
    { NULL, NULL, 0, NULL },
};

static struct PyModuleDef launcher_module = {
    PyModuleDef_HEAD_INIT,
    .m_name = "_ociruntime_launcher",
    .m_size = -1,
    .m_methods = launcher_methods,
};

static PyObject *make_launcher_module(void)
{
    PyObject *module = PyModule_Create(&launcher_module);

    if (module == NULL)
        return NULL;
    if (PyModule_AddStringConstant(module, "library", LIBRARY_PATH) < 0 || add_inherited_fds(module) < 0) {
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
    /* Of any other level there are no compiled files of the standard library: all of it would be compiled each time. */
    config.optimization_level = 0;
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
    PyObject *module = PyImport_ImportModule(MAIN_MODULE);
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

/*
 * The time module would look for the zone: a file to read at each start, for a program that speaks UTC only. Not before the
 * posix module has its copy of the environment, which is what hooks inherit.
 */
static void utc_only(void)
{
    PyObject *posix = PyImport_ImportModule("posix");

    if (posix == NULL)
        die("posix is missing");
    Py_DECREF(posix);
    setenv("TZ", "UTC0", 1);
}

/* The second phase would set it; frozen modules of the standard library may be imported before that. */
static void no_warning_options(void)
{
    PyObject *none = PyList_New(0);

    if (none == NULL || PySys_SetObject("warnoptions", none) < 0)
        die("out of memory");
    Py_DECREF(none);
}

int main(int argc, char **argv)
{
    fill_standard_fds();
    if (getauxval(AT_SECURE) != 0)
        die("refusing to run with raised privileges (set-user-ID, set-group-ID or file capabilities)");
    if (fds_wanted(argv))
        list_inherited_fds();
    signal(SIGPIPE, SIG_IGN);
    signal(SIGCHLD, SIG_DFL); /* ignored by the caller, it would hide the end of our own children */
    initialize_core();
    install_import();
    no_warning_options();
    utc_only();
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
