//! The native half of asyncio's queues: `Queue`, `LifoQueue`, `PriorityQueue`.
//!
//! `rondel.Queue` and its kin (Python) derive from a base here and from asyncio's class. The fields are
//! properties under asyncio's names and hold what asyncio's hold (`_queue` is a deque or a list,
//! `_getters` and `_putters` are deques of futures), so asyncio's methods and ours work on one state.
//! For the three classes themselves every step of an item's way is native. A subclass may override
//! anything (`_init`, `_get` and `_put` are there to be overridden): asyncio's own methods serve it,
//! over native futures. `coroutines` has put, get and join.
//!
//! No borrow is held while Python code can run: comparing and dropping items does.

mod coroutines;

use crate::consts::{names, stock};
use crate::sync::event;
use crate::sync::fields::{self, Count, Given, set_obj};
use crate::sync::waiters;
use rondel_ffi::class::{ObjCell, TypeBuilder, Visit};
use rondel_ffi::err::{self, Builtin};
use rondel_ffi::gil::GilStatic;
use rondel_ffi::method::{self, Args, MethodDef};
use rondel_ffi::{Class, ClassCell, Inst, Obj, PyRes, Raised, Ref, call, callable, value};
use std::cell::Cell;

/// How items are kept.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
enum Order {
    /// A subclass's business.
    #[default]
    Other,
    Fifo,
    Lifo,
    Priority,
}

#[derive(Default)]
pub(crate) struct Queue {
    order: Cell<Order>,
    max_size: Count,
    /// The items: a deque (first in, first out) or a list.
    items: ObjCell,
    getters: ObjCell,
    putters: ObjCell,
    unfinished: Count,
    /// An Event, set while nothing is unfinished.
    finished: ObjCell,
    shut_down: Cell<bool>,
    loop_: ObjCell,
}

static CELL: ClassCell = ClassCell::new();

impl Class for Queue {
    fn cell() -> &'static ClassCell {
        &CELL
    }
    fn traverse(&self, visit: &mut Visit) {
        for cell in self.cells() {
            visit.cell(cell);
        }
    }
    fn clear(&self) {
        for cell in self.cells() {
            cell.set(None);
        }
    }
}

impl Queue {
    fn cells(&self) -> [&ObjCell; 7] {
        [
            self.max_size.cell(),
            &self.items,
            &self.getters,
            &self.putters,
            self.unfinished.cell(),
            &self.finished,
            &self.loop_,
        ]
    }
}

/// The Python classes of the three orders, and what they are made of.
struct Plain {
    orders: [(Obj, Order); 3],
    event: Obj,
    full: Obj,
    empty: Obj,
    /// 3.13's QueueShutDown.
    shut_down: Option<Obj>,
    push: Obj,
    pop: Obj,
}

static PLAIN: GilStatic<Plain> = GilStatic::new();

/// `_adopt_queues(Queue, LifoQueue, PriorityQueue, Event)`: called once, by the module that defines
/// them.
fn adopt(args: Args<'_>) -> PyRes<Obj> {
    let [fifo, lifo, priority, event] = args.positional() else {
        return Err(Builtin::Type.raise("_adopt_queues() takes four classes"));
    };
    if PLAIN.get().is_some() {
        return Ok(Obj::none());
    }
    let queues = call::import(c"asyncio.queues")?;
    let heap = call::import(c"heapq")?;
    let of = |module: &Obj, name| call::getattr(module.borrow(), value::intern(name)?.borrow());
    PLAIN.set(Plain {
        orders: [
            (fifo.own(), Order::Fifo),
            (lifo.own(), Order::Lifo),
            (priority.own(), Order::Priority),
        ],
        event: event.own(),
        full: of(&queues, c"QueueFull")?,
        empty: of(&queues, c"QueueEmpty")?,
        shut_down: call::getattr_opt(queues.borrow(), value::intern(c"QueueShutDown")?.borrow())?,
        push: of(&heap, c"heappush")?,
        pop: of(&heap, c"heappop")?,
    });
    Ok(Obj::none())
}

fn plain() -> PyRes<&'static Plain> {
    PLAIN
        .get()
        .ok_or_else(|| Builtin::Runtime.raise("rondel's queues are not set up"))
}

type Slf<'a> = Inst<'a, Queue>;

/// The order of a queue that is native in every respect right now.
#[inline(always)]
fn native(slf: Slf<'_>) -> Option<Order> {
    let order = slf.order.get();
    let whole = order != Order::Other
        && slf.max_size.get().is_some()
        && slf.unfinished.get().is_some()
        && slf.items.is_some();
    whole.then_some(order)
}

/// asyncio's own method, on the same fields.
#[cold]
fn by_asyncio(slf: Slf<'_>, name: &std::ffi::CStr, rest: &[Ref<'_>]) -> PyRes<Obj> {
    let name = value::intern(name)?;
    let method = call::getattr(stock().queue.borrow(), name.borrow())?;
    let mut args = vec![slf.obj()];
    args.extend_from_slice(rest);
    call::call(method.borrow(), &args)
}

/// `__init__(maxsize=0)`.
fn init(slf: Slf<'_>, args: Args<'_>) -> PyRes<()> {
    let [max_size] = args.bind("Queue.__init__", [names().maxsize.borrow()], 0, 1)?;
    let plain = plain()?;
    match max_size {
        Some(max_size) => slf.max_size.assign(Some(max_size))?,
        None => slf.max_size.set(0),
    }
    let class = slf.obj().type_of();
    let order = plain
        .orders
        .iter()
        .find(|(known, _)| class.is(known.borrow()))
        .map_or(Order::Other, |(_, order)| *order);
    slf.getters.set(Some(call::call0(stock().deque.borrow())?));
    slf.putters.set(Some(call::call0(stock().deque.borrow())?));
    slf.unfinished.assign(Some(value::int(0)?.borrow()))?;
    let event = call::call0(plain.event.borrow())?;
    event::change(event.borrow(), true)?;
    slf.finished.set(Some(event));
    match order {
        Order::Other => {
            let given = slf.max_size.show()?;
            let init = value::intern(c"_init")?;
            let _none = call::method(init.borrow(), [slf.obj(), given.borrow()])?;
        }
        Order::Fifo => slf.items.set(Some(call::call0(stock().deque.borrow())?)),
        Order::Lifo | Order::Priority => slf.items.set(Some(value::list_with(0)?)),
    }
    slf.shut_down.set(false);
    slf.order.set(order);
    Ok(())
}

fn items(slf: Slf<'_>) -> Obj {
    slf.items.get().unwrap_or_else(Obj::none)
}

#[inline(always)]
fn size(slf: Slf<'_>) -> PyRes<usize> {
    value::len(items(slf).borrow())
}

#[inline(always)]
fn is_full(slf: Slf<'_>) -> PyRes<bool> {
    match slf.max_size.get() {
        Some(max) if max > 0 => Ok(size(slf)? as i64 >= max),
        _ => Ok(false),
    }
}

/// asyncio's `_wakeup_next`.
fn wake_next(waiting: &ObjCell) -> PyRes<()> {
    let Some(waiting) = waiting.get() else {
        return Ok(());
    };
    while value::len(waiting.borrow())? > 0 {
        let waiter = waiters::popleft(waiting.borrow())?;
        if waiters::wake(waiter.borrow(), Obj::none())? {
            break;
        }
    }
    Ok(())
}

#[cold]
fn raise(class: &Obj) -> Raised {
    match call::call0(class.borrow()) {
        Ok(exc) => err::raise_instance(exc.borrow()),
        Err(raised) => raised,
    }
}

#[cold]
fn raise_shut_down() -> Raised {
    match plain().map(|plain| &plain.shut_down) {
        Ok(Some(class)) => raise(class),
        Ok(None) => Builtin::Runtime.raise("the queue is shut down"),
        Err(raised) => raised,
    }
}

/// `put_nowait(item)` of a native queue.
#[inline(always)]
fn put_now(slf: Slf<'_>, order: Order, item: Ref<'_>) -> PyRes<()> {
    if slf.shut_down.get() {
        return Err(raise_shut_down());
    }
    if is_full(slf)? {
        return Err(raise(&plain()?.full));
    }
    let items = items(slf);
    match order {
        Order::Fifo => waiters::append(items.borrow(), item)?,
        Order::Lifo => call::method(names().append.borrow(), [items.borrow(), item]).map(drop)?,
        Order::Priority | Order::Other => {
            call::call(plain()?.push.borrow(), &[items.borrow(), item]).map(drop)?;
        }
    }
    slf.unfinished.set(slf.unfinished.get().unwrap_or(0) + 1);
    if let Some(finished) = slf.finished.get() {
        event::change(finished.borrow(), false)?;
    }
    wake_next(&slf.getters)
}

/// `get_nowait()` of a native queue.
#[inline(always)]
fn get_now(slf: Slf<'_>, order: Order) -> PyRes<Obj> {
    if size(slf)? == 0 {
        if slf.shut_down.get() {
            return Err(raise_shut_down());
        }
        return Err(raise(&plain()?.empty));
    }
    let item = take(slf, order)?;
    wake_next(&slf.putters)?;
    Ok(item)
}

/// asyncio's `_get`.
#[inline(always)]
fn take(slf: Slf<'_>, order: Order) -> PyRes<Obj> {
    let items = items(slf);
    match order {
        Order::Fifo => waiters::popleft(items.borrow()),
        Order::Lifo => call::method(names().pop.borrow(), [items.borrow()]),
        Order::Priority | Order::Other => call::call1(plain()?.pop.borrow(), items.borrow()),
    }
}

fn put_nowait(slf: Slf<'_>, args: Args<'_>) -> PyRes<Obj> {
    let [item] = args.bind("Queue.put_nowait", [names().item.borrow()], 1, 1)?;
    let Some(item) = item else {
        return Ok(Obj::none());
    };
    match native(slf) {
        Some(order) => put_now(slf, order, item).map(|()| Obj::none()),
        None => by_asyncio(slf, c"put_nowait", &[item]),
    }
}

fn get_nowait(slf: Slf<'_>) -> PyRes<Obj> {
    match native(slf) {
        Some(order) => get_now(slf, order),
        None => by_asyncio(slf, c"get_nowait", &[]),
    }
}

fn qsize(slf: Slf<'_>) -> PyRes<Obj> {
    match slf.items.get() {
        Some(items) => value::int(value::len(items.borrow())? as i64),
        None => by_asyncio(slf, c"qsize", &[]),
    }
}

fn empty(slf: Slf<'_>) -> PyRes<Obj> {
    match native(slf) {
        Some(_) => Ok(Obj::bool(size(slf)? == 0)),
        None => by_asyncio(slf, c"empty", &[]),
    }
}

fn full(slf: Slf<'_>) -> PyRes<Obj> {
    match native(slf) {
        Some(_) => Ok(Obj::bool(is_full(slf)?)),
        None => by_asyncio(slf, c"full", &[]),
    }
}

fn task_done(slf: Slf<'_>) -> PyRes<Obj> {
    match slf.unfinished.get() {
        Some(count) if count > 0 => {
            slf.unfinished.set(count - 1);
            if count == 1
                && let Some(finished) = slf.finished.get()
            {
                event::change(finished.borrow(), true)?;
            }
            Ok(Obj::none())
        }
        Some(_) => Err(Builtin::Value.raise("task_done() called too many times")),
        None => by_asyncio(slf, c"task_done", &[]),
    }
}

pub(crate) fn definitions() -> Vec<MethodDef> {
    vec![method::function(
        c"_adopt_queues",
        c"Tell which classes add nothing to the native ones.",
        adopt,
    )]
}

/// `_rondel.QueueBase`.
pub(crate) fn build() -> PyRes<Obj> {
    coroutines::build()?;
    let class = TypeBuilder::<Queue>::new(c"rondel._rondel.QueueBase")
        .subclassable()
        .doc(c"QueueBase(maxsize=0)\n--\n\nThe native half of a queue.")
        .with(method::init::<Queue, _>(init))
        .methods([
            method::fast::<Queue, _>(
                c"put_nowait",
                c"put_nowait($self, /, item)\n--\n\nPut an item into the queue; QueueFull if there is no room.",
                put_nowait,
            ),
            method::noargs::<Queue, _>(
                c"get_nowait",
                c"get_nowait($self, /)\n--\n\nTake an item out of the queue; QueueEmpty if there is none.",
                get_nowait,
            ),
            method::noargs::<Queue, _>(
                c"qsize",
                c"qsize($self, /)\n--\n\nReturn the number of items in the queue.",
                qsize,
            ),
            method::noargs::<Queue, _>(
                c"empty",
                c"empty($self, /)\n--\n\nReturn True if the queue is empty.",
                empty,
            ),
            method::noargs::<Queue, _>(
                c"full",
                c"full($self, /)\n--\n\nReturn True if there are maxsize items in the queue.",
                full,
            ),
            method::noargs::<Queue, _>(
                c"task_done",
                c"task_done($self, /)\n--\n\nTell that a task that came out of the queue is complete.",
                task_done,
            ),
        ])
        .properties([
            fields::count(c"_maxsize", |s: &Queue| &s.max_size),
            method::property::<Queue, _, _>(
                c"_queue",
                |s: Slf<'_>| {
                    // As an attribute that was never set.
                    s.items.get().ok_or_else(|| {
                        Builtin::Attribute.raise("this queue has no attribute '_queue'")
                    })
                },
                |s: Slf<'_>, v: Given<'_>| {
                    // Somebody's own container: the native ways know only their own.
                    s.order.set(Order::Other);
                    set_obj(&s.items, v)
                },
            ),
            fields::object(c"_getters", |s: &Queue| &s.getters),
            fields::object(c"_putters", |s: &Queue| &s.putters),
            fields::count(c"_unfinished_tasks", |s: &Queue| &s.unfinished),
            fields::object(c"_finished", |s: &Queue| &s.finished),
            fields::flag(c"_is_shutdown", |s: &Queue| &s.shut_down),
            fields::object(c"_loop", |s: &Queue| &s.loop_),
        ])
        .build()?;
    let like = |name| call::getattr(stock().queue.borrow(), value::intern(name)?.borrow());
    for (name, made) in [
        (
            c"put",
            callable::coroutine_method::<Queue, _>(coroutines::put, like(c"put")?.borrow())?,
        ),
        (
            c"get",
            callable::coroutine_method::<Queue, _>(coroutines::get, like(c"get")?.borrow())?,
        ),
        (
            c"join",
            callable::coroutine_method::<Queue, _>(coroutines::join, like(c"join")?.borrow())?,
        ),
    ] {
        call::setattr(class.borrow(), value::intern(name)?.borrow(), made.borrow())?;
    }
    Ok(class)
}
