//! Type objects: [`TypeBuilder`] and questions about the layout of a class.
//!
//! A type is built once, at import, with the GIL held; what CPython keeps pointing at (definitions of
//! methods, members and properties) is leaked with it.

use super::collect::{clear_slot, traverse_slot};
use super::life::{dealloc_behind, dealloc_whole, finalize_slot, new_slot};
use super::payload::{Nothing, Payload, Rest};
use super::{Class, Extends};
use crate::err::{Builtin, PyRes};
use crate::obj::{Obj, Ref};
use pyo3::ffi;
use std::ffi::{CStr, c_int, c_void};
use std::marker::PhantomData;
use std::sync::atomic::Ordering;

/// Whose memory an instance's is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    /// Ours alone (a base written in Python adds fields that nothing writes).
    Plain,
    /// Ours, on top of a C base's fields.
    Over,
    /// Ours behind a C base's fields.
    Behind,
}

/// The slots that know all payloads.
#[derive(Clone, Copy)]
struct Life {
    new: ffi::newfunc,
    traverse: ffi::traverseproc,
    clear: ffi::inquiry,
    dealloc_whole: ffi::destructor,
    dealloc_behind: ffi::destructor,
}

impl Life {
    const fn of<T: Class, R: Rest>() -> Life {
        Life {
            new: new_slot::<T, R>,
            traverse: traverse_slot::<T, R>,
            clear: clear_slot::<T, R>,
            dealloc_whole: dealloc_whole::<T, R>,
            dealloc_behind: dealloc_behind::<T, R>,
        }
    }
}

/// Builds a heap type for the payload `T`.
pub struct TypeBuilder<T: Class> {
    name: &'static CStr,
    bases: Vec<Obj>,
    place: Place,
    life: Life,
    offset: usize,
    stamp: Option<(usize, u32)>,
    next: Option<ffi::iternextfunc>,
    flags: std::ffi::c_ulong,
    subclassable: bool,
    weakrefs: bool,
    vectorcall: Option<usize>,
    slots: Vec<ffi::PyType_Slot>,
    methods: Vec<ffi::PyMethodDef>,
    getset: Vec<ffi::PyGetSetDef>,
    _payload: PhantomData<T>,
}

impl<T: Class> TypeBuilder<T> {
    /// `name` is the dotted name (`rondel.Task`).
    pub fn new(name: &'static CStr) -> Self {
        TypeBuilder {
            name,
            bases: Vec::new(),
            place: Place::Plain,
            life: Life::of::<T, Nothing>(),
            offset: size_of::<ffi::PyObject>(),
            stamp: None,
            next: None,
            flags: 0,
            subclassable: false,
            weakrefs: false,
            vectorcall: None,
            slots: Vec::new(),
            methods: Vec::new(),
            getset: Vec::new(),
            _payload: PhantomData,
        }
    }

    /// Derives from a C type, placing the payload behind it at `offset` (at least the base's size).
    pub fn behind(mut self, base: Obj, offset: usize) -> Self {
        self.bases = vec![base];
        self.offset = offset;
        self.place = Place::Behind;
        self
    }

    /// Derives from C types (and types of ours over them), placing the payload at `offset` on top of
    /// fields that only their own constructors would fill.
    pub fn over(mut self, bases: Vec<Obj>, offset: usize) -> Self {
        self.bases = bases;
        self.offset = offset;
        self.place = Place::Over;
        self
    }

    /// Every instance has this number at this offset, which is the base's and in nobody's payload.
    pub fn stamp(mut self, offset: usize, number: u32) -> Self {
        self.stamp = Some((offset, number));
        self
    }

    /// Instances hold a `B` too, where B's instances have it.
    pub fn extends<B: Class>(mut self) -> Self
    where
        T: Extends<B>,
    {
        self.life = Life::of::<T, Payload<B>>();
        self
    }

    /// Derives from a class written in Python whose instances have no dict (`asyncio.Transport`).
    /// Its slots must stay empty: nothing releases them.
    pub fn over_python_class(mut self, base: Obj) -> Self {
        self.offset = basicsize(base.borrow()).next_multiple_of(size_of::<usize>());
        self.bases = vec![base];
        self
    }

    /// Allows Python subclasses and calls from Python (`tp_new`).
    pub fn subclassable(mut self) -> Self {
        self.subclassable = true;
        self
    }

    pub(crate) fn slot(mut self, slot: c_int, function: *mut c_void) -> Self {
        self.slots.push(ffi::PyType_Slot {
            slot,
            pfunc: function,
        });
        self
    }

    pub fn method(mut self, def: crate::method::MethodDef) -> Self {
        self.methods.push(def.0);
        self
    }

    pub fn methods(mut self, defs: impl IntoIterator<Item = crate::method::MethodDef>) -> Self {
        self.methods.extend(defs.into_iter().map(|d| d.0));
        self
    }

    pub fn property(mut self, def: crate::method::PropertyDef) -> Self {
        self.getset.push(def.0);
        self
    }

    pub fn properties(
        mut self,
        defs: impl IntoIterator<Item = crate::method::PropertyDef>,
    ) -> Self {
        self.getset.extend(defs.into_iter().map(|d| d.0));
        self
    }

    pub fn with(self, slot: crate::method::SlotDef) -> Self {
        self.slot(slot.slot, slot.function)
    }

    /// C code that awaits an instance gets it itself back as the iterator.
    pub fn awaits_itself(mut self, slots: crate::method::SelfAwait) -> Self {
        self.next = Some(slots.next);
        self.slot(ffi::Py_am_await, slots.awaits as *mut c_void)
            .slot(ffi::Py_am_send, slots.send as *mut c_void)
    }

    /// The class's docstring.
    pub fn doc(self, text: &'static CStr) -> Self {
        self.slot(ffi::Py_tp_doc, text.as_ptr().cast_mut().cast())
    }

    /// A further type flag.
    pub(crate) fn flag(mut self, flag: std::ffi::c_ulong) -> Self {
        self.flags |= flag;
        self
    }

    /// Allows weak references to instances of a plain type.
    pub fn weakrefs(mut self) -> Self {
        self.weakrefs = true;
        self
    }

    /// Instances are called by the function whose pointer they have at this offset.
    pub(crate) fn vectorcall_at(mut self, offset: usize) -> Self {
        self.vectorcall = Some(offset);
        self.flag(ffi::Py_TPFLAGS_HAVE_VECTORCALL)
            .slot(ffi::Py_tp_call, ffi::PyVectorcall_Call as *mut c_void)
    }

    /// Makes the type and fills the class's cell.
    pub fn build(mut self) -> PyRes<Obj> {
        if T::PLACE.is_some_and(|place| place != self.offset) {
            return Err(Builtin::System.raise(&format!(
                "{:?} was compiled for another layout of its base class",
                self.name
            )));
        }
        let dealloc = match self.place {
            Place::Behind => self.life.dealloc_behind,
            Place::Plain | Place::Over => self.life.dealloc_whole,
        };
        self.slots.extend([
            ffi::PyType_Slot {
                slot: ffi::Py_tp_dealloc,
                pfunc: dealloc as *mut c_void,
            },
            ffi::PyType_Slot {
                slot: ffi::Py_tp_traverse,
                pfunc: self.life.traverse as *mut c_void,
            },
            ffi::PyType_Slot {
                slot: ffi::Py_tp_clear,
                pfunc: self.life.clear as *mut c_void,
            },
            ffi::PyType_Slot {
                slot: ffi::Py_tp_finalize,
                pfunc: finalize_slot::<T> as *mut c_void,
            },
        ]);
        if self.subclassable {
            self.slots.push(ffi::PyType_Slot {
                slot: ffi::Py_tp_new,
                pfunc: self.life.new as *mut c_void,
            });
        }
        let inherited = self
            .bases
            .iter()
            .map(|base| basicsize(base.borrow()))
            .max()
            .unwrap_or(0);
        let mut size = (self.offset + size_of::<T>()).max(inherited);
        let mut members = Vec::new();
        if self.weakrefs && self.place == Place::Plain {
            let at = size.next_multiple_of(align_of::<*mut c_void>());
            size = at + size_of::<*mut c_void>();
            members.push(offset_member(c"__weaklistoffset__", at));
        }
        if let Some(at) = self.vectorcall {
            members.push(offset_member(c"__vectorcalloffset__", at));
        }
        if !members.is_empty() {
            // SAFETY: an all-zero member definition ends the array.
            members.push(unsafe { std::mem::zeroed() });
            let members = Box::leak(members.into_boxed_slice());
            self.slots.push(ffi::PyType_Slot {
                slot: ffi::Py_tp_members,
                pfunc: members.as_mut_ptr().cast(),
            });
        }
        if !self.methods.is_empty() {
            self.methods.push(ffi::PyMethodDef::zeroed());
            let methods = Box::leak(self.methods.into_boxed_slice());
            self.slots.push(ffi::PyType_Slot {
                slot: ffi::Py_tp_methods,
                pfunc: methods.as_mut_ptr().cast(),
            });
        }
        if !self.getset.is_empty() {
            self.getset.push(ffi::PyGetSetDef::default());
            let getset = Box::leak(self.getset.into_boxed_slice());
            self.slots.push(ffi::PyType_Slot {
                slot: ffi::Py_tp_getset,
                pfunc: getset.as_mut_ptr().cast(),
            });
        }
        self.slots.push(ffi::PyType_Slot {
            slot: 0,
            pfunc: std::ptr::null_mut(),
        });
        let mut flags = ffi::Py_TPFLAGS_DEFAULT | ffi::Py_TPFLAGS_HAVE_GC | self.flags;
        if self.subclassable {
            flags |= ffi::Py_TPFLAGS_BASETYPE;
        } else {
            flags |= ffi::Py_TPFLAGS_DISALLOW_INSTANTIATION;
        }
        let basicsize =
            c_int::try_from(size).map_err(|_| Builtin::Overflow.raise("instance too large"))?;
        let mut spec = ffi::PyType_Spec {
            name: self.name.as_ptr(),
            basicsize,
            itemsize: 0,
            flags: flags as std::ffi::c_uint,
            slots: self.slots.as_mut_ptr(),
        };
        // SAFETY: the spec is well-formed, its arrays are leaked where CPython keeps them.
        let ty = unsafe {
            if self.bases.is_empty() {
                Obj::from_owned(ffi::PyType_FromSpec(&mut spec))?
            } else {
                let bases: Vec<Ref<'_>> = self.bases.iter().map(Obj::borrow).collect();
                let bases = crate::value::tuple_of(&bases)?;
                Obj::from_owned(ffi::PyType_FromSpecWithBases(&mut spec, bases.as_ptr()))?
            }
        };
        if self.next.is_some() {
            // Not a slot of the spec: that would give the type a `__next__`, and instances would pass
            // for iterators. Subclasses written in Python don't inherit it either.
            // SAFETY: a type that nobody has seen yet; the function takes its instances.
            unsafe { (*ty.as_ptr().cast::<ffi::PyTypeObject>()).tp_iternext = self.next };
        }
        let cell = T::cell();
        cell.offset.store(self.offset, Ordering::Relaxed);
        cell.size.store(size, Ordering::Relaxed);
        if let Some((at, number)) = self.stamp.filter(|(at, _)| at + 4 <= size && at % 4 == 0) {
            cell.stamp.store(number, Ordering::Relaxed);
            cell.stamp_at.store(at, Ordering::Relaxed);
        }
        if let Some(base) = self.bases.first() {
            // SAFETY: the base is a type object.
            let dealloc = unsafe { (*base.as_ptr().cast::<ffi::PyTypeObject>()).tp_dealloc };
            cell.base_dealloc
                .store(dealloc.map_or(0, |d| d as usize), Ordering::Relaxed);
        }
        // The cell keeps one reference for the life of the process.
        cell.ty
            .store(ty.clone().into_ptr().cast(), Ordering::Relaxed);
        Ok(ty)
    }
}

/// Tells the type by a member's name where a field lies that it knows of.
fn offset_member(name: &'static CStr, at: usize) -> ffi::PyMemberDef {
    ffi::PyMemberDef {
        name: name.as_ptr(),
        type_code: ffi::Py_T_PYSSIZET,
        offset: at as ffi::Py_ssize_t,
        flags: ffi::Py_READONLY,
        doc: std::ptr::null(),
    }
}

/// `tp_basicsize` of a type object.
pub fn basicsize(ty: Ref<'_>) -> usize {
    // SAFETY: callers pass type objects (checked at import, where they are looked up).
    unsafe {
        (*ty.as_ptr().cast::<ffi::PyTypeObject>())
            .tp_basicsize
            .max(0) as usize
    }
}

/// Whether instances of the Python class `ty` are made and freed by T's slots: T's type stands in its
/// chain of *layout* bases (`tp_base`). A class can derive from T and yet be laid out as a C base
/// that comes first; its instances would have no payload.
pub fn is_laid_out<T: Class>(ty: Ref<'_>) -> bool {
    let own = T::cell().type_ptr();
    let mut at = ty.as_ptr().cast::<ffi::PyTypeObject>();
    // SAFETY: a type object's chain of bases is alive as long as it is.
    unsafe {
        while !at.is_null() && !std::ptr::eq(at, own) {
            at = (*at).tp_base;
        }
    }
    !at.is_null()
}

/// Whether the Python class `ty` derives from T's type.
pub fn derives_from<T: Class>(ty: Ref<'_>) -> bool {
    // SAFETY: callers pass a type object; T's is alive.
    unsafe { ffi::PyType_IsSubtype(ty.as_ptr().cast(), T::cell().type_ptr()) != 0 }
}
