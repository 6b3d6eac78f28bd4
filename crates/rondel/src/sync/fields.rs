//! Fields that asyncio's Python code reads and writes by name.

use rondel_ffi::class::ObjCell;
use rondel_ffi::err::Builtin;
use rondel_ffi::method::{self, PropertyDef};
use rondel_ffi::{Class, Inst, Obj, PyRes, Ref};
use std::cell::Cell;
use std::ffi::CStr;

/// What a property's setter is given: nothing for a deletion.
pub(crate) type Given<'a> = Option<Ref<'a>>;

pub(crate) fn show(cell: &ObjCell) -> PyRes<Obj> {
    Ok(cell.get().unwrap_or_else(Obj::none))
}

pub(crate) fn set_obj(cell: &ObjCell, value: Given<'_>) -> PyRes<()> {
    cell.set(given(value)?.not_none().map(Ref::own));
    Ok(())
}

pub(crate) fn set_flag(cell: &Cell<bool>, value: Given<'_>) -> PyRes<()> {
    let flag = given(value)?.truthy()?;
    cell.set(flag);
    Ok(())
}

/// A property that is an object, None for none.
pub(crate) fn object<T: Class, F>(name: &'static CStr, cell: F) -> PropertyDef
where
    F: Fn(&T) -> &ObjCell + Copy + 'static,
{
    method::property::<T, _, _>(
        name,
        move |slf: Inst<'_, T>| show(cell(&slf)),
        move |slf: Inst<'_, T>, value: Given<'_>| set_obj(cell(&slf), value),
    )
}

/// One that is a flag.
pub(crate) fn flag<T: Class, F>(name: &'static CStr, cell: F) -> PropertyDef
where
    F: Fn(&T) -> &Cell<bool> + Copy + 'static,
{
    method::property::<T, _, _>(
        name,
        move |slf: Inst<'_, T>| Ok(Obj::bool(cell(&slf).get())),
        move |slf: Inst<'_, T>, value: Given<'_>| set_flag(cell(&slf), value),
    )
}

/// One that is a [`Count`].
pub(crate) fn count<T: Class, F>(name: &'static CStr, cell: F) -> PropertyDef
where
    F: Fn(&T) -> &Count + Copy + 'static,
{
    method::property::<T, _, _>(
        name,
        move |slf: Inst<'_, T>| cell(&slf).show(),
        move |slf: Inst<'_, T>, value: Given<'_>| cell(&slf).assign(value),
    )
}

/// The value of an assignment; these fields are not deleted.
pub(crate) fn given(value: Given<'_>) -> PyRes<Ref<'_>> {
    value.ok_or_else(|| Builtin::Attribute.raise("cannot delete attribute"))
}

/// A count that asyncio's code may have set to anything that counts.
#[derive(Default)]
pub(crate) struct Count {
    int: Cell<i64>,
    /// What is no int of 64 bits: a float, say. asyncio's code deals with it.
    other: ObjCell,
}

impl Count {
    #[inline(always)]
    pub(crate) fn get(&self) -> Option<i64> {
        if self.other.is_some() {
            return None;
        }
        Some(self.int.get())
    }

    #[inline(always)]
    pub(crate) fn set(&self, value: i64) {
        self.int.set(value);
    }

    pub(crate) fn cell(&self) -> &ObjCell {
        &self.other
    }

    pub(crate) fn show(&self) -> PyRes<Obj> {
        match self.other.get() {
            Some(other) => Ok(other),
            None => rondel_ffi::value::int(self.int.get()),
        }
    }

    pub(crate) fn assign(&self, value: Given<'_>) -> PyRes<()> {
        let value = given(value)?;
        let int = if rondel_ffi::value::is_int(value) {
            match rondel_ffi::value::as_i64(value) {
                // Far from where adding one would overflow.
                Ok(int) if int.unsigned_abs() < 1 << 62 => Some(int),
                Ok(_) => None,
                Err(raised) => {
                    raised.clear();
                    None
                }
            }
        } else {
            None
        };
        match int {
            Some(int) => {
                self.int.set(int);
                self.other.set(None);
            }
            None => self.other.set(Some(value.own())),
        }
        Ok(())
    }
}
