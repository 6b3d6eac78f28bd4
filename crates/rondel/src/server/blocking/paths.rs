//! `_rondel.Routes`: what Python says of which paths threads answer. The door looks into it without the
//! GIL.

use rondel_ffi::class::{TypeBuilder, Visit, alloc};
use rondel_ffi::err::Builtin;
use rondel_ffi::method::{self, Args, MethodDef};
use rondel_ffi::{Class, ClassCell, Inst, Obj, PyRes, value};
use rondel_http::routes::Routes;
use std::cell::OnceCell;
use std::sync::Arc;

/// `_rondel.Routes`
#[derive(Default)]
pub(super) struct RoutesObject {
    pub(super) routes: OnceCell<Arc<Routes>>,
}

static CELL: ClassCell = ClassCell::new();

impl Class for RoutesObject {
    fn cell() -> &'static ClassCell {
        &CELL
    }
    fn traverse(&self, _visit: &mut Visit) {}
    fn clear(&self) {}
}

/// `routes()`
fn routes(_args: Args<'_>) -> PyRes<Obj> {
    let routes = OnceCell::new();
    let _fresh = routes.set(Arc::default());
    Ok(alloc(RoutesObject { routes }, true)?.into_obj())
}

/// `learn(path, any, thread)`: a path, its segments that stand for anything, and whose it is.
fn learn(slf: Inst<'_, RoutesObject>, args: Args<'_>) -> PyRes<Obj> {
    let [path, any, thread] = args.positional() else {
        return Err(Builtin::Type.raise("learn(path, any, thread)"));
    };
    let path = value::str_text(*path)?;
    let thread = thread.truthy()?;
    let mut values = Vec::new();
    value::for_each(*any, |item| {
        values.push(value::str_text(item.borrow())?);
        Ok(())
    })?;
    if let Some(routes) = slf.routes.get() {
        routes.learn(&path, &values, thread);
    }
    Ok(Obj::none())
}

/// `take_all()`: the application answers nothing on the loop.
fn take_all(slf: Inst<'_, RoutesObject>) -> PyRes<Obj> {
    if let Some(routes) = slf.routes.get() {
        routes.take_all();
    }
    Ok(Obj::none())
}

/// The type.
pub(super) fn build() -> PyRes<Obj> {
    TypeBuilder::<RoutesObject>::new(c"rondel._rondel.Routes")
        .doc(c"Which paths are answered by threads.")
        .method(method::fast::<RoutesObject, _>(
            c"learn",
            c"learn(path, any, thread): whose a path is; segments in `any` stand for anything.",
            learn,
        ))
        .method(method::noargs::<RoutesObject, _>(
            c"take_all",
            c"From now on threads answer every path.",
            take_all,
        ))
        .build()
}

pub(super) fn definition() -> MethodDef {
    method::function(c"routes", c"Nothing known of any path yet.", routes)
}
