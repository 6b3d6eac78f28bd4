//! Files that a developer changes: which ones, as soon as it happens (`rondel serve --reload`).
//!
//! The kernel tells (inotify, by the `notify` crate, on a thread of its own); Python says which
//! directories, waits and judges. Only what changes contents or names is told: reading and closing is
//! not.
//!
//! Thread discipline: the crate's thread only puts paths into a channel; `wait` takes them without the
//! GIL.

use notify::event::{Event, EventKind};
use notify::{RecommendedWatcher, RecursiveMode, Watcher};
use rondel_ffi::class::{TypeBuilder, Visit, alloc};
use rondel_ffi::err::{self, Builtin};
use rondel_ffi::method::{self, Args, MethodDef};
use rondel_ffi::{Class, ClassCell, Inst, Obj, PyRes, Ref, gil, value};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// How long a silence ends a burst of changes: editors write, rename and touch.
const SETTLED: Duration = Duration::from_millis(50);
/// Paths told at once, at most.
const MOST: usize = 10_000;

struct Parts {
    watcher: RecommendedWatcher,
    changes: Receiver<PathBuf>,
}

/// `_rondel.FileWatch`
#[derive(Default)]
pub(super) struct FileWatch {
    parts: Mutex<Option<Parts>>,
}

static CELL: ClassCell = ClassCell::new();

impl Class for FileWatch {
    fn cell() -> &'static ClassCell {
        &CELL
    }
    fn traverse(&self, _visit: &mut Visit) {}
    fn clear(&self) {}
}

fn failed(error: &notify::Error) -> rondel_ffi::Raised {
    match &error.kind {
        notify::ErrorKind::Io(error) => err::raise_io(error),
        _ => Builtin::OSError.raise(&error.to_string()),
    }
}

/// `file_watch()`
fn file_watch(_args: Args<'_>) -> PyRes<Obj> {
    let (tell, changes) = channel();
    let heard = move |event: notify::Result<Event>| {
        // Errors are about single files, which are looked at again with their next change.
        let Ok(event) = event else { return };
        if matches!(event.kind, EventKind::Access(_)) {
            return;
        }
        for path in event.paths {
            // Nobody waits any more once the object is gone.
            drop(tell.send(path));
        }
    };
    let watcher = notify::recommended_watcher(heard).map_err(|error| failed(&error))?;
    let parts = Mutex::new(Some(Parts { watcher, changes }));
    Ok(alloc(FileWatch { parts }, true)?.into_obj())
}

/// `add(directory)`: from now on changes in it are told, but not of what is deeper.
fn add(slf: Inst<'_, FileWatch>, directory: Ref<'_>) -> PyRes<Obj> {
    let directory = value::str_text(directory)?;
    let mut parts = slf.parts.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(parts) = &mut *parts {
        (parts.watcher)
            .watch(Path::new(&directory), RecursiveMode::NonRecursive)
            .map_err(|error| failed(&error))?;
    }
    Ok(Obj::none())
}

/// `wait(seconds)`: paths that changed, at once when some have; an empty list when the time is over.
fn wait(slf: Inst<'_, FileWatch>, seconds: Ref<'_>) -> PyRes<Obj> {
    let seconds = Duration::try_from_secs_f64(value::as_f64(seconds)?)
        .map_err(|_| Builtin::Value.raise("a number of seconds was expected"))?;
    let watch = slf.data();
    let changed = gil::detached(|| {
        let parts = watch.parts.lock().unwrap_or_else(PoisonError::into_inner);
        let mut changed = Vec::new();
        if let Some(parts) = &*parts {
            let mut patience = seconds;
            while let Ok(path) = parts.changes.recv_timeout(patience) {
                changed.push(path);
                patience = SETTLED;
                if changed.len() == MOST {
                    break;
                }
            }
        }
        changed
    });
    err::check_signals()?;
    let list = value::list_with(0)?;
    for path in changed {
        let text = value::str(&path.to_string_lossy())?;
        value::list_append(list.borrow(), text.borrow())?;
    }
    Ok(list)
}

pub(super) fn build() -> PyRes<Obj> {
    TypeBuilder::<FileWatch>::new(c"rondel._rondel.FileWatch")
        .doc(c"Tells which files in some directories change.")
        .methods([
            method::onearg::<FileWatch, _>(
                c"add",
                c"add(directory): tell of changes in it, not of what is deeper.",
                add,
            ),
            method::onearg::<FileWatch, _>(
                c"wait",
                c"wait(seconds): the paths that have changed, or none within that time.",
                wait,
            ),
        ])
        .build()
}

pub(super) fn definitions() -> Vec<MethodDef> {
    vec![method::function(
        c"file_watch",
        c"A FileWatch of no directory yet.",
        file_watch,
    )]
}
