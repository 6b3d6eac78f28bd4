/* bare: the least that any asyncio runtime has to pay CPython for driving coroutines.
 *
 * There is no loop here, no task, no context and no exception handling beyond passing errors on:
 * a coroutine is sent None (PyIter_Send) until it returns.  The figures of this module are the
 * floor under the benchmark's table ("bare limit"): a runtime that comes near them has nothing
 * left to save but the interpreter itself.
 *
 *   run(coro)        -> the result; what the coroutine yields meanwhile is dropped
 *   spawn(coro)      -> run()'s result in a finished awaitable: `await spawn(f())` has the shape
 *                       of `await create_task(f())` and nothing of its cost but that shape
 *   gather(*coros)   -> an awaitable of the results; one send to each in turn until all returned
 *   pause()          -> an awaitable that yields None once: sleep(0) without a Python frame
 *
 * Built by benchmarks/harness/environment.py with one call of the C compiler.
 */
#define PY_SSIZE_T_CLEAN
#include <Python.h>

/* ------------------------------------------------------------------ Done: a result to await */

typedef struct {
    PyObject_HEAD
    PyObject *result; /* owned; never NULL */
} Done;

static void
done_dealloc(PyObject *self)
{
    Py_DECREF(((Done *)self)->result);
    PyObject_Free(self);
}

static PySendResult
done_send(PyObject *self, PyObject *Py_UNUSED(value), PyObject **result)
{
    *result = Py_NewRef(((Done *)self)->result);
    return PYGEN_RETURN;
}

/* Never called by `await`, which prefers am_send; an iterator must have it all the same. */
static PyObject *
done_next(PyObject *self)
{
    PyErr_SetObject(PyExc_StopIteration, ((Done *)self)->result);
    return NULL;
}

static PyAsyncMethods done_async = {
    .am_await = PyObject_SelfIter,
    .am_send = done_send,
};

static PyTypeObject DoneType = {
    PyVarObject_HEAD_INIT(NULL, 0)
    .tp_name = "bare.Done",
    .tp_doc = "An awaitable that returns its result at once.",
    .tp_basicsize = sizeof(Done),
    .tp_dealloc = done_dealloc,
    .tp_flags = Py_TPFLAGS_DEFAULT,
    .tp_as_async = &done_async,
    .tp_iter = PyObject_SelfIter,
    .tp_iternext = done_next,
};

/* Takes over `result`; NULL is passed on as the error that it stands for. */
static PyObject *
done_new(PyObject *result)
{
    if (result == NULL) {
        return NULL;
    }
    Done *done = PyObject_New(Done, &DoneType);
    if (done == NULL) {
        Py_DECREF(result);
        return NULL;
    }
    done->result = result;
    return (PyObject *)done;
}

/* ------------------------------------------------------------------ run, spawn, gather */

/* Sends None until the coroutine returns.  Gives a new reference, or NULL with an error set. */
static PyObject *
bare_run(PyObject *Py_UNUSED(module), PyObject *coro)
{
    for (;;) {
        PyObject *value;
        switch (PyIter_Send(coro, Py_None, &value)) {
        case PYGEN_RETURN:
            return value;
        case PYGEN_NEXT:
            Py_DECREF(value);
            break;
        default:
            return NULL;
        }
    }
}

static PyObject *
bare_spawn(PyObject *module, PyObject *coro)
{
    return done_new(bare_run(module, coro));
}

/* A slot of `results` is NULL while its coroutine still runs, so later passes need no list of
 * those left.  No Python code may see the list before it is full: it is untracked till then. */
static PyObject *
bare_gather(PyObject *Py_UNUSED(module), PyObject *const *coros, Py_ssize_t count)
{
    PyObject *results = PyList_New(count);
    if (results == NULL) {
        return NULL;
    }
    PyObject_GC_UnTrack(results);
    for (Py_ssize_t left = count; left > 0;) {
        for (Py_ssize_t i = 0; i < count; i++) {
            if (PyList_GET_ITEM(results, i) != NULL) {
                continue;
            }
            PyObject *value;
            switch (PyIter_Send(coros[i], Py_None, &value)) {
            case PYGEN_RETURN:
                PyList_SET_ITEM(results, i, value);
                left--;
                break;
            case PYGEN_NEXT:
                Py_DECREF(value);
                break;
            default:
                Py_DECREF(results);
                return NULL;
            }
        }
    }
    PyObject_GC_Track(results);
    return done_new(results);
}

/* ------------------------------------------------------------------ pause */

typedef struct {
    PyObject_HEAD
    int yielded; /* 0: the next send yields None; 1: the next send returns None */
} Pause;

static PySendResult
pause_send(PyObject *self, PyObject *Py_UNUSED(value), PyObject **result)
{
    Pause *pause = (Pause *)self;
    *result = Py_NewRef(Py_None);
    if (pause->yielded) {
        return PYGEN_RETURN;
    }
    pause->yielded = 1;
    return PYGEN_NEXT;
}

/* Only for callers without am_send; NULL without an error means StopIteration(None). */
static PyObject *
pause_next(PyObject *self)
{
    Pause *pause = (Pause *)self;
    if (pause->yielded) {
        return NULL;
    }
    pause->yielded = 1;
    return Py_NewRef(Py_None);
}

static PyAsyncMethods pause_async = {
    .am_await = PyObject_SelfIter,
    .am_send = pause_send,
};

static PyTypeObject PauseType = {
    PyVarObject_HEAD_INIT(NULL, 0)
    .tp_name = "bare.Pause",
    .tp_doc = "Yields None once.",
    .tp_basicsize = sizeof(Pause),
    .tp_flags = Py_TPFLAGS_DEFAULT,
    .tp_as_async = &pause_async,
    .tp_iter = PyObject_SelfIter,
    .tp_iternext = pause_next,
};

static PyObject *
bare_pause(PyObject *Py_UNUSED(module), PyObject *Py_UNUSED(ignored))
{
    Pause *pause = PyObject_New(Pause, &PauseType);
    if (pause != NULL) {
        pause->yielded = 0;
    }
    return (PyObject *)pause;
}

/* ------------------------------------------------------------------ the module */

static PyMethodDef methods[] = {
    {"run", bare_run, METH_O, "run(coro): send None until it returns; its result."},
    {"spawn", bare_spawn, METH_O, "spawn(coro): run(coro), as an awaitable of its result."},
    {"gather", (PyCFunction)(void (*)(void))bare_gather, METH_FASTCALL,
     "gather(*coros): send to each in turn; an awaitable of their results."},
    {"pause", bare_pause, METH_NOARGS, "pause(): an awaitable that yields None once."},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT,
    .m_name = "bare",
    .m_doc = "Drives coroutines with nothing around them: the benchmark's floor.",
    .m_size = -1,
    .m_methods = methods,
};

PyMODINIT_FUNC
PyInit_bare(void)
{
    if (PyType_Ready(&DoneType) < 0 || PyType_Ready(&PauseType) < 0) {
        return NULL;
    }
    return PyModule_Create(&definition);
}
